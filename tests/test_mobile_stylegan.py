"""models/mobile_stylegan.py: layers and codes, equation 1 in it, bfloat16, gradients, and read-outs of a cut generator."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny import build, largest

from coral_jax import weights
from coral_jax.blend import blend, original_synthesis
from coral_jax.methods import get_method
from coral_jax.models.mobile_stylegan import MobileStyleGAN, MobileStyleGANConfig, inverse_haar
from coral_jax.models.precision import cast
from coral_jax.training.loop import proxy

CONFIG = MobileStyleGANConfig(6, 5, 2, ((4, 8), (8, 8), (16, 4)), readouts=(8, 16))
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def network():
    return build(lambda: MobileStyleGAN(CONFIG, nnx.Rngs(0)))


@pytest.fixture(scope="module")
def codes():
    return jnp.asarray(RNG.standard_normal((2, 8, 5)), jnp.float32)


@jax.jit
def drawn(network, codes):
    return network.synthesis(codes)


def test_layers_of_the_published_generator():
    """15 layers and 23 codes at 1024 px, of which one is the head's."""
    channels = tuple((4 * 2**k, 4) for k in range(8))
    network = nnx.eval_shape(lambda: MobileStyleGAN(MobileStyleGANConfig(2, 2, 1, channels), nnx.Rngs(0)))
    assert (network.n_latent, len(network.layers), network.size, network.sizes) == (23, 15, 1024, (1024,))
    assert [layer.index for layer in network.layers] == list(range(1, 16))
    assert [layer.resolution for layer in network.layers] == [4] + [4 * 2 ** (1 + k // 2) for k in range(14)]
    assert [layer.rows for layer in network.layers[:4]] == [(0,), (1, 2), (3,), (4, 5)]
    assert [layer.rgb_row for layer in network.layers] == [None] * 14 + [22]


def test_the_wavelet_transform_keeps_energy_and_has_no_bands_of_a_flat_image():
    x = jnp.asarray(RNG.standard_normal((1, 3, 3, 8)), jnp.float32)
    image = inverse_haar(x)
    assert image.shape == (1, 6, 6, 2)
    np.testing.assert_allclose(jnp.sum(image**2), jnp.sum(x**2), rtol=1e-5)
    flat = inverse_haar(jnp.zeros((1, 2, 2, 8)).at[..., :2].set(jnp.array([2.0, 6.0])))
    np.testing.assert_allclose(flat, jnp.broadcast_to(jnp.array([1.0, 3.0]), (1, 4, 4, 2)))
    rows = inverse_haar(jnp.zeros((1, 1, 1, 4)).at[..., 1].set(2.0))  # the first of the high bands
    np.testing.assert_array_equal(rows[0, :, :, 0], [[1, 1], [-1, -1]])


def test_masks_of_zero_give_the_original_and_masks_of_one_the_moved_codes(network, codes):
    original = jax.jit(original_synthesis)(network, codes)
    delta = jnp.asarray(RNG.standard_normal((2, 7, 5)), jnp.float32)
    sizes = [layer.resolution for layer in network.layers]
    draw = jax.jit(lambda network, original, masks: blend(network, original, delta, masks))
    zero = draw(network, original, [jnp.zeros((2, size, size)) for size in sizes])
    np.testing.assert_array_equal(zero.image, drawn(network, codes))
    one = draw(network, original, [jnp.ones((2, size, size)) for size in sizes])
    expected = drawn(network, codes.at[:, :7].add(delta))
    assert largest(one.image, expected) < 1e-5 * largest(expected) < largest(one.image, zero.image)
    np.testing.assert_allclose(one.full, one.image, atol=1e-5 * largest(expected))


def test_bfloat16_keeps_codes_and_images_in_float32(network, codes):
    half = cast(network, "bfloat16")
    kinds = {".".join(map(str, path)): v.dtype for path, v in nnx.to_flat_state(nnx.state(half, nnx.Param))}
    lower = {name for name, kind in kinds.items() if kind == jnp.bfloat16}
    kernels = {f"convs.{k}.kernel" for k in range(5)} | {f"readouts.{size}.kernel" for size in (8, 16)}
    assert lower == {"input", "head.kernel"} | kernels
    first = half.layers[0]
    assert half.layer(first, half.constant(2), first.codes(codes)).dtype == jnp.bfloat16
    for whole, part in ((network, half), (network.lower(8), half.lower(8))):
        image, expected = drawn(part, codes[:, : whole.n_latent]), drawn(whole, codes[:, : whole.n_latent])
        assert image.dtype == jnp.float32
        assert 0 < largest(image, expected) < 0.03 * largest(expected)


@pytest.mark.parametrize("size", CONFIG.readouts + (32,))
def test_gradients_reach_every_code_and_weight_that_draws(network, codes, size):
    network = network.lower(size)
    codes = codes[:, : network.n_latent]
    gradient = jax.jit(jax.grad(lambda n, codes: jnp.sum(jnp.square(n.synthesis(codes))), (0, 1)))(network, codes)
    assert np.abs(gradient[1]).max(axis=(0, 2)).min() > 0
    for path, variable in nnx.to_flat_state(nnx.state(gradient[0], nnx.Param)):
        used = path[0] != "mapping" and (path[0] != "readouts" or path[1] == str(size))
        assert np.isfinite(variable[...]).all() and bool(np.abs(variable[...]).max() > 0) == used, path


# ---- read-outs -------------------------------------------------------------------------------------------------------


def test_a_cut_generator_is_drawn_by_its_readout(network, codes):
    network.content_rows = (4, 28)
    lower = network.lower(8)
    network.content_rows = None
    assert (lower.layers[:2], lower.n_latent, lower.size, lower.content_rows) == (network.layers[:2], 5, 8, (1, 7))
    assert (lower.sizes, network.sizes, lower.layers[2].rgb_row) == ((8,), (8, 16, 32), 4)
    x = np.asarray(jax.jit(original_synthesis)(network, codes).features[3])
    image, arrays = drawn(lower, codes[:, :5]), jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(network.readouts["8"])))
    offset = np.asarray(codes[:, 4] - network.w_avg[...][None])
    modulated = x * (1 + offset @ arrays["gain"])[:, None, None]
    expected = modulated @ arrays["kernel"] + arrays["bias"] + (offset @ arrays["shift"])[:, None, None]
    np.testing.assert_allclose(image, expected[:, 1:7], atol=1e-5 * largest(expected))
    assert len(network.convs) == 5 and network.head is not None  # the whole one is as it was
    np.testing.assert_array_equal(drawn(network.lower(32), codes), drawn(network, codes))


def test_a_size_without_a_readout_is_refused(network):
    with pytest.raises(ValueError, match=r"resolution is 4; this MobileStyleGAN draws at 8, 16, 32 px; give one of them$"):
        network.lower(4)
    bare = nnx.eval_shape(lambda: MobileStyleGAN(MobileStyleGANConfig(6, 5, 2, CONFIG.channels), nnx.Rngs(0)))
    with pytest.raises(ValueError, match=r"draws at 32 px; give one of them \(read-outs are added by .*train_readouts\)"):
        bare.lower(16)
    with pytest.raises(ValueError, match=r"draws at 8 px"):
        network.lower(8).lower(16)


def test_losses_see_a_readout_that_has_all_edited_layers(network, monkeypatch):
    method = get_method("attention_mapper")
    monkeypatch.setattr("coral_jax.blend.EDITED_RESOLUTION", 8)
    assert proxy(network, method, 8).size == 8 and proxy(network, method, 32).size == 32
    monkeypatch.setattr("coral_jax.blend.EDITED_RESOLUTION", 16)
    with pytest.raises(ValueError, match="loss_resolution is 8, and what attention_mapper edits here needs 16 px"):
        proxy(network, method, 8)
    with pytest.raises(ValueError, match=r"resolution is 24; .* draws at 8, 16, 32 px"):
        proxy(network, method, 24)


@pytest.mark.parametrize("size", [8, 32])
def test_files_keep_readouts_and_cuts(network, codes, tmp_path, size):
    network = network.lower(size)
    weights.save(tmp_path / "generator.safetensors", network)
    loaded = weights.load(tmp_path / "generator.safetensors")
    assert loaded.config == network.config
    np.testing.assert_array_equal(drawn(loaded, codes[:, : loaded.n_latent]), drawn(network, codes[:, : network.n_latent]))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"channels": ((4, 8), (16, 8))}, r"give \(resolution, channels\) for 4, 8, ... px"),
        ({"readouts": (16, 8)}, r"readouts is \(16, 8\); give some of the resolutions \[8, 16\], in order"),
        ({"readouts": (4,)}, "give some of the resolutions"),
        ({"readouts": (8,), "cut": True}, r"cut at 16 px has its last read-out there, not \(8,\)"),
    ],
)
def test_sizes_that_no_generator_has_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        MobileStyleGANConfig(**{"z_dim": 6, "w_dim": 5, "mapping_layers": 2, "channels": CONFIG.channels} | fields)
