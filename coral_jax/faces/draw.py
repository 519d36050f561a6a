"""Draws a pool of faces, and writes down what the critics see in them.

    python -m coral_jax.faces.draw --folder=faces_training --generator=generator.safetensors --name=plain --count=320
    python -m coral_jax.faces.draw --folder=faces_training --generator=generator.safetensors --name=moved --count=440
    python -m coral_jax.faces.draw --folder=faces_training --generator=generator.safetensors --name=edited --count=350 \\
        --edits=runs/faces_table

`plain` faces are drawn with psi from 0.5 to 1.  `moved` ones start with psi of at most 0.75 and move along directions of w
on which a critic's score rises (`directions`): they show what is rare, and what lies beyond ordinary faces, as edits do.
`edited` ones show what trained edits do, those of every run in the folder --edits in turn: what fools one CLIP teaches the
next.  `edited_again` ones are another round of that, with edits of the CLIP that the first round taught.  `held_out` faces
are plain ones that train nothing, and `held_out_moved` moved ones.  A stopped run continues with the part that it was at.
"""

import functools
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging
from jax import Array

from coral_jax import weights
from coral_jax.artifact import load_edit
from coral_jax.domains import Domain, load_domain
from coral_jax.faces import critics, directions, labels, pool
from coral_jax.faces.critics import Critics
from coral_jax.models.generator import Generator
from coral_jax.models.ops import resized

SEEDS = {"plain": 1801, "moved": 1802, "held_out": 1803, "held_out_moved": 1804, "edited": 1805, "edited_again": 1806}
PLAIN_PSI, MOVED_PSI = (0.5, 1.0), (0.5, 0.75)
_PART = 40  # faces a file
FITTED = 320  # plain faces that the directions are fitted to

Drawing = Callable[[np.ndarray], list[Array]]  # w [N, w_dim] -> N faces [1, 512, 512, 3]


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


def drawn(generator: Generator, w: np.ndarray) -> list[Array]:
    """A face [1, 512, 512, 3] of each of w [N, w_dim]."""
    return [draw(generator, one[None]) for one in w]


def edited(path: Path, domain: Domain, w: np.ndarray) -> list[Array]:
    """A face [1, 512, 512, 3] of each of w [N, w_dim] as the edit there changes it, with the masks that its losses saw.

    Every third change is half as strong.
    """
    edit = load_edit(path, domain=domain)
    w_plus = np.asarray(domain.generator.broadcast(w))
    images = [None] * len(w)
    for rows, alpha in ((np.arange(len(w)) % 3 > 0, 1.0), (np.arange(len(w)) % 3 == 0, 0.5)):
        _, changed, _ = edit.apply(w_plus[rows], alpha, tau=0.0)
        for row, image in zip(np.flatnonzero(rows), changed, strict=True):
            images[row] = resized(image[None], 512)
    return images


def draw_pool(folder: Path, name: str, networks: Critics, pieces: list[tuple[np.ndarray, Drawing]]) -> None:
    """Draw and label faces of w [N, w_dim], a part for each of the pieces; parts that are in folder/pool stay as they are."""
    networks, start = jax.tree.map(jnp.asarray, networks), 0
    for w, drawing in pieces:
        path = Path(folder) / "pool" / f"{name}_{start:05}.safetensors"
        start += len(w)
        if path.exists():
            continue
        seen = [jax.device_get(look(networks, image)) for image in drawing(w)]
        found = {key: np.concatenate([one[key] for one in seen]) for key in seen[0]}
        weights.save_tensors(path, {"w": w, **found}, {})
        logging.info("%s: %d faces", name, start)


def runs_with_edits(folder: Path) -> list[Path]:
    """Folders of finished runs anywhere below a folder; ValueError where there is none."""
    found = sorted(path.parent.parent for path in Path(folder).rglob("edit/edit.json"))
    if not found:
        raise ValueError(f"no finished run below {folder}; train some edits of faces first")
    return found


def main(_: list[str]) -> None:
    """Draw one pool."""
    logging.set_verbosity(logging.INFO)
    folder, name = Path(_FOLDER.value), _NAME.value
    generator = weights.load(_GENERATOR.value)
    w = random_codes(generator, _COUNT.value, SEEDS[name], PLAIN_PSI if name in ("plain", "held_out") else MOVED_PSI)
    if name.endswith("moved"):
        plain = pool.load(folder, "plain").rows(slice(FITTED))
        w = directions.moved(w, directions.fit(plain.w, labels.measures(plain)), SEEDS[name])
    if name.startswith("edited"):
        domain, runs = load_domain("faces"), runs_with_edits(_EDITS.value)
        pieces = [
            (some, functools.partial(edited, run, domain))
            for run, some in zip(runs, np.array_split(w, len(runs)), strict=True)
        ]
    else:
        drawing = functools.partial(drawn, generator)
        pieces = [(w[start : start + _PART], drawing) for start in range(0, len(w), _PART)]
    draw_pool(folder, name, critics.load(folder), pieces)


if __name__ == "__main__":
    _FOLDER = flags.DEFINE_string("folder", "faces_training", "where packages, pools and results are kept")
    _GENERATOR = flags.DEFINE_string("generator", None, "the converted generator of 1024 px", required=True)
    _NAME = flags.DEFINE_enum("name", "plain", list(SEEDS), "which pool")
    _COUNT = flags.DEFINE_integer("count", 320, "number of faces")
    _EDITS = flags.DEFINE_string("edits", "runs/faces_table", "of `edited` and `edited_again`: the folder of the runs")
    app.run(main)
