"""How methods learn: what an edit trains, and one step of an optimiser on it.  Adam is CORAL's; `baselines` has the others."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import optax
from flax import nnx

from coral_jax.editors import Editor
from coral_jax.regions import AttentionNetwork, SegmentSelection


class Trainables(nnx.Module):
    """All that training an edit changes: the latent editor, and the region selector where the method has masks."""

    def __init__(self, editor: Editor, selector: SegmentSelection | AttentionNetwork | None):
        self.editor = editor
        self.selector = selector


class Rates(NamedTuple):
    """Learning rates of the latent editor and of the region selector, and the number of steps of the run."""

    editor: jax.Array | float
    region: jax.Array | float
    steps: jax.Array | int


class Channels(NamedTuple):
    """What an edit that follows from the text alone is made of: the relevance of each style channel for the prompt, and sigma.

    Each is [C_in] for every row of w_plus that a layer reads, in order.
    """

    relevance: tuple[jax.Array, ...]
    sigma: tuple[jax.Array, ...]


class Optimiser(NamedTuple):
    """`init(trainables)` -> state; `step(trainables, state, gradients, rates, channels)` -> (trainables, state).

    Both are pure; a state is a pytree of arrays.  `channels` is None unless the method's editor is made `from_text`.
    """

    init: Callable[[Trainables], optax.OptState]
    step: Callable[
        [Trainables, optax.OptState, Trainables, Rates, Channels | None], tuple[Trainables, optax.OptState]
    ]


def adam_init(trainables: Trainables) -> optax.OptState:
    """Adam's state before the first step."""
    return optax.scale_by_adam().init(trainables)


def adam_step(
    trainables: Trainables, state: optax.OptState, gradients: Trainables, rates: Rates, channels: Channels | None = None
) -> tuple[Trainables, optax.OptState]:
    """One Adam, two step sizes: a mapper with its equalised learning rate needs several times a mask's."""
    updates, state = optax.scale_by_adam().update(gradients, state)

    def stepped(part: str, rate: jax.Array | float) -> object:
        return jax.tree.map(lambda p, u: p - rate * u, getattr(trainables, part), getattr(updates, part))

    return Trainables(stepped("editor", rates.editor), stepped("selector", rates.region)), state


ADAM = Optimiser(adam_init, adam_step)
