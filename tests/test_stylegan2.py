"""StyleGAN2 against what rosinality/stylegan2-pytorch and stylegan2-ada-pytorch compute with the same weights."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file
from tiny import generator, quick_compilation  # noqa: F401

from coral_jax.models.stylegan2 import StyleGAN2, StyleGAN2Config

DATA = Path(__file__).parent / "data"


def nvlabs_names(config: StyleGAN2Config) -> dict[str, str]:
    """Our state path -> stylegan2-ada-pytorch's name."""
    linear = {"kernel": "weight", "bias": "bias"}
    rgb = linear | {f"modulation.{ours}": f"affine.{theirs}" for ours, theirs in linear.items()}
    conv = rgb | {"noise": "noise_const", "noise_strength": "noise_strength"}
    modules = [(f"mapping.layers.{i}", f"mapping.fc{i}", linear) for i in range(config.mapping_layers)]
    for block, (resolution, _) in enumerate(config.channels):
        theirs = f"synthesis.b{resolution}"
        modules += [(f"to_rgbs.{block}", f"{theirs}.torgb", rgb), (f"convs.{2 * block}", f"{theirs}.conv1", conv)]
        if block:
            modules.append((f"convs.{2 * block - 1}", f"{theirs}.conv0", conv))
    names = {f"{ours}.{a}": f"{theirs}.{b}" for ours, theirs, leaves in modules for a, b in leaves.items()}
    return names | {"input": "synthesis.b4.const", "w_avg": "mapping.w_avg"}


def rosinality_names(config: StyleGAN2Config) -> dict[str, str]:
    """Our state path -> rosinality/stylegan2-pytorch's name."""

    def rename(path: str) -> str:
        path = re.sub(r"mapping\.layers\.(\d+)\.", lambda m: f"style.{int(m[1]) + 1}.", path)
        path = re.sub(r"convs\.(\d+)\.noise$", r"noises.noise_\1", path)
        path = re.sub(r"convs\.(\d+)\.", lambda m: f"convs.{int(m[1]) - 1}." if int(m[1]) else "conv1.", path)
        path = re.sub(r"to_rgbs\.(\d+)\.", lambda m: f"to_rgbs.{int(m[1]) - 1}." if int(m[1]) else "to_rgb1.", path)
        path = path.replace("noise_strength", "noise.weight").replace("modulation.", "conv.modulation.")
        if "conv" in path and "modulation" not in path:
            path = re.sub(r"\.bias$", ".activate.bias", path)
        path = re.sub(r"(conv\w*(?:\.\d+)?|to_rgb\w*(?:\.\d+)?)\.kernel$", r"\1.conv.weight", path)
        return {"input": "input.input", "w_avg": "latent_avg"}.get(path, path.replace("kernel", "weight"))

    return {path: rename(path) for path in nvlabs_names(config)}


def load(config: StyleGAN2Config, names: dict[str, str], tensors: dict[str, np.ndarray]) -> StyleGAN2:
    """A generator with another implementation's tensors, all of them used, none left over."""
    assert sorted(names.values()) == sorted(tensors)
    network = nnx.eval_shape(lambda: StyleGAN2(config, nnx.Rngs(0)))
    state = dict(nnx.to_flat_state(nnx.state(network)))
    assert {".".join(map(str, path)) for path in state} == set(names)
    for path, variable in state.items():
        value = tensors[names[".".join(map(str, path))]]
        if path == ("input",):
            value = value.reshape(value.shape[-3:]).transpose(1, 2, 0)
        elif path[-1] == "kernel" and len(variable.shape) == 4:
            value = value.reshape(value.shape[-4:]).transpose(2, 3, 1, 0)
        elif path[-1] == "kernel":
            value = value.T
        variable.set_value(jnp.asarray(value.reshape(variable.shape)))
    return network


def relative_error(ours: jax.Array, theirs: np.ndarray) -> float:
    """Largest absolute difference over the largest absolute value."""
    theirs = theirs.transpose(0, 2, 3, 1) if theirs.ndim == 4 else theirs
    assert ours.shape == theirs.shape
    return float(np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max())


@pytest.fixture(scope="module", params=["rosinality_64", "nvlabs_cfgf", "nvlabs_auto2"])
def golden(request):
    """A generator with published-form weights, and what its own implementation computed with them."""
    tensors = load_file(DATA / f"stylegan2_{request.param}_weights.safetensors")
    expected = load_file(DATA / f"stylegan2_{request.param}.safetensors")
    size, z_dim = expected["image"].shape[-1], expected["z"].shape[1]
    sizes = [2**k for k in range(2, size.bit_length())]
    if request.param == "rosinality_64":
        mapping_layers = len([name for name in tensors if name.startswith("style.")]) // 2
        ends = ["conv1"] + [f"convs.{2 * i + 1}" for i in range(len(sizes) - 1)]
        widths = [len(tensors[f"{end}.activate.bias"]) for end in ends]
    else:
        mapping_layers = len([name for name in tensors if name.startswith("mapping.fc")]) // 2
        widths = [len(tensors[f"synthesis.b{resolution}.conv1.bias"]) for resolution in sizes]
    channels = tuple(zip(sizes, widths, strict=True))
    config = StyleGAN2Config(size, z_dim, expected["w"].shape[1], mapping_layers, channels)
    names = (rosinality_names if request.param == "rosinality_64" else nvlabs_names)(config)
    return load(config, names, tensors), expected


@jax.jit
def everything(generator: StyleGAN2, expected: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """What the other implementation computed, computed by ours: one program, one batch."""
    w = generator.mapping(expected["z"])
    truncated = generator.broadcast(generator.truncate(w, 0.7))
    images = generator.synthesis(jnp.concatenate([generator.broadcast(w), truncated, expected["w_plus"]]))
    ours = dict(zip(("image", "image_psi07", "image_w_plus"), jnp.split(images, 3), strict=True)) | {"w": w}
    x, first = generator.constant(1), expected["w_plus"][:1]
    for layer in generator.layers:
        x = ours[f"feature_{layer.index - 1:02d}"] = generator.layer(layer.index, x, first[:, layer.w_index])
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
    assert [layer.w_index for layer in network.layers] == list(range(17))
    assert [layer.rgb_w_index for layer in network.layers if layer.rgb_w_index] == [1, 3, 5, 7, 9, 11, 13, 15, 17]
    assert network.layers[12].resolution == 256  # the last that the paper edits


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
