"""Which faces to edit: seeds, or a file of latents."""

import os
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from coral_jax import weights
from coral_jax.models.generator import Generator
from coral_jax.runtime.numerics import SEEDS, key_of, pinned

MOST_SEEDS = 1_000_000  # a range typed wrong must not fill the memory


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
    """Read w or w_plus from .npy or .safetensors: w_plus [N, n_latent, w_dim].

    Taken: [w_dim] and [n_latent, w_dim] (one face; the latter before N codes w), [N, w_dim], [N, n_latent, w_dim].
    ValueError for anything else and for values that are not finite.
    """
    latents = _read(Path(path))
    n, width = generator.n_latent, generator.w_dim
    forms = f"[N, {width}] or [N, {n}, {width}]"
    if not np.issubdtype(latents.dtype, np.floating):
        raise ValueError(f"{path} holds {latents.dtype} values; give floating-point latents {forms}")
    if latents.shape == (n, width):
        latents = latents[None]
    elif latents.shape == (width,) or (latents.ndim == 2 and latents.shape[1] == width):
        latents = np.repeat(latents.reshape(-1, 1, width), n, axis=1)
    if latents.shape[1:] != (n, width) or len(latents) == 0:
        raise ValueError(
            f"{path} has the shape {list(latents.shape)}; this domain's generator reads w or w_plus: {forms}"
        )
    bad = [index for index, face in enumerate(latents) if not np.isfinite(face).all()]
    if bad:
        raise ValueError(f"{path} holds NaN or infinite values, first in face {bad[0]}; leave {len(bad)} face(s) out")
    return latents.astype(np.float32)


def _read(path: Path) -> np.ndarray:
    if not path.is_file():
        raise ValueError(f"there is no latents file {path}; give a .npy or .safetensors file")
    if path.suffix == ".npy":
        try:
            return np.load(path, allow_pickle=False)
        except ValueError as error:
            raise ValueError(f"{path} is not an array of numbers ({error}); save one with numpy.save") from error
    if path.suffix == ".safetensors":
        tensors, _ = weights.load_tensors(path)
        names = [name for name in ("w_plus", "w") if name in tensors] or list(tensors)
        if len(names) != 1 and names[:1] != ["w_plus"]:
            raise ValueError(f"{path} holds {sorted(tensors)}; name the tensor with the latents w_plus or w")
        return tensors[names[0]]
    raise ValueError(f"{path} is neither .npy nor .safetensors; save the latents as one of them")
