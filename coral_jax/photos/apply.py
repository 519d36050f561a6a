"""Learned edits applied to a photograph: the images that this writes."""

import sys
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from coral_jax.artifact import Edit
from coral_jax.composition import Composition, Strength
from coral_jax.config import check_tau
from coral_jax.figures import alpha_text, overlay, photo_sheet, png, to_pixels
from coral_jax.gallery import subtitle_of, write_masks
from coral_jax.metrics import LayerShare
from coral_jax.photos.paste import change_of, inside_of, paste
from coral_jax.photos.photo import Photo, check_domain, load_photo
from coral_jax.runtime.files import write_bytes


def apply_to_photo(
    edit: Edit | Composition, folder: str | Path, alphas: list[float] | list[Strength], tau: float | None, out: Path
) -> None:
    """Draw the edit of the photo in `folder` at every alpha, and write into `out`:

    NAME_alpha_+1.png, the photograph with it; crop_alpha_+1.png, the edited face; aligned.png and inverted.png, the face
    before and what was edited; where.png, where the photograph changed; masks/ of every layer; sheet.png.
    """
    tau = edit.tau if tau is None else check_tau(tau)
    photo = load_photo(folder)
    check_domain(photo, edit.domain, folder)
    edit = edit.drawn_by(photo.generator(edit.domain.generator))
    aligned, out = photo.aligned(edit.domain.generator.size), Path(out)
    faces, photographs = {}, {}
    for alpha in alphas:
        inverted, edited, masks = jax.device_get(edit.draw(photo.w_plus[None], alpha, tau))
        inverted, masks = to_pixels(inverted[0]), [mask[0] for mask in masks]
        shares = edit.shares(photo.w_plus[None], [mask.mean() for mask in masks])
        face = to_pixels(edited[0])
        pasted, where = edited_photograph(photo, aligned, inverted, face, masks, shares)
        name = alpha_text(alpha)
        _write(out / f"{photo.name}_alpha_{name}.png", pasted)
        _write(out / f"crop_alpha_{name}.png", face)
        faces[f"alpha {name}"], photographs[f"alpha {name}"] = face, pasted
    _write(out / "aligned.png", aligned)
    _write(out / "inverted.png", inverted)
    _write(out / "where.png", where)
    write_masks(edit.masked_layers, masks, len(aligned), 0, out / "masks" / photo.name)
    rows = [{"aligned": aligned, "inverted": inverted, **faces}, {"photograph": photo.picture, **photographs}]
    if masks:
        rows[0]["where"] = np.asarray(overlay(aligned / np.float32(127.5) - 1, masks, shares))
    _write(out / "sheet.png", photo_sheet(edit.prompt, subtitle_of(edit, tau), rows))
    print(f"{photo.name}: {len(alphas)} alpha value(s); {out / 'sheet.png'} shows them", file=sys.stderr)


def edited_photograph(
    photo: Photo,
    aligned: np.ndarray,
    inverted: np.ndarray,
    edited: np.ndarray,
    masks: list[np.ndarray],
    shares: list[LayerShare],
) -> tuple[np.ndarray, np.ndarray]:
    """The photograph with the edit, and where it changed, from the face, its inversion and that one's edit, uint8 [S, S, 3].

    Masks of layers that do not matter leave no trace, and do not count; without masks the whole crop is pasted.
    """
    inside = inside_of(carrying(masks, shares), len(aligned))
    return paste(photo.picture, photo.square, change_of(aligned, inverted, edited), inside)


def carrying(masks: list[np.ndarray], shares: list[LayerShare]) -> list[np.ndarray] | None:
    """The masks of layers that matter; None where there are no masks, and the whole face is edited."""
    return [mask for mask, share in zip(masks, shares, strict=True) if share.matters] if masks else None


def _write(path: Path, image: np.ndarray | Image.Image) -> None:
    write_bytes(path, png(Image.fromarray(image) if isinstance(image, np.ndarray) else image))
