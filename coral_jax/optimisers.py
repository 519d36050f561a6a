"""How methods learn: one step of each optimiser, on all that an edit trains."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from coral_jax.baselines import stylemc
from coral_jax.baselines.stylespace import with_relevance
from coral_jax.methods import Trainables


class Rates(NamedTuple):
    """Learning rates of the latent editor and of the region selector, and the number of steps of the run."""

    editor: jax.Array | float
    region: jax.Array | float
    steps: jax.Array | int


class Optimiser(NamedTuple):
    """`init(trainables)` -> state; `step(trainables, state, gradients, rates, given)` -> (trainables, state).

    Both are pure; a state is a pytree of arrays.  `given` is what the method has besides networks (`step.Frozen`).
    """

    init: Callable[[Trainables], optax.OptState]
    step: Callable[[Trainables, optax.OptState, Trainables, Rates, object], tuple[Trainables, optax.OptState]]


def _adam_step(
    trainables: Trainables, state: optax.OptState, gradients: Trainables, rates: Rates, given: object
) -> tuple[Trainables, optax.OptState]:
    """One Adam, two step sizes: a mapper with its equalised learning rate wants several times a mask's."""
    updates, state = optax.scale_by_adam().update(gradients, state)

    def stepped(part: str, rate: jax.Array | float) -> object:
        return jax.tree.map(lambda p, u: p - rate * u, getattr(trainables, part), getattr(updates, part))

    parts = (stepped("editor", rates.editor), stepped("selector", rates.region))
    return Trainables(trainables.method, *parts), state


def ramp(done: jax.Array | float) -> jax.Array:
    """StyleCLIP's factor of the learning rate when a share `done` in [0, 1) of the steps is done.

    Linear over the first twentieth, so that the first step does nothing; half a cosine over the last quarter.
    """
    down = 0.5 - 0.5 * jnp.cos(jnp.pi * jnp.minimum(1.0, (1.0 - done) / 0.25))
    return down * jnp.minimum(1.0, done / 0.05)


def _ramped_adam_step(
    trainables: Trainables, state: optax.OptState, gradients: Trainables, rates: Rates, given: object
) -> tuple[Trainables, optax.OptState]:
    """Adam under StyleCLIP's schedule.

    Adam takes no notice of a gradient's scale, so a loss that is a mean over faces moves each face's delta as its own would.
    """
    factor = ramp(state.count / rates.steps)
    return _adam_step(trainables, state, gradients, rates._replace(editor=factor * rates.editor), given)


def _centralised(gradients: Trainables, params: object) -> Trainables:
    """Gradients of kernels [inputs, outputs] less their mean over the inputs of each output."""
    return jax.tree.map(lambda g: g - jnp.mean(g, axis=0, keepdims=True) if g.ndim > 1 else g, gradients)


def _ranger(rate: jax.Array | float, done: jax.Array | int) -> optax.GradientTransformation:
    """Ranger with its authors' defaults, as StyleCLIP's mapper takes it, after `done` steps.

    Gradient centralisation, rectified Adam, and Lookahead, whose slow weights go half way to the fast ones every six steps.
    """
    eps = 1e-5 / jnp.sqrt(1.0 - 0.999 ** (done + 1.0))  # Ranger adds it before the root's bias is corrected, Optax after
    fast = optax.chain(
        optax.stateless(_centralised),
        # Ranger rectifies above a variance length of 5, which is 4.996 at step 5 and 5.995 at step 6: less than single
        # precision tells from 5.
        optax.scale_by_radam(b1=0.95, b2=0.999, eps=eps, threshold=5.5),
        optax.scale_by_learning_rate(rate),
    )
    return optax.lookahead(fast, sync_period=6, slow_step_size=0.5)


def _ranger_init(trainables: Trainables) -> tuple[optax.OptState, Trainables]:
    # The slow weights are a copy: a state that is donated must not hold one array twice.
    slow = jax.tree.map(jnp.copy, trainables)
    return _ranger(0.0, 0).init(optax.LookaheadParams(trainables, slow)), slow


def _ranger_step(
    trainables: Trainables, state: tuple[optax.OptState, Trainables], gradients: Trainables, rates: Rates, given: object
) -> tuple[Trainables, tuple[optax.OptState, Trainables]]:
    ours, slow = state
    both = optax.LookaheadParams(trainables, slow)
    _, adam, _ = ours.fast_state
    updates, ours = _ranger(rates.editor, adam.count).update(gradients, ours, both)
    both = optax.apply_updates(both, updates)
    return both.fast, (ours, both.slow)


def _stylemc_step(
    trainables: Trainables, state: stylemc.StyleMCState, gradients: Trainables, rates: Rates, given: object
) -> tuple[Trainables, stylemc.StyleMCState]:
    return stylemc.step(trainables, state, gradients, rates.editor, rates.steps)


def _from_text_step(
    trainables: Trainables, state: tuple, gradients: Trainables, rates: Rates, given: object
) -> tuple[Trainables, tuple]:
    """No descent: the edit follows from what is given, the relevance of every channel for the prompt."""
    return Trainables(trainables.method, with_relevance(trainables.editor, given.relevance, given.sigma), None), state


OPTIMISERS = {
    "adam": Optimiser(lambda trainables: optax.scale_by_adam().init(trainables), _adam_step),
    "ramped_adam": Optimiser(lambda trainables: optax.scale_by_adam().init(trainables), _ramped_adam_step),
    "ranger": Optimiser(_ranger_init, _ranger_step),
    "stylemc": Optimiser(stylemc.init, _stylemc_step),
    "from_text": Optimiser(lambda trainables: (), _from_text_step),
}
