"""A pool of drawn faces that the toons networks are trained on: drawn once, kept as bytes, sampled many times."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from coral_jax import weights
from coral_jax.models.stylegan2 import StyleGAN2
from coral_jax.toons.faces import SHAPE_CODES, Z_DIM, Face, faces_from_z, mix, numbers
from coral_jax.toons.renderer import render

_CHUNK = 256


@dataclasses.dataclass(frozen=True)
class Pool:
    """Drawn faces: the latents of their shapes and colours [N, Z_DIM], images and part shares as bytes [N, h, w, C]."""

    z_shape: np.ndarray
    z_colour: np.ndarray
    images: np.ndarray
    parts: np.ndarray

    def faces(self) -> Face:
        """The faces in the pool."""
        return mix(faces_from_z(self.z_shape), faces_from_z(self.z_colour))

    def batches(self, size: int, seed: int) -> Iterator[np.ndarray]:
        """Endless index arrays [size] of the faces here."""
        return shuffled(len(self.images), size, seed)


def shuffled(count: int, size: int, seed: int) -> Iterator[np.ndarray]:
    """Endless index arrays [size] into `count` things: everyone once, in a new order each time."""
    random = np.random.default_rng(seed)
    while True:
        order = random.permutation(count)
        yield from (order[i : i + size] for i in range(0, count - size + 1, size))


def to_bytes(images: jax.Array) -> np.ndarray:
    """Images in [-1, 1] -> uint8."""
    return np.asarray(np.rint((np.clip(images, -1, 1) + 1) * 127.5), np.uint8)


def from_bytes(images: np.ndarray) -> np.ndarray:
    """uint8 -> float32 in [-1, 1]."""
    return images.astype(np.float32) / 127.5 - 1


def augment(images: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Shift by up to 2 px, change brightness and contrast a little, add noise: an edit must not win by any of these."""
    dy, dx = random.integers(-2, 3, size=2)
    images = np.roll(images, (dy, dx), axis=(1, 2))
    shape = (len(images), 1, 1, 1)
    gain = 1 + 0.08 * random.standard_normal(shape)
    shift = 0.05 * random.standard_normal((*shape[:3], 3))
    noise = 0.06 * random.random(shape) * random.standard_normal(images.shape)
    return (images * gain + shift + noise).astype(np.float32)


def draw_pool(count: int, seed: int) -> Pool:
    """Draw `count` faces; half of them have the colours of another latent, so that shape and colour come apart."""
    random = np.random.default_rng(seed)
    z_shape = random.standard_normal((count, Z_DIM)).astype(np.float32)
    other = random.standard_normal((count, Z_DIM)).astype(np.float32)
    z_colour = np.where(random.random((count, 1)) < 0.5, z_shape, other)
    images, parts = [], []
    for i in range(0, count, _CHUNK):
        rows = np.minimum(np.arange(i, i + _CHUNK), count - 1)  # one shape, so one compilation
        image, part = render(mix(faces_from_z(z_shape[rows]), faces_from_z(z_colour[rows])))
        keep = min(_CHUNK, count - i)
        images.append(to_bytes(image[:keep]))
        parts.append(np.asarray(np.rint(part[:keep] * 255), np.uint8))
    return Pool(z_shape, z_colour, np.concatenate(images), np.concatenate(parts))


def mixed(generator: StyleGAN2, w_shape: jax.Array, w_colour: jax.Array) -> jax.Array:
    """w_plus [B, n_latent, w_dim] with one w in the codes of shape and another in those of colour."""
    shape = jnp.arange(generator.n_latent)[None, :, None] < SHAPE_CODES
    return jnp.where(shape, w_shape[:, None], w_colour[:, None])


class Exaggerated(NamedTuple):
    """Faces that go on past what an edit should make of them, and with it those of reversed edits.

    Latents z [2, B, Z_DIM] of shape and colours; others that differ in some coordinates, `start`; and `beyond` [B], how far
    past z to go, in differences of the two (0 to 2).
    """

    z: np.ndarray
    start: np.ndarray
    beyond: np.ndarray

    def rows(self, rows: np.ndarray | slice) -> "Exaggerated":
        """Some of them."""
        return Exaggerated(self.z[:, rows], self.start[:, rows], self.beyond[rows])

    def codes(self, generator: StyleGAN2) -> jax.Array:
        """w_plus [B, n_latent, w_dim]."""
        here, there = (jax.vmap(generator.mapping)(z) for z in (self.z, self.start))
        return mixed(generator, *(here + self.beyond[None, :, None] * (here - there)))

    def numbers(self) -> dict[str, jax.Array]:
        """What is to be drawn: the numbers moved alike, as far as some face here has them."""
        here, there = (numbers(mix(*map(faces_from_z, z))) for z in (self.z, self.start))

        def move(here: jax.Array, there: jax.Array) -> jax.Array:
            moved = here + self.beyond.reshape(-1, *[1] * (here.ndim - 1)) * (here - there)
            return jnp.clip(moved, jnp.min(here, axis=0, keepdims=True), jnp.max(here, axis=0, keepdims=True))

        return jax.tree.map(move, here, there)


def exaggerate(count: int, seed: int) -> Exaggerated:
    """`count` faces, of which a third are as they are."""
    random = np.random.default_rng(seed)
    z = random.standard_normal((2, count, Z_DIM)).astype(np.float32)
    z[1] = np.where(random.random((count, 1)) < 0.5, z[0], z[1])
    start = np.where(random.random(z.shape) < 0.3, random.standard_normal(z.shape), z).astype(np.float32)
    beyond = np.where(random.random(count) < 2 / 3, random.uniform(0, 2, count), 0).astype(np.float32)
    return Exaggerated(z, start, beyond)


def generate_pool(generator: StyleGAN2, count: int, seed: int) -> Pool:
    """Faces drawn by the generator instead, exaggerated ones among them; their truth is that of their latents."""
    faces = exaggerate(count, seed)
    draw = jax.jit(lambda generator, some: generator.synthesis(some.codes(generator)))
    images = [to_bytes(draw(generator, faces.rows(slice(i, i + _CHUNK)))) for i in range(0, count, _CHUNK)]
    return Pool(*faces.z, np.concatenate(images), np.zeros((count, 1, 1, 0), np.uint8))


def load_training_pool(folder: Path, count: int) -> Pool:
    """The drawn pool, with half as many generated faces beside it where the folder has a generator."""
    pool = load_pool(folder, count, 2)
    path = Path(folder) / "generator.safetensors"
    if not path.exists():
        return pool
    logging.info("generating %d faces", count // 2)
    other = generate_pool(weights.load(path), count // 2, 4)
    joined = [np.concatenate([getattr(pool, k), getattr(other, k)]) for k in ("z_shape", "z_colour", "images")]
    return Pool(*joined, parts=pool.parts)


def load_pool(folder: Path, count: int, seed: int) -> Pool:
    """The pool kept in `folder`, drawn and kept there first where it is missing."""
    path = Path(folder) / f"pool_{seed}_{count}.safetensors"
    if not path.exists():
        logging.info("drawing %d faces", count)
        weights.save_tensors(path, dataclasses.asdict(draw_pool(count, seed)), {})
    return Pool(**weights.load_tensors(path)[0])
