"""Draws a pool of faces, and writes down what the critics see in them.

    python -m coral_jax.faces.draw --folder=faces_training --generator=generator.safetensors --name=plain --count=320
    python -m coral_jax.faces.draw --folder=faces_training --generator=generator.safetensors --name=moved --count=440

`plain` faces are drawn with psi from 0.5 to 1.  `moved` ones start with psi of at most 0.75 and move along directions of w on
which a critic's score rises (`directions`): they show what is rare, and what lies beyond ordinary faces, as edits do.
`held_out` faces are plain ones that train nothing, and `held_out_moved` moved ones.  A stopped run continues with the part
that it was at.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging
from jax import Array

from coral_jax import weights
from coral_jax.faces import critics, directions, labels, pool
from coral_jax.faces.critics import Critics
from coral_jax.models.generator import Generator
from coral_jax.models.ops import resized

SEEDS = {"plain": 1801, "moved": 1802, "held_out": 1803, "held_out_moved": 1804}
PLAIN_PSI, MOVED_PSI = (0.5, 1.0), (0.5, 0.75)
_PART = 40  # faces a file
FITTED = 320  # plain faces that the directions are fitted to


@jax.jit
def draw(generator: Generator, w: Array) -> Array:
    """Faces [B, 512, 512, 3] of w [B, w_dim], from the 1024-px network."""
    return resized(generator.synthesis(generator.broadcast(w)), 512)


@jax.jit
def look(networks: Critics, images: Array) -> dict[str, Array]:
    """All that a pool keeps of images [B, 512, 512, 3] but their w."""
    small = jnp.clip(resized(images, 256), -1, 1)
    parts = critics.parts(networks.parser, images, 256)
    age, male = critics.age_gender(networks.age, small)
    hair = resized(parts[..., critics.PARTS.index("hair"), None], 128)[..., 0]
    return {
        "images": jnp.rint((small + 1) * 127.5).astype(jnp.uint8),
        "labels": jnp.argmax(parts, axis=-1).astype(jnp.uint8),
        "hair": jnp.rint(hair * 255).astype(jnp.uint8),
        "expression": critics.expression(networks.expression, small),
        "age": age,
        "male": male,
    }


def random_codes(generator: Generator, count: int, seed: int, psi: tuple[float, float]) -> np.ndarray:
    """w [count, w_dim] of random faces, each with a psi of its own between the two."""
    random = np.random.default_rng(seed)
    z = random.standard_normal((count, generator.z_dim)).astype(np.float32)
    share = random.uniform(*psi, (count, 1)).astype(np.float32)
    w = np.asarray(jax.jit(lambda generator, z: generator.mapping(z))(generator, z))
    return np.asarray(generator.w_avg[...]) + share * (w - np.asarray(generator.w_avg[...]))


def draw_pool(folder: Path, name: str, generator: Generator, networks: Critics, w: np.ndarray) -> None:
    """Draw and label faces of w [N, w_dim] into folder/pool, part by part; parts that are there stay as they are."""
    networks = jax.tree.map(jnp.asarray, networks)
    for start in range(0, len(w), _PART):
        path = Path(folder) / "pool" / f"{name}_{start:05}.safetensors"
        if path.exists():
            continue
        some = w[start : start + _PART]
        seen = [jax.device_get(look(networks, draw(generator, one[None]))) for one in some]
        found = {key: np.concatenate([one[key] for one in seen]) for key in seen[0]}
        weights.save_tensors(path, {"w": some, **found}, {})
        logging.info("%s: %d of %d faces", name, start + len(some), len(w))


def main(_: list[str]) -> None:
    """Draw one pool."""
    logging.set_verbosity(logging.INFO)
    folder, name = Path(_FOLDER.value), _NAME.value
    generator = weights.load(_GENERATOR.value)
    is_moved = name.endswith("moved")
    w = random_codes(generator, _COUNT.value, SEEDS[name], MOVED_PSI if is_moved else PLAIN_PSI)
    if is_moved:
        plain = pool.load(folder, "plain").rows(slice(FITTED))
        w = directions.moved(w, directions.fit(plain.w, labels.measures(plain)), SEEDS[name])
    draw_pool(folder, name, generator, critics.load(folder), w)


if __name__ == "__main__":
    _FOLDER = flags.DEFINE_string("folder", "faces_training", "where packages, pools and results are kept")
    _GENERATOR = flags.DEFINE_string("generator", None, "the converted generator of 1024 px", required=True)
    _NAME = flags.DEFINE_enum("name", "plain", list(SEEDS), "which pool")
    _COUNT = flags.DEFINE_integer("count", 320, "number of faces")
    app.run(main)
