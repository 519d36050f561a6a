"""The table of an evaluation: what its columns are, and table.json, table.csv and table.md."""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from coral_jax.runtime.files import write_bytes, write_json

_ABOUT = ("method", "prompt", "trainings", "seed")  # what a row is of, in the order of the table


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
    """One object a record: method, prompt, trainings or seed where known, and metrics by name, each {value, low, high}."""
    return [{name: record[name] for name in _ABOUT if name in record} | record["metrics"] for record in records]


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


def trainings_of(rows: list[dict]) -> int:
    """How many trainings the rows have at most."""
    return max((row.get("trainings", 1) for row in rows), default=1)


def uncertainty(rows: list[dict]) -> str:
    """What the intervals are, in words."""
    several = trainings_of(rows)
    return f"resampling faces and up to {several} trainings" if several > 1 else "resampling faces"


def markdown(rows: list[dict]) -> str:
    """The table, below it every method's means and what the columns mean."""
    meanings = "\n".join(f"- {column.title}: {column.meaning}" for column in columns_of(rows).values())
    several = ("trainings",) if trainings_of(rows) > 1 else ()
    table = _lines([*rows, *means_of(rows)], several)
    return f"{table}\n\nIn brackets: 95 % intervals, from {uncertainty(rows)}.\n\n{meanings}\n"


def _lines(rows: list[dict], about: tuple[str, ...]) -> str:
    """Rows as a table with columns for method, prompt, `about` and the metrics."""
    columns = columns_of(rows)
    titles = ["method", "prompt", *about, *(column.title for column in columns.values())]
    lines = [titles, ["---"] * len(titles)]
    for row in rows:
        texts = [cell_text(row.get(name), column) for name, column in columns.items()]
        lines.append([row["method"], row["prompt"], *(str(row.get(name, "")) for name in about), *texts])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def comma_separated(rows: list[dict]) -> str:
    """The table with a column each for a metric and the ends of its interval."""
    about = [name for name in _ABOUT if any(name in row for row in rows)]
    names = [f"{name}{end}" for name in columns_of(rows) for end in ("", "_low", "_high")]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, [*about, *names], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        flat = {name: row.get(name) for name in about}
        for name in columns_of(rows):
            cell = row.get(name, {})
            flat |= {name: cell.get("value"), f"{name}_low": cell.get("low"), f"{name}_high": cell.get("high")}
        writer.writerow(flat)
    return buffer.getvalue()


def write_tables(out: Path, records: list[dict], about: dict, of_each: Sequence[dict] = ()) -> None:
    """Write table.json (`rows`, `means`, what the metrics are, and `about`), table.csv and table.md into a folder.

    `of_each`: the records of every training, with its `seed`; they become trainings.csv, and a second table of table.md.
    """
    rows, seeds = rows_of(records), rows_of(of_each)
    meanings = {name: column.meaning for name, column in columns_of(rows).items()}
    write_json(out / "table.json", {**about, "metrics": meanings, "rows": rows, "means": means_of(rows)})
    write_bytes(out / "table.csv", comma_separated(rows).encode())
    text = markdown(rows)
    (out / "trainings.csv").unlink(missing_ok=True)  # of an evaluation with several seeds, in the same folder
    if seeds:
        write_bytes(out / "trainings.csv", comma_separated(seeds).encode())
        text += f"\nEach training, with intervals from resampling faces:\n\n{_lines(seeds, ('seed',))}\n"
    write_bytes(out / "table.md", text.encode())
