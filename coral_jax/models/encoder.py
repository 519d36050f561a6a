"""Encoders: a picture -> the codes w_plus with which a generator draws it.

`PyramidEncoder` is e4e's and pSp's (Tov et al. 2021, Richardson et al. 2021), whose published weights map one to one.
`FlatEncoder` is a small one of ours for aligned pictures, which gives every layer the same code.  Both are called with
images [B, H, W, 3] in [-1, 1] of any size and return w_plus [B, n_latent, w_dim].
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from coral_jax.models import ops
from coral_jax.models.clip_conv import ConvTower
from coral_jax.models.identity import PReLU, conv_of, norm_of, run_unit, units_of

COARSE, MIDDLE = 3, 7  # codes before these read the coarsest, and the middle level of the pyramid


@dataclass(frozen=True)
class FlatEncoderConfig:
    """Sizes of a `FlatEncoder`: pixels that it sees, channels of its convolutions, width of its flat layer, codes."""

    image_size: int
    widths: tuple[int, ...]
    hidden: int
    n_latent: int
    w_dim: int


class FlatEncoder(nnx.Module):
    """Strided convolutions and one flat layer (`models.clip_conv`): a w, the same for every layer."""

    def __init__(self, config: FlatEncoderConfig, rngs: nnx.Rngs):
        """An encoder that gives about `mean` until it is trained."""
        self.config = config
        self.mean = nnx.Variable(jnp.zeros((config.w_dim,)))
        self.tower = ConvTower(config.image_size, config.widths, config.hidden, config.w_dim, rngs)

    def w(self, images: jax.Array) -> jax.Array:
        """w [B, w_dim] of images [B, H, W, 3] in [-1, 1]."""
        return self.mean[...][None] + self.tower(ops.resized(images, self.config.image_size)).astype(jnp.float32)

    def __call__(self, images: jax.Array) -> jax.Array:
        """w_plus [B, n_latent, w_dim] of images [B, H, W, 3] in [-1, 1]: one w, repeated."""
        w = self.w(images)
        return jnp.broadcast_to(w[:, None], (len(w), self.config.n_latent, w.shape[-1]))


@dataclass(frozen=True)
class PyramidEncoderConfig:
    """Sizes of e4e's or pSp's encoder: units and widths of each stage of its IR-SE body (IR-SE50's by default).

    `offsets`: e4e's rule, by which the first code is a w and all others are offsets to it; pSp's codes are independent.
    The body's last three stages make the pyramid, and the last one's width is that of the codes.
    """

    n_latent: int
    offsets: bool
    units: tuple[int, ...] = (3, 4, 14, 3)
    widths: tuple[int, ...] = (64, 128, 256, 512)
    image_size: int = 256

    @property
    def w_dim(self) -> int:
        """Width of a code."""
        return self.widths[-1]

    def level(self, code: int) -> int:
        """Which level of the pyramid a code reads: 0 the coarsest, 2 the finest."""
        return 0 if code < COARSE else 1 if code < MIDDLE else 2

    def head_convs(self, code: int) -> int:
        """How many strided convolutions bring the level that a code reads down to one position."""
        coarsest = self.image_size // 2 ** len(self.units)
        return int(math.log2(coarsest)) + self.level(code)

    def __post_init__(self):
        """Rejects sizes that no such encoder has."""
        coarsest = self.image_size // 2 ** len(self.units)
        if len(self.units) != len(self.widths) or len(self.units) < 3 or coarsest < 2 or coarsest & (coarsest - 1):
            raise ValueError(
                f"PyramidEncoderConfig: units {self.units}, widths {self.widths}, image_size {self.image_size}; give as many "
                "units as widths, at least 3, and a power of two that stays above 1 when each of them halves it"
            )


class Head(nnx.Module):
    """One code of a level of the pyramid: 3x3 convolutions of stride 2 down to one position, then a linear layer."""

    def __init__(self, width: int, convs: int, rngs: nnx.Rngs):
        """`convs` halve the level to 1 px."""
        self.convs = nnx.List([nnx.Conv(width, width, (3, 3), strides=2, padding=1, rngs=rngs) for _ in range(convs)])
        self.linear = ops.EqualLinear(width, width, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """x [B, 2^convs, 2^convs, width] -> [B, width]."""
        for conv in self.convs:
            x = jax.nn.leaky_relu(conv(x), 0.01)
        return self.linear(x[:, 0, 0])


@jax.jit
def _run_head(head: Head, x: jax.Array) -> jax.Array:
    return head(x)


class PyramidEncoder(nnx.Module):
    """An IR-SE body whose last three stages make a pyramid, and a head for every code.

    Call it outside of jax.jit: its units and heads are compiled once for each shape, and as one program it takes minutes.
    """

    def __init__(self, config: PyramidEncoderConfig, rngs: nnx.Rngs):
        """Makes the network; `mean` is e4e's `latent_avg`."""
        self.config = config
        self.mean = nnx.Variable(jnp.zeros((config.n_latent, config.w_dim)))
        width = config.widths[0]
        self.stem, self.stem_norm, self.stem_prelu = conv_of(3, width, 3, 1, rngs), norm_of(width, rngs), PReLU(width)
        self.units = units_of(config.units, config.widths, rngs)
        *_, fine, middle, width = config.widths
        self.heads = nnx.List([Head(width, config.head_convs(code), rngs) for code in range(config.n_latent)])
        self.lateral_middle = nnx.Conv(middle, width, (1, 1), rngs=rngs)
        self.lateral_fine = nnx.Conv(fine, width, (1, 1), rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """w_plus [B, n_latent, w_dim] of images [B, H, W, 3] in [-1, 1]."""
        levels = self._pyramid(ops.resized(images, self.config.image_size))
        codes = jnp.stack([_run_head(head, levels[self.config.level(code)]) for code, head in enumerate(self.heads)], axis=1)
        if self.config.offsets:
            codes = codes + codes[:, :1] * (jnp.arange(codes.shape[1]) > 0)[None, :, None]
        return codes + self.mean[...][None]

    def _pyramid(self, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Levels [B, h, w, w_dim], coarse to fine, of images at the encoder's size."""
        x = self.stem_prelu(self.stem_norm(self.stem(x), use_running_average=True))
        ends, unit = [], 0
        for count in self.config.units:
            for _ in range(count):
                x = run_unit(self.units[unit], x)
                unit += 1
            ends.append(x)
        fine, middle, coarse = ends[-3:]
        middle = _doubled(coarse) + self.lateral_middle(middle)
        return coarse, middle, _doubled(middle) + self.lateral_fine(fine)


def _doubled(x: jax.Array) -> jax.Array:
    """x [B, h, w, C] at twice the size, corners on corners (torch's bilinear with align_corners=True)."""
    for axis in (1, 2):
        there = x.shape[axis]
        place = jnp.arange(2 * there) * ((there - 1) / (2 * there - 1))
        low = jnp.minimum(jnp.floor(place).astype(jnp.int32), max(there - 2, 0))
        share = (place - low).reshape([-1 if a == axis else 1 for a in range(4)])
        x = jnp.take(x, low, axis) * (1 - share) + jnp.take(x, jnp.minimum(low + 1, there - 1), axis) * share
    return x
