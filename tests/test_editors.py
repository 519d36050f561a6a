"""Latent editors: shapes, starting points, and which codes each part of the mapper reads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny import largest

from coral_jax.editors import EditorConfig, FaceDeltas, GlobalDirection, LatentMapper, LevelsMapper

RNG = np.random.default_rng(0)
CODES = jnp.float32(RNG.standard_normal((2, 14, 6)))


@pytest.fixture(scope="module")
def mapper():
    return LatentMapper(EditorConfig(13, 6), nnx.Rngs(0))


def test_global_direction_is_the_same_for_every_image_and_starts_at_zero():
    editor = GlobalDirection(EditorConfig(5, 6), nnx.Rngs(0))
    assert largest(editor(CODES)) == 0.0
    editor.delta[...] = jnp.float32(RNG.standard_normal((5, 6)))
    assert editor(CODES).shape == (2, 5, 6)
    np.testing.assert_array_equal(editor(CODES)[0], editor(CODES)[1])


def test_mapper_is_pixel_norm_and_four_linear_layers_of_its_group(mapper):
    """Equalised (weights stored 100 times too large), no activation after the last, times 0.1."""
    delta = mapper(CODES)
    assert delta.shape == (2, 13, 6)
    for name, rows in (("coarse", range(0, 4)), ("medium", range(4, 8)), ("fine", range(8, 13))):
        layers = getattr(mapper, name).layers
        assert len(layers) == 4
        for row in rows:
            x = np.asarray(CODES[1, row])
            x = x / np.sqrt(np.mean(x**2) + 1e-8)
            for i, layer in enumerate(layers):
                x = x @ np.asarray(layer.kernel[...]) * 0.01 / np.sqrt(6) + 0.01 * np.asarray(layer.bias[...])
                if i < 3:
                    x = np.where(x > 0, x, 0.2 * x) * np.sqrt(2)
            np.testing.assert_allclose(delta[1, row], 0.1 * x, rtol=1e-4, atol=1e-6)


def test_mapper_delta_follows_its_own_code_only(mapper):
    changed = mapper(CODES.at[:, 5].add(1.0))
    moved = np.any(np.asarray(changed != mapper(CODES)), axis=(0, 2))
    np.testing.assert_array_equal(np.flatnonzero(moved), [5])


def test_mapper_leaves_out_groups_of_a_small_generator():
    small = LatentMapper(EditorConfig(5, 6), nnx.Rngs(0))
    assert small(CODES).shape == (2, 5, 6)
    assert not hasattr(small, "fine")
    assert len(jax.tree.leaves(small)) == 2 * 4 * 2


def test_styleclips_mapper_normalises_over_the_layers_of_a_group_and_ends_in_a_leaky_relu():
    mapper = LevelsMapper(EditorConfig(14, 6), nnx.Rngs(0))
    delta = mapper(CODES)
    assert delta.shape == (2, 14, 6)
    for name, (start, stop) in {"coarse": (0, 4), "medium": (4, 8), "fine": (8, 14)}.items():
        x = np.asarray(CODES[1, start:stop])
        x = x / np.sqrt(np.mean(x**2, axis=0) + 1e-8)
        for layer in getattr(mapper, name).layers:
            x = x @ np.asarray(layer.kernel[...]) * 0.01 / np.sqrt(6) + 0.01 * np.asarray(layer.bias[...])
            x = np.where(x > 0, x, 0.2 * x) * np.sqrt(2)
        np.testing.assert_allclose(delta[1, start:stop], 0.1 * x, rtol=1e-4, atol=1e-6)


def test_deltas_of_faces_are_their_own_and_start_at_zero():
    editor = FaceDeltas(EditorConfig(14, 6, faces=2), nnx.Rngs(0))
    assert editor(CODES).shape == CODES.shape and largest(editor(CODES)) == 0.0
    with pytest.raises(ValueError, match="1 faces for the deltas of 2"):
        editor(CODES[:1])
