"""Applying a learned edit to faces, and the images that this writes."""

import sys
from pathlib import Path

import numpy as np

from coral_jax.artifact import Edit, write_bytes
from coral_jax.config import check_tau
from coral_jax.figures import alpha_sheet, png
from coral_jax.outputs import shares_of

ALPHA_LIMIT = 1.5  # the paper's range (section 4.1)


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
    """Draw faces w_plus [N, n_latent, w_dim] at every alpha into `out`: images, masks/ of every layer, sheet.png."""
    tau = edit.tau if tau is None else check_tau(tau)
    original, edited, masks = edit.apply_each(w_plus, alphas, tau)
    drawn = dict(zip(alphas, edited, strict=True))
    height, size = original.shape[1:3]
    cut = (size - height) // 2  # rows of each bar that the images come without
    for index, name in enumerate(names):
        stem = name.replace(" ", "_")
        write_bytes(out / f"{stem}_original.png", png(original[index]))
        for alpha, images in drawn.items():
            write_bytes(out / f"{stem}_alpha_{alpha:+g}.png", png(images[index]))
        for layer, mask in zip(edit.masked_layers, masks, strict=True):  # at the image's size, each value a square
            repeated = mask[index].repeat(size // mask.shape[1], axis=0).repeat(size // mask.shape[2], axis=1)
            write_bytes(out / "masks" / f"{stem}_layer_{layer:02d}.png", png(repeated[cut : size - cut]))
    subtitle = f"{edit.settings.method} on {edit.domain.name}" + (f", tau {tau:g}" if masks else "")
    shares = shares_of(edit, w_plus, masks)
    write_bytes(out / "sheet.png", png(alpha_sheet(edit.prompt, subtitle, names, original, drawn, masks, shares)))
    print(f"{len(names)} faces, {len(alphas)} alpha value(s); {out / 'sheet.png'} shows them", file=sys.stderr)
