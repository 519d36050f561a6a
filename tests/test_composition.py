"""Several edits in one pass: each with its own masks, in any order, and one as it is alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from coral_jax.artifact import Edit
from coral_jax.blend import blend, blend_together, original_synthesis
from coral_jax.composition import Composition, compose
from coral_jax.gallery import apply_to_faces, strengths_of
from coral_jax.latents import w_plus_of_seeds


@pytest.fixture(scope="module")
def faces(edit):
    return w_plus_of_seeds(edit.domain.generator, [0, 1], 0.8)


@pytest.fixture(scope="module")
def scene():
    """A tiny generator, two faces, two deltas, and masks of them that do not meet."""
    generator = tiny.generator()
    rng = np.random.default_rng(0)
    w_plus = jnp.asarray(rng.standard_normal((2, generator.n_latent, generator.w_dim)), jnp.float32)
    n = generator.codes_read([layer.index for layer in generator.layers])
    deltas = [jnp.asarray(rng.standard_normal((n, generator.w_dim)), jnp.float32) for _ in range(2)]
    left = [np.float32(np.indices((2, s, s))[2] < s / 2) for s in (layer.resolution for layer in generator.layers)]
    return generator, original_synthesis(generator, w_plus), deltas, [left, [1 - mask for mask in left]]


def test_one_edit_is_what_blend_draws_to_the_bit(scene):
    generator, original, (delta, _), (masks, _) = scene
    alone = jax.jit(lambda g, o: blend(g, o, delta, masks, full=False).image)(generator, original)
    together = jax.jit(lambda g, o: blend_together(g, o, [delta], [masks]).image)(generator, original)
    np.testing.assert_array_equal(together, alone)


def test_the_order_does_not_matter_where_masks_do_not_meet(scene):
    generator, original, deltas, masks = scene
    draw = jax.jit(lambda g, o, d, m: blend_together(g, o, d, m).image)
    one, other = draw(generator, original, deltas, masks), draw(generator, original, deltas[::-1], masks[::-1])
    np.testing.assert_allclose(one, other, atol=1e-5)
    for delta, mask in zip(deltas, masks, strict=True):  # both edits show
        assert tiny.largest(one, draw(generator, original, [delta], [mask])) > 0.01


def test_an_edit_with_masks_of_zero_changes_nothing_of_another(scene):
    generator, original, deltas, (masks, _) = scene
    zeros = [np.zeros_like(mask) for mask in masks]
    draw = jax.jit(lambda g, o, d, m: blend_together(g, o, d, m).image)
    alone = draw(generator, original, deltas[:1], [masks])
    np.testing.assert_allclose(draw(generator, original, deltas, [masks, zeros]), alone, atol=1e-5)
    np.testing.assert_array_equal(draw(generator, original, deltas, [zeros, zeros]), original.image)


def test_deltas_of_other_codes_are_refused(scene):
    generator, original, (delta, _), masks = scene
    with pytest.raises(ValueError, match="edit as many codes"):
        blend_together(generator, original, [delta, delta[:2]], masks)


def test_a_composition_draws_as_an_edit_does(edit, faces, tmp_path):
    assert compose([edit]) is edit
    both = compose([edit, edit])
    assert isinstance(both, Composition) and both.prompt == "surprised + surprised"
    assert both.masked_layers == edit.masked_layers
    original, (once, none), masks = both.apply_each(faces, [(1.0, 0.0), (0.0, 0.0)])
    alone = edit.apply_each(faces, [1.0])
    np.testing.assert_allclose(original, alone[0], atol=1e-5)
    np.testing.assert_allclose(once, alone[1][0], atol=1e-4)
    np.testing.assert_allclose(none, original, atol=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), masks, alone[2])
    apply_to_faces(both, faces, ["seed 0", "seed 1"], [(1.0, 0.5)], None, tmp_path)
    assert {path.name for path in tmp_path.glob("seed_0*")} == {"seed_0_original.png", "seed_0_alpha_+1_+0.5.png"}


def test_edits_that_cannot_share_a_pass_are_refused(edit):
    other = dataclasses.replace(edit, domain=dataclasses.replace(edit.domain, name="other"))
    with pytest.raises(ValueError, match=r"several domains \(tiny, other\)"):
        compose([edit, other])
    whole = dataclasses.replace(edit, settings=dataclasses.replace(edit.settings, method="styleclip_mapper"))
    with pytest.raises(ValueError, match="edits of styleclip_mapper cannot be applied with others; train"):
        compose([edit, whole])
    assert isinstance(whole, Edit)


def test_strengths_are_of_one_edit_or_one_for_each():
    assert strengths_of(["-1", "0.5", "-1"], 1) == [-1.0, 0.5]
    assert strengths_of(["1", "0.5"], 2) == [(1.0, 0.5)] and strengths_of(["0.7"], 3) == [(0.7, 0.7, 0.7)]
    with pytest.raises(ValueError, match="--alpha has 3 numbers for 2 edits; give one for each"):
        strengths_of(["1", "0", "1"], 2)
