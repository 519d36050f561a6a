"""StyleGAN2 against what rosinality/stylegan2-pytorch and stylegan2-ada-pytorch compute with the same weights."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file
from tiny import generator, w_plus

from converters import reading
from converters import stylegan2 as converter
from coral_jax.models.stylegan2 import StyleGAN2, StyleGAN2Config

DATA = Path(__file__).parent / "data"


def relative_error(ours: jax.Array, theirs: np.ndarray) -> float:
    """Largest absolute difference over the largest absolute value."""
    theirs = theirs.transpose(0, 2, 3, 1) if theirs.ndim == 4 else theirs
    assert ours.shape == theirs.shape
    return float(np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max())


@pytest.fixture(scope="module", params=["rosinality_64", "nvlabs_cfgf", "nvlabs_auto2"])
def golden(request):
    """A generator with published-form weights, and what its own implementation computed with them."""
    path = DATA / f"stylegan2_{request.param}{'_weights.safetensors' if 'rosinality' in request.param else '.pkl'}"
    network, _ = converter.load(reading.read(path), str(path))
    return network, load_file(DATA / f"stylegan2_{request.param}.safetensors")


@jax.jit
def everything(generator: StyleGAN2, expected: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """What the other implementation computed, computed by ours: one program, one batch."""
    w = generator.mapping(expected["z"])
    truncated = generator.broadcast(generator.truncate(w, 0.7))
    images = generator.synthesis(jnp.concatenate([generator.broadcast(w), truncated, expected["w_plus"]]))
    ours = dict(zip(("image", "image_psi07", "image_w_plus"), jnp.split(images, 3), strict=True)) | {"w": w}
    x, first = generator.constant(1), expected["w_plus"][:1]
    for layer in generator.layers:
        x = ours[f"feature_{layer.index - 1:02d}"] = generator.layer(layer, x, layer.codes(first))
    return ours


@pytest.mark.parametrize("fused", [False, True])
def test_matches_published_implementation(golden, fused):
    """w, images (stored noise), truncated images, images of a code per layer, and features agree to 1e-4."""
    generator, expected = golden
    generator = jax.tree.map(lambda x: x, generator)  # a copy, whose form of up-sampling is its own
    generator.fused_upsampling = fused
    with jax.default_matmul_precision("highest"):
        ours = everything(generator, {name: expected[name] for name in ("z", "w_plus")})
    compared = sorted(set(expected) - {"z", "w_plus"})
    errors = {name: relative_error(ours[name], expected[name]) for name in compared}
    assert set(errors) >= {"w", "image", "image_psi07", "image_w_plus"}
    assert max(errors.values()) <= 1e-4, errors


def test_layers_of_the_largest_generator():
    """17 convolutions and 18 codes at 1024 px; each ToRGB shares its code with the next block's first convolution."""
    channels = tuple((2**k, 1) for k in range(2, 11))
    network = nnx.eval_shape(lambda: StyleGAN2(StyleGAN2Config(1024, 1, 1, 1, channels), nnx.Rngs(0)))
    assert (network.n_latent, len(network.layers)) == (18, 17)
    assert [layer.index for layer in network.layers] == list(range(1, 18))
    assert [layer.rows for layer in network.layers] == [(row,) for row in range(17)]
    assert [layer.rgb_row for layer in network.layers if layer.rgb_row is not None] == [1, 3, 5, 7, 9, 11, 13, 15, 17]
    assert network.layers[12].resolution == 256  # the last that the paper edits


def test_lower_draws_what_has_added_up_by_its_last_layer():
    network, codes = generator(), w_plus()
    network.content_rows = (4, 12)
    x, image = network.constant(len(codes)), None
    for layer in network.layers[:3]:
        x = network.layer(layer, x, layer.codes(codes))
        if layer.rgb_row is not None:
            image = network.rgb(layer, x, codes[:, layer.rgb_row], image)
    lower = network.lower(8)
    assert (lower.layers, lower.n_latent, lower.content_rows) == (network.layers[:3], 4, (2, 6))
    np.testing.assert_array_equal(lower.synthesis(codes[:, :4]), image[:, 2:6])
    assert (len(network.convs), network.content_rows) == (5, (4, 12))
    for resolution in (4, 12, 32):
        with pytest.raises(ValueError, match="give a power of two from 8 to 16"):
            network.lower(resolution)


def test_truncation_and_broadcast():
    network = generator()
    w = jnp.arange(10.0).reshape(2, 5)
    np.testing.assert_allclose(network.truncate(w, 1.0), w, rtol=1e-6)
    np.testing.assert_allclose(network.truncate(w, 0.0)[1], network.w_avg[...])
    assert network.broadcast(w).shape == (2, 6, 5)
    np.testing.assert_array_equal(network.broadcast(w)[:, 3], w)


@pytest.mark.parametrize("fused", [False, True])
def test_gradients_reach_every_weight(fused):
    """So that a generator can be trained; w_avg takes no part in synthesis."""
    network = generator()
    network.fused_upsampling = fused
    z = jnp.asarray(np.random.default_rng(0).standard_normal((2, 6)), jnp.float32)

    @jax.jit
    def gradient(network):
        return jax.grad(lambda g: jnp.sum(jnp.square(g.synthesis(g.broadcast(g.mapping(z))))))(network)

    for path, variable in nnx.to_flat_state(nnx.state(gradient(network))):
        if path[0] != "w_avg":
            assert float(jnp.abs(variable[...]).max()) > 0, path


def test_refuses_sizes_that_no_stylegan2_has():
    with pytest.raises(ValueError, match="give a power of two"):
        StyleGAN2Config(24, 4, 4, 1, ((4, 4), (8, 4), (16, 4)))
    with pytest.raises(ValueError, match=r"for each of \[4, 8, 16\]"):
        StyleGAN2Config(16, 4, 4, 1, ((4, 4), (16, 4)))


def test_layer_is_its_style_and_its_styled_layer_bit_for_bit():
    network, codes = generator(), w_plus()
    styles = network.styles(codes)
    assert [style.shape for style in styles] == [(2, 8), (2, 8), (2, 6), (2, 6), (2, 4)]
    x = network.constant(2)
    for layer, style in zip(network.layers, styles, strict=True):
        composed = network.styled_layer(layer.index, x, (style,))
        (row,) = layer.rows
        np.testing.assert_array_equal(style, network.style(row, codes[:, row]))
        x = network.layer(layer, x, (codes[:, row],))
        np.testing.assert_array_equal(composed, x)


def test_style_is_what_published_weights_give():
    """The affine map's output: the mean over w of a fresh one is its bias, 1; no scale of the kernel is in it."""
    network, w = generator(), w_plus()[:, 0]
    affine = network.convs[1].modulation
    expected = np.asarray(w) @ np.asarray(affine.kernel[...]) / np.sqrt(5) + np.asarray(affine.bias[...])
    np.testing.assert_allclose(network.style(1, w), expected, rtol=1e-5)
