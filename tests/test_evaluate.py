"""Comparing methods: cells, what is measured and when again, tables, sheets, the report."""

import base64
import csv
import dataclasses
import json
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import REPOSITORY
from PIL import Image
from svg import SVG, ids, styles, texts

from coral_jax.artifact import Edit
from coral_jax.evaluation import charts, suites
from coral_jax.evaluation.features import embedder
from coral_jax.evaluation.judge import Judge
from coral_jax.evaluation.plan import cell_folder, plan
from coral_jax.evaluation.report import write_report
from coral_jax.evaluation.suites import compare
from coral_jax.evaluation.tables import columns_of
from coral_jax.runtime.errors import NonFiniteError

METHODS = ["segment_global", "attention_global:steps=3;lambda_area=0"]
PROMPTS = ["surprised", "blue eyes"]


@pytest.fixture(scope="module")
def evaluated(weights_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluation")
    rows = compare(out, METHODS, PROMPTS, "tiny", num_images=10, weights_dir=str(weights_dir), report=True)
    return SimpleNamespace(out=out, rows=rows, table=json.loads((out / "table.json").read_text()))


def command(*arguments, hidden=()):
    """Run the command line, as if the `hidden` modules were not installed.

    Its flags would clash with those of other commands in one process.
    """
    start = f"import runpy, sys; sys.modules.update(dict.fromkeys({hidden!r}))"
    start += "; runpy.run_module('coral_jax.evaluate', run_name='__main__', alter_sys=True)"
    return subprocess.run([sys.executable, "-c", start, *arguments], cwd=REPOSITORY, capture_output=True, text=True)


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
    with (evaluated.out / "table.csv").open() as file:
        flat = list(csv.DictReader(file))
    assert [float(row["clip_fd_high"]) for row in flat] == [row["clip_fd"]["high"] for row in rows]
    lines = (evaluated.out / "table.md").read_text().splitlines()
    assert lines[2].startswith("| segment_global | surprised | ") and "no FID" in "".join(lines)
    assert sum("mean of 2" in line for line in lines) == 2


def test_sheets_have_a_row_a_face_and_a_column_a_method(evaluated):
    with Image.open(evaluated.out / "sheets" / "blue_eyes.png") as sheet:
        assert sheet.size[1] > 5 * 2 * 128  # five faces, and their masks
    assert {path.stem for path in (evaluated.out / "sheets").iterdir()} == {"surprised", "blue_eyes"}


def read_page(path):
    """A report as text, and as a tree: it is XML, too."""
    text = path.read_text(encoding="utf-8")
    return text, ET.fromstring(text.removeprefix("<!DOCTYPE html>"))


def test_the_report_is_one_page_of_all_methods_and_prompts(evaluated):
    text, page = read_page(evaluated.out / "report.html")
    assert "http" not in text.replace("http://www.w3.org/", "")  # namespaces: nothing is fetched
    headings = [heading.text for heading in page.iter("h2")]
    assert headings == ["Table", "CLIP gain against changed", "Loss curves", "Masks per layer", "Faces"]
    cells = [[cell.text for cell in row.iter("td")][:2] for row in page.iter("tr")]
    assert cells == [[], *([m, p] for m in METHODS for p in PROMPTS), *([m, "mean of 2"] for m in METHODS)]
    assert [prompt.text for prompt in page.iter("h3")] == PROMPTS * 2  # loss curves, masks
    for legend in page.iterfind(".//p[@class='legend']"):
        keys = [(key.find("i").tail, key.find("i").get("style")) for key in legend]
        assert keys == [(m, f"background:{colour}") for m, colour in zip(METHODS, charts.COLOURS, strict=False)]
    sources = {image.get("alt"): image.get("src") for image in page.iter("img")}
    assert sources.keys() == {*PROMPTS, *(f"masks of {method}" for method in METHODS)}
    for prompt in PROMPTS:
        content = base64.b64decode(sources[prompt].removeprefix("data:image/png;base64,"), validate=True)
        assert content == (evaluated.out / "sheets" / f"{prompt.replace(' ', '_')}.png").read_bytes()


def test_the_report_has_all_charts_with_ids_of_their_own(evaluated):
    _, page = read_page(evaluated.out / "report.html")
    trade_off, *others = page.iter(f"{SVG}svg")
    losses, tables = others[:2], others[2:]
    assert len(tables) == 2 and len(ids(page)) == len(set(ids(page)))
    labels = [text for text, element in texts(trade_off) if "fill: #ffffff" in element.get("style")]
    assert labels == ["1", "2"] * len(METHODS)
    for colour in charts.COLOURS[: len(METHODS)]:
        assert len(styles(trade_off, f"fill: {colour}; stroke: #ffffff")) == len(PROMPTS)
        assert all(len(styles(chart, "fill: none", f"stroke: {colour}; stroke-width: 1.4")) == 1 for chart in losses)
    assert all(set(METHODS) < {text for text, _ in texts(chart)} for chart in tables)


def test_the_report_escapes_prompts_and_shows_what_is_best(evaluated, tmp_path):
    prompts = ["surprised", "<b>&amp; \"it's\" $x$"]
    given = {"success": [0.9, 0.5, 0.8, 0.5], "leak": [0.1, 0.2, 0.05, 0.3], "changed": [0.1, 0.2, 0.3, 0.4]}
    rows = []
    for index, row in enumerate(evaluated.rows):
        prompt = prompts[index % 2]
        cell = cell_folder(tmp_path, row["method"], prompt)
        source = cell_folder(evaluated.out, row["method"], row["prompt"])
        shutil.copytree(source, cell, ignore=shutil.ignore_patterns("checkpoints", "edit"))
        values = {name: {"value": of_rows[index], "low": None, "high": None} for name, of_rows in given.items()}
        rows.append({"method": row["method"], "prompt": prompt, "clip_gain": row["clip_gain"]} | values)
        record = json.loads((cell / "evaluation.json").read_text())
        reached = {"seconds_to_quality": {"value": 0.0, "low": None, "high": None}} if index == 1 else {}
        record["metrics"] = {name: v for name, v in record["metrics"].items() if name != "seconds_to_quality"} | reached
        (cell / "evaluation.json").write_text(json.dumps(record))
    (tmp_path / "table.json").write_text(json.dumps(evaluated.table | {"rows": rows}))

    text, page = read_page(write_report(tmp_path))
    assert [prompt.text for prompt in page.iter("h3")] == prompts * 2
    assert "<b>&amp; " not in text and f"1 surprised; 2 {prompts[1]}" in [element.text for element in page.iter("p")]
    assert [heading.text for heading in page.iter("h2")][1] == "success against leak"
    dots = [len(styles(chart, f"fill: #ffffff; stroke: {charts.COLOURS[0]}")) for chart in page.iter(f"{SVG}svg")]
    assert dots == [0, 0, 1, 0, 0]  # of success against leak, two prompts' losses, two prompts' masks
    titles = [title.text for title in page.iter("th")]
    bold = {title: [] for title in titles}
    for row in page.iter("tr"):
        for title, cell in zip(titles, row.iter("td"), strict=False):
            bold[title].append(cell.get("class") == "best")
    assert bold["success"] == [True, True, False, True, True, False]  # the last two: of the means
    assert bold["leak"] == [False, True, True, False, True, False]
    assert not any(bold["method"] + bold["prompt"] + bold["changed"])


def test_a_finished_cell_is_not_computed_again(evaluated, weights_dir, monkeypatch):
    def refuse(*_):
        raise AssertionError("computed again")

    monkeypatch.setattr(suites, "train", refuse)
    monkeypatch.setattr(Judge, "measure", refuse)
    rows = compare(evaluated.out, METHODS, PROMPTS, "tiny", num_images=10, weights_dir=str(weights_dir))
    assert rows == evaluated.rows == evaluated.table["rows"]
    assert write_report(evaluated.out) == evaluated.out / "report.html"


def test_the_command_prints_the_table_of_what_is_finished(evaluated, weights_dir, tmp_path):
    out = shutil.copytree(evaluated.out, tmp_path / "out", ignore=shutil.ignore_patterns("sheets", "report.html"))
    done = command(f"--methods={METHODS[0]}", "--prompts=surprised,blue eyes", "--domain=tiny", "--num_images=10",
                   f"--weights_dir={weights_dir}", f"--out={out}", hidden=("matplotlib", "jinja2"))  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("| method | prompt | CLIP gain |") and "starting" not in done.stderr
    assert {path.stem for path in (out / "sheets").iterdir()} == {"surprised", "blue_eyes"}
    assert not (out / "report.html").exists()  # only it needs the hidden libraries


@pytest.mark.parametrize("module, making", [("matplotlib", True), ("jinja2", False)])
def test_the_report_without_its_libraries_fails_at_once(weights_dir, tmp_path, module, making):
    asked = [f"--methods={METHODS[0]}", f"--prompts={PROMPTS[0]}", "--domain=tiny", f"--weights_dir={weights_dir}"]
    done = command("--report", f"--out={tmp_path / 'out'}", *(asked if making else []), hidden=(module,))
    assert done.returncode == 1
    assert done.stderr == 'error: the report needs matplotlib and Jinja2: pip install -e ".[report]"\n'
    assert not (tmp_path / "out").exists()


def test_the_command_needs_prompts():
    done = command("--methods=segment_global")
    assert done.returncode == 1
    assert done.stderr == "error: no prompts; give --prompts=happy,surprised or --suite=table1\n"


def test_what_changes_a_result_makes_its_cell_unfinished(evaluated, domain, weights_dir, tmp_path):
    cell = plan(METHODS, PROMPTS, domain, str(weights_dir), evaluated.out)[0]
    features = embedder(domain, None, weights_dir)

    def read(cell=cell, **changes):
        return Judge(domain, features, changes.get("num_images", 10), None).read(cell)

    assert read()["metrics"].keys() == evaluated.table["rows"][0].keys() - {"method", "prompt", "trainings"}
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
    done, failed = suites.evaluate(cells, judge, tabulated.append)
    assert [training.record["prompt"] for training in done] == PROMPTS and tabulated == [done]
    assert failed == ["segment_global, beard: the loss term clip is nan at step 2"]
    assert "[3/3, about " in capsys.readouterr().err


def test_several_seeds_are_one_row_over_faces_and_trainings(evaluated, weights_dir, tmp_path):
    """Seed 0 is what is there: it is not trained again, and measured again where an older release measured it."""
    out, method = shutil.copytree(evaluated.out, tmp_path / "out"), METHODS[0]
    old = out / method / "surprised"
    (old / "resamples.safetensors").unlink()
    times = {path: path.stat().st_mtime_ns for path in (old / "summary.json", old / "evaluation.json")}
    more = {"num_images": 10, "training_seeds": 2, "weights_dir": str(weights_dir)}
    (row,) = compare(out, [method], PROMPTS[:1], "tiny", report=True, **more)
    assert [path.stat().st_mtime_ns != time for path, time in times.items()] == [False, True]
    seeds = [json.loads((out / f"{method}{end}" / "surprised" / "evaluation.json").read_text()) for end in ("", "_seed=1")]
    assert [record["key"]["settings"]["seed"] for record in seeds] == [0, 1]
    gains = [record["metrics"]["clip_gain"] for record in seeds]
    assert row["trainings"] == 2 and row["clip_gain"]["value"] == pytest.approx(np.mean([gain["value"] for gain in gains]))
    assert gains[0]["value"] != gains[1]["value"]
    assert row["clip_gain"]["low"] <= min(gain["value"] for gain in gains) < row["clip_gain"]["high"]
    ends = sorted(record["metrics"]["seconds"]["value"] for record in seeds)  # no face has a part in these
    assert [row["seconds"]["low"], row["seconds"]["high"]] == ends
    with (out / "trainings.csv").open() as file:
        flat = list(csv.DictReader(file))
    assert [(one["method"], one["seed"]) for one in flat] == [(method, "0"), (method, "1")]
    text = (out / "table.md").read_text()
    assert "| method | prompt | trainings | CLIP gain |" in text and "faces and up to 2 trainings" in text
    assert "those of training seed 0" in (out / "report.html").read_text()
    assert compare(out, [method], PROMPTS[:1], "tiny", **more) == [row]


def test_what_draws_nothing_at_random_has_one_training(domain, tmp_path):
    cells = plan(["styleclip_optimization", "feat_7:steps=2"], ["happy"], domain, None, tmp_path, 2)
    assert [cell.method for cell in cells] == ["styleclip_optimization", "feat_7:steps=2", "feat_7:steps=2;seed=1"]
    assert [cell.row for cell in cells] == ["styleclip_optimization", "feat_7:steps=2", "feat_7:steps=2"]
    assert cells[2].config.seed == 1


@pytest.mark.parametrize(
    "method, seeds, message",
    [
        ("feat_7:seed=3", 2, "feat_7:seed=3 names one seed and --training_seeds=2 several; leave one of them out"),
        ("feat_7", 0, "training_seeds is 0; give at least 1, such as --training_seeds=3"),
    ],
)
def test_mistakes_with_seeds_are_explained(domain, tmp_path, method, seeds, message):
    with pytest.raises(ValueError, match=message):
        plan([method], ["happy"], domain, None, tmp_path, seeds)


def test_no_edit_changes_nothing(domain, weights_dir, trained, tmp_path):
    class NoEdit:
        shares = Edit.shares  # asked for no areas, it reads nothing of an edit

        def apply(self, w_plus):
            image = np.asarray(domain.generator.synthesis(w_plus))
            return image, image, [np.ones((len(image), 4, 4)), np.ones((len(image), 8, 8))]

    cell = plan(["attention_global"], ["surprised"], domain, str(weights_dir), tmp_path)[0]
    cell = cell._replace(folder=trained.folder)
    found = Judge(domain, embedder(domain, None, weights_dir), 9, None).measure(cell, NoEdit())["metrics"]
    for name, value in (("clip_gain", 0), ("changed", 0), ("identity", 1), ("clip_fd", 0), ("clip_kd", 0)):
        assert found[name]["value"] == pytest.approx(value, abs=1e-4), name
    assert "outside_mask" not in found and "mean_layer" not in found  # masks of one are none
    for name in ("evaluation.json", "samples.safetensors", "resamples.safetensors"):
        (trained.folder / name).unlink()


@pytest.mark.parametrize(
    "methods, prompts, message",
    [
        (["segments"], ["happy"], "unknown method 'segments'; choose one of"),
        (["segment_global:lambda_ara=1"], ["happy"], "lambda_ara=1' after the config file's name"),
        (["segment_global"], [""], "prompt"),
        (["segment_global:segmenter=hair"], ["happy"], "no segmenter 'hair'"),
        (["segment_global"], ["blue eyes", "blue, eyes"], "would share the folder .*blue_eyes; leave one out"),
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


def test_without_its_judges_a_domain_is_measured_by_what_needs_none(domain, monkeypatch, capsys):
    """One line says what is missing; a cell that was measured without is measured again once they are there."""

    def judges(_):
        raise ValueError("finding faces needs mediapipe; type pip install")

    monkeypatch.setitem(sys.modules, "coral_jax.toons.truth", SimpleNamespace(judges=judges))
    told = dataclasses.replace(domain, truth_name="toons")
    judge = Judge(told, embedder(told, None, None), 2, None)
    subjects = judge.subjects("happy")
    assert subjects.asked is None and len(subjects.w_plus) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("note: no success") and line.endswith("needs mediapipe; type pip install")
    cell = SimpleNamespace(settings={})
    assert judge.key(cell)["judged"] is False
