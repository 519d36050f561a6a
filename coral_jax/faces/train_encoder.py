"""Trains the encoder of faces, where the inversion of a photograph starts.

    python -m coral_jax.faces.train_encoder --folder=faces_training --generator=generator.safetensors

Faces are drawn at 128 px by a read-out, in parts that are kept in the folder; type the same command to go on after a stop.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from coral_jax import weights
from coral_jax.faces import draw
from coral_jax.models import load_generator
from coral_jax.models.generator import Generator
from coral_jax.runtime.compiling import jit
from coral_jax.worlds import command
from coral_jax.worlds.encoding import write_encoder

_SIZE, _SEEN = 128, 64  # px: of the read-out, and what the encoder sees
_SEED, _PSI = 1805, (0.5, 1.0)
PART, _HELD_OUT = 200, 200  # faces a file; faces that do not train
_BATCH, _RATE = 32, 1e-3


@jit
def _draw(generator: Generator, w: jax.Array) -> jax.Array:
    """Bytes [B, S, S, 3] of w [B, w_dim]."""
    images = generator.synthesis(generator.broadcast(w))
    return jnp.rint((jnp.clip(images, -1, 1) + 1) * 127.5).astype(jnp.uint8)


def drawn(folder: Path, generator: Generator, fingerprint: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(bytes [count, 64, 64, 3], w [count, w_dim]) of random faces, from the folder where they are there.

    fingerprint: of the generator's file; faces of another one are left alone.
    """
    parts = []
    for start in range(0, count, PART):
        path = folder / "encoder" / f"{fingerprint[:12]}_{start:05}.safetensors"
        if not path.exists():
            w = draw.random_codes(generator, PART, _SEED + start, _PSI)
            images = np.concatenate([np.asarray(_draw(generator, one[None])) for one in w])
            weights.save_tensors(path, {"w": w, "images": images}, {})
            logging.info("faces: %d of %d", start + PART, count)
        parts.append(weights.load_tensors(path)[0])
    images, w = (np.concatenate([part[name] for part in parts])[:count] for name in ("images", "w"))
    cells = images.reshape(len(images), _SEEN, _SIZE // _SEEN, _SEEN, _SIZE // _SEEN, 3)
    return np.rint(cells.mean((2, 4))).astype(np.uint8), w


def train(folder: Path, path: str, count: int, steps: int) -> None:
    """Draw, train, and write encoder.safetensors into the folder; `path` is the generator's."""
    generator = load_generator(path)
    images, w = drawn(folder, generator.lower(_SIZE), weights.fingerprint(path), count)
    write_encoder(folder / "encoder.safetensors", generator, images, w, _HELD_OUT, _BATCH, steps, _RATE)


if __name__ == "__main__":
    command.run(train, ("count", 9600, "number of faces"), 3000)
