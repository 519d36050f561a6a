"""How StyleMC learns its direction: `find_direction.py` of catlab-team/stylemc, for gradients of any trainables.

Plain gradient descent, one step for two batches; channels whose gradient keeps changing its sign are zeroed at the end.
Their loss sums over the 4 faces of a batch, with rate 5; ours is a mean, so that their rate is 20 here (and their k, 0 to 2, of
the identity term, which is a mean with them too, is a lambda of k / 4).
"""

from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from coral_jax.models.generator import Generator
from coral_jax.optimisers import Optimiser, Rates, Trainables

ACCUMULATED = 2  # batches a step
UNCOUNTED = 2  # first steps whose signs are not compared with the step before
RESOLUTIONS = (8, 64)  # of the convolutions that it edits, first and last

Tree = TypeVar("Tree")  # of arrays


class StyleMCState(NamedTuple):
    """What lasts from batch to batch; trees like the trainables."""

    batches: jax.Array  # done so far
    gradient: object  # summed since the last step
    previous: object  # the sum of the last step
    flips: object  # how often a sum had another sign than the one before


def layers_of_8_to_64(generator: Generator) -> tuple[int, ...]:
    """Numbers of the layers that StyleMC edits: those of 8 to 64 px."""
    first, last = RESOLUTIONS
    return tuple(layer.index for layer in generator.layers if first <= layer.resolution <= last)


def init(trainables: object) -> StyleMCState:
    """The state before the first batch."""
    # Three trees of their own: a state that is donated must not hold one array twice.
    trees = [jax.tree.map(jnp.zeros_like, trainables) for _ in range(3)]
    return StyleMCState(jnp.zeros((), jnp.int32), *trees)


def step(
    trainables: Tree, state: StyleMCState, gradients: Tree, rate: jax.Array | float, batches: jax.Array | int
) -> tuple[Tree, StyleMCState]:
    """One batch of a run of `batches`: (trainables, state).

    Every second batch is a step; after the last batch, channels with more flips than a quarter of the batches are zeroed.
    """
    done = state.batches + 1
    stepping = done % ACCUMULATED == 0
    compared = stepping & (done > ACCUMULATED * UNCOUNTED)
    summed = jax.tree.map(jnp.add, state.gradient, gradients)
    flips = jax.tree.map(lambda n, a, b: n + (compared & (a * b < 0)), state.flips, state.previous, summed)
    trainables = jax.tree.map(lambda p, g: jnp.where(stepping, p - rate * g, p), trainables, summed)
    unsteady = jax.tree.map(lambda n: (done >= batches) & (n > batches / 4), flips)
    trainables = jax.tree.map(lambda p, bad: jnp.where(bad, 0.0, p), trainables, unsteady)
    previous = jax.tree.map(lambda a, b: jnp.where(stepping, b, a), state.previous, summed)
    gradient = jax.tree.map(lambda g: jnp.where(stepping, 0.0, g), summed)
    return trainables, StyleMCState(done, gradient, previous, flips)


def _step(
    trainables: Trainables, state: StyleMCState, gradients: Trainables, rates: Rates, _: object
) -> tuple[Trainables, StyleMCState]:
    return step(trainables, state, gradients, rates.editor, rates.steps)


STYLEMC = Optimiser(init, _step)
