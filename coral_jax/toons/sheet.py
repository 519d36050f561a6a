"""Draws a sheet of 64 generated toons: python -m coral_jax.toons.sheet --out=docs/toons.png"""

import jax
import numpy as np
from absl import app, flags
from PIL import Image

from coral_jax import weights
from coral_jax.domains import EMBEDDED
from coral_jax.figures import png
from coral_jax.runtime.files import write_bytes
from coral_jax.runtime.numerics import key_of
from coral_jax.toons.faces import Z_DIM
from coral_jax.toons.pool import to_bytes


def main(_: list[str]) -> None:
    """Write an 8 x 8 sheet at twice the generator's size."""
    generator = weights.load(EMBEDDED["toons"] / "generator.safetensors")
    z = jax.random.normal(key_of(_SEED.value), (64, Z_DIM))
    images = to_bytes(jax.jit(lambda g, z: g.synthesis(g.broadcast(g.mapping(z))))(generator, z))
    size = images.shape[1]
    rows = images.reshape(8, 8, size, size, 3).transpose(0, 2, 1, 3, 4).reshape(8 * size, 8 * size, 3)
    sheet = Image.fromarray(np.ascontiguousarray(rows)).resize((16 * size, 16 * size), Image.Resampling.BICUBIC)
    write_bytes(_OUT.value, png(sheet))


if __name__ == "__main__":  # other programs have flags of the same names
    _OUT = flags.DEFINE_string("out", "toons.png", "file to write")
    _SEED = flags.DEFINE_integer("seed", 5, "of the latents")
    app.run(main)
