"""Latents that other programs wrote -> a file for `python -m coral_jax.edit --latents=FILE`.

    python -m converters.latents --checkpoint=latents.pt --out=faces.safetensors

Read: latents.pt of e4e, train_faces.pt and test_faces.pt of StyleCLIP, arrays of numpy (.npy, and .npz such as NVIDIA's
projected_w.npz). Written: w_plus [N, n_latent, w_dim], or w [N, w_dim] where every face has one code.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from converters import command, reading
from coral_jax import weights

FACE_CODES = (14, 16, 18)  # codes of a face at 256, 512 and 1024 px
NAMES = ("w_plus", "w", "latents", "latent", "codes")  # looked for in a file that names its arrays


def convert(checkpoint: Path, out: Path) -> str:
    """Convert a file; the line says how many faces it has. ValueError for what holds no latents."""
    if out.suffix != ".safetensors":
        raise ValueError(f"latents are written as safetensors; name --out {out.with_suffix('.safetensors')}")
    latents = faces(array_of(load(checkpoint), str(checkpoint)), str(checkpoint))
    weights.save_tensors(out, {"w_plus" if latents.ndim == 3 else "w": latents}, command.origin(checkpoint))
    codes = f"{latents.shape[1]} codes w_plus" if latents.ndim == 3 else "one code w"
    return f"{out}: {len(latents)} face(s), {codes} of {latents.shape[-1]} each"


def load(path: Path) -> object:
    """What a file of latents holds: an array, or containers of arrays."""
    if path.suffix not in (".npy", ".npz"):
        return reading.read(path)
    try:
        loaded = np.load(path, allow_pickle=False, mmap_mode="r")
        return dict(loaded) if path.suffix == ".npz" else loaded
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is no array of numbers, or is damaged ({error}); fetch it again") from error


def array_of(content: object, origin: str) -> np.ndarray:
    """The array of latents in what a file holds; a list of faces is stacked, a dictionary searched for known names."""
    if isinstance(content, np.ndarray):
        return content
    if isinstance(content, Mapping):
        known = [name for name in NAMES if name in content]
        # Without a known name: the only array, or one face a name, as inversion scripts write them.
        content = content[known[0]] if known else list(content.values())
        return content if isinstance(content, np.ndarray) else array_of(content, origin)
    if isinstance(content, list | tuple) and content and all(isinstance(item, np.ndarray) for item in content):
        if len(content) == 1:
            return content[0]
        if len({item.shape for item in content}) > 1:
            raise ValueError(f"{origin} holds arrays of different shapes and none called {', '.join(NAMES)}; save one array")
        return np.concatenate([item.reshape(-1, *(1, 1, *item.shape)[-2:]) for item in content])  # each [.., codes, w_dim]
    raise ValueError(f"{origin} holds no latents; give one array of them, or a list with an array for each face")


def faces(latents: np.ndarray, origin: str) -> np.ndarray:
    """Latents of other programs as w_plus [N, n, w_dim] or w [N, w_dim], float32 (float16 where they are).

    Two axes are one face's w_plus where the first is 18, 16 or 14, the codes at 1024, 512 and 256 px, else N codes w.
    ValueError for other shapes, for arrays that are not floating, and for values that are not finite.
    """
    if not np.issubdtype(latents.dtype, np.floating):
        raise ValueError(f"{origin} holds {latents.dtype} values; latents are floating-point numbers")
    shape = latents.shape
    if latents.ndim == 3 and shape[1] == 1:
        latents = latents[:, 0]
        if len(latents) in FACE_CODES:  # as [N, w_dim] it would be read as one face, here and by coral_jax.latents
            raise ValueError(f"{origin} holds {len(latents)} w, which look like one face's codes; split the file in two")
    elif latents.ndim == 1 or (latents.ndim == 2 and len(latents) in FACE_CODES):
        latents = latents[np.newaxis]
    if latents.ndim not in (2, 3) or 0 in latents.shape:
        raise ValueError(f"{origin} has the shape {list(shape)}; latents are [N, 18, 512], [18, 512] or [N, 512]")
    bad = [index for index, face in enumerate(latents) if not np.isfinite(face).all()]
    if bad:
        raise ValueError(f"{origin} holds NaN or infinite values, first in face {bad[0]}; leave {len(bad)} face(s) out")
    return latents if latents.dtype == np.float16 else latents.astype(np.float32, copy=False)


if __name__ == "__main__":
    command.run(convert)
