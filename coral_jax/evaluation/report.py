"""report.html: one page that holds everything an evaluation shows."""

import base64
import json
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from coral_jax.evaluation import charts
from coral_jax.evaluation.judge import smoothed
from coral_jax.evaluation.plan import cell_folder
from coral_jax.evaluation.sheets import by_prompt, tiles_of, write_sheets
from coral_jax.evaluation.tables import Column, cell_text, columns_of, means_of
from coral_jax.figures import png
from coral_jax.logs import read_metrics
from coral_jax.runtime.files import write_bytes

_STYLE = """
body{font:15px/1.5 sans-serif;color:#1c1e24;max-width:1240px;margin:32px auto;padding:0 20px}
h1{font-size:28px;margin-bottom:4px} h2{margin-top:44px;font-size:20px} .faint{color:#7a7e88}
table{border-collapse:collapse;font-size:13px;font-variant-numeric:tabular-nums} .wide{overflow-x:auto}
th,td{padding:5px 9px;text-align:right;border-bottom:1px solid #e0e2e8;white-space:nowrap} th{vertical-align:bottom}
th:first-child,td:first-child,th:nth-child(2),td:nth-child(2){text-align:left} td small{color:#7a7e88} td.best{font-weight:700}
tr.mean td{background:#f5f6f9} .row{display:flex;flex-wrap:wrap;gap:18px} img{max-width:100%} svg{max-width:100%;height:auto}
.key{margin-right:16px;white-space:nowrap}
.key i{display:inline-block;width:11px;height:11px;border-radius:50%;margin-right:6px}
.strip{display:flex;align-items:center;gap:12px;margin:3px 0} .strip span{width:220px;text-align:right;font-size:13px}
"""


def write_report(out: Path) -> Path:
    """Write report.html of the evaluation in a folder, and its sheets; ValueError where there is none."""
    path = out / "table.json"
    if not path.is_file():
        raise ValueError(f"{out} holds no evaluation; give the --out of one, or --prompts and --methods to make one")
    table = json.loads(path.read_text(encoding="utf-8"))
    rows = table["rows"]
    methods = list(dict.fromkeys(row["method"] for row in rows))
    about = f"{table['domain']}, {table['num_images']} faces, 95 % intervals from resampling them"
    sheets = write_sheets(out, rows, table["domain"])
    parts = [
        f"<h1>{len(methods)} methods, {len(sheets)} prompts</h1><p class='faint'>{escape(about)}</p>",
        "<h2>Table</h2>" + _table(rows),
        _trade_off(rows, methods),
        _loss_curves(out, rows, methods),
        _layers(out, rows, methods),
        "<h2>Faces</h2>" + "".join(_image(sheet.read_bytes(), sheet.stem) for sheet in sheets),
    ]
    page = (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"/><title>coral_jax evaluation</title>'
        f"<style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>"
    )
    write_bytes(out / "report.html", page.encode())
    return out / "report.html"


def _table(rows: list[dict]) -> str:
    """The table with the best value of each prompt in bold, then the means."""
    columns = columns_of(rows)
    head = "".join(f"<th title='{escape(column.meaning)}'>{escape(column.title)}</th>" for column in columns.values())
    body = []
    for kind, some in (("", rows), ("mean", means_of(rows))):
        for row in some:
            rivals = [other for other in some if kind == "mean" or other["prompt"] == row["prompt"]]
            cells = "".join(_cell(name, column, row, rivals) for name, column in columns.items())
            body.append(f"<tr class='{kind}'><td>{escape(row['method'])}</td><td>{escape(row['prompt'])}</td>{cells}</tr>")
    meanings = "".join(f"<li><b>{escape(c.title)}</b> {escape(c.meaning)}</li>" for c in columns.values())
    return (
        f"<div class='wide'><table><tr><th>method</th><th>prompt</th>{head}</tr>{''.join(body)}</table></div>"
        f"<details><summary>What the columns are</summary><ul>{meanings}</ul></details>"
    )


def _cell(name: str, column: Column, row: dict, rivals: list[dict]) -> str:
    value, _, interval = cell_text(row.get(name), column).partition(" ")
    values = [rival[name]["value"] for rival in rivals if name in rival]
    best = {"up": max, "down": min, "none": None}[column.better]
    first = len(values) > 1 and best is not None and name in row and row[name]["value"] == best(values)
    return f"<td class='{'best' if first else ''}'>{value}<br/><small>{interval}</small></td>"


def _trade_off(rows: list[dict], methods: list[str]) -> str:
    """Success against leak; CLIP gain against pixels changed where no truth is known."""
    known = [row for row in rows if "success" in row and "leak" in row]
    x, y, shown = ("leak", "success", known) if known else ("changed", "clip_gain", rows)
    columns = columns_of(rows)
    prompts = list(by_prompt(shown))
    points = []
    for row in shown:
        ends = {name: (row[name]["value"], row[name]["low"], row[name]["high"]) for name in (x, y)}
        points.append(charts.Point(row["method"], str(prompts.index(row["prompt"]) + 1), ends[x], ends[y]))
    chart = charts.scatter("trade-off", points, methods, (columns[x].title, columns[y].title))
    numbers = "; ".join(f"{index} {prompt}" for index, prompt in enumerate(prompts, start=1))
    heading = f"<h2>{columns[y].title} against {columns[x].title}</h2>"
    return f"{heading}{_legend(methods)}{chart}<p class='faint'>{escape(numbers)}</p>"


def _loss_curves(out: Path, rows: list[dict], methods: list[str]) -> str:
    """CLIP's distance of edited image and prompt over seconds of training, a chart a prompt; dots: quality is reached."""
    parts = []
    for prompt, own in by_prompt(rows).items():
        curves = []
        for method in own:
            seconds, loss = smoothed(read_metrics(cell_folder(out, method, prompt) / "metrics.jsonl"))
            row = next(row for row in rows if (row["method"], row["prompt"]) == (method, prompt))
            reached = row["seconds_to_quality"]["value"] if "seconds_to_quality" in row else None
            mark = None if reached is None else (reached, float(np.interp(reached, seconds, loss)))
            if len(loss):
                curves.append(charts.Line(method, list(seconds), list(loss), mark))
        if curves:
            chart = charts.lines(f"loss-{len(parts)}", curves, methods, ("seconds of training", "1 - CLIP similarity"))
            parts.append(f"<div><h3>{escape(prompt)}</h3>{chart}</div>")
    note = "Running means; a dot is where 95 % of the final gain is reached. Compiling is not counted."
    return f"<h2>Loss curves</h2>{_legend(methods)}<div class='row'>{''.join(parts)}</div><p class='faint'>{note}</p>"


def _layers(out: Path, rows: list[dict], methods: list[str]) -> str:
    """How much of the image each layer's mask covers, and these masks on the first face."""
    parts = []
    for prompt, own in by_prompt(rows).items():
        records = {method: _record(out, method, prompt) for method in own}
        shares = {method: record["layers"] for method, record in records.items() if record["layers"]}
        if not shares:
            continue
        sizes = {layer["layer"]: layer["resolution"] for layers in shares.values() for layer in layers}
        names = [f"{number}\n{sizes[number]}px" for number in sorted(sizes)]
        areas = {}
        for method, layers in shares.items():  # a method that blends once has a mask in one of the layers only
            own = {layer["layer"]: layer["area"] for layer in layers}
            areas[method] = [own.get(number, 0.0) for number in sorted(sizes)]
        chart = charts.shaded_table(f"masks-{len(parts)}", areas, names, methods)
        parts.append(f"<h3>{escape(prompt)}: share of the image that each layer's mask covers</h3>{chart}")
        for method in shares:
            strip = np.concatenate(list(tiles_of(out, method, prompt)["layers"]), axis=1)
            image = _image(png(Image.fromarray(strip)), f"masks of {method}")
            parts.append(f"<div class='strip'><span>{escape(method)}</span>{image}</div>")
    note = (
        "Columns: layer and its pixels a side. Below each table: the masks on one face, coarse layers on the left; grey "
        "ones do not carry the edit."
    )
    return f"<h2>Masks per layer</h2><p class='faint'>{note}</p>{''.join(parts)}" if parts else ""


def _legend(methods: list[str]) -> str:
    """Colours and names of the methods."""
    keys = (f'<span class="key"><i style="background:{charts.colour_of(m, methods)}"></i>{escape(m)}</span>' for m in methods)
    return f'<p class="legend">{"".join(keys)}</p>'


def _record(out: Path, method: str, prompt: str) -> dict:
    return json.loads((cell_folder(out, method, prompt) / "evaluation.json").read_text(encoding="utf-8"))


def _image(content: bytes, name: str) -> str:
    return f'<img alt="{escape(name)}" src="data:image/png;base64,{base64.b64encode(content).decode()}"/>'
