"""Pivotal tuning (Roich et al. 2021): a generator moved a little, so that it draws a given picture of the codes found for it.

Its convolutions move, at a small rate and for few steps, and pictures of other codes nearby are kept as they were: an edit
goes to such codes.  The best of all steps counts, the untouched generator among them.  What has moved is kept as differences,
in float16.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from coral_jax import weights
from coral_jax.models.generator import Generator
from coral_jax.models.ops import resized
from coral_jax.models.prior import Prior
from coral_jax.photos.likeness import Networks, Seen, look, unlikeness
from coral_jax.photos.photo import with_differences
from coral_jax.runtime.compiling import jit
from coral_jax.runtime.numerics import key_of

MOVED = ("kernel", "depthwise", "noise", "bias")  # of the convolutions
_NEAR = 0.35  # how far off the other codes lie, in deviations of every direction
_KEPT_SIZE = 256  # px at which their pictures are compared

Weights = dict[str, jax.Array]


class Tuning(NamedTuple):
    """Steps, their rate relative to each weight's deviation, and how much other codes' pictures count."""

    steps: int
    rate: float
    keep: float


class State(NamedTuple):
    """A tuning on its way: step, what was added to the weights, Adam's state; the least loss so far, and what gave it."""

    step: jax.Array
    differences: Weights
    opt_state: optax.OptState
    least: jax.Array
    best: Weights


def start(generator: Generator) -> State:
    """The state before step 0."""
    differences = {name: jnp.zeros_like(value) for name, value in _moving(generator).items()}
    opt_state = optax.scale_by_adam().init(differences)
    return State(jnp.zeros((), jnp.int32), differences, opt_state, jnp.full((), jnp.inf, jnp.float32), differences)


def tune(
    generator: Generator,
    prior: Prior,
    networks: Networks,
    image: np.ndarray,
    w_plus: np.ndarray,
    state: State,
    tuning: Tuning,
    after: Callable[[int, State, float], None] = lambda step, state, value: None,
) -> dict[str, np.ndarray]:
    """What is added to weights of the generator, float16, so that w_plus [n_latent, w_dim] draws image [S, S, 3].

    `after` is called after each of the steps that are left.
    """
    target, w_plus = jnp.asarray(image)[None], jnp.asarray(w_plus)[None]
    seen = _look(networks, target)
    for step in range(int(state.step), tuning.steps):
        state, value = _step(generator, prior, networks, seen, target, w_plus, state, tuning)
        after(step + 1, state, value)
    return {name: np.asarray(value, np.float16) for name, value in state.best.items()}


def _moving(generator: Generator) -> Weights:
    """The weights that move, by name: of all convolutions, without their styles."""
    found = {name: variable[...] for name, variable in weights.named_variables(generator).items()}
    return {name: value for name, value in found.items() if re.fullmatch(rf"convs\.\d+\.({'|'.join(MOVED)})", name)}


def _loss(
    differences: Weights,
    generator: Generator,
    networks: Networks,
    seen: Seen,
    target: jax.Array,
    w_plus: jax.Array,
    other: jax.Array,
    keep: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    moved = with_differences(generator, differences)
    drawn = moved.synthesis(w_plus)
    unlike = unlikeness(look(networks, drawn), seen)[0] + jnp.mean(jnp.abs(drawn - target))
    before = jax.lax.stop_gradient(resized(generator.synthesis(other), _KEPT_SIZE))
    return unlike + keep * jnp.mean(jnp.abs(resized(moved.synthesis(other), _KEPT_SIZE) - before)), unlike


@jit
def _step(
    generator: Generator,
    prior: Prior,
    networks: Networks,
    seen: Seen,
    target: jax.Array,
    w_plus: jax.Array,
    state: State,
    tuning: Tuning,
) -> tuple[State, jax.Array]:
    away = jax.random.normal(jax.random.fold_in(key_of(0), state.step), (1, 1, w_plus.shape[-1]))
    other = w_plus + _NEAR * away @ prior.axes
    (loss, unlike), gradients = jax.value_and_grad(_loss, has_aux=True)(
        state.differences, generator, networks, seen, target, w_plus, other, tuning.keep
    )
    best = jax.tree.map(lambda new, old: jnp.where(loss < state.least, new, old), state.differences, state.best)
    updates, opt_state = optax.scale_by_adam().update(gradients, state.opt_state)
    rate = tuning.rate * (0.1 + 0.45 * (1 + jnp.cos(jnp.pi * state.step / tuning.steps)))
    # In units of each weight's size: kernels are stored as they are used, at very different scales.
    sizes = {name: jnp.sqrt(jnp.mean(jnp.square(value)) + 1e-12) for name, value in _moving(generator).items()}
    moved = {name: value - rate * sizes[name] * updates[name] for name, value in state.differences.items()}
    return State(state.step + 1, moved, opt_state, jnp.minimum(loss, state.least), best), unlike


_look = jit(look)
