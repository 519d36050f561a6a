"""Trains the identity network of faces: two pictures of one person embed as nearly the same, and unlike other persons.

    python -m coral_jax.faces.train_identity --folder=faces_training --generator=generator.safetensors

The second picture has another expression (w moves along directions of the critics), and half of the time another light and
other colours (another face's codes in the layers from 64 px on).  Pictures are drawn at 128 px by a read-out and kept in the
folder.
"""

from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from absl import logging
from jax import Array

from coral_jax import weights
from coral_jax.faces import directions, draw, labels, pool
from coral_jax.faces.train_clip import varied
from coral_jax.models import load_generator
from coral_jax.models.generator import Generator
from coral_jax.models.identity import Identity, IdentityConfig
from coral_jax.worlds import command
from coral_jax.worlds.contrastive import partner_loss
from coral_jax.worlds.fitting import fit, fresh

IDENTITY = IdentityConfig(units=(1, 1, 1, 1), widths=(16, 32, 64, 128), input_size=48, embed_dim=128)
_SIZE, _SEED = 128, 1804
_EXPRESSIONS = ("happy", "sad", "surprised", "open", "closed", "serious")
_UNITS = (2.0, 6.0)
_PART, _PERSONS = 40, 32  # persons a file; persons a batch
_TEMPERATURE = 0.1
_HELD_OUT = 40


def codes(generator: Generator, count: int, table: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """w_plus [count, n_latent, w_dim] of persons, and of the same ones with another expression, half of them in other light."""
    random = np.random.default_rng(_SEED)
    w, other = draw.random_codes(generator, 2 * count, _SEED, (0.5, 1.0)).reshape(2, count, -1)
    moves = np.stack([table[name] for name in _EXPRESSIONS])
    moved = w + random.uniform(*_UNITS, (count, 1)) * moves[random.integers(len(moves), size=count)]
    first = next(layer.rows[0] for layer in generator.layers if layer.resolution >= 64)
    late = (np.arange(generator.n_latent) >= first)[None, :, None] & (random.random((count, 1, 1)) < 0.5)
    one = np.repeat(w[:, None], generator.n_latent, axis=1)
    return one.astype(np.float32), np.where(late, other[:, None], moved[:, None]).astype(np.float32)


def draw_pairs(folder: Path, generator: Generator, count: int) -> np.ndarray:
    """Two pictures of each person as bytes [2, count, 128, 128, 3], from the folder where they are there."""
    plain = pool.load(folder, "plain").rows(slice(draw.FITTED))
    pairs = np.stack(codes(generator, count, directions.fit(plain.w, labels.measures(plain))), axis=1)
    synthesis = jax.jit(lambda generator, w_plus: generator.synthesis(w_plus))
    found = []
    for start in range(0, count, _PART):
        path = folder / "pairs" / f"{start:05}.safetensors"
        if not path.exists():
            images = np.stack([np.asarray(synthesis(generator, pair)) for pair in pairs[start : start + _PART]])
            images = np.rint((np.clip(images, -1, 1) + 1) * 127.5).astype(np.uint8)
            weights.save_tensors(path, {"images": images}, {})
            logging.info("pairs: %d of %d", start + len(images), count)
        found.append(weights.load_tensors(path)[0]["images"])
    return np.concatenate(found).swapaxes(0, 1)


def _loss(identity: Identity, images: Array) -> tuple[Array, Identity]:
    return partner_loss(identity.embed(images, train=True), _TEMPERATURE), identity


def _batches(pairs: np.ndarray) -> Iterator[tuple]:
    random = np.random.default_rng(8)
    while True:
        rows = random.choice(pairs.shape[1], _PERSONS, replace=False)
        images = pairs[:, rows].reshape(-1, *pairs.shape[2:]).astype(np.float32) / np.float32(127.5) - 1
        tint = random.uniform(-0.15, 0.15, (len(images), 1, 1, 3)).astype(np.float32)
        yield (varied(images + tint, random),)


def told_apart(identity: Identity, pairs: np.ndarray) -> tuple[float, float, float]:
    """How often two pictures of one person are nearer than those of two persons (AUC), and both mean cosines."""
    embed = jax.jit(lambda identity, images: identity.embed(images))
    one, other = (np.asarray(embed(identity, images.astype(np.float32) / 127.5 - 1)) for images in pairs)
    cosines = one @ other.T
    same, different = np.diag(cosines), cosines[~np.eye(len(one), dtype=bool)]
    return float(np.mean(same[:, None] > different[None])), float(same.mean()), float(different.mean())


def train(folder: Path, path: str, persons: int, steps: int) -> None:
    """Train, and write identity.safetensors into the folder; `path` is the generator's."""
    pairs = draw_pairs(folder, load_generator(path).lower(_SIZE), persons)
    identity = fit(fresh(Identity, IDENTITY), _loss, _batches(pairs[:, _HELD_OUT:]), steps, 2e-3, "identity")
    weights.save(folder / "identity.safetensors", identity, np.float16)
    held_out = told_apart(weights.load(folder / "identity.safetensors"), pairs[:, :_HELD_OUT])
    logging.info("AUC of one person against two %.3f; mean cosine %.3f and %.3f", *held_out)


if __name__ == "__main__":
    command.run(train, ("persons", 320, "number of persons, each drawn twice"), 500)
