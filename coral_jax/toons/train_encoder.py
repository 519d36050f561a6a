"""Trains the encoder of toons, where the inversion of a drawing starts.

    python -m coral_jax.toons.train_encoder --folder=toons_training

Faces are drawn by the domain's generator.
"""

from pathlib import Path

import jax
import numpy as np
from absl import app, flags, logging

from coral_jax.domains import load_domain
from coral_jax.latents import w_plus_of_z
from coral_jax.models.generator import Generator
from coral_jax.toons.pool import to_bytes
from coral_jax.worlds.encoding import write_encoder

_SEED, _CHUNK, _HELD_OUT = 1905, 256, 512
_BATCH, _RATE = 64, 2e-3


def drawn(generator: Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(bytes [count, 64, 64, 3], w [count, w_dim]) of random faces."""
    random = np.random.default_rng(_SEED)
    synthesis = jax.jit(lambda generator, w_plus: generator.synthesis(w_plus))
    images, codes = [], []
    for _ in range(0, count, _CHUNK):
        w_plus = w_plus_of_z(generator, random.standard_normal((_CHUNK, generator.z_dim)).astype(np.float32))
        images.append(to_bytes(synthesis(generator, w_plus)))
        codes.append(np.asarray(w_plus[:, 0]))
    return np.concatenate(images)[:count], np.concatenate(codes)[:count]


def main(_: list[str]) -> None:
    """Draw, train, and write encoder.safetensors into the folder."""
    logging.set_verbosity(logging.INFO)
    generator = load_domain("toons").generator
    images, w = drawn(generator, _COUNT.value)
    path = Path(_FOLDER.value) / "encoder.safetensors"
    write_encoder(path, generator, images, w, _HELD_OUT, _BATCH, _STEPS.value, _RATE)


if __name__ == "__main__":  # other programs have flags of the same names
    _FOLDER = flags.DEFINE_string("folder", "toons_training", "where the result is kept")
    _COUNT = flags.DEFINE_integer("count", 6144, "number of faces")
    _STEPS = flags.DEFINE_integer("steps", 600, "optimiser steps")
    app.run(main)
