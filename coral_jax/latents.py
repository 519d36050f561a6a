"""Which faces to edit: seeds, or a file of latents."""

import os
import re
from collections.abc import Container
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from coral_jax import weights
from coral_jax.models.generator import Generator
from coral_jax.runtime.numerics import SEEDS, key_of, pinned

MOST_SEEDS = 1_000_000  # a range typed wrong must not fill the memory

# Names of latents, in small letters -> what they are; of several in one file, the first.
NAMES = {"w_plus": "w_plus", "wplus": "w_plus", "w+": "w_plus", "wp": "w_plus", "ws": "w_plus", "w": "w", "z": "z"}

def parse_seeds(text: str) -> list[int]:
    """Seeds in a text: "0-3,9" gives [0, 1, 2, 3, 9]; ValueError for anything else, and for more than a million."""
    seeds = []
    for part in text.replace(" ", "").split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not first <= last < SEEDS:
            raise ValueError(
                f"seeds {text!r} cannot be read; type a range or a list, such as 0-15 or 3,5,9, of numbers below {SEEDS}"
            )
        if last - first + len(seeds) >= MOST_SEEDS:
            raise ValueError(f"seeds {text!r} are more than {MOST_SEEDS} faces; give fewer, a part at a time")
        seeds += range(first, last + 1)
    return seeds


@pinned()
def w_plus_of_seeds(generator: Generator, seeds: list[int], truncation: float) -> np.ndarray:
    """Codes [N, n_latent, w_dim] of seeds: z ~ N(0, I) from each seed's own key, truncated."""
    return np.concatenate([np.asarray(_w_plus(generator, jnp.uint32(seed), truncation)) for seed in seeds])


@jax.jit
def _w_plus(generator: Generator, seed: jax.Array, truncation: float) -> jax.Array:
    # One face at a time: the mapping network is small, and a face is the same whatever others are drawn with it.
    z = jax.random.normal(key_of(seed), (1, generator.z_dim))
    return truncated_w_plus(generator, z, truncation)


def truncated_w_plus(generator: Generator, z: jax.Array, truncation: float) -> jax.Array:
    """Codes [N, n_latent, w_dim] of z [N, z_dim], moved towards w_avg: `truncation` 1 leaves them, up to rounding."""
    return generator.broadcast(generator.truncate(generator.mapping(z), truncation))


@jax.jit
def w_plus_of_z(generator: Generator, z: jax.Array) -> jax.Array:
    """Codes [N, n_latent, w_dim] of z [N, z_dim], not truncated."""
    return generator.broadcast(generator.mapping(z))


def load_latents(path: str | os.PathLike, generator: Generator) -> np.ndarray:
    """Read z, w or w_plus from .npy or .safetensors: w_plus [N, n_latent, w_dim].

    A tensor's name says what it is, see `faces_of`; z is mapped, not truncated. ValueError for anything else, for values
    that are not finite, and for an array [n_latent, w_dim] without such a name.
    """
    name, latents = _read(Path(path))
    n, width = generator.n_latent, generator.w_dim
    answer = f"save it as .safetensors under the name w_plus or w, or with the shape [1, {n}, {width}] or [{n}, 1, {width}]"
    kind, latents = faces_of(latents, kind_of(name), str(path), answer, (n,))
    expected = {"w_plus": (n, width), "w": (width,), "z": (generator.z_dim,)}
    if latents.shape[1:] != expected[kind]:
        raise ValueError(
            f"{path} has the shape {list(latents.shape)}, read as {kind}; this domain's generator reads "
            f"w_plus [N, {n}, {width}], w [N, {width}] or z [N, {generator.z_dim}]"
        )
    latents = latents.astype(np.float32)
    if kind == "z":
        return np.asarray(w_plus_of_z(generator, latents))
    return np.repeat(latents[:, np.newaxis], n, axis=1) if kind == "w" else latents


def kind_of(name: str | None) -> str | None:
    """What an array of this name holds: "w_plus", "w" or "z"; None where the name does not say it."""
    return NAMES.get((name or "").lower())


def faces_of(
    latents: np.ndarray, kind: str | None, origin: str, answer: str, counts: Container[int]
) -> tuple[str, np.ndarray]:
    """Kind and array of N faces: "w_plus" [N, n_latent, w_dim], "w" [N, w_dim] or "z" [N, z_dim].

    kind: what the name says, and it goes before the shape, but that NVIDIA's projectors call w_plus [1, n_latent, w_dim] w.
    Without one, three axes are w_plus ([N, 1, w_dim] is w), one and two axes w. counts: the numbers of codes that a face
    may have; an array [n, w_dim] without a name might then be either, and ValueError asks with `answer`. ValueError too for
    other shapes, for arrays that are not floating, and for values that are not finite.
    """
    shape = list(latents.shape)
    if not np.issubdtype(latents.dtype, np.floating):
        raise ValueError(f"{origin} holds {latents.dtype} values; give floating-point latents")
    if latents.ndim == 3 and latents.shape[1] == 1 and kind != "w_plus":
        kind, latents = kind or "w", latents[:, 0]
    elif kind is None and latents.ndim == 2 and len(latents) > 1 and len(latents) in counts:
        raise ValueError(f"{origin} has the shape {shape}: one face's w_plus, or {shape[0]} faces' w? {answer}")
    if kind is None or (kind == "w" and latents.ndim == 3):
        kind = "w_plus" if latents.ndim == 3 else "w"
    axes = 3 if kind == "w_plus" else 2
    if latents.ndim == axes - 1:
        latents = latents[np.newaxis]
    if latents.ndim != axes or 0 in latents.shape:
        raise ValueError(
            f"{origin} has the shape {shape}, read as {kind}; give w_plus [N, n_latent, w_dim], w [N, w_dim] or z [N, z_dim]"
        )
    with np.errstate(over="ignore"):
        bad = [index for index, face in enumerate(latents) if not np.isfinite(face.astype(np.float32)).all()]
    if bad:
        raise ValueError(f"{origin} holds NaN or infinite values, first in face {bad[0]}; leave {len(bad)} face(s) out")
    return kind, latents


def _read(path: Path) -> tuple[str | None, np.ndarray]:
    """The latents in a file, and their name where they have one."""
    if not path.is_file():
        raise ValueError(f"there is no latents file {path}; give a .npy or .safetensors file")
    other = f"python -m converters.latents --checkpoint={path} --out={path.with_name(path.stem + '_latents.safetensors')}"
    if path.suffix == ".npy":
        try:
            return None, np.load(path, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ValueError(f"{path} is not an array of numbers ({error}); convert it with {other}") from error
    if path.suffix == ".safetensors":
        tensors, _ = weights.load_tensors(path)
        names = sorted((name for name in tensors if kind_of(name)), key=lambda name: list(NAMES).index(name.lower()))
        if not names and len(tensors) != 1:
            raise ValueError(f"{path} holds {sorted(tensors)}; name the tensor with the latents w_plus, w or z")
        name = (names or list(tensors))[0]
        return name, tensors[name]
    raise ValueError(f"{path} is neither .npy nor .safetensors; convert it with {other}")
