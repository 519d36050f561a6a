"""Comparison sheets of an evaluation: a row a face, a column a method."""

from pathlib import Path

import numpy as np
from PIL import Image

from coral_jax import weights
from coral_jax.evaluation.plan import cell_folder
from coral_jax.figures import comparison_sheet, png
from coral_jax.runtime.files import file_name, write_bytes


def write_sheets(out: Path, rows: list[dict], domain: str) -> list[Path]:
    """Write sheets/PROMPT.png of every prompt: a row a face, a column a method, masks below."""
    paths = []
    for prompt, methods in by_prompt(rows).items():
        paths.append(out / "sheets" / f"{file_name(prompt)}.png")
        write_bytes(paths[-1], png(sheet_of(out, prompt, methods, domain)))
    return paths


def sheet_of(out: Path, prompt: str, methods: list[str], domain: str) -> Image.Image:
    """The sheet of one prompt under these methods: a row a face, a column a method, masks below."""
    tiles = {method: tiles_of(out, method, prompt) for method in methods}
    original = next(iter(tiles.values()))["original"]
    edited = {method: own["edited"] for method, own in tiles.items()}
    where = {method: own["where"] for method, own in tiles.items() if "where" in own}
    return comparison_sheet(prompt, f"{domain}, a column a method", original, edited, where)


def by_prompt(rows: list[dict]) -> dict[str, list[str]]:
    """The methods that each prompt was measured with."""
    prompts = dict.fromkeys(row["prompt"] for row in rows)
    return {prompt: [row["method"] for row in rows if row["prompt"] == prompt] for prompt in prompts}


def tiles_of(out: Path, method: str, prompt: str) -> dict[str, np.ndarray]:
    """Images of a cell, uint8: original, edited and where [F, t, t, 3]; layers [n, m, m, 3], the first face's masks."""
    return weights.load_tensors(cell_folder(out, method, prompt) / "samples.safetensors")[0]
