"""Learned edits: saved and read, applied to seeds and latents, and the images this writes."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from coral_jax import gallery, weights
from coral_jax.artifact import BATCH, Edit, edit_folder, load_edit, save_edit
from coral_jax.config import check_alphas
from coral_jax.gallery import apply_to_faces, strengths_of, undoing
from coral_jax.latents import load_latents, parse_seeds, w_plus_of_seeds
from coral_jax.methods import get_method


@pytest.fixture(scope="module")
def w_plus(edit):
    return w_plus_of_seeds(edit.domain.generator, list(range(10)), 0.8)


def test_an_edit_is_read_from_the_run_or_its_edit_folder(trained, edit, weights_dir):
    assert edit_folder(trained.folder) == edit_folder(trained.folder / "edit") == trained.folder / "edit"
    assert (edit.prompt, edit.settings.method, edit.tau, edit.settings.steps, edit.seed) == (
        "surprised", "attention_mapper", 0.4, 6, 0
    )  # fmt: skip
    assert edit.method is get_method("attention_mapper") and edit.masked_layers == (1, 2, 3, 4, 5)
    assert edit.settings.truncation == 0.8 and edit.segmenter == "mixture" and edit.domain.name == "tiny"


def test_saving_what_was_read_gives_the_same_files(trained, edit, tmp_path):
    save_edit(tmp_path / "edit", edit)
    for name in ("edit.json", "weights.safetensors"):
        assert (tmp_path / "edit" / name).read_bytes() == (trained.folder / "edit" / name).read_bytes()


def test_edits_that_do_not_belong_are_refused(trained, weights_dir, tmp_path):
    with pytest.raises(ValueError, match="no edit in .*; give the folder of a finished training run"):
        load_edit(tmp_path, weights_dir)
    shutil.copytree(trained.folder / "edit", tmp_path / "edit")
    shutil.copytree(weights_dir / "tiny", tmp_path / "tiny")
    tensors, metadata = weights.load_tensors(tmp_path / "tiny" / "generator.safetensors")
    weights.save_tensors(tmp_path / "tiny" / "generator.safetensors", tensors | {"w_avg": tensors["w_avg"] + 1}, metadata)
    with pytest.raises(ValueError, match="was made with other weights of domain 'tiny'"):
        load_edit(tmp_path, tmp_path)
    tensors, metadata = weights.load_tensors(tmp_path / "edit" / "weights.safetensors")
    weights.save_tensors(tmp_path / "edit" / "weights.safetensors", tensors | {"more": np.zeros(1)}, metadata)
    with pytest.raises(ValueError, match="not the one that edit.json describes"):
        load_edit(tmp_path, weights_dir)
    description = json.loads((tmp_path / "edit" / "edit.json").read_text())
    description["weights_sha256"] = weights.fingerprint(tmp_path / "edit" / "weights.safetensors")
    (tmp_path / "edit" / "edit.json").write_text(json.dumps(description))
    with pytest.raises(ValueError, match="unused: more"):
        load_edit(tmp_path, weights_dir)
    (tmp_path / "edit" / "edit.json").write_text("{}")
    with pytest.raises(ValueError, match="is not an edit's description"):
        load_edit(tmp_path, weights_dir)


def test_alpha_zero_and_masks_of_zero_give_the_original(edit, w_plus):
    original, edited, masks = edit.apply(w_plus[:2])
    assert np.abs(edited - original).max() > 1e-4 and max(mask.max() for mask in masks) > 0.4
    _, unchanged, masks = edit.apply(w_plus[:2], 1.0, 1.0)
    np.testing.assert_array_equal(unchanged, original)
    assert not any(mask.any() for mask in masks)
    np.testing.assert_allclose(edit.apply(w_plus[:2], 0.0)[1], original, atol=1e-5)


def test_a_face_does_not_depend_on_the_others(edit, w_plus):
    together = edit.apply(w_plus)
    assert len(together[0]) == 10 > BATCH and [mask.shape for mask in together[2]][-1] == (10, 16, 16)
    for index in (0, 9):
        alone = edit.apply(w_plus[index : index + 1])
        jax.tree.map(lambda a, b, i=index: np.testing.assert_array_equal(a[0], b[i]), alone, together)


def test_seeds_give_the_same_faces_alone_and_in_other_orders(edit, w_plus):
    generator = edit.domain.generator
    np.testing.assert_array_equal(w_plus_of_seeds(generator, [7, 2], 0.8), w_plus[[7, 2]])
    z = jax.random.normal(jax.random.key(7), (1, generator.z_dim))
    expected = jax.jit(lambda g, z: g.broadcast(g.truncate(g.mapping(z), 0.8)))(generator, z)
    np.testing.assert_allclose(w_plus[7], expected[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("text, seeds", [("0-3", [0, 1, 2, 3]), ("3,5,9", [3, 5, 9]), ("7", [7]), ("1-2, 9", [1, 2, 9])])
def test_seeds_are_read(text, seeds):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "3-1", "-1", "a", "1,,2", "1.5", "0-99999999999"])
def test_seeds_that_cannot_be_read_are_explained(text):
    with pytest.raises(ValueError, match="cannot be read; type a range or a list, such as 0-15"):
        parse_seeds(text)


def test_alphas_are_read_and_bounded():
    assert strengths_of(["-1", "0.5", "-1"], 1) == [-1.0, 0.5]
    for text in ("1.6", "-2", "nan", "much"):
        with pytest.raises(ValueError, match=f"alpha is '{text}'; give numbers from -1.5 to 1.5"):
            check_alphas([text])


def test_latents_of_every_form_are_read(edit, tmp_path):
    generator = edit.domain.generator
    n, width = generator.n_latent, generator.w_dim
    rng = np.random.default_rng(0)
    full, single = rng.random((3, n, width)), rng.random((4, width))
    cases = {"full": (full, full), "codes": (single, np.repeat(single[:, None], n, axis=1)),
             "one": (full[:1], full[:1]), "code": (single[0], np.repeat(single[:1, None], n, axis=1)),
             "columns": (single[:, None], np.repeat(single[:, None], n, axis=1))}  # fmt: skip
    for name, (stored, expected) in cases.items():
        np.save(tmp_path / f"{name}.npy", stored)
        weights.save_tensors(tmp_path / f"{name}.safetensors", {"latents": stored.astype(np.float16)}, {})
        np.testing.assert_array_equal(load_latents(tmp_path / f"{name}.npy", generator), expected.astype(np.float32))
        found = load_latents(tmp_path / f"{name}.safetensors", generator)
        np.testing.assert_array_equal(found, expected.astype(np.float16).astype(np.float32))
    weights.save_tensors(tmp_path / "two.safetensors", {"w_plus": full, "w": single}, {})
    assert len(load_latents(tmp_path / "two.safetensors", generator)) == 3


def test_the_name_of_latents_goes_before_their_shape(edit, tmp_path):
    """As many codes as the generator reads are one face's w_plus or as many faces' w: the name says it, or is asked for."""
    generator = edit.domain.generator
    n, width = generator.n_latent, generator.w_dim
    array = np.random.default_rng(0).standard_normal((n, width)).astype(np.float32)
    z = np.random.default_rng(1).standard_normal((n, generator.z_dim)).astype(np.float32)
    for name, stored, expected in (
        ("w_plus", array, array[None]),
        ("w", array, np.repeat(array[:, None], n, axis=1)),
        ("w", array[None], array[None]),  # as NVIDIA's projectors name w_plus
        ("z", z, np.asarray(generator.broadcast(generator.mapping(z)))),
    ):
        weights.save_tensors(tmp_path / "x.safetensors", {name: stored}, {})
        np.testing.assert_allclose(load_latents(tmp_path / "x.safetensors", generator), expected, atol=1e-5)
    np.save(tmp_path / "x.npy", array)
    weights.save_tensors(tmp_path / "unnamed.safetensors", {"latents": array}, {})
    for name in ("x.npy", "unnamed.safetensors"):
        asked = rf"one face's w_plus, or {n} faces' w\? save it as .safetensors under the name w_plus or w"
        with pytest.raises(ValueError, match=asked):
            load_latents(tmp_path / name, generator)


def test_latents_that_do_not_fit_are_explained(edit, tmp_path):
    generator = edit.domain.generator
    n, width = generator.n_latent, generator.w_dim
    bad = np.zeros((3, n, width))
    bad[1, 0, 0] = np.nan
    cases = {
        "shape": (
            np.zeros((2, n + 1, width)),
            rf"has the shape \[2, {n + 1}, {width}\], read as w_plus; .* reads w_plus \[N, {n}, {width}\]",
        ),
        "none": (np.zeros((0, n, width)), "has the shape"),
        "width": (np.zeros(width + 1), "has the shape"),
        "nan": (bad, "NaN or infinite values, first in face 1; leave 1"),
        "kind": (np.zeros((n, width), np.int32), "holds int32 values; give floating-point"),
        "object": (np.array([{}]), "is not an array of numbers"),
    }
    for name, (stored, message) in cases.items():
        np.save(tmp_path / f"{name}.npy", stored, allow_pickle=True)
        with pytest.raises(ValueError, match=message):
            load_latents(tmp_path / f"{name}.npy", generator)
    weights.save_tensors(tmp_path / "two.safetensors", {"a": bad, "b": bad}, {})
    for name, message in (("two.safetensors", "name the tensor"), ("lost.npy", "there is no latents file")):
        with pytest.raises(ValueError, match=message):
            load_latents(tmp_path / name, generator)
    (tmp_path / "w.pt").write_bytes(b"")
    with pytest.raises(ValueError, match="neither .npy nor .safetensors; convert it with python -m converters.latents"):
        load_latents(tmp_path / "w.pt", generator)


def test_images_masks_and_a_sheet_are_written(edit, w_plus, tmp_path):
    apply_to_faces(edit, w_plus[:2], ["seed 0", "seed 1"], [-1.0, 1.0], None, tmp_path)
    names = {entry.name for entry in tmp_path.iterdir()}
    images = {f"seed_{i}_{kind}.png" for i in (0, 1) for kind in ("original", "alpha_-1", "alpha_+1")}
    assert names == images | {"masks", "sheet.png"}
    _, _, masks = edit.apply(w_plus[:2])
    assert len(list((tmp_path / "masks").iterdir())) == 2 * len(masks)
    coarse = np.asarray(Image.open(tmp_path / "masks" / "seed_1_layer_01.png"))
    assert coarse.shape == (16, 16)
    np.testing.assert_array_equal(coarse[::4, ::4], np.round(masks[0][1] * 255))
    with pytest.raises(ValueError, match="tau is 2.0"):
        apply_to_faces(edit, w_plus[:1], ["seed 0"], [1.0], 2.0, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_faces_are_written_a_batch_at_a_time(edit, w_plus, tmp_path, monkeypatch):
    """All of them as images, the first ones on the sheet, whose shares are those of all."""
    monkeypatch.setattr(gallery, "SHEET_FACES", BATCH)
    drawn, sheets, draw = [], [], Edit.apply_each
    monkeypatch.setattr(Edit, "apply_each", lambda *given: drawn.append(len(given[1])) or draw(*given))
    monkeypatch.setattr(gallery, "alpha_sheet", lambda *given: sheets.append(given) or Image.new("RGB", (1, 1)))
    names = [f"seed {i}" for i in range(10)]
    apply_to_faces(edit, w_plus, names, [1.0], None, tmp_path)
    assert drawn == [BATCH, 2] and len(list(tmp_path.glob("*_original.png"))) == 10
    _, _, shown, original, edited, masks, shares = sheets[0]
    assert shown == names[:BATCH] and len(original) == len(edited[1.0]) == len(masks[0]) == BATCH
    expected = edit.shares(w_plus, [mask.mean() for mask in edit.apply(w_plus)[2]])
    np.testing.assert_allclose([share.area for share in shares], [share.area for share in expected], rtol=1e-5)


def test_images_and_masks_are_written_without_bars(trained, edit, weights_dir, w_plus, tmp_path):
    cut = load_edit(trained.folder, weights_dir)
    cut.domain.generator.content_rows = (2, 14)
    original, edited, _ = cut.apply(w_plus[:1])
    np.testing.assert_allclose([original, edited], np.stack(edit.apply(w_plus[:1])[:2])[:, :, 2:14], atol=1e-5)
    for name, drawn in (("whole", edit), ("cut", cut)):
        apply_to_faces(drawn, w_plus[:1], ["seed 0"], [1.0], None, tmp_path / name)
    for name in ("seed_0_alpha_+1.png", "seed_0_original.png", "masks/seed_0_layer_01.png"):
        whole, image = (np.asarray(Image.open(tmp_path / folder / name)).astype(int) for folder in ("whole", "cut"))
        assert image.shape[:2] == (12, 16) and np.abs(image - whole[2:14]).max() <= 1


def test_undo_changes_what_negative_alphas_do_and_no_other(edit, w_plus):
    (undo,) = undoing([edit], [1.0, -1.0])
    (plain, reversed_), (same, undone) = (one.apply_each(w_plus[:2], [1.0, -1.0])[1] for one in (edit, undo))
    np.testing.assert_array_equal(plain, same)
    assert np.any(reversed_ != undone)
    assert undo.about == "attention_mapper on tiny, undo"


def test_what_undo_cannot_do_is_explained(edit):
    moving_alike = dataclasses.replace(edit, settings=dataclasses.replace(edit.settings, method="attention_global"))
    for edits, alphas, message in (
        ([edit, edit], [(-1.0, -1.0)], "takes back one edit, and here are 2"),
        ([edit], [0.0, 1.0], "there are none; give one, such as --alpha=-1"),
        ([moving_alike], [-1.0], "attention_global has no mapper"),
    ):
        with pytest.raises(ValueError, match=message):
            undoing(edits, alphas)
