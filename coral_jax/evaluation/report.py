"""report.html: one page that holds everything an evaluation shows.  Needs the libraries of the extra `report`.

The page is report.html.jinja; functions here return what its fields hold.
"""

import base64
from pathlib import Path

import jinja2
import numpy as np
from PIL import Image

from coral_jax.evaluation import charts
from coral_jax.evaluation.judge import smoothed
from coral_jax.evaluation.plan import cell_folder
from coral_jax.evaluation.sheets import by_prompt, tiles_of, write_sheets
from coral_jax.evaluation.tables import Column, cell_text, columns_of, is_best, means_of, trainings_of, uncertainty
from coral_jax.figures import png
from coral_jax.runtime.files import read_json, write_bytes
from coral_jax.training.logs import read_metrics

_PAGES = jinja2.Environment(
    loader=jinja2.PackageLoader("coral_jax", "evaluation"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
)


def write_report(out: Path) -> Path:
    """Write report.html of the evaluation in a folder, and its sheets; ValueError where there is none."""
    path = out / "table.json"
    if not path.is_file():
        raise ValueError(f"{out} holds no evaluation; give the --out of one, or --prompts and --methods to make one")
    evaluation = read_json(path, "evaluate again")
    rows = evaluation["rows"]
    methods = list(dict.fromkeys(row["method"] for row in rows))
    sheets = write_sheets(out, rows, evaluation["domain"])
    page = _PAGES.get_template("report.html.jinja").render(
        domain=evaluation["domain"],
        num_images=evaluation["num_images"],
        uncertainty=uncertainty(rows),
        of_first_seed=trainings_of(rows) > 1,
        methods=[{"name": method, "colour": charts.colour_of(method, methods)} for method in methods],
        columns=list(columns_of(rows).values()),
        table=_table(rows),
        trade_off=_trade_off(rows, methods),
        losses=_losses(out, rows, methods),
        masks=_masks(out, rows, methods),
        sheets=[
            {"prompt": prompt, "image": _source(sheet.read_bytes())}
            for prompt, sheet in zip(by_prompt(rows), sheets, strict=True)
        ],
    )
    write_bytes(out / "report.html", page.encode())
    return out / "report.html"


def _table(rows: list[dict]) -> list[dict]:
    """The rows, each compared with those of its prompt, then the means, compared with each other."""
    columns = columns_of(rows)
    means = means_of(rows)
    compared = [(row, [other for other in rows if other["prompt"] == row["prompt"]]) for row in rows]
    compared += [(row, means) for row in means]
    return [
        {
            "method": row["method"],
            "prompt": row["prompt"],
            "mean": index >= len(rows),
            "cells": [_cell(name, column, row, rivals) for name, column in columns.items()],
        }
        for index, (row, rivals) in enumerate(compared)
    ]


def _cell(name: str, column: Column, row: dict, rivals: list[dict]) -> dict:
    """Texts of a metric's value and interval, and whether no rival (the row is one of them) has a better value."""
    value, _, interval = cell_text(row.get(name), column).partition(" ")
    return {"value": value, "interval": interval, "best": is_best(name, column, row, rivals)}


def _trade_off(rows: list[dict], methods: list[str]) -> dict:
    """Success against leak; CLIP gain against pixels changed where no truth is known."""
    known = [row for row in rows if "success" in row and "leak" in row]
    x, y, shown = ("leak", "success", known) if known else ("changed", "clip_gain", rows)
    titles = tuple(columns_of(rows)[name].title for name in (x, y))
    prompts = list(by_prompt(shown))
    points = []
    for row in shown:
        ends = {name: (row[name]["value"], row[name]["low"], row[name]["high"]) for name in (x, y)}
        points.append(charts.Point(row["method"], str(prompts.index(row["prompt"]) + 1), ends[x], ends[y]))
    chart = charts.scatter("trade-off", points, methods, titles)
    return {"x": titles[0], "y": titles[1], "prompts": prompts, "chart": chart}


def _losses(out: Path, rows: list[dict], methods: list[str]) -> list[dict]:
    """CLIP's distance of edited image and prompt over seconds of training, a chart a prompt; dots: quality is reached."""
    found = []
    for prompt, own in by_prompt(rows).items():
        curves = []
        for method in own:
            seconds, loss = smoothed(read_metrics(cell_folder(out, method, prompt) / "metrics.jsonl"))
            reached = _record(out, method, prompt)["metrics"].get("seconds_to_quality", {}).get("value")
            mark = None if reached is None else (reached, float(np.interp(reached, seconds, loss)))
            if len(loss):
                curves.append(charts.Line(method, seconds, loss, mark))
        if curves:
            chart = charts.lines(f"loss-{len(found)}", curves, methods, ("seconds of training", "1 - CLIP similarity"))
            found.append({"prompt": prompt, "chart": chart})
    return found


def _masks(out: Path, rows: list[dict], methods: list[str]) -> list[dict]:
    """How much of the image each layer's mask covers, and these masks on the first face."""
    found = []
    for prompt, own in by_prompt(rows).items():
        records = {method: _record(out, method, prompt) for method in own}
        shares = {method: record["layers"] for method, record in records.items() if record["layers"]}
        if not shares:
            continue
        sizes = {layer["layer"]: layer["resolution"] for layers in shares.values() for layer in layers}
        areas = {}
        for method, layers in shares.items():  # a method that blends once has a mask in one of the layers only
            covered = {layer["layer"]: layer["area"] for layer in layers}
            areas[method] = [covered.get(number, 0.0) for number in sorted(sizes)]
        columns = [f"{number}\n{sizes[number]}px" for number in sorted(sizes)]
        chart = charts.shaded_table(f"masks-{len(found)}", areas, columns, methods)
        strips = [{"method": method, "image": _strip(out, method, prompt)} for method in shares]
        found.append({"prompt": prompt, "chart": chart, "strips": strips})
    return found


def _strip(out: Path, method: str, prompt: str) -> str:
    """The masks of a cell's layers on the first face, next to each other."""
    return _source(png(Image.fromarray(np.concatenate(list(tiles_of(out, method, prompt)["layers"]), axis=1))))


def _record(out: Path, method: str, prompt: str) -> dict:
    return read_json(cell_folder(out, method, prompt) / "evaluation.json", "evaluate again")


def _source(content: bytes) -> str:
    """A PNG file's content as the source of an image in the page."""
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"
