"""Benchmarks measure what they say: the literal form computes the step's losses, results have the documented keys."""

import json
import subprocess
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from conftest import REPOSITORY
from tiny import copied, frozen, step_alone

from benchmarks import alone, inversion, sweep
from benchmarks.naive import naive_train_step
from benchmarks.networks import with_inputs
from coral_jax.artifact import load_edit
from coral_jax.config import Settings
from coral_jax.latents import w_plus_of_seeds
from coral_jax.methods import METHODS
from coral_jax.step import init_state

MEASURED = {"seconds_per_step", "seconds_compile", "peak_bytes", "program_bytes", "flops", "rate_share"}


@pytest.mark.parametrize("method", ["attention_mapper", "segment_global"])
def test_the_literal_form_computes_the_same_step(method):
    domain, settings, key = frozen(), Settings(method, batch_size=2), jax.random.key(3)
    state = init_state(settings, domain, jax.random.key(0))
    ours, expected = step_alone(copied(state), domain, key, settings)
    after, metrics = jax.jit(naive_train_step)(state, domain, key, settings)
    for name, value in metrics.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-4, atol=1e-6, err_msg=name)
    for found, wanted in zip(jax.tree.leaves(after.opt_state), jax.tree.leaves(ours.opt_state), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-6)  # the gradients, and their squares


def test_the_step_benchmark_writes_what_it_says(weights_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("CORAL_JAX_WEIGHTS", str(weights_dir))
    command = [sys.executable, "-m", "benchmarks.step", "--domain=tiny", "--batch=1", "--repeats=1", "--prompts=2"]
    command += ["--method=segment_global", "--compare=naive"]  # it has no attention network and no mapper to compile
    command += [f"--json={tmp_path / 'step.json'}", f"--profile={tmp_path / 'trace'}"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "step.json").read_text())
    for row in (result, result["naive"], result["together"]):
        assert row.keys() >= MEASURED and all(row[name] > 0 for name in MEASURED)
    assert result["together"]["prompts"] == 2 and result["naive"]["ratio"] > 0
    assert "| naive |" in done.stdout and list((tmp_path / "trace" / "step").rglob("*.xplane.pb"))


@pytest.mark.parametrize("method", ["styleclip_optimization", "styleclip_global"])
def test_methods_get_what_they_are_given(method):
    """Codes of faces, or the relevance of channels: the step of such a method can be measured, too."""
    domain = frozen()
    assert with_inputs(domain, METHODS["segment_global"], 2) is domain
    settings, domain = Settings(method, batch_size=2), with_inputs(domain, METHODS[method], 2)
    assert (domain.faces is None, domain.channels is None) == (method == "styleclip_global", method != "styleclip_global")
    state = init_state(settings, domain, jax.random.key(0))
    _, metrics = step_alone(state, domain, jax.random.key(3), settings)
    assert np.isfinite(metrics["loss/total"])


def test_a_sweep_steps_as_the_prompt_alone_does():
    """Two steps of `alone.stepper` are those of the step, to rounding: programs are compiled for themselves."""
    domain, settings, key = frozen(), Settings("attention_global", batch_size=2), jax.random.key(3)
    expected = init_state(settings, domain, jax.random.key(0))
    state, step = alone.begin(settings, domain, jax.random.key(0)), alone.stepper(settings, domain, key)
    for _ in range(2):
        state, metrics = step(state)
        expected, values = step_alone(expected, domain, key, settings)
        np.testing.assert_allclose(metrics["loss/total"], [values["loss/total"]], rtol=1e-5)
    ours = alone.state_of(state)
    assert jax.tree.structure(ours) == jax.tree.structure(expected) and int(ours.step) == 2
    for found, wanted in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-5)


def test_a_sweep_trains_once_what_differs_in_its_use_alone():
    lower, higher = sweep.trainings("tau=0.5,0.85;lambda_area=1e-3,2e-3;strength=2")
    assert [changes["tau"] for changes in lower] == [changes["tau"] for changes in higher] == [0.5, 0.85]
    assert {changes["lambda_area"] for changes in lower} == {1e-3} and {changes["lambda_area"] for changes in higher} == {2e-3}
    assert sweep.trainings("") == [[{}]]


def test_a_method_without_a_literal_form_is_refused():
    command = [sys.executable, "-m", "benchmarks.step", "--method=stylemc", "--compare=naive"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and "no literal form of stylemc; give --method, one of segment_global" in done.stderr


def test_the_edit_benchmark_writes_what_it_says(weights_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("CORAL_JAX_WEIGHTS", str(weights_dir))
    command = [sys.executable, "-m", "benchmarks.edit", "--domain=tiny", "--batch=2", "--repeats=1"]
    done = subprocess.run([*command, f"--json={tmp_path / 'edit.json'}"], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "edit.json").read_text())
    assert result["size"] == 16 and result["images_per_second"] == pytest.approx(1 / result["seconds_per_image"])


def test_rows_of_an_inversion_say_which_edit_they_are_of(trained):
    said = inversion.named(str(trained.folder))
    description = json.loads((trained.folder / "edit" / "edit.json").read_text())
    assert said == {name: description[name] for name in ("prompt", "method", "weights_sha256")}


def test_an_edit_that_nothing_judges_is_refused():
    truth = SimpleNamespace(measure=lambda *_: None)
    edit = SimpleNamespace(prompt="like a king", apply=None)
    with pytest.raises(ValueError, match="nothing judges 'like a king' on toons; give an edit whose prompt"):
        tools = SimpleNamespace(domain=SimpleNamespace(name="toons", truth=truth))
        inversion.measured(tools, edit, inversion.Ladder("faces", 0.5, 1, None), 4)


def test_inversions_are_kept_and_shared(domain, tmp_path, monkeypatch):
    """A picture that was inverted is read; another one, or another rung or setting, is not taken for it."""
    made = []

    def inverted(tools, images, rung, plan):
        made.append((len(images), rung))
        return [inversion.Inverted(np.full((2, 3), image.mean()), {"a.b": np.float16([1, 2])}, 7.0) for image in images]

    monkeypatch.setattr(inversion, "inverted", inverted)
    images = np.linspace(-1, 1, 3)[:, None, None, None] * np.ones((1, 4, 4, 3))
    ladder, tools = inversion.Ladder("both", 0.5, 2, tmp_path), inversion.tools_of(domain)
    ladder.invert(tools, images[:1])
    found = ladder.invert(tools, images)
    assert made == [(1, "both"), (2, "both")]
    np.testing.assert_allclose([one.w_plus[0, 0] for one in found], [-1, 0, 1])
    assert found[0].seconds == 7.0 and found[0].tuned["a.b"].tolist() == [1, 2]
    ladder._replace(rung="encoder").invert(tools, images[:1])
    ladder._replace(likeness=0.7).invert(tools, images[:1])
    ladder.invert(tools._replace(imagenet="0123"), images[:1])
    assert made[2:] == [(1, "encoder"), (1, "both"), (1, "both")]
    monkeypatch.setattr(inversion, "tuned", lambda tools, images, found, tuning: [found[0]._replace(seconds=9.0)])
    assert ladder._replace(rung="tuned").invert(tools, images[:1])[0].seconds == 9.0
    assert len(made) == 5  # tuning starts from the codes that are kept


def test_a_sheet_shows_each_rung_and_its_edits(domain, trained, weights_dir, tmp_path, monkeypatch):
    edit, tools = load_edit(trained.folder, weights_dir), inversion.tools_of(domain)
    w_plus = w_plus_of_seeds(domain.generator, [1, 2], 1.0)
    rows = []
    monkeypatch.setattr(inversion, "photo_sheet", lambda title, subtitle, found, tile: rows.extend(found) or subtitle)
    monkeypatch.setattr(
        inversion, "inverted", lambda tools, images, *_: [inversion.Inverted(w_plus[1], {}, 1.0) for _ in images]
    )
    ladders = [inversion.Ladder(rung, 0.5, 2, tmp_path) for rung in ("faces", "both")]
    assert inversion.sheet(tools, edit, ladders, w_plus) == "attention_mapper on tiny"
    assert list(rows[0]) == ["faces", "both", "faces, edited", "both, edited"] and len(rows) == 2
    np.testing.assert_array_equal(rows[0]["both"], rows[1]["faces"])
    np.testing.assert_array_equal(rows[0]["both, edited"], rows[1]["faces, edited"])
    assert (rows[0]["faces, edited"] != rows[0]["faces"]).any()
