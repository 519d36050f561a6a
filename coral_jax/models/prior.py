"""What codes w a generator has, as a normal distribution: where photographs are inverted and encoders learn.

In its coordinates every direction is as likely as any other.  The mapping's last leaky ReLU is not taken back, as Zhu et al.
(2020, "Improved StyleGAN Embedding") do: that sends truncated codes, the cleanest faces, far out.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from coral_jax.models.generator import Generator
from coral_jax.models.ops import of_channels
from coral_jax.runtime.numerics import key_of, pinned

CODES, SEED = 8192, 2020  # that the distribution is found from
_FLOOR = 1e-2  # least deviation of a direction, as a share of the largest: a mapping to few numbers leaves some at zero


class Prior(NamedTuple):
    """The normal distribution of codes: mean [D], and axes [D, D], whose rows are its directions, a deviation long."""

    mean: jax.Array
    axes: jax.Array

    def w(self, v: jax.Array) -> jax.Array:
        """w [..., D] of coordinates v [..., D], about N(0, I)."""
        return v @ self.axes + of_channels(self.mean, v)

    def coordinates(self, w: jax.Array) -> jax.Array:
        """v [..., D] of codes w [..., D]: undoes `w`."""
        squares = jnp.sum(jnp.square(self.axes), axis=1, keepdims=True)
        return jnp.matmul(w - of_channels(self.mean, w), (self.axes / squares).T, precision="highest")


@pinned()
def prior_of(generator: Generator) -> Prior:
    """The distribution of a generator's w; always the same for the same generator."""
    w = np.asarray(_codes(generator), np.float64)
    mean = w.mean(axis=0)
    variances, directions = np.linalg.eigh(np.cov(w, rowvar=False))
    deviations = np.sqrt(np.maximum(variances, 0))[::-1]
    axes = np.maximum(deviations, _FLOOR * deviations[0])[:, None] * directions.T[::-1]
    return Prior(jnp.asarray(mean, jnp.float32), jnp.asarray(axes, jnp.float32))


@jax.jit
def _codes(generator: Generator) -> jax.Array:
    return generator.mapping(jax.random.normal(key_of(SEED), (CODES, generator.z_dim)))
