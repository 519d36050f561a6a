"""Training from the config to the files it leaves: what they hold, stopping and going on, one command line."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from conftest import REPOSITORY, run_config
from PIL import Image

from coral_jax import domains, weights
from coral_jax.artifact import load_edit
from coral_jax.latents import w_plus_of_seeds
from coral_jax.models.clip import CLIP
from coral_jax.runtime.errors import NonFiniteError
from coral_jax.training import partition
from coral_jax.training.checkpoints import Checkpoints
from coral_jax.training.finish import FACES_ONE_BY_ONE
from coral_jax.training.logs import read_metrics
from coral_jax.training.loop import check_finite, train


def final_weights(folder):
    return weights.load_tensors(folder / "edit" / "weights.safetensors")[0]


def assert_same(folder, trained):
    expected, found = final_weights(trained.folder), final_weights(folder)
    assert expected.keys() == found.keys()
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


def test_a_run_leaves_what_the_readme_says(trained):
    names = {entry.name.split(".out.")[0] for entry in trained.folder.iterdir()}
    assert names == {"config.json", "checkpoints", "edit", "events", "metrics.jsonl", "sheet.png", "summary.json"}
    assert sorted(entry.name for entry in (trained.folder / "checkpoints").iterdir()) == ["4", "6"]
    with Image.open(trained.folder / "sheet.png") as sheet:
        assert sheet.size[0] >= 1000
    assert not list(trained.folder.rglob("*.partial"))


def test_the_summary_says_what_ran_and_what_came_out(trained):
    summary = json.loads((trained.folder / "summary.json").read_text())
    assert summary == trained.summary
    expected = {
        "prompt": "surprised", "method": "attention_mapper", "domain": "tiny", "seed": 0, "batch_size": 3,
        "steps": 6, "tau": 0.4, "resumed_from": 0,
    }  # fmt: skip
    assert {key: summary[key] for key in expected} == expected
    assert summary["losses"].keys() == {"clip", "l2", "identity", "area", "tv", "total"}
    assert summary["seconds_total"] > summary["seconds_compile"] > 0 < summary["seconds_per_step"]
    assert [row["layer"] for row in summary["layers"]] == [1, 2, 3, 4, 5]
    assert [row["resolution"] for row in summary["layers"]] == [4, 8, 8, 16, 16]
    assert all(0 <= row["area"] <= 1 and row["delta_norm"] > 0 for row in summary["layers"])
    areas = [row["area"] for row in summary["layers"]]
    mean = sum(area * layer for layer, area in enumerate(areas, start=1)) / sum(areas)
    assert summary["area_weighted_layer"] == pytest.approx(mean)
    assert summary["versions"]["jax"] == jax.__version__ and "truth" not in summary


def test_metrics_have_a_row_per_interval_with_the_weighted_total(trained):
    rows = read_metrics(trained.folder / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert len(rows[0]["area"]) == 5
    settings = json.loads((trained.folder / "edit" / "edit.json").read_text())["settings"]
    terms = {"l2": "lambda_l2", "identity": "lambda_id", "area": "lambda_area", "tv": "lambda_tv"}
    for row in rows:
        total = row["loss/clip"] + sum(settings[weight] * row[f"loss/{term}"] for term, weight in terms.items())
        assert row["loss/total"] == pytest.approx(total, rel=1e-5)
    assert rows[0]["loss/total"] != rows[-1]["loss/total"]


def test_a_finished_run_is_left_alone(trained, config, capsys):
    before = {path: path.stat().st_mtime_ns for path in trained.folder.rglob("*")}
    assert train(config, trained.folder) == trained.summary
    assert {path: path.stat().st_mtime_ns for path in trained.folder.rglob("*")} == before
    assert "holds this run, finished" in capsys.readouterr().err


@pytest.mark.filterwarnings("default::pytest.PytestUnraisableExceptionWarning")  # see test_checkpoints
def test_a_run_stopped_between_checkpoints_ends_in_the_same_weights(trained, config, tmp_path, monkeypatch):
    saves = []

    def save(self, step, state, original=Checkpoints.save):
        original(self, step, state)
        saves.append(step)
        if saves == [2, 4]:
            raise KeyboardInterrupt  # step 4 is saved, its file of metrics is written

    monkeypatch.setattr(Checkpoints, "save", save)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run")
    damaged = next((tmp_path / "run" / "checkpoints" / "4" / "state").rglob("manifest.ocdbt"))
    damaged.write_bytes(damaged.read_bytes()[:20])  # goes on from step 2, though metrics go to step 4
    summary = train(config, tmp_path / "run")
    assert summary["resumed_from"] == 2 and saves == [2, 4, 4, 6]
    assert_same(tmp_path / "run", trained)
    rows, expected = (read_metrics(folder / "metrics.jsonl") for folder in (tmp_path / "run", trained.folder))
    for row in rows + expected:
        del row["seconds_per_step"]
    assert rows == expected
    assert summary["layers"] == trained.summary["layers"]


def test_a_killed_command_goes_on_and_ends_in_the_same_weights(trained, weights_dir, tmp_path):
    command = [
        sys.executable, "-m", "coral_jax.train", "--config=configs/surprised.py:domain=tiny,log_every=1",
        f"--config.weights_dir={weights_dir}", "--config.checkpoint_every=2", "--config.sheet_seeds=0-2",
        f"--workdir={tmp_path / 'run'}",
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "checkpoints" / "2").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "run" / "summary.json").exists()
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    assert "step 6/6" in done.stderr and "Traceback" not in done.stderr
    assert_same(tmp_path / "run", trained)


def test_segment_global_takes_its_own_defaults_and_segmenter(config, tmp_path):
    config.method, config.segmenter, config.batch_size = "segment_global", "parts", 2
    summary = train(config, tmp_path / "run")
    assert (summary["steps"], summary["batch_size"]) == (3, 2)
    assert summary["losses"].keys() == {"clip", "l2", "identity", "area", "total"}
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (record["lambda_l2"], record["segmenter"]) == (0.001, "parts")
    assert final_weights(tmp_path / "run")["selector.logits"].shape == (4, 5)


@pytest.mark.parametrize("method", ["attention_mapper", "stylemc"])
def test_losses_may_see_the_image_after_the_last_edited_layer(config, tmp_path, monkeypatch, method):
    """An edit of layers up to 8 px learned from images of 8 px is one of the 16 px generator."""
    monkeypatch.setattr("coral_jax.blend.EDITED_RESOLUTION", 8)
    monkeypatch.setattr("coral_jax.baselines.stylemc.RESOLUTIONS", (8, 8))
    config.method, config.loss_resolution, config.steps = method, 8, 2
    seen, encode = [], CLIP.encode_image
    monkeypatch.setattr(CLIP, "encode_image", lambda clip, images: seen.append(images.shape) or encode(clip, images))
    train(config, tmp_path / "run")
    assert {shape[1:] for shape in seen} == {(8, 8, 3)}
    edit = load_edit(tmp_path / "run", config.weights_dir)
    original, edited, masks = edit.apply(w_plus_of_seeds(edit.domain.generator, [0, 1], 0.8))
    assert edited.shape == original.shape == (2, 16, 16, 3)
    assert [mask.shape[1] for mask in masks] == ([4, 8, 8] if method == "attention_mapper" else [])
    assert np.abs(edited - original).max() > 0


LOWER = {"attention_mapper": 8, "feat_13": 8, "styleclip_mapper": 8, "stylemc": 12}


@pytest.mark.parametrize("method, resolution", LOWER.items())
def test_losses_must_see_every_edited_layer(config, tmp_path, method, resolution):
    config.loss_resolution, config.method = resolution, method
    with pytest.raises(ValueError, match="loss_resolution is .*; give"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def sabotage(monkeypatch, at, change):
    """Change what one step of a run returns."""

    def make_step(mesh, original=partition.make_step):
        step = original(mesh)

        def lower(*arguments):
            lowered = step.lower(*arguments)

            def compiled(**options):
                program = lowered.compile(**options)

                def run(state, *others):
                    state, metrics = program(state, *others)
                    with jax.transfer_guard("allow"):  # the loop forbids what only this test does
                        return change(state, metrics) if state.step == at else (state, metrics)

                run.memory_analysis = program.memory_analysis
                return run

            return SimpleNamespace(compile=compiled)

        return SimpleNamespace(lower=lower)

    monkeypatch.setattr(partition, "make_step", make_step)


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_checkpoint(config, tmp_path, monkeypatch):
    bad = {"loss/identity": np.full(1, np.nan, np.float32), "loss/total": np.full(1, np.nan, np.float32)}
    sabotage(monkeypatch, 4, lambda state, metrics: (state, metrics | bad))
    message = "loss term identity is nan at step 4; the checkpoint of step 2 is the last"
    with pytest.raises(NonFiniteError, match=message):
        train(config, tmp_path / "run")
    assert [entry.name for entry in (tmp_path / "run" / "checkpoints").iterdir()] == ["2"]
    assert not (tmp_path / "run" / "summary.json").exists()


def test_non_finite_weights_are_never_saved(config, tmp_path, monkeypatch):
    def overflow(state, metrics):  # the update overflowed, the loss was still a number
        return jax.tree.map(lambda x: x * np.inf if x.dtype == np.float32 else x, state), metrics

    sabotage(monkeypatch, 2, overflow)
    with pytest.raises(NonFiniteError, match="is not finite after step 2; try a lower --config.learning_rate"):
        train(config, tmp_path / "run")
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []


def test_the_first_term_that_is_no_number_is_named():
    good = {"loss/area": 1.0, "loss/clip": 0.5, "loss/total": 2.0}
    check_finite([good, good], 1, 0)
    with pytest.raises(NonFiniteError, match="the loss term clip is inf at step 6; try"):
        check_finite([good, good | {"loss/clip": float("inf"), "loss/total": float("nan")}], 5, 0)


@pytest.mark.parametrize("method, faces", [("segment_global", (200,)), ("styleclip_optimization", (FACES_ONE_BY_ONE,))])
def test_a_domain_with_a_truth_is_measured_against_it(weights_dir, config, tmp_path, monkeypatch, method, faces):
    """Whatever its name is; on fewer faces where each takes its time."""
    seen = []

    def measure(domain, prompt, edit, *count):
        original, edited, masks = edit(np.zeros((2, domain.generator.n_latent, domain.generator.w_dim), np.float32))
        seen.append((domain.name, prompt, original.shape, edited.shape, len(masks), count))
        return {"success": 0.5}

    monkeypatch.setitem(sys.modules, "coral_jax.toons.truth", SimpleNamespace(measure=measure, FACES_AFTER_TRAINING=200))
    shutil.copytree(weights_dir / "tiny", tmp_path / "drawings")
    description = json.loads((tmp_path / "drawings" / "domain.json").read_text()) | {"name": "drawings", "truth": "toons"}
    (tmp_path / "drawings" / "domain.json").write_text(json.dumps(description))
    config.update(domain="drawings", weights_dir=str(tmp_path), method=method, steps=1)
    assert train(config, tmp_path / "run")["truth"] == {"success": 0.5}
    masks = 5 if method == "segment_global" else 0
    assert seen == [("drawings", "surprised", (2, 16, 16, 3), (2, 16, 16, 3), masks, faces)]


def test_a_domain_called_toons_without_a_truth_is_not_measured(weights_dir, config, tmp_path, monkeypatch):
    def measure(*_):
        raise AssertionError("measured")

    monkeypatch.setitem(domains.EMBEDDED, "toons", weights_dir / "tiny")
    monkeypatch.setitem(sys.modules, "coral_jax.toons.truth", SimpleNamespace(measure=measure))
    config.update(domain="toons", steps=1)
    summary = train(config, tmp_path / "run")
    assert summary["domain"] == "toons" and "truth" not in summary


def test_neither_torch_nor_tensorflow_is_imported(trained):
    code = "import sys, coral_jax.train, coral_jax.edit, coral_jax.training.logs; "
    code += "print([name for name in ('torch', 'tensorflow', 'transformers', 'matplotlib') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_fixture_is_the_command(weights_dir):
    assert run_config(weights_dir).steps is None  # the domain's six


class Pause:
    """A watch that holds the third step."""

    seconds = 1.5

    def stops(self, done):
        time.sleep(self.seconds if done == 3 else 0)
        return False

    def saved(self, done, states):
        """Nothing to draw."""


def test_a_pause_is_no_time_of_training(config, tmp_path):
    begun = time.monotonic()
    summary = train(config, tmp_path, Pause())
    assert summary["seconds_paused"] >= Pause.seconds
    assert summary["seconds_total"] < time.monotonic() - begun - Pause.seconds
    assert all(row["seconds_per_step"] < Pause.seconds for row in read_metrics(tmp_path / "metrics.jsonl")[1:])
