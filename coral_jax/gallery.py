"""Applying a learned edit to faces, a batch at a time, and the images that this writes."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np

from coral_jax.artifact import BATCH, Edit
from coral_jax.composition import Composition, Strength
from coral_jax.config import check_alphas, check_tau
from coral_jax.figures import alpha_sheet, alpha_text, png
from coral_jax.runtime.files import write_bytes
from coral_jax.runtime.progress import Progress

SHEET_FACES = 32  # the first ones, on sheet.png


def strengths_of(texts: list[str], edits: int) -> list[float] | list[Strength]:
    """What --alpha says: of one edit, every strength to draw; of several, one strength for each, or the same for all.

    ValueError for other numbers of them.
    """
    alphas = check_alphas(texts)
    if edits == 1:
        return list(dict.fromkeys(alphas))
    if len(alphas) not in (1, edits):
        raise ValueError(f"--alpha has {len(alphas)} numbers for {edits} edits; give one for each, such as --alpha=1,0.5")
    return [tuple(alphas * edits if len(alphas) == 1 else alphas)]


def undoing(edits: list[Edit], alphas: list[float] | list[Strength]) -> list[Edit]:
    """What --undo makes of the edits; ValueError where it would do nothing, and for several, which share a pass."""
    if len(edits) != 1:
        raise ValueError(f"--undo takes back one edit, and here are {len(edits)}; give one --edit")
    if not any(alpha < 0 for alpha in alphas):
        raise ValueError("--undo changes what negative alphas do, and there are none; give one, such as --alpha=-1")
    if not edits[0].method.editor.reads_face:
        raise ValueError(f"{edits[0].method.name} has no mapper, whose view of a face --undo corrects; leave --undo out")
    return [replace(edits[0], undo=True)]


def apply_to_faces(
    edit: Edit | Composition,
    w_plus: np.ndarray,
    names: list[str],
    alphas: list[float] | list[Strength],
    tau: float | None,
    out: Path,
) -> None:
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
    subtitle = subtitle_of(edit, tau)
    drawn = dict(zip(alphas, edited, strict=True))
    sheet = alpha_sheet(edit.prompt, subtitle, names[:SHEET_FACES], original, drawn, masks, shares)
    write_bytes(out / "sheet.png", png(sheet))
    print(f"{len(names)} faces, {len(alphas)} alpha value(s); {out / 'sheet.png'} shows them", file=sys.stderr)


def subtitle_of(edit: Edit | Composition, tau: float | None) -> str:
    """What a sheet says below its title."""
    return edit.about + (f", tau {tau:g}" if edit.masked_layers and tau is not None else "")


def write_masks(layers: Sequence[int], masks: Sequence[np.ndarray], size: int, cut: int, stem: Path) -> None:
    """One file a layer of a face's masks [h, h], at size x size, each value a square, without `cut` rows above and below."""
    for layer, mask in zip(layers, masks, strict=True):
        repeated = mask.repeat(size // mask.shape[0], axis=0).repeat(size // mask.shape[1], axis=1)
        write_bytes(stem.with_name(f"{stem.name}_layer_{layer:02d}.png"), png(repeated[cut : size - cut]))


def _write_faces(
    edit: Edit | Composition,
    names: list[str],
    alphas: list[float] | list[Strength],
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
            write_bytes(out / f"{stem}_alpha_{alpha_text(alpha)}.png", png(images[index]))
        write_masks(edit.masked_layers, [mask[index] for mask in masks], size, cut, out / "masks" / stem)
