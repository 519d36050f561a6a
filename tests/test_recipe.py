"""Recipes: read, checked, drawn again by the command to the bit; edits by name."""

import base64
import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from coral_jax import recipe, shelf
from coral_jax.artifact import load_edit
from coral_jax.canvas import ERASED, LEARNED, Adjusted, Canvas
from coral_jax.figures import png
from coral_jax.latents import w_plus_of_seeds


@pytest.fixture(scope="module")
def runs(trained):
    return trained.folder.parent


@pytest.fixture
def content(trained, domain):
    """A recipe's file with everything in it."""
    brush = np.full((16, 16), LEARNED, np.uint8)
    brush[:4] = ERASED
    sha256 = json.loads((trained.folder / "edit" / "edit.json").read_text())["weights_sha256"]
    step = {"edit": "surprised", "weights_sha256": sha256, "alpha": 0.75, "tau": 0.3, "layers_off": [2],
            "brush": base64.b64encode(png(Image.fromarray(brush))).decode()}  # fmt: skip
    return {"format": 1, "domain": "tiny", "domain_fingerprint": domain.fingerprint,
            "face": {"seed": 5, "truncation": 0.8}, "edits": [step]}  # fmt: skip


def test_a_recipe_is_drawn_again_to_the_bit(content, trained, weights_dir, runs, tmp_path):
    edit = load_edit(trained.folder, weights_dir)
    brush = np.full((16, 16), LEARNED, np.uint8)
    brush[:4] = ERASED
    face = Canvas(edit.domain, w_plus_of_seeds(edit.domain.generator, [5], 0.8)[0])
    face.draw([Adjusted(edit, 0.1)])  # what was drawn before does not matter
    expected = png(face.draw([Adjusted(edit, 0.75, 0.3, frozenset({2}), brush)]).image)
    (tmp_path / "mine.json").write_text(json.dumps(content))
    picture = recipe.redraw(tmp_path / "mine.json", tmp_path / "out", runs, tmp_path / "photos", str(weights_dir))
    assert picture == tmp_path / "out" / "mine.png" and picture.read_bytes() == expected
    assert expected != png(face.original)


def test_what_is_written_is_what_was_read(content):
    assert recipe.to_json(recipe.of_json(content, "it")) == content


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "it has the format 2, this version reads 1"),
        ({"face": {}}, "it: the face is not a seed"),
        ({"face": {"seed": -1, "truncation": 1.0}}, "seed is -1; give a whole number"),
        ({"face": {"seed": 1, "truncation": 9.0}}, "truncation is 9.0"),
        ({"edits": [3]}, "it: edits hold 3"),
        ({"edits": [{}] * 9}, "has 9 edits; at most 8"),
        ({"domain": 4}, "it is not a recipe"),
        ({"step": {"alpha": 2}}, "alpha is '2'"),
        ({"step": {"tau": -1}}, "tau is -1"),
        ({"step": {"layers_off": ["a"]}}, "layers_off is"),
        ({"step": {"brush": "!"}}, "the brush is not base64"),
        ({"step": {"edit": None}}, "an edit is not complete"),
    ],
)
def test_recipes_that_do_not_fit_are_explained(content, change, message):
    step = change.pop("step", {})
    content = content | change
    if step:
        content["edits"] = [content["edits"][0] | step]
    with pytest.raises(ValueError, match=message):
        recipe.of_json(content, "it")


@pytest.mark.parametrize("name", ["../surprised", "/etc/passwd", "surprised/edit", "surprise", "", "toons:../x"])
def test_names_of_edits_are_no_paths(content, domain, runs, name):
    content["edits"][0]["edit"] = name
    (step,) = recipe.of_json(content, "it").steps
    with pytest.raises(ValueError, match="there is no edit"):
        recipe.edit_of(step, domain, runs, None)


def test_other_weights_are_refused(content, domain, runs):
    content["edits"][0]["weights_sha256"] = "0" * 64
    read = recipe.of_json(content | {"domain_fingerprint": "0" * 64}, "it")
    with pytest.raises(ValueError, match="is not the one of the recipe"):
        recipe.edit_of(read.steps[0], domain, runs, None)
    with pytest.raises(ValueError, match="was made with other weights of domain 'tiny'"):
        recipe.check_domain(read, domain)


def test_a_brush_is_a_small_png():
    assert recipe.read_brush(png(Image.fromarray(np.full((16, 16), LEARNED, np.uint8))), 16) is None
    with pytest.raises(ValueError, match="the brush has 3 x 3 px; give 16 x 16"):
        recipe.read_brush(png(Image.fromarray(np.zeros((3, 3), np.uint8))), 16)
    for content in (b"", b"GIF89a", png(Image.fromarray(np.zeros((16, 16), np.uint8)))[:40]):
        with pytest.raises(ValueError, match="the brush is no PNG picture"):
            recipe.read_brush(content, 16)
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(buffer, "JPEG")
    with pytest.raises(ValueError, match="the brush is no PNG picture"):
        recipe.read_brush(buffer.getvalue(), 16)


def test_the_shelf_finds_runs_and_nothing_outside(trained, tmp_path):
    runs = tmp_path / "runs"
    shutil.copytree(trained.folder, runs / "evaluation" / "mapper" / "surprised")
    (runs / "outside").symlink_to(trained.folder)
    (runs / "empty").mkdir()
    own = {name for name in shelf.shelf(runs) if ":" not in name}
    assert own == {"evaluation/mapper/surprised"}
    known = shelf.find("evaluation/mapper/surprised", runs)
    assert (known.prompt, known.method, known.domain, known.tau) == ("surprised", "attention_mapper", "tiny", 0.4)
    assert {name for name in shelf.shelf(tmp_path / "lost") if ":" not in name} == set()
