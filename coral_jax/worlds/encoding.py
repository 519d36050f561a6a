"""Teaches a small encoder to find the w of generated pictures, whose w are known and of which there is no end."""

from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax import Array

from coral_jax import weights
from coral_jax.models.encoder import FlatEncoder, FlatEncoderConfig
from coral_jax.models.generator import Generator
from coral_jax.models.prior import Prior, prior_of
from coral_jax.worlds.fitting import fit, fresh

_WIDTHS, _HIDDEN = (32, 64, 96, 128), 384
_SHIFT, _ZOOM = 0.03, 0.04  # shares of the picture's side
_FAR = 0.3  # weight of all directions alike, beside that of what they do to w


def write_encoder(
    path: Path, generator: Generator, images: np.ndarray, w: np.ndarray, held_out: int, batch: int, steps: int, rate: float
) -> None:
    """Train the encoder of a generator on its faces, bytes [N, S, S, 3] and their w [N, w_dim], and write it.

    The first `held_out` faces do not train it; how much it explains of them is logged.
    """
    prior = prior_of(generator)
    config = FlatEncoderConfig(images.shape[1], _WIDTHS, _HIDDEN, generator.n_latent, generator.w_dim)
    encoder = train_encoder(config, prior, images[held_out:], w[held_out:], batch, steps, rate)
    weights.save(path, encoder, np.float16)
    share = explained(prior, encoder, images[:held_out], w[:held_out])
    logging.info("%.3f of the variance of w explained on %d held-out faces", share, held_out)


def train_encoder(
    config: FlatEncoderConfig, prior: Prior, images: np.ndarray, w: np.ndarray, batch: int, steps: int, rate: float
) -> FlatEncoder:
    """An encoder of pictures, bytes [N, S, S, 3], whose codes are w [N, w_dim]; logs the loss, 1 for knowing nothing."""
    deviations = np.linalg.norm(np.asarray(prior.axes), axis=1)
    weight = jnp.asarray((1 - _FAR) * deviations**2 / np.sum(deviations**2) + _FAR / len(deviations), jnp.float32)
    targets = np.asarray(prior.coordinates(jnp.asarray(w)))
    spread = jnp.asarray(np.mean(np.square(targets - targets.mean(axis=0)), axis=0))

    def loss(encoder: FlatEncoder, images: Array, v: Array) -> Array:
        return jnp.sum(weight[None] * jnp.mean(jnp.square(encoder.w(images) - v), axis=0)[None] / spread[None])

    encoder = fit(fresh(FlatEncoder, config), loss, _batches(images, targets, batch), steps, rate, "encoder")
    return in_codes(encoder, prior)


def in_codes(encoder: FlatEncoder, prior: Prior) -> FlatEncoder:
    """The encoder of w, from one of the prior's coordinates: the map between them is folded into its last layer."""
    projection = encoder.tower.proj
    projection.kernel.set_value(jnp.matmul(projection.kernel[...], prior.axes, precision="highest"))
    encoder.mean.set_value(prior.w(encoder.mean[...]))
    return encoder


def _batches(images: np.ndarray, targets: np.ndarray, size: int) -> Iterator[tuple]:
    random = np.random.default_rng(11)
    while True:
        rows = random.integers(len(images), size=size)
        yield varied(images[rows].astype(np.float32) / np.float32(127.5) - 1, random), targets[rows]


def varied(images: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Images [B, S, S, 3] moved, zoomed, brighter or darker, softer, noisy: an aligned photograph is never quite aligned."""
    count, size = images.shape[:2]

    def uniform(most: float, channels: int = 1) -> np.ndarray:
        return random.uniform(-most, most, (count, 1, 1, channels)).astype(np.float32)

    middle = (size - 1) / 2
    for axis in (1, 2):
        scale = 1 + random.uniform(-_ZOOM, _ZOOM, (count, 1))
        place = middle + (np.arange(size) - middle) * scale + random.uniform(-_SHIFT, _SHIFT, (count, 1)) * size
        place = np.clip(place, 0, size - 1)
        low = np.minimum(place.astype(np.int64), size - 2)
        share = (place - low).astype(np.float32)
        shape = (count, size, 1, 1) if axis == 1 else (count, 1, size, 1)
        low, share = low.reshape(shape), share.reshape(shape)
        images = np.take_along_axis(images, low, axis) * (1 - share) + np.take_along_axis(images, low + 1, axis) * share
    near = (np.roll(images, 1, 1) + np.roll(images, -1, 1) + np.roll(images, 1, 2) + np.roll(images, -1, 2)) / 4
    images = images + np.maximum(uniform(0.5), 0) * (near - images)
    noise = 0.03 * random.random((count, 1, 1, 1), np.float32) * random.standard_normal(images.shape, np.float32)
    return images * (1 + uniform(0.1)) + uniform(0.08) + uniform(0.04, 3) + noise


def explained(prior: Prior, encoder: FlatEncoder, images: np.ndarray, w: np.ndarray) -> float:
    """How much of the variance of w [N, w_dim] the encoder finds in pictures [N, S, S, 3]: 1 is all, 0 nothing."""
    look = jax.jit(lambda encoder, images: encoder.w(images))
    found = np.concatenate([np.asarray(look(encoder, image[None].astype(np.float32) / 127.5 - 1)) for image in images])
    return float(1 - np.sum(np.square(found - w)) / np.sum(np.square(w - np.asarray(prior.mean))))
