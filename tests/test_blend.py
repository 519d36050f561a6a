"""Equation 1: exactness at masks of zero and one, and agreement with the equation written out sample by sample."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny import GENERATOR, generator, largest, w_plus

from coral_jax.baselines.feat import blend_once
from coral_jax.baselines.styleclip import draw_whole
from coral_jax.blend import Original, blend, blended_synthesis, edited_layers, original_synthesis
from coral_jax.models import blocks
from coral_jax.models.stylegan2 import StyleGAN2, StyleGAN2Config
from coral_jax.runtime.target import aimed_at

RNG = np.random.default_rng(0)


@partial(jax.jit, static_argnames=("full", "original_features", "edit_rgb"))
def blended(network, codes, delta, masks, **flags):
    return blend(network, original_synthesis(network, codes), delta, masks, **flags)


@pytest.fixture(scope="module")
def network():
    return generator()


def constant_masks(network, value, batch=2, layers=None):
    return tuple(jnp.full((batch, layer.resolution, layer.resolution), value) for layer in network.layers[:layers])


def random_masks(network, batch=2, layers=None):
    return tuple(jnp.float32(RNG.uniform(size=mask.shape)) for mask in constant_masks(network, 0.0, batch, layers))


def random_delta(network, layers=None):
    return jnp.float32(RNG.standard_normal((len(network.layers[:layers]), network.w_dim)))


def equation_1(network, w_plus, delta, masks):
    """One sample, one path after the other, exactly as the paper writes it."""
    star, image = network.constant(1), None
    codes = w_plus[None]
    moved = codes.at[:, : len(delta)].add(delta)
    for layer in network.layers:
        unedited = network.layer(layer, star, layer.codes(codes))
        if layer.index <= len(delta):
            edited = network.layer(layer, star, layer.codes(moved))
            m = masks[layer.index - 1][None, :, :, None]
            star = m * edited + (1 - m) * unedited
        else:
            star = unedited
        if layer.rgb_row is not None:
            image = network.rgb(layer, star, codes[:, layer.rgb_row], image)
    return image[0]


@pytest.mark.parametrize(("size", "batch"), [(8, 1), (16, 3), (64, 2)])
def test_zero_mask_returns_the_original_exactly(optimised, size, batch):
    widths = {4: 8, 8: 12, 16: 7, 32: 6, 64: 5}
    config = StyleGAN2Config(size, 6, 5, 1, tuple((r, c) for r, c in widths.items() if r <= size))
    network, codes = generator(config), w_plus(batch, config=config)
    delta, zero = random_delta(network), constant_masks(network, 0.0, batch)
    drawn = blended(network, codes, delta, zero)
    assert largest(drawn.image, drawn.original) == 0.0
    assert largest(drawn.original, jax.jit(lambda g, w: g.synthesis(w))(network, codes)) < 1e-5
    # The same through the whole blending arithmetic: a mask too small to change a float.
    drawn = blended(network, codes, delta, constant_masks(network, 1e-30, batch))
    assert largest(drawn.image, drawn.original) < 1e-5 * largest(drawn.original)
    assert largest(drawn.full, drawn.original) > 0.1


def test_zero_mask_is_exact_for_each_sample_by_itself(network):
    masks = tuple(mask.at[1].set(0.0) for mask in random_masks(network, 3))
    drawn = blended(network, w_plus(3), random_delta(network), masks)
    assert largest(drawn.image[1], drawn.original[1]) == 0.0
    assert largest(drawn.image[0], drawn.original[0]) > 0.1
    assert largest(drawn.image[2], drawn.original[2]) > 0.1


def test_mask_of_one_is_the_full_edit(network):
    codes, delta = w_plus(), random_delta(network)
    drawn = blended(network, codes, delta, constant_masks(network, 1.0))
    assert largest(drawn.image, drawn.full) < 1e-5 * largest(drawn.full)
    # ... which is the plain synthesis of w + delta, but for ToRGB.
    moved = codes.at[:, : len(delta)].add(delta)

    @jax.jit
    def plain(network):
        x, image = network.constant(2), None
        for layer in network.layers:
            x = network.layer(layer, x, layer.codes(moved))
            if layer.rgb_row is not None:
                image = network.rgb(layer, x, codes[:, layer.rgb_row], image)
        return image

    assert largest(drawn.full, plain(network)) < 1e-5 * largest(drawn.full)


@pytest.mark.parametrize("layers", [3, 5])
def test_is_equation_1(network, layers):
    """With random masks, a delta for each sample, and layers after the last edited one."""
    codes, masks = w_plus(), random_masks(network, layers=layers)
    delta = jnp.stack([random_delta(network, layers), random_delta(network, layers)])
    drawn = blended(network, codes, delta, masks)
    expected = [jax.jit(equation_1)(network, codes[b], delta[b], [mask[b] for mask in masks]) for b in range(2)]
    assert largest(drawn.image, jnp.stack(expected)) < 1e-5 * largest(drawn.image)


def test_without_the_full_image(network):
    codes, delta, masks = w_plus(), random_delta(network, 3), random_masks(network, layers=3)
    drawn, without = blended(network, codes, delta, masks), blended(network, codes, delta, masks, full=False)
    assert without.full is None
    assert largest(without.image, drawn.image) < 1e-5 * largest(drawn.image)


def test_public_call_gives_the_same_two_images(network):
    codes, delta, masks = w_plus(), random_delta(network), random_masks(network)
    star, tilde = jax.jit(blended_synthesis)(network, codes, delta, [mask[..., None] for mask in masks])
    drawn = blended(network, codes, delta, masks)
    assert largest(star, drawn.image) < 1e-5 * largest(star)
    assert largest(tilde, drawn.full) < 1e-5 * largest(tilde)


def test_gradients_reach_delta_and_masks_of_every_layer_but_not_the_original(network):
    masks, delta = random_masks(network), random_delta(network)

    @jax.jit
    def gradients(codes, delta, masks):
        def total(delta, masks):
            return jnp.sum(jnp.square(blended(network, codes, delta, masks).image))

        def original(codes):
            return jnp.sum(jnp.square(original_synthesis(network, codes).image))

        return jax.grad(total, argnums=(0, 1))(delta, masks), jax.grad(original)(codes)

    (by_delta, by_masks), by_codes = gradients(w_plus(), delta, masks)
    assert float(jnp.min(jnp.linalg.norm(by_delta, axis=-1))) > 0
    assert min(float(jnp.linalg.norm(mask)) for mask in by_masks) > 0
    assert largest(by_codes) == 0.0


def test_a_tpu_draws_large_layers_again_for_the_derivative(monkeypatch):
    """Of the layers that no edit reads, all but those of the image's own size."""
    monkeypatch.setattr(blocks, "LARGE", 16)
    config = StyleGAN2Config(32, 6, 5, 1, ((4, 8), (8, 12), (16, 7), (32, 6)))
    network, codes = generator(config), w_plus(config=config)
    delta, masks = random_delta(network, 3), random_masks(network, layers=3)

    def total(delta):
        drawn = blend(network, original_synthesis(network, codes), delta, masks)
        return jnp.sum(drawn.image) + jnp.sum(jnp.square(drawn.full))

    found = {}
    for form, drawn_again in (("cpu", 0), ("tpu", 1)):
        with aimed_at(form):
            lowered = jax.jit(jax.value_and_grad(total)).lower(delta)
        assert lowered.as_text().count("optimization_barrier") == drawn_again
        found[form] = lowered.compile()(delta)
    for ours, wanted in zip(found["tpu"], found["cpu"], strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=1e-4, atol=1e-4 * largest(wanted))


def test_layers_of_up_to_256_px_are_edited(network):
    assert edited_layers(network) == (1, 2, 3, 4, 5) and len(network.layers) == 5
    channels = tuple((2**k, 1) for k in range(2, 11))
    large = nnx.eval_shape(lambda: StyleGAN2(StyleGAN2Config(1024, 1, 1, 1, channels), nnx.Rngs(0)))
    assert edited_layers(large) == tuple(range(1, 14)) and len(large.layers) == 17


def test_the_original_is_the_synthesis_with_the_features_of_every_layer(network):
    codes = w_plus()
    original = jax.jit(original_synthesis)(network, codes)
    assert isinstance(original, Original) and original.segments is None
    np.testing.assert_array_equal(original.w_plus, codes)
    assert largest(original.image, jax.jit(lambda g, w: g.synthesis(w))(network, codes)) < 1e-5 * largest(original.image)
    expected = {layer.index: (2, layer.resolution, layer.resolution, layer.channels) for layer in network.layers}
    assert {index: features.shape for index, features in original.features.items()} == expected


def test_refuses_masks_that_do_not_fit(network):
    with pytest.raises(ValueError, match=r"of resolutions \[4, 8, 8, 16, 16\]"):
        blended(network, w_plus(), random_delta(network), random_masks(network, layers=4))
    for codes in (0, 6):
        with pytest.raises(ValueError, match=rf"delta edits {codes} codes; .* first layers .* read: \[1, 2, 3, 4, 5\]"):
            blended(network, w_plus(), jnp.zeros((codes, GENERATOR.w_dim)), ())


@partial(jax.jit, static_argnames="full")
def blended_once(network, codes, delta, mask, full=True):
    return blend_once(network, original_synthesis(network, codes), delta, (mask,), full=full)


@pytest.mark.parametrize("last", [1, 2, 3, 4])
def test_one_blending_of_ones_edits_the_layers_before_it_and_of_zeros_none(network, last):
    """With a mask of one, layers after the blending see the original code; with zero all is the original, exactly."""
    codes, delta = w_plus(), random_delta(network, last)
    resolution = network.layers[last - 1].resolution
    ones = jnp.ones((2, resolution, resolution))
    drawn = blended_once(network, codes, delta, ones)
    x, image = network.constant(2), None
    moved = codes.at[:, :last].add(delta)
    for layer in network.layers:
        x = network.layer(layer, x, layer.codes(moved))
        if layer.rgb_row is not None:
            image = network.rgb(layer, x, codes[:, layer.rgb_row], image)
    np.testing.assert_allclose(drawn.image, image, rtol=1e-4, atol=1e-4 * largest(image))
    np.testing.assert_allclose(drawn.full, image, rtol=1e-4, atol=1e-4 * largest(image))
    untouched = blended_once(network, codes, delta, 0 * ones)
    assert largest(untouched.image, untouched.original) == 0.0
    assert largest(drawn.image, drawn.original) > 0.01 * largest(image)


def test_one_blending_edits_inside_its_mask_only(network):
    """Far from the mask nothing changes: layer 4 is followed by one convolution and up-sampled images before it."""
    mask = jnp.zeros((2, 16, 16)).at[:, :5, :5].set(1.0)
    drawn = blended_once(network, w_plus(), random_delta(network, 4), mask)
    change = np.abs(np.asarray(drawn.image - drawn.original)).max(axis=(0, 3))
    assert change[:4, :4].min() > 0.01 and change[12:, 12:].max() < 1e-5 * largest(drawn.original)


def test_a_mask_of_another_size_is_refused_by_one_blending(network):
    with pytest.raises(ValueError, match="masks have the sizes"):
        blended_once(network, w_plus(), random_delta(network, 2), jnp.ones((2, 4, 4)))


def test_original_features_forget_the_layers_before(network):
    """With a mask in layer 2 alone, behind layer 3 of zero nothing is left of the edit: it is not fed forward."""
    codes, delta = w_plus(), random_delta(network)
    masks = [jnp.full_like(mask, float(i == 1)) for i, mask in enumerate(constant_masks(network, 0.0))]
    forgotten = blended(network, codes, delta, masks, full=False, original_features=True)
    np.testing.assert_allclose(forgotten.image, forgotten.original, atol=1e-5 * largest(forgotten.original))
    kept = blended(network, codes, delta, masks, full=False)
    assert largest(kept.image, kept.original) > 0.01 * largest(kept.original)


def test_an_edited_to_rgb_follows_the_masks(network):
    """Masks of one read the edited code in ToRGB where delta has it, masks of zero the original, exactly."""
    codes, delta = w_plus(), random_delta(network)
    ones = blended(network, codes, delta, constant_masks(network, 1.0), edit_rgb=True)
    padded = jnp.concatenate([delta, jnp.zeros((1, network.w_dim))])
    whole = jax.jit(draw_whole)(network, Original(codes, ones.original, {}), padded[None], ())
    assert whole.full is None and whole.masks == () and largest(whole.original, ones.original) == 0.0
    expected = whole.image
    for image in (ones.image, ones.full):
        np.testing.assert_allclose(image, expected, rtol=1e-4, atol=1e-4 * largest(expected))
    assert largest(ones.image, blended(network, codes, delta, constant_masks(network, 1.0)).image) > 1e-3
    zeros = blended(network, codes, delta, constant_masks(network, 0.0), edit_rgb=True)
    assert largest(zeros.image, zeros.original) == 0.0
