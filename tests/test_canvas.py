"""A face under edits that are adjusted: the same picture as an edit's own, layers, brush, previews."""

from dataclasses import replace

import numpy as np
import pytest
import tiny
from flax import nnx

from coral_jax import canvas
from coral_jax.canvas import ERASED, LEARNED, PAINTED, Adjusted, Canvas, brush_at, brush_size, lowered, previews
from coral_jax.latents import w_plus_of_seeds
from coral_jax.methods import get_method, make_trainables
from coral_jax.optimisers import Trainables
from coral_jax.photos.photo import with_differences
from coral_jax.runtime.numerics import key_of


@pytest.fixture(scope="module")
def w_plus(edit):
    return w_plus_of_seeds(edit.domain.generator, [3], 0.8)[0]


def made(edit, method):
    """The edit of another method, whose weights are random."""
    segments = edit.domain.segmenter(None).config.segments
    trainables = make_trainables(get_method(method), edit.domain.generator, segments, key_of(1), 1)
    moved = tiny.build(lambda: make_trainables(get_method(method), edit.domain.generator, segments, key_of(1), 1).editor, 5)
    settings = replace(edit.settings, method=method, batch_size=1)
    return replace(edit, settings=settings, trainables=Trainables(moved, trainables.selector), tau=0.3)


@pytest.mark.parametrize("method", ["attention_mapper", "segment_global", "feat_7", "stylemc", "styleclip_mapper"])
def test_a_canvas_draws_what_the_edit_draws(edit, w_plus, method):
    edit = made(edit, method)
    for alpha, tau in ((1.0, None), (-0.5, 0.2)):
        original, edited, masks = edit.apply(w_plus[None], alpha, tau)
        face = Canvas(edit.domain, w_plus)
        drawn = face.draw([Adjusted(edit, alpha, tau)])
        np.testing.assert_allclose(face.original, original[0], atol=1e-5)
        np.testing.assert_allclose(drawn.image, edited[0], atol=1e-4)
        assert np.abs(drawn.image - face.original).max() > 1e-4
        for found, mask in zip(drawn.masks[0], masks, strict=True):
            np.testing.assert_allclose(found, mask[0], atol=1e-5)
        np.testing.assert_array_equal(face.draw([]).image, face.original)


def test_faces_that_are_edited_one_by_one_are_found_once(edit, w_plus, monkeypatch):
    edit = made(edit, "styleclip_optimization")
    edit = replace(edit, settings=replace(edit.settings, steps=2, learning_rate=0.5))
    found = []
    monkeypatch.setattr(type(edit), "trainables_of", lambda self, codes: found.append(self) or self.trainables)
    tuned = with_differences(edit.domain.generator, {"none": 0.0})  # as a photo brings its own
    face = Canvas(replace(edit.domain, generator=tuned), w_plus)
    images = [face.draw([Adjusted(edit, alpha)]).image for alpha in (0.0, 0.5, 1.0)]
    assert len(found) == 1 and found[0].domain.generator is tuned and np.abs(images[2] - images[1]).max() > 1e-3
    np.testing.assert_allclose(images[0], face.original, atol=1e-5)


def test_only_the_blended_pass_depends_on_alpha(edit, w_plus, monkeypatch):
    counts = {name: 0 for name in ("_jit_original", "_jit_find", "_jit_draw")}

    def counted(name, program):
        def call(*given):
            counts[name] += 1
            return program(*given)

        return call

    for name in counts:
        monkeypatch.setattr(canvas, name, counted(name, getattr(canvas, name)))
    face = Canvas(edit.domain, w_plus)
    for alpha in (0.1, 0.2, 0.3):
        face.draw([Adjusted(edit, alpha)])
    face.draw([Adjusted(edit, 0.3, off=frozenset({1}))])
    assert counts == {"_jit_original": 1, "_jit_find": 1, "_jit_draw": 4}
    for tau in (0.1, 0.2, 0.1):
        face.draw([Adjusted(edit, 1.0, tau)])
    assert counts["_jit_original"] == 1 and counts["_jit_find"] == 4 and len(face._found) == 1


def test_layers_are_switched_off(edit, w_plus):
    face = Canvas(edit.domain, w_plus)
    layers = edit.masked_layers
    whole, (masks,) = face.draw([Adjusted(edit)])
    strongest = layers[int(np.argmax([mask.max() for mask in masks]))]
    part, (left,) = face.draw([Adjusted(edit, off=frozenset({strongest}))])
    assert np.abs(part - whole).max() > 1e-4
    for layer, before, after in zip(layers, masks, left, strict=True):
        np.testing.assert_array_equal(after, 0 * before if layer == strongest else before)
    none = face.draw([Adjusted(edit, off=frozenset(layers))]).image
    np.testing.assert_array_equal(none, face.original)
    with pytest.raises(ValueError, match=r"has no mask in layer 9; it has them in \[1, 2, 3, 4, 5\]"):
        face.draw([Adjusted(edit, off=frozenset({9}))])


def test_the_brush_erases_and_paints(edit, w_plus):
    face = Canvas(edit.domain, w_plus)
    size = brush_size(edit.domain.generator)
    _, (masks,) = face.draw([Adjusted(edit)])
    brush = np.full((size, size), LEARNED, np.uint8)
    np.testing.assert_array_equal(face.draw([Adjusted(edit, brush=brush)]).image, face.draw([Adjusted(edit)]).image)
    everywhere = np.full_like(brush, ERASED)
    np.testing.assert_array_equal(face.draw([Adjusted(edit, brush=everywhere)]).image, face.original)
    brush[: size // 2], brush[size // 2 :] = ERASED, PAINTED
    _, (changed,) = face.draw([Adjusted(edit, brush=brush)])
    for before, after in zip(masks, changed, strict=True):
        half = len(before) // 2
        assert not after[:half].any()
        np.testing.assert_allclose(after[half:], before.max(), atol=1e-6)
    with pytest.raises(ValueError, match=r"the brush is uint8 \[3, 3\]; give uint8 \[16, 16\]"):
        face.draw([Adjusted(edit, brush=brush[:3, :3])])


def test_a_brush_has_every_resolution():
    brush = np.array([[ERASED, LEARNED], [PAINTED, 0]], np.uint8)
    np.testing.assert_array_equal(brush_at(brush, 2), [[-1, 0], [1, -1]])
    np.testing.assert_array_equal(brush_at(brush, 4)[::3, ::3], [[-1, 0], [1, -1]])
    np.testing.assert_allclose(brush_at(brush, 1), [[-0.25]])


def test_a_preview_is_drawn_by_the_lower_generator(edit, w_plus, monkeypatch):
    assert lowered(edit.domain.generator) is edit.domain.generator
    monkeypatch.setattr(canvas, "PREVIEW", 8)
    assert not previews(edit)  # it edits layers of 16 px
    low = lowered(edit.domain.generator)
    assert low.size == 8
    face = Canvas(edit.domain, w_plus, preview=True)
    assert face.original.shape == (8, 8, 3)
    with pytest.raises(ValueError, match="needs layers that a preview of 8 px lacks"):
        face.draw([Adjusted(edit)])
    assert not previews(replace(edit, trainables=None))  # before it is learned
    single = made(edit, "feat_7")
    assert previews(single) == (single.method.layers(low) == single.method.layers(edit.domain.generator))


def test_shares_are_those_of_the_edit(edit, w_plus):
    face = Canvas(edit.domain, w_plus)
    one = Adjusted(edit)
    masks = face.draw([one]).masks[0]
    expected = edit.shares(w_plus[None], [mask.mean() for mask in masks])
    assert face.shares(one, masks) == expected and [share.layer for share in expected] == [1, 2, 3, 4, 5]
    assert isinstance(edit.trainables.editor, nnx.Module)
