"""A photo: a folder with a person's picture, where the face lies in it, and the codes that draw it.

`photo.json` says what the folder holds:

    picture.png            the whole photograph, upright, as it was read
    aligned.png            the face as the domain's generator has it
    inverted.png           what the generator draws of the codes
    codes.safetensors      w_plus [n_latent, w_dim], and what of the generator's weights was tuned, as differences
"""

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from PIL import Image

from coral_jax import weights
from coral_jax.domains import Domain
from coral_jax.figures import png
from coral_jax.models.generator import Generator
from coral_jax.photos.align import Square, aligned
from coral_jax.pictures import read_picture
from coral_jax.runtime.files import check_fields, file_name, read_json, write_bytes, write_json

FORMAT = 1
DESCRIPTION, CODES = "photo.json", "codes.safetensors"
_FIELDS = {"format": int, "name": str, "picture_sha256": str, "domain": str, "domain_fingerprint": str,
           "square": list, "likeness": int | float, "codes_sha256": str | None}  # fmt: skip
_AGAIN = "make it again with python -m coral_jax.photo, in another folder"


@dataclass(frozen=True)
class Photo:
    """A photograph with a face in it.

    picture: uint8 [H, W, 3].  square: where the face lies.  w_plus [n_latent, w_dim]: None until it is inverted; tuned: what
    is added to weights of the generator, by their names.
    """

    name: str
    picture: np.ndarray
    picture_sha256: str
    square: Square
    domain: str
    domain_fingerprint: str
    likeness: float
    w_plus: np.ndarray | None = None
    tuned: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def aligned(self, size: int) -> np.ndarray:
        """The face, uint8 [size, size, 3]."""
        return aligned(self.picture, self.square, size)

    def generator(self, generator: Generator) -> Generator:
        """The domain's generator with this photo's differences added."""
        return with_differences(generator, self.tuned)


def with_differences(generator: Generator, differences: Mapping[str, np.ndarray | jax.Array]) -> Generator:
    """A generator whose weights of these names are moved; the one given stays as it is."""
    if not differences:
        return generator
    graph, state = nnx.split(generator)
    # New variables: under jax.jit or jax.grad those of the generator may not be changed.
    moved = {
        path: variable.replace(variable[...] + jnp.asarray(differences[name], jnp.float32))
        if (name := ".".join(map(str, path))) in differences
        else variable
        for path, variable in nnx.to_flat_state(state)
    }
    return nnx.merge(graph, nnx.from_flat_state(moved))


def save_photo(folder: str | os.PathLike, photo: Photo) -> None:
    """Write a photo's folder, its description last: what has one is whole."""
    folder = Path(folder)
    write_bytes(folder / "picture.png", png(Image.fromarray(photo.picture)))
    digest = None
    if photo.w_plus is not None:
        tensors = {"w_plus": photo.w_plus} | {f"tuned.{name}": value for name, value in photo.tuned.items()}
        weights.save_tensors(folder / CODES, tensors, {"domain": photo.domain})
        digest = weights.fingerprint(folder / CODES)
    description = {
        "format": FORMAT,
        "name": photo.name,
        "picture_sha256": photo.picture_sha256,
        "domain": photo.domain,
        "domain_fingerprint": photo.domain_fingerprint,
        "square": [[float(x) for x in point] for point in photo.square],
        "likeness": photo.likeness,
        "codes_sha256": digest,
    }
    write_json(folder / DESCRIPTION, description)


def load_photo(folder: str | os.PathLike) -> Photo:
    """Read a photo's folder; `w_plus` is None where it is not inverted yet.

    ValueError for a folder that is no photo's, or whose files do not belong together.
    """
    folder = Path(folder)
    path = folder / DESCRIPTION
    if not path.is_file():
        raise ValueError(f"no photo in {folder}; make one with python -m coral_jax.photo --image=me.jpg --out={folder}")
    said = read_json(path, _AGAIN)
    check_fields(said, _FIELDS, f"{path} is not a photo's description", _AGAIN)
    if said["format"] != FORMAT:
        raise ValueError(f"{path} has the format {said['format']}, this version reads {FORMAT}; {_AGAIN}")
    square = np.asarray(said["square"], np.float64)
    if square.shape != (3, 2):
        raise ValueError(f"{path} is not a photo's description (square is {said['square']}); {_AGAIN}")
    photo = Photo(
        file_name(said["name"]), read_picture(folder / "picture.png"), said["picture_sha256"], Square(*square),
        said["domain"], said["domain_fingerprint"], float(said["likeness"]),
    )  # fmt: skip
    if said["codes_sha256"] is None:
        return photo
    if not (folder / CODES).is_file() or weights.fingerprint(folder / CODES) != said["codes_sha256"]:
        raise ValueError(f"{folder / CODES} is not the file that {DESCRIPTION} describes; {_AGAIN}")
    tensors, _ = weights.load_tensors(folder / CODES)
    w_plus = tensors.pop("w_plus")
    tuned = {name.removeprefix("tuned."): value for name, value in tensors.items()}
    return dataclasses.replace(photo, w_plus=w_plus, tuned=tuned)


def check_domain(photo: Photo, domain: Domain, folder: str | os.PathLike) -> None:
    """ValueError where a photo was inverted for another domain, or for other weights of it."""
    if photo.domain != domain.name:
        raise ValueError(
            f"the photo in {folder} was made for the domain {photo.domain!r}, and the edit is of {domain.name!r}; "
            f"make it again with python -m coral_jax.photo --domain={domain.name}, in another folder"
        )
    if photo.domain_fingerprint != domain.fingerprint:
        raise ValueError(
            f"the photo in {folder} was made with other weights of the domain {domain.name!r} "
            f"({photo.domain_fingerprint[:12]}, here {domain.fingerprint[:12]}); {_AGAIN}"
        )
    if photo.w_plus is None:
        raise ValueError(f"the photo in {folder} is not inverted yet; type the python -m coral_jax.photo command again")
