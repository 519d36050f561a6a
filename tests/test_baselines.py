"""Baselines and ablations as runs: trained, stopped and gone on with, loaded, applied, drawn."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import run_config
from PIL import Image

from coral_jax import weights
from coral_jax.artifact import load_edit
from coral_jax.gallery import apply_to_faces
from coral_jax.global_directions import relevance
from coral_jax.latents import w_plus_of_seeds
from coral_jax.training.checkpoints import Checkpoints
from coral_jax.training.loop import train

METHODS = ["styleclip_mapper", "styleclip_optimization", "styleclip_global", "stylemc", "feat_13", "original_features"]


@pytest.fixture(scope="module", params=METHODS)
def run(request, weights_dir, tmp_path_factory):
    """A method's finished run of eight steps: its config, folder, summary, and the edit read from it."""
    config = run_config(weights_dir)
    config.update(method=request.param, steps=8, tau=0.2)
    folder = tmp_path_factory.mktemp("baselines") / request.param
    with pytest.MonkeyPatch.context() as patched:
        # The templates are longer than the tiny CLIP's context.
        patched.setattr(relevance, "wordings", lambda domain, prompt: ([prompt], ["a face"]))
        summary = train(config, folder)
        yield SimpleNamespace(config=config, folder=folder, summary=summary, edit=load_edit(folder, weights_dir))


def codes(run, seeds):
    return w_plus_of_seeds(run.edit.domain.generator, seeds, run.edit.settings.truncation)


def final_weights(folder):
    return weights.load_tensors(folder / "edit" / "weights.safetensors")[0]


def test_the_summary_has_the_layers_that_have_masks(run):
    method = run.edit.method
    assert [row["layer"] for row in run.summary["layers"]] == list(run.edit.masked_layers)
    assert set(run.summary["losses"]) == {term.name for term in method.terms} | {"total"}
    assert (run.summary["area_weighted_layer"] is None) == (method.region is None)
    assert run.summary["batch_size"] == {"styleclip_mapper": 2, "stylemc": 4}.get(method.name, 3)
    with Image.open(run.folder / "sheet.png") as sheet:
        assert sheet.size[0] >= 1000


def test_a_stopped_run_ends_in_the_same_weights(run, tmp_path, monkeypatch):
    def save(self, step, state, original=Checkpoints.save):
        original(self, step, state)
        if step == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "save", save)
        with pytest.raises(KeyboardInterrupt):
            train(run.config, tmp_path / "run")
    assert train(run.config, tmp_path / "run")["resumed_from"] == 4
    expected, found = final_weights(run.folder), final_weights(tmp_path / "run")
    assert expected.keys() == found.keys()
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


def test_the_edit_moves_other_faces_and_alpha_zero_none(run):
    original, (edited, unmoved), masks = run.edit.apply_each(codes(run, [11, 12]), [1.0, 0.0])
    assert np.abs(edited - original).max() > 1e-4
    np.testing.assert_allclose(unmoved, original, atol=1e-5 * np.abs(original).max())
    assert len(masks) == len(run.edit.masked_layers)
    if masks:
        np.testing.assert_array_equal(run.edit.apply(codes(run, [11, 12]), 1.0, 1.0)[1], original)


def test_the_edit_of_the_sheets_faces_is_the_trained_one(run):
    """Where each face is edited on its own, applying the edit finds again what the training found."""
    if not run.edit.method.per_face:
        pytest.skip("one edit for all faces")
    faces = codes(run, [0, 1, 2])
    found = run.edit.trainables_of(faces).editor.delta[...]
    np.testing.assert_allclose(found, run.edit.trainables.editor.delta[...], rtol=0.02, atol=2e-3)


def test_images_and_a_sheet_are_written(run, tmp_path):
    apply_to_faces(run.edit, codes(run, [5]), ["seed 5"], [-1.0, 1.0], None, tmp_path)
    names = {f"{path.parent.name}/{path.name}" if path.parent != tmp_path else path.name for path in tmp_path.rglob("*.png")}
    masks = {f"masks/seed_5_layer_{layer:02d}.png" for layer in run.edit.masked_layers}
    assert names == masks | {"sheet.png", "seed_5_original.png", "seed_5_alpha_-1.png", "seed_5_alpha_+1.png"}


def test_an_evaluation_has_no_masks_where_the_method_has_none(run, weights_dir, tmp_path):
    from coral_jax.evaluation.features import embedder
    from coral_jax.evaluation.judge import Judge
    from coral_jax.evaluation.plan import plan

    domain = run.edit.domain
    cell = plan([run.config.method], ["surprised"], domain, str(weights_dir), tmp_path)[0]._replace(folder=run.folder)
    record = Judge(domain, embedder(domain, None, weights_dir), 10, None).measure(cell, run.edit)
    assert [row["layer"] for row in record["layers"]] == list(run.edit.masked_layers)
    assert ("outside_mask" in record["metrics"]) == bool(run.edit.masked_layers)
    assert record["metrics"] == json.loads((run.folder / "evaluation.json").read_text())["metrics"]
