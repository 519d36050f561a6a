"""Whose picture it is: a generated face or a photograph's, and what an edited one of it looks like."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from coral_jax.canvas import Adjusted, Canvas, Drawn
from coral_jax.domains import Domain
from coral_jax.figures import png, to_pixels
from coral_jax.latents import w_plus_of_seeds
from coral_jax.metrics import LayerShare
from coral_jax.photos.apply import carrying, edited_photograph
from coral_jax.photos.paste import change_of, inside_of
from coral_jax.photos.photo import DESCRIPTION, Photo, check_domain, load_photo
from coral_jax.runtime.errors import nearest
from coral_jax.runtime.files import read_json


@dataclass(frozen=True)
class Seed:
    """A generated face."""

    seed: int
    truncation: float


@dataclass(frozen=True)
class Pictured:
    """A photograph's face: the name of a photo's folder, and what tells it from another one of that name."""

    photo: str
    picture_sha256: str
    codes_sha256: str


Face = Seed | Pictured


@dataclass(frozen=True)
class Sitter:
    """A face's codes w_plus [n_latent, w_dim], and the domain that draws it: of a photo with its own weights."""

    domain: Domain
    w_plus: np.ndarray
    photo: Photo | None = None
    _aligned: dict[int, np.ndarray] = field(default_factory=dict, repr=False, compare=False)  # by size: photographs are large

    def canvas(self, *, preview: bool = False) -> Canvas:
        """The face to draw edits on; a preview as `Canvas` has it."""
        return Canvas(self.domain, self.w_plus, preview=preview)

    def face(self, canvas: Canvas, edits: Sequence[Adjusted]) -> np.ndarray:
        """The face under the edits, uint8 [H, W, 3]: of a photograph the aligned one, with what the edits change."""
        drawn = canvas.draw(edits)
        if self.photo is None:
            return to_pixels(drawn.image)
        aligned = self._aligned_at(len(drawn.image))
        if not edits:
            return aligned
        change = change_of(aligned, to_pixels(canvas.original), to_pixels(drawn.image))
        inside = inside_of(carrying(*_all_layers(canvas, edits, drawn)), len(aligned))
        return np.clip(np.rint(aligned + change * inside[..., None]), 0, 255).astype(np.uint8)

    def picture(self, canvas: Canvas, edits: Sequence[Adjusted]) -> bytes:
        """The picture under the edits as PNG: the whole photograph with its face edited, where there is one."""
        drawn = canvas.draw(edits)
        if self.photo is None:
            return png(drawn.image)
        if not edits:
            return png(Image.fromarray(self.photo.picture))
        aligned = self._aligned_at(len(drawn.image))
        inverted, edited = to_pixels(canvas.original), to_pixels(drawn.image)
        pasted, _ = edited_photograph(self.photo, aligned, inverted, edited, *_all_layers(canvas, edits, drawn))
        return png(Image.fromarray(pasted))

    def _aligned_at(self, size: int) -> np.ndarray:
        if size not in self._aligned:
            self._aligned[size] = self.photo.aligned(size)
        return self._aligned[size]


def sitter_of(face: Face, domain: Domain, photos: Path) -> Sitter:
    """Who a recipe's face is; photos: the folder of photos' folders.

    ValueError for a photo that is not there, and for one that is another picture or was inverted again.
    """
    if isinstance(face, Seed):
        return Sitter(domain, w_plus_of_seeds(domain.generator, [face.seed], face.truncation)[0])
    known = photo_folders(photos)
    if face.photo not in known:
        raise ValueError(f"there is no photo {face.photo!r} in {photos}{nearest(face.photo, known)}")
    photo = load_photo(known[face.photo])
    check_domain(photo, domain, known[face.photo])
    if pictured(known[face.photo], domain.name) != face:
        raise ValueError(
            f"the photo {face.photo!r} in {photos} is not the one of the recipe: it is another picture, or was made again; "
            "pick it in the studio and save the recipe again"
        )
    return Sitter(dataclasses.replace(domain, generator=photo.generator(domain.generator)), photo.w_plus, photo)


def pictured(folder: Path, domain: str) -> Pictured | None:
    """What a recipe says of the photo in a folder; None for one of another domain, and for one that is not inverted yet."""
    try:
        said = read_json(folder / DESCRIPTION, "make it again")
        picture, codes = said["picture_sha256"], said["codes_sha256"]
        return Pictured(folder.name, picture, codes) if codes and said["domain"] == domain else None
    except (ValueError, KeyError, OSError):
        return None


def photo_folders(photos: Path) -> dict[str, Path]:
    """The folders of photos in a folder, by name: a name is looked up among them, and is no path.

    Those whose names begin with "." are not whole.
    """
    root = photos.resolve()
    found = [path.parent for path in sorted(photos.glob(f"[!.]*/{DESCRIPTION}")) if path.resolve().is_relative_to(root)]
    return {folder.name: folder for folder in found}


def _all_layers(canvas: Canvas, edits: Sequence[Adjusted], drawn: Drawn) -> tuple[list[np.ndarray], list[LayerShare]]:
    """The masks of all edits, and what each does."""
    masks = [mask for of_one in drawn.masks for mask in of_one]
    shares = [canvas.shares(one, of_one) for one, of_one in zip(edits, drawn.masks, strict=True)]
    return masks, [share for of_one in shares for share in of_one]
