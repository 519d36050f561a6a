"""Blocks of 2x2 pixels, [B, H/2, W/2, 4 C], on which a TPU computes large layers.

It has 128 lanes for an array's last axis, which the 64 and 32 channels of 512 and 1024 px leave empty.  Every operation takes
and gives pixels (`coral_jax.models.ops`); XLA drops the way there and back.  Estimates are in docs/performance.md.
"""

import jax
import jax.numpy as jnp
import numpy as np

from coral_jax.runtime.target import platform

LARGE = 512  # px from which it does so: below are the layers that edits read, and a blend takes pixels


def depth_to_space(x: jax.Array) -> jax.Array:
    """[B, H, W, 4 C] -> [B, 2H, 2W, C]; the four groups are the (row, column) parities."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height, width, 2, 2, channels // 4)
    if platform() == "tpu" and channels < 32:
        # An image's columns lie along the lanes, where a TPU interleaves them far slower than it multiplies with a permutation.
        columns = jnp.eye(2 * width, dtype=x.dtype).reshape(width, 2, 2 * width)
        x = jnp.einsum("bhwrcd,wcn->bhrnd", x, columns, precision="highest")
    else:
        x = x.transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, 2 * height, 2 * width, channels // 4)


def space_to_depth(x: jax.Array) -> jax.Array:
    """The inverse of `depth_to_space`."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // 2, 2, width // 2, 2, channels).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, height // 2, width // 2, 4 * channels)


def used_for(x: jax.Array) -> bool:
    """Whether x [B, H, W, C] is computed on in blocks of 2x2 pixels."""
    return platform() == "tpu" and x.shape[1] >= LARGE and x.shape[-1] <= 64


def repeated(vector: jax.Array) -> jax.Array:
    """vector [B, C] for each pixel of a block: [B, 4 C]."""
    return jnp.tile(vector, (1, 4))


def kernel_of(kernel: jax.Array) -> jax.Array:
    """The kernel [k, k, 4 I, 4 O] that does to blocks what `kernel` [k, k, I, O], k = 1 or 3, does to pixels.

    Along one axis, tap t reads for the pixel 2m + r of block m the pixel 2m + r + t - k // 2, which is in block m + q.
    """
    size, _, channels_in, channels = kernel.shape
    place = np.zeros((size, 2, 2, size), np.float32)  # block, pixel in there; pixel of the output, tap
    for pixel in range(2):
        for tap in range(size):
            block, read = divmod(pixel + tap - size // 2, 2)
            place[block + size // 2, read, pixel, tap] = 1.0
    placed = jnp.einsum("pira,qjcb,abxy->pqijxrcy", place, place, kernel.astype(jnp.float32), precision="highest")
    return placed.reshape(size, size, 4 * channels_in, 4 * channels).astype(kernel.dtype)
