"""Latents that other programs wrote -> a file for `python -m coral_jax.edit --latents=FILE`.

    python -m converters.latents --checkpoint=latents.pt --out=faces.safetensors

Read: latents.pt of e4e, latents.npy of HyperStyle, train_faces.pt and test_faces.pt of StyleCLIP, StyleFlow's lists,
projector files of rosinality and NVIDIA, arrays of numpy (.npy, .npz). Written: w_plus [N, n_latent, w_dim], w [N, w_dim]
or z [N, z_dim]; a name in the file (w_plus, w, z) says which, else the shape, else --kind.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from converters import command, reading
from converters.wrappings import described
from coral_jax import weights
from coral_jax.latents import NAMES, faces_of, kind_of

KINDS = ("w_plus", "w", "z")
UNNAMED = ("latent", "latents", "dlatent", "dlatents", "code", "codes")  # names of latents that do not say which
COUNTS = range(2, 33)  # numbers of codes that a face may have: 18 at 1024 px
_ANSWER = "type --kind=w_plus or --kind=w"
_PICTURE = re.compile(r"\d+|.*\.(png|jpe?g|webp|bmp|tiff?|gif)", re.IGNORECASE)


def convert(checkpoint: Path, out: Path, kind: str | None = None) -> str:
    """Convert a file; the line says how many faces it has. ValueError for what holds no latents.

    kind: of KINDS, what the numbers are where nothing in the file says it.
    """
    if out.suffix != ".safetensors":
        raise ValueError(f"latents are written as safetensors; name --out {out.with_suffix('.safetensors')}")
    if kind not in (None, *KINDS):
        raise ValueError(f"there is no kind {kind!r} of latents; type --kind={', --kind='.join(KINDS)}")
    kind, latents = faces(reading.read(checkpoint), str(checkpoint), kind)
    if latents.dtype != np.float16:
        latents = latents.astype(np.float32, copy=False)
    weights.save_tensors(out, {kind: latents}, command.origin(checkpoint))
    form = {
        "w_plus": f"{latents.shape[1]} codes w_plus of {latents.shape[-1]} each",
        "w": f"one code w of {latents.shape[-1]} each",
        "z": f"z of {latents.shape[-1]} each, which coral_jax.edit maps with its generator",
    }
    return f"{out}: {len(latents)} face(s), {form[kind]}"


def faces(content: object, origin: str, kind: str | None = None, each: bool = False) -> tuple[str, np.ndarray]:
    """Kind and array of the faces in what `reading.read` gave, see `coral_jax.latents.faces_of`; ValueError if there are none.

    kind: what they are, where nothing in the file says it. each: it is one of a list of faces, so that an array [n, w_dim]
    is the w_plus of one.
    """
    if isinstance(content, np.ndarray):
        one = each and kind is None and content.ndim == 2 and len(content) > 1
        return faces_of(content, "w_plus" if one else kind, origin, _ANSWER, COUNTS)
    if isinstance(content, list | tuple) and content:
        return _stacked(content, origin, kind)
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"{origin} holds no latents ({described(content)}); give an array, or a list with one for each face")
    names = {str(name).lower(): name for name in content}
    for name in (*NAMES, *UNNAMED):
        if name in names:
            said = kind_of(name)
            if said and kind and said != kind:
                raise ValueError(f"--kind={kind}, but {origin} names its latents {names[name]}; leave the flag out")
            return faces(content[names[name]], origin, said or kind, each)
    if all(_PICTURE.fullmatch(name) for name in names):  # one face a name, as inversion programs write them
        return _stacked(list(content.values()), origin, kind)
    arrays = [value for value in content.values() if isinstance(value, np.ndarray)]
    if len(arrays) != 1:
        raise ValueError(f"{origin} holds {described(content)}, and no latents by name; name them w_plus, w or z")
    return faces(arrays[0], origin, kind, each)


def _stacked(items: Sequence[object], origin: str, kind: str | None) -> tuple[str, np.ndarray]:
    found = [faces(item, origin, kind, each=True) for item in items]
    if len({(kind, array.shape[1:]) for kind, array in found}) > 1:
        shapes = sorted({f"{kind} {list(array.shape)}" for kind, array in found})
        raise ValueError(f"{origin} holds faces of different forms ({', '.join(shapes)}); save those of one form alone")
    return found[0][0], np.concatenate([array for _, array in found])


if __name__ == "__main__":
    command.run(convert, kind="What the latents are, where nothing in the file says it: w_plus, w or z.")
