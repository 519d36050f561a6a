"""Ranger with its authors' defaults, with which StyleCLIP's mapper is trained."""

import jax
import jax.numpy as jnp
import optax

from coral_jax.optimisers import Optimiser, Rates, Trainables


def _centralised(gradients: Trainables, params: object) -> Trainables:
    """Gradients of kernels [inputs, outputs] less their mean over the inputs of each output."""
    return jax.tree.map(lambda g: g - jnp.mean(g, axis=0, keepdims=True) if g.ndim > 1 else g, gradients)


def _ranger(rate: jax.Array | float, done: jax.Array | int) -> optax.GradientTransformation:
    """Ranger after `done` steps.

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


def _init(trainables: Trainables) -> tuple[optax.OptState, Trainables]:
    # The slow weights are a copy: a state that is donated must not hold one array twice.
    slow = jax.tree.map(jnp.copy, trainables)
    return _ranger(0.0, 0).init(optax.LookaheadParams(trainables, slow)), slow


def _step(
    trainables: Trainables, state: tuple[optax.OptState, Trainables], gradients: Trainables, rates: Rates, _: object
) -> tuple[Trainables, tuple[optax.OptState, Trainables]]:
    ours, slow = state
    both = optax.LookaheadParams(trainables, slow)
    _, adam, _ = ours.fast_state
    updates, ours = _ranger(rates.editor, adam.count).update(gradients, ours, both)
    both = optax.apply_updates(both, updates)
    return both.fast, (ours, both.slow)


RANGER = Optimiser(_init, _step)
