"""Inversion: the codes w_plus with which a generator draws a given picture.

Codes move in the coordinates of the generator's own (`models.prior`): one v for all layers, and small offsets of each layer.
Both are pulled to where the generator's codes lie, so that an edit, which was learnt there, still works.  The first steps
draw a smaller picture where the generator can; the last ones draw the picture that is shown.  Every picture of a batch is
inverted for itself.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from coral_jax.models.generator import Generator
from coral_jax.models.prior import Prior
from coral_jax.photos.likeness import Networks, Seen, look, unlikeness
from coral_jax.runtime.compiling import jit

SMALL = 128  # px of the first steps' picture, or the next size that the generator draws
_WARM = 0.25  # share of the steps after which layers may differ
_B1, _B2 = 0.9, 0.99


class Plan(NamedTuple):
    """Steps with the small and with the whole picture, the rate of both, and the pulls to the generator's codes."""

    small: int
    whole: int
    rate: float
    pull: float  # of v
    pull_offsets: float

    @property
    def steps(self) -> int:
        """All steps."""
        return self.small + self.whole


class State(NamedTuple):
    """An inversion on its way, of B pictures: step [B], v [B, w_dim], offsets [B, n_latent, w_dim], Adam's state."""

    step: jax.Array
    v: jax.Array
    offsets: jax.Array
    opt_state: optax.OptState

    def rows(self, rows: list[int]) -> "State":
        """Some of the pictures."""
        return jax.tree.map(lambda leaf: leaf[jnp.asarray(rows)], self)


def small_generator(generator: Generator) -> Generator:
    """The generator of the first steps: of the least size from 128 px up."""
    return generator.lower(next((size for size in generator.sizes if size >= SMALL), generator.size))


def start(generator: Generator, prior: Prior, encoder: nnx.Module | None, images: np.ndarray) -> State:
    """The state before step 0 of images [B, S, S, 3] in [-1, 1]: from the encoder's codes, else from the mean."""
    count, n = len(images), generator.n_latent
    if encoder is None:
        v, offsets = jnp.zeros((count, generator.w_dim)), jnp.zeros((count, n, generator.w_dim))
    else:
        each = prior.coordinates(encoder(jnp.asarray(images)))
        v = each.mean(axis=1)
        offsets = each - v[:, None]
    return State(jnp.zeros((count,), jnp.int32), v, offsets, jax.vmap(_adam().init)((v, offsets)))


def codes(state: State, prior: Prior) -> jax.Array:
    """w_plus [B, n_latent, w_dim]."""
    return prior.w(state.v[:, None] + state.offsets)


def invert(
    generator: Generator,
    prior: Prior,
    networks: Networks,
    images: np.ndarray,
    state: State,
    plan: Plan,
    after: Callable[[int, State, float], None] = lambda step, state, value: None,
) -> State:
    """All steps that are left for images [B, S, S, 3] in [-1, 1], whose states are at one step; `after` follows each."""
    seen, small = _look(networks, jnp.asarray(images)), small_generator(generator)
    for step in range(int(state.step[0]), plan.steps):
        drawing = small if step < plan.small else generator
        state, value = _step(drawing, prior, networks, seen, state, plan)
        after(step + 1, state, value)
    return state


def _adam() -> optax.GradientTransformation:
    return optax.scale_by_adam(b1=_B1, b2=_B2)


def _loss(
    moving: tuple[jax.Array, jax.Array], generator: Generator, prior: Prior, networks: Networks, seen: Seen, plan: Plan
) -> tuple[jax.Array, jax.Array]:
    """Sum over the pictures, which do not depend on each other, and each one's unlikeness [B]."""
    v, offsets = moving
    drawn = generator.synthesis(prior.w(v[:, None] + offsets))
    unlike = unlikeness(look(networks, drawn), seen)
    pulled = plan.pull * jnp.mean(jnp.square(v), axis=1) + plan.pull_offsets * jnp.mean(jnp.square(offsets), axis=(1, 2))
    return jnp.sum(unlike + pulled), unlike


@jit
def _step(
    generator: Generator, prior: Prior, networks: Networks, seen: Seen, state: State, plan: Plan
) -> tuple[State, jax.Array]:
    moving = state.v, state.offsets
    gradients, unlike = jax.grad(_loss, has_aux=True)(moving, generator, prior, networks, seen, plan)
    (of_v, of_offsets), opt_state = jax.vmap(_adam().update)(gradients, state.opt_state)
    rate = plan.rate * (0.05 + 0.475 * (1 + jnp.cos(jnp.pi * state.step / plan.steps)))
    offsets_rate = jnp.where(state.step >= _WARM * plan.steps, rate, 0.0)
    v = state.v - rate[:, None] * of_v
    offsets = state.offsets - offsets_rate[:, None, None] * of_offsets
    return State(state.step + 1, v, offsets, opt_state), unlike


_look = jit(look)
