"""The table of an evaluation: what its columns are, and table.json, table.csv and table.md."""

import csv
import io
import math
from pathlib import Path
from typing import NamedTuple

from coral_jax.runtime.files import write_bytes, write_json


class Column(NamedTuple):
    """A metric: heading, format of its numbers, which way is better (up, down or none), and what it is."""

    title: str
    form: str
    better: str
    meaning: str


_SETS = {
    "fid": ("FID", "Clean-FID: Frechet distance of Inception features"),
    "clip_fd": ("CLIP-FD", "Frechet distance of CLIP features (no FID: no Inception weights were there)"),
    "kid": ("KID", "KID: kernel distance of Inception features, of edited and unedited ones without a face's own pair"),
    "clip_kd": ("CLIP-KD", "kernel distance of CLIP features (no KID: no Inception weights were there)"),
}

COLUMNS = {
    "success": Column("success", ".2f", "up", "share of faces that the classifier gives all attributes asked for"),
    "leak": Column("leak", ".2f", "down", "share of the absolute pixel change outside the region that the prompt is about"),
    "drift": Column("drift", ".2f", "down", "share of the other attributes that changed"),
    "distance": Column("distance", ".2f", "down", "absolute difference from the ideal change, relative to it: 1 is no edit"),
    "clip_gain": Column("CLIP gain", ".3f", "up", "by how much the cosine of image and prompt rises"),
    "identity": Column("identity", ".2f", "up", "cosine of the identity embeddings before and after"),
    "recognised": Column("recognised", ".2f", "up", "the same cosine, by a network that no training used"),
    "moved": Column("moved", ".2f", "down", "px at 256 px that landmarks outside the region moved, on average"),
    "outside_truth": Column("outside ideal", ".2g", "down", "perceptual distance made outside the ideal edit's region"),
    "outside_mask": Column("outside mask", ".2g", "down", "perceptual distance made outside the method's own masks"),
    "changed": Column("changed", ".2f", "none", "share of pixels that changed visibly"),
    **{name: Column(title, ".3g", "down", f"{meaning}, edited and unedited faces") for name, (title, meaning) in _SETS.items()},
    **{
        f"{name}_reference": Column(f"{title} to reference", ".3g", "down", f"{meaning}, edited faces and the reference set")
        for name, (title, meaning) in _SETS.items()
    },
    "mean_layer": Column("mean layer", ".1f", "none", "layer number weighted by the area of its mask"),
    "seconds_to_quality": Column("s to quality", ".0f", "down", "seconds of training to 95 % of the gain of CLIP similarity"),
    "seconds": Column("s", ".0f", "down", "seconds of training, without compiling"),
}


def rows_of(records: list[dict]) -> list[dict]:
    """One object a method and prompt: its metrics by name, each {value, low, high}."""
    return [{"method": record["method"], "prompt": record["prompt"], **record["metrics"]} for record in records]


def means_of(rows: list[dict]) -> list[dict]:
    """One row a method with several prompts: the mean over these of the metrics that all of them have.

    Intervals are those of a mean of independent estimates.
    """
    means = []
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        shared = [name for name in COLUMNS if all(name in row for row in own)]
        if len(own) > 1:
            means.append({"method": method, "prompt": f"mean of {len(own)}"} | {name: _mean(name, own) for name in shared})
    return means


def _mean(name: str, rows: list[dict]) -> dict:
    cells = [row[name] for row in rows]
    value = sum(cell["value"] for cell in cells) / len(cells)
    if any(cell["low"] is None for cell in cells):
        return {"value": value, "low": None, "high": None}
    below, above = (math.sqrt(sum((cell[end] - cell["value"]) ** 2 for cell in cells)) / len(cells) for end in ("low", "high"))
    return {"value": value, "low": value - below, "high": value + above}


def columns_of(rows: list[dict]) -> dict[str, Column]:
    """The columns that some row has."""
    return {name: column for name, column in COLUMNS.items() if any(name in row for row in rows)}


def cell_text(cell: dict | None, column: Column) -> str:
    """A number with its interval: "0.98 [0.96, 1.00]"; a dash where there is none."""
    if cell is None:
        return "–"
    value, low, high = (None if number is None else format(number, column.form) for number in cell.values())
    return value if low is None else f"{value} [{low}, {high}]"


def is_best(name: str, column: Column, row: dict, rivals: list[dict]) -> bool:
    """Whether no rival (the row is one of them) has a better value of a metric; False where it is alone."""
    values = [rival[name]["value"] for rival in rivals if name in rival]
    best = {"up": max, "down": min, "none": None}[column.better]
    return len(values) > 1 and best is not None and name in row and row[name]["value"] == best(values)


def markdown(rows: list[dict]) -> str:
    """The table, and below it every method's means."""
    columns = columns_of(rows)
    titles = ["method", "prompt", *(column.title for column in columns.values())]
    lines = [titles, ["---"] * len(titles)]
    for row in [*rows, *means_of(rows)]:
        texts = [cell_text(row.get(name), column) for name, column in columns.items()]
        lines.append([row["method"], row["prompt"], *texts])
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    meanings = "\n".join(f"- {column.title}: {column.meaning}" for column in columns.values())
    return f"{table}\n\nIn brackets: 95 % intervals, from resampling faces.\n\n{meanings}\n"


def comma_separated(rows: list[dict]) -> str:
    """The table with a column each for a metric and the ends of its interval."""
    names = [f"{name}{end}" for name in columns_of(rows) for end in ("", "_low", "_high")]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, ["method", "prompt", *names], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        flat = {"method": row["method"], "prompt": row["prompt"]}
        for name in columns_of(rows):
            cell = row.get(name, {})
            flat |= {name: cell.get("value"), f"{name}_low": cell.get("low"), f"{name}_high": cell.get("high")}
        writer.writerow(flat)
    return buffer.getvalue()


def write_tables(out: Path, records: list[dict], about: dict) -> None:
    """Write table.json (`rows`, `means`, what the metrics are, and `about`), table.csv and table.md into a folder."""
    rows = rows_of(records)
    meanings = {name: column.meaning for name, column in columns_of(rows).items()}
    write_json(out / "table.json", {**about, "metrics": meanings, "rows": rows, "means": means_of(rows)})
    write_bytes(out / "table.csv", comma_separated(rows).encode())
    write_bytes(out / "table.md", markdown(rows).encode())
