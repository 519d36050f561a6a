"""Applying a learned edit to faces, a batch at a time, and the images that this writes."""

import sys
from pathlib import Path

import jax
import numpy as np

from coral_jax.artifact import BATCH, Edit
from coral_jax.config import check_tau
from coral_jax.figures import alpha_sheet, png
from coral_jax.runtime.files import write_bytes
from coral_jax.runtime.progress import Progress

ALPHA_LIMIT = 1.5  # the paper's range (section 4.1)
SHEET_FACES = 32  # the first ones, on sheet.png


def check_alphas(texts: list[str]) -> list[float]:
    """["-1", "0.5"] -> [-1.0, 0.5]; ValueError for what is no number, and outside [-1.5, 1.5]."""
    alphas = []
    for text in texts:
        try:
            alpha = float(text)
        except ValueError:
            alpha = np.nan
        if not -ALPHA_LIMIT <= alpha <= ALPHA_LIMIT:
            raise ValueError(f"alpha is {text!r}; give numbers from -1.5 to 1.5, such as --alpha=-1,0,1")
        if alpha not in alphas:
            alphas.append(alpha)
    return alphas


def apply_to_faces(edit: Edit, w_plus: np.ndarray, names: list[str], alphas: list[float], tau: float | None, out: Path) -> None:
    """Draw faces w_plus [N, n_latent, w_dim] at every alpha into `out`: images, masks/ of every layer, sheet.png.

    Images are written as they are drawn, so that memory does not grow with the number of faces; the sheet shows the first 32.
    """
    tau = edit.tau if tau is None else check_tau(tau)
    progress = Progress(f"{edit.prompt}, faces", 0, len(names))
    shown, areas = [], []
    for start in range(0, len(names), BATCH):
        drawn = edit.apply_each(w_plus[start : start + BATCH], alphas, tau)
        _write_faces(edit, names[start : start + BATCH], alphas, *drawn, out)
        areas.append([mask.sum(axis=0).mean() for mask in drawn[2]])
        if start < SHEET_FACES:
            shown.append(drawn)
        if len(names) > BATCH:
            progress.show(min(start + BATCH, len(names)), {})
    shares = edit.shares(w_plus, np.sum(areas, axis=0) / len(names))
    original, edited, masks = jax.tree.map(lambda *parts: np.concatenate(parts), *shown)
    subtitle = f"{edit.settings.method} on {edit.domain.name}" + (f", tau {tau:g}" if masks else "")
    drawn = dict(zip(alphas, edited, strict=True))
    sheet = alpha_sheet(edit.prompt, subtitle, names[:SHEET_FACES], original, drawn, masks, shares)
    write_bytes(out / "sheet.png", png(sheet))
    print(f"{len(names)} faces, {len(alphas)} alpha value(s); {out / 'sheet.png'} shows them", file=sys.stderr)


def _write_faces(
    edit: Edit,
    names: list[str],
    alphas: list[float],
    original: np.ndarray,
    edited: list[np.ndarray],
    masks: list[np.ndarray],
    out: Path,
) -> None:
    """The images and masks of a batch of faces."""
    height, size = original.shape[1:3]
    cut = (size - height) // 2  # rows of each bar that the images come without
    for index, name in enumerate(names):
        stem = name.replace(" ", "_")
        write_bytes(out / f"{stem}_original.png", png(original[index]))
        for alpha, images in zip(alphas, edited, strict=True):
            write_bytes(out / f"{stem}_alpha_{alpha:+g}.png", png(images[index]))
        for layer, mask in zip(edit.masked_layers, masks, strict=True):  # at the image's size, each value a square
            repeated = mask[index].repeat(size // mask.shape[1], axis=0).repeat(size // mask.shape[2], axis=1)
            write_bytes(out / "masks" / f"{stem}_layer_{layer:02d}.png", png(repeated[cut : size - cut]))
