"""Latent editors: shapes, starting points, and which codes each part of the mapper reads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny import largest

from coral_jax.baselines.styleclip import FaceDeltas, LevelsMapper, all_layers
from coral_jax.editors import GlobalDirection, LatentMapper, Undoing, groups
from coral_jax.models.stylegan2 import StyleGAN2, StyleGAN2Config

RNG = np.random.default_rng(0)
CODES = jnp.float32(RNG.standard_normal((2, 14, 6)))


def sized(size, w_dim=6):
    """The layers of a generator of `size` px; without weights."""
    config = StyleGAN2Config(size, 6, w_dim, 1, tuple((2**k, 2) for k in range(2, size.bit_length())))
    return nnx.eval_shape(lambda: StyleGAN2(config, nnx.Rngs(0)))


LARGE, SMALL = sized(256), sized(16)  # 13 layers and 14 codes; 5 layers and 6 codes


@pytest.fixture(scope="module")
def mapper():
    return LatentMapper(LARGE, range(1, 14), nnx.Rngs(0))


def test_global_direction_is_the_same_for_every_image_and_starts_at_zero():
    editor = GlobalDirection(SMALL, (1, 2, 3, 4, 5), nnx.Rngs(0))
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
    small = LatentMapper(SMALL, (1, 2, 3, 4, 5), nnx.Rngs(0))
    assert small(CODES).shape == (2, 5, 6)
    assert not hasattr(small, "fine")
    assert len(jax.tree.leaves(small)) == 2 * 4 * 2


def test_styleclips_mapper_normalises_over_the_layers_of_a_group_and_ends_in_a_leaky_relu():
    mapper = LevelsMapper(LARGE, all_layers(LARGE), nnx.Rngs(0))
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
    editor = FaceDeltas(LARGE, all_layers(LARGE), nnx.Rngs(0), faces=2)
    assert editor.per_face and not editor.from_text
    assert editor(CODES).shape == CODES.shape and largest(editor(CODES)) == 0.0
    with pytest.raises(ValueError, match="1 faces for the deltas of 2"):
        editor(CODES[:1])


ROWS = [("coarse", 0, 4), ("medium", 4, 8), ("fine", 8, 99)]  # StyleCLIP's


@pytest.mark.parametrize("size", [8, 16, 32, 64, 128, 1024])
def test_groups_are_styleclips_rows_of_any_stylegan2(size):
    network = sized(size)
    for codes in range(1, network.n_latent + 1):
        expected = [(name, start, min(end, codes)) for name, start, end in ROWS if start < codes]
        assert list(groups(network, codes)) == expected


def test_editors_of_the_first_layers_move_the_codes_that_these_read():
    """ToRGB's further code does not count."""
    for layers, codes in (((1,), 1), ((1, 2, 3), 3), ((1, 2, 3, 4, 5), 5)):
        assert GlobalDirection(SMALL, layers, nnx.Rngs(0))(CODES).shape == (2, codes, 6)
        assert LatentMapper(SMALL, layers, nnx.Rngs(0))(CODES).shape == (2, codes, 6)
    assert all_layers(SMALL) == (1, 2, 3, 4, 5)
    assert LevelsMapper(SMALL, (1, 2), nnx.Rngs(0))(CODES[:, :6]).shape == (2, 6, 6)  # moves all codes, whatever the layers


def test_undoing_finds_the_delta_that_made_a_face_what_it_is(mapper):
    delta = mapper(CODES)
    edited = CODES.at[:, : delta.shape[1]].add(delta)
    wrong, found = np.abs(mapper(edited) - delta).max(), np.abs(Undoing(mapper)(edited) - delta).max()
    assert found < 1e-5 < wrong
