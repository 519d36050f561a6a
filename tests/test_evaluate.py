"""Comparing methods: cells, what is measured and when again, tables, sheets, the report."""

import csv
import dataclasses
import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
from conftest import REPOSITORY, quick_compile
from PIL import Image

from coral_jax.evaluation import charts, suites
from coral_jax.evaluation.features import embedder
from coral_jax.evaluation.judge import Judge, training_time
from coral_jax.evaluation.plan import plan
from coral_jax.evaluation.report import write_report
from coral_jax.evaluation.suites import SUITES, compare
from coral_jax.evaluation.tables import columns_of, means_of, write_tables
from coral_jax.runtime.errors import NonFiniteError

METHODS = ["segment_global", "attention_global:steps=3;lambda_area=0"]
PROMPTS = ["surprised", "blue eyes"]
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def evaluated(weights_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluation")
    with quick_compile():
        rows = compare(out, METHODS, PROMPTS, "tiny", num_images=10, weights_dir=str(weights_dir), report=True)
    return SimpleNamespace(out=out, rows=rows, table=json.loads((out / "table.json").read_text()))


def command(*arguments):
    """Run the command line: its flags would clash with those of other commands in one process."""
    command = [sys.executable, "-m", "coral_jax.evaluate", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)


def test_the_table_has_a_row_a_method_and_prompt_with_intervals(evaluated):
    rows = evaluated.table["rows"]
    assert [(row["method"], row["prompt"]) for row in rows] == [(m, p) for m in METHODS for p in PROMPTS]
    names = {"clip_gain", "changed", "identity", "clip_fd", "clip_kd", "seconds"}
    for row in rows:
        assert row.keys() >= names and "success" not in row and "fid" not in row
        assert all(cell.keys() == {"value", "low", "high"} for name, cell in row.items() if name in columns_of(rows))
        for name in names - {"seconds"}:
            assert row[name]["low"] <= row[name]["value"] <= row[name]["high"]
    assert evaluated.table["metrics"].keys() == columns_of(rows).keys()
    assert evaluated.table["domain"] == "tiny" and evaluated.table["num_images"] == 10


def test_the_other_tables_say_the_same(evaluated):
    rows = evaluated.table["rows"]
    flat = list(csv.DictReader((evaluated.out / "table.csv").open()))
    assert [float(row["clip_fd_high"]) for row in flat] == [row["clip_fd"]["high"] for row in rows]
    lines = (evaluated.out / "table.md").read_text().splitlines()
    assert lines[2].startswith("| segment_global | surprised | ") and "no FID" in "".join(lines)
    assert sum("mean of 2" in line for line in lines) == 2


def test_sheets_have_a_row_a_face_and_a_column_a_method(evaluated):
    sheet = Image.open(evaluated.out / "sheets" / "blue_eyes.png")
    assert sheet.size[1] > 5 * 2 * 128  # five faces, and their masks
    assert {path.stem for path in (evaluated.out / "sheets").iterdir()} == {"surprised", "blue_eyes"}


def test_the_report_is_one_page_that_reads_as_xml(evaluated):
    text = (evaluated.out / "report.html").read_text()
    page = ET.fromstring(text.removeprefix("<!DOCTYPE html>"))
    assert "http" not in text.replace("http://www.w3.org/", "")
    assert all(image.get("src").startswith("data:image/png;base64,") for image in page.iter("img"))
    headings = [heading.text for heading in page.iter("h2")]
    assert headings == ["Table", "CLIP gain against changed", "Loss curves", "Masks per layer", "Faces"]
    assert len(ids(page)) == len(set(ids(page)))


def test_a_finished_cell_is_not_computed_again(evaluated, weights_dir, monkeypatch):
    def refuse(*_):
        raise AssertionError("computed again")

    monkeypatch.setattr(suites, "train", refuse)
    monkeypatch.setattr(Judge, "measure", refuse)
    rows = compare(evaluated.out, METHODS, PROMPTS, "tiny", num_images=10, weights_dir=str(weights_dir))
    assert rows == evaluated.rows == evaluated.table["rows"]
    assert write_report(evaluated.out) == evaluated.out / "report.html"


def test_the_command_prints_the_table_of_what_is_finished(evaluated, weights_dir):
    done = command(f"--methods={METHODS[0]}", "--prompts=surprised,blue eyes", "--domain=tiny", "--num_images=10",
                   f"--weights_dir={weights_dir}", f"--out={evaluated.out}")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("| method | prompt | CLIP gain |") and "starting" not in done.stderr


def test_the_command_needs_prompts():
    done = command("--methods=segment_global")
    assert done.returncode == 1
    assert done.stderr == "error: no prompts; give --prompts=happy,surprised or --suite=table1\n"


def test_what_changes_a_result_makes_its_cell_unfinished(evaluated, domain, weights_dir, tmp_path):
    cell = plan(METHODS, PROMPTS, domain, str(weights_dir), evaluated.out)[0]
    features = embedder(domain, None, weights_dir)

    def read(cell=cell, **changes):
        return Judge(domain, features, changes.get("num_images", 10), None).read(cell)

    assert read()["metrics"].keys() == evaluated.table["rows"][0].keys() - {"method", "prompt"}
    assert read(num_images=11) is None
    assert read(cell._replace(settings=cell.settings | {"lambda_l2": 1.0})) is None
    assert read(cell._replace(folder=tmp_path)) is None
    assert read(cell._replace(prompt="surprised!")) is None


def test_a_cell_that_fails_does_not_stop_the_others(evaluated, domain, weights_dir, monkeypatch, capsys):
    cells = plan(METHODS[:1], [*PROMPTS, "beard"], domain, str(weights_dir), evaluated.out)

    def fail(config, folder):
        raise NonFiniteError("the loss term clip is nan at step 2")

    monkeypatch.setattr(suites, "train", fail)
    tabulated = []
    judge = Judge(domain, embedder(domain, None, weights_dir), 10, None)
    records, failed = suites.evaluate(cells, judge, tabulated.append)
    assert [record["prompt"] for record in records] == PROMPTS and tabulated == [records]
    assert failed == ["segment_global, beard: the loss term clip is nan at step 2"]
    assert "[3/3, about " in capsys.readouterr().err


def test_no_edit_changes_nothing(domain, weights_dir, trained, tmp_path):
    class NoEdit:
        def apply(self, w_plus):
            image = np.asarray(domain.generator.synthesis(w_plus))
            return image, image, [np.ones((len(image), 4, 4)), np.ones((len(image), 8, 8))]

    cell = plan(["attention_global"], ["surprised"], domain, str(weights_dir), tmp_path)[0]
    cell = cell._replace(folder=trained.folder)
    found = Judge(domain, embedder(domain, None, weights_dir), 9, None).measure(cell, NoEdit())["metrics"]
    for name, value in (("clip_gain", 0), ("changed", 0), ("identity", 1), ("clip_fd", 0), ("clip_kd", 0)):
        assert found[name]["value"] == pytest.approx(value, abs=1e-4), name
    assert "outside_mask" not in found and "mean_layer" not in found  # masks of one are none
    for name in ("evaluation.json", "samples.safetensors"):
        (trained.folder / name).unlink()


@pytest.mark.parametrize(
    "methods, prompts, message",
    [
        (["segments"], ["happy"], "unknown method 'segments'; choose one of"),
        (["segment_global:lambda_ara=1"], ["happy"], "lambda_ara=1' after the config file's name"),
        (["segment_global"], [""], "prompt"),
        (["segment_global:segmenter=hair"], ["happy"], "no segmenter 'hair'"),
        (["segment_global"], ["blue eyes", "blue, eyes"], "differ only in signs"),
    ],
)
def test_mistakes_are_found_before_anything_is_trained(domain, tmp_path, methods, prompts, message):
    with pytest.raises(ValueError, match=message):
        plan(methods, prompts, domain, None, tmp_path)


def test_runs_of_other_settings_are_found_before_anything_is_trained(evaluated, domain, weights_dir):
    plan(METHODS, PROMPTS, domain, str(weights_dir), evaluated.out)
    domain = dataclasses.replace(domain, settings=domain.settings | {"lambda_id": 0.7})
    message = r"other configurations, .*lambda_id \(.* there, 0.7 here\); delete them, or give another folder with --out=DIR"
    with pytest.raises(ValueError, match=message):
        plan(METHODS, PROMPTS, domain, str(weights_dir), evaluated.out)


def test_mistakes_in_what_to_measure_are_explained(weights_dir, tmp_path):
    for more, message in (({"num_images": 1}, "num_images is 1; give at least 2"),
                          ({"reference": "lost"}, "there is no folder lost")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            compare(tmp_path, METHODS, PROMPTS, "tiny", weights_dir=str(weights_dir), **more)
    with pytest.raises(ValueError, match="holds no evaluation; give the --out of one"):
        write_report(tmp_path)


def test_time_to_quality_is_when_most_of_the_gain_is_reached():
    losses = [1.0, 0.8, 0.65, 0.52, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]
    rows = [{"step": 10 * i, "clip_distance": loss, "seconds_per_step": 0.2} for i, loss in enumerate(losses, start=1)]
    found = training_time(rows)
    assert found["seconds"].value == pytest.approx(20)
    assert found["seconds_to_quality"].value == pytest.approx(8)  # 0.52 is 96 % of the way
    assert "seconds_to_quality" not in training_time([row | {"clip_distance": i} for i, row in enumerate(rows)])
    assert training_time([]) == {}


def test_means_are_of_metrics_that_all_prompts_have():
    def cell(value, width):
        return {"value": value, "low": value - width, "high": value + width}

    rows = [{"method": "a", "prompt": "p", "leak": cell(0.2, 0.03), "success": cell(1.0, 0.0)},
            {"method": "a", "prompt": "q", "leak": cell(0.4, 0.04)}]  # fmt: skip
    (mean,) = means_of(rows)
    assert mean["prompt"] == "mean of 2" and "success" not in mean
    assert mean["leak"] == pytest.approx(cell(0.3, 0.025))


def test_tables_of_nothing_but_numbers_without_intervals(tmp_path):
    metrics = {"seconds": {"value": 12.0, "low": None, "high": None}}
    write_tables(tmp_path, [{"method": "a", "prompt": "p", "metrics": metrics}], {"domain": "tiny"})
    assert "| a | p | 12 |" in (tmp_path / "table.md").read_text()
    assert (tmp_path / "table.csv").read_text() == "method,prompt,seconds,seconds_low,seconds_high\na,p,12.0,,\n"


def texts(tree):
    """What a chart's texts say, and their elements."""
    return [(text.text, text) for text in tree.iter(f"{SVG}text")]


def styles(tree, *parts):
    """The elements whose style has all the parts."""
    return [element for element in tree.iter() if all(part in element.get("style", "") for part in parts)]


def ids(tree):
    return [element.get("id") for element in tree.iter() if element.get("id")]


def test_points_of_a_chart_lie_where_they_should():
    points = [charts.Point("a<b", "one", (0.0, None, None), (0.0, None, None)),
              charts.Point("c", "two", (10.0, 9.0, 10.0), (0.5, 0.4, 0.6))]  # fmt: skip
    tree = ET.fromstring(charts.scatter("chart", points, ["a<b", "c"], ("$leak$ & <more>", "success")))
    places = {text: (float(element.get("x")), float(element.get("y"))) for text, element in texts(tree) if element.get("x")}
    assert places["one"][0] < places["two"][0] and places["one"][1] > places["two"][1]
    assert "$leak$ & <more>" in places  # no formula, no markup
    for text, value in (("one", "0"), ("two", "10")):  # below a point is the tick of its value
        assert places[text][0] == pytest.approx(places[value][0], abs=0.1)
    first, second = charts.COLOURS[:2]
    assert [len(styles(tree, f"fill: {colour}; stroke: #ffffff")) for colour in (first, second)] == [1, 1]
    assert not styles(tree, f"stroke: {first}") and len(styles(tree, f"stroke: {second}", "stroke-opacity")) == 2


def test_lines_of_a_chart_have_dots_where_they_are_asked_for():
    curves = [charts.Line("a", [0, 1, 2], [3, 2, 2], (1, 2)), charts.Line("b", [0, 2], [3, 1], None),
              charts.Line("c", [1], [3], None)]  # fmt: skip
    tree = ET.fromstring(charts.lines("chart", curves, ["a", "b", "c"], ("s", "loss")))
    drawn = [len(styles(tree, "fill: none", f"stroke: {colour}")) for colour in charts.COLOURS[:3]]
    (dot,) = tree.iter(f"{SVG}use")
    assert drawn == [1, 1, 1] and f"fill: #ffffff; stroke: {charts.COLOURS[0]}" in dot.get("style")
    assert {"s", "loss"} < {text for text, _ in texts(tree)}


def test_a_shaded_table_says_and_shades_its_shares():
    rows = {"a & b": [0.0, 0.004, 1.0], "c": [0.25, 0.0951, 0.0004]}
    tree = ET.fromstring(charts.shaded_table("chart", rows, ["1\n4px", "2\n8px", "3\n8px"], ["c", "a & b"]))
    said = [text for text, _ in texts(tree)]
    assert said == ["1", "4px", "2", "8px", "3", "8px", "a & b", "c", "0.4%", "100%", "25%", "10%"]
    shades = [[style.get("style") for style in styles(tree, f"fill: {colour}", "stroke")] for colour in charts.COLOURS[:2]]
    assert [len(of_series) for of_series in shades] == [3, 3]
    assert "fill-opacity: 0.52;" in shades[0][0] and "fill-opacity: 0.04;" in shades[1][0] and "opacity" not in shades[1][2]


def test_charts_share_a_page_and_nothing_else():
    line = charts.Line("a", [0, 1], [0, 1], (1, 1))

    def draw(chart):
        return charts.lines(chart, [line], ["a"], ("x", "y")) + charts.shaded_table(f"{chart}-table", {"a": [1]}, ["1"], ["a"])

    before = dict(matplotlib.rcParams)
    page = ET.fromstring(f"<page>{draw('first')}{draw('second')}</page>")
    assert len(ids(page)) == len(set(ids(page))) > 40
    values = [value for element in page.iter() for value in element.attrib.values()]
    links = {value.partition("#")[2].rstrip(")") for value in values if value.startswith(("#", "url(#"))}
    assert links and links <= set(ids(page))
    assert draw("first") == draw("first")
    assert dict(matplotlib.rcParams) == before


def test_the_suite_has_all_methods_on_the_papers_prompts():
    suite = SUITES["table1"]
    assert {"segment_global", "segment_mapper", "attention_global", "attention_mapper"} <= set(suite.methods)
    assert suite.prompts[:4] == ["happy", "surprised", "blue eyes", "mohawk hairstyle"] and len(suite.prompts) == 6
