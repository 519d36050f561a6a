"""What the Compare tab shows: evaluations in the runs folder, their tables and sheets."""

import json
from pathlib import Path

from coral_jax.evaluation.plan import cell_folder
from coral_jax.evaluation.sheets import sheet_of
from coral_jax.evaluation.tables import cell_text, columns_of, is_best, means_of
from coral_jax.figures import png
from coral_jax.runtime.files import read_json
from coral_jax.shelf import EVALUATIONS


def evaluations(runs: Path) -> dict[str, Path]:
    """The folders with an evaluation's table.json, by their name below the runs folder; none outside of it."""
    root = runs.resolve()
    found = [path for depth in range(EVALUATIONS + 1) for path in sorted(runs.glob("*/" * depth + "table.json"))]
    inside = [path.parent for path in found if path.resolve().is_relative_to(root)]
    return {folder.relative_to(runs).as_posix(): folder for folder in inside}


def about(runs: Path) -> list[dict]:
    """Of each evaluation its name, domain, methods and prompts."""
    return [
        {"name": name, "domain": content["domain"], "methods": _names(content["rows"], "method"),
         "prompts": _names(content["rows"], "prompt")}
        for name, folder in evaluations(runs).items()
        if (content := _content(folder)) is not None
    ]  # fmt: skip


def table(runs: Path, name: str, methods: list[str], prompts: list[str]) -> dict:
    """The rows of these methods and prompts, then the means over several prompts, as texts; with the edit of each row.

    ValueError for an evaluation that is not there.
    """
    folder, content = _find(runs, name)
    rows = [row for row in content["rows"] if row["method"] in methods and row["prompt"] in prompts]
    means = means_of(rows)
    columns = columns_of(rows)
    titles = [{"title": column.title, "meaning": column.meaning} for column in columns.values()]
    lines = []
    for row in [*rows, *means]:
        mean = row in means
        rivals = means if mean else [other for other in rows if other["prompt"] == row["prompt"]]
        cells = [{"text": cell_text(row.get(name), column), "best": is_best(name, column, row, rivals)}
                 for name, column in columns.items()]  # fmt: skip
        run = None if mean else cell_folder(folder, row["method"], row["prompt"]).relative_to(runs).as_posix()
        lines.append({"method": row["method"], "prompt": row["prompt"], "edit": run, "cells": cells})
    return {"columns": titles, "rows": lines, "prompts": _names(rows, "prompt")}


def sheet(runs: Path, name: str, methods: list[str], prompt: str) -> bytes:
    """The sheet of a prompt under these methods as PNG; ValueError for what was not evaluated."""
    folder, content = _find(runs, name)
    own = [row["method"] for row in content["rows"] if row["prompt"] == prompt and row["method"] in methods]
    if not own:
        raise ValueError(f"the evaluation {name!r} has no {prompt!r} of these methods; pick others")
    return png(sheet_of(folder, prompt, own, content["domain"]))


def _find(runs: Path, name: str) -> tuple[Path, dict]:
    folder = evaluations(runs).get(name)
    content = None if folder is None else _content(folder)
    if content is None:
        raise ValueError(f"there is no evaluation {name!r} in {runs}; make one with python -m coral_jax.evaluate")
    return folder, content


def _content(folder: Path) -> dict | None:
    """An evaluation's table.json; None for one that is none."""
    try:
        content = read_json(folder / "table.json", "evaluate again")
        json.dumps([(row["method"], row["prompt"]) for row in content["rows"]] + [content["domain"]])
        return content
    except (ValueError, KeyError, TypeError, OSError):
        return None


def _names(rows: list[dict], field: str) -> list[str]:
    return list(dict.fromkeys(row[field] for row in rows))
