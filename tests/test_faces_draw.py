"""faces/draw.py: pools are drawn part by part, and edited faces are what trained edits draw."""

import numpy as np
import pytest

from coral_jax import weights
from coral_jax.artifact import load_edit
from coral_jax.faces import draw
from coral_jax.models.ops import resized


def test_a_pool_goes_on_with_the_part_that_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(draw, "look", lambda networks, image: {"images": image})
    asked = []

    def drawing(w):
        asked.append(len(w))
        return [np.full((1, 2, 2, 3), one[0]) for one in w]

    w = np.arange(10, dtype=np.float32).reshape(5, 2)
    pieces = [(w[:2], drawing), (w[2:], drawing)]
    draw.draw_pool(tmp_path, "plain", None, pieces)
    (tmp_path / "pool" / "plain_00002.safetensors").unlink()
    draw.draw_pool(tmp_path, "plain", None, pieces)
    assert asked == [2, 3, 3]
    tensors, _ = weights.load_tensors(tmp_path / "pool" / "plain_00002.safetensors")
    np.testing.assert_array_equal(tensors["w"], w[2:])
    np.testing.assert_array_equal(tensors["images"][:, 0, 0, 0], w[2:, 0])


def test_edited_faces_are_drawn_by_the_edit_with_its_soft_masks_and_every_third_half_as_much(trained, domain):
    edit = load_edit(trained.folder, domain=domain)
    w = np.random.default_rng(0).standard_normal((4, domain.generator.config.w_dim)).astype(np.float32)
    images = draw.edited(trained.folder, domain, w)
    for row, (one, image) in enumerate(zip(w, images, strict=True)):
        _, wanted, _ = edit.apply(np.asarray(domain.generator.broadcast(one[None])), 0.5 if row % 3 == 0 else 1.0, tau=0.0)
        np.testing.assert_allclose(image, resized(wanted, 512), atol=2e-4)


def test_a_folder_without_runs_says_so(tmp_path, trained):
    assert trained.folder in draw.runs_with_edits(trained.folder.parent)
    with pytest.raises(ValueError, match="no finished run"):
        draw.runs_with_edits(tmp_path)
