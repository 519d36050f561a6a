"""EfficientNet-Lite0 against a plain reading of the published names, and its conversion."""

import zlib
from functools import cache

import jax
import numpy as np
import pytest
import torch_files

from converters import efficientnet
from coral_jax import weights
from coral_jax.models.efficientnet import EfficientNet

# Of blocks 0 to 10 of EfficientNet-Lite0: channels of input and output, kernel, stride, expansion.
BLOCKS = [(32, 16, 3, 1, 1), (16, 24, 3, 2, 6), (24, 24, 3, 1, 6), (24, 40, 5, 2, 6), (40, 40, 5, 1, 6), (40, 80, 3, 2, 6),
          (80, 80, 3, 1, 6), (80, 80, 3, 1, 6), (80, 112, 5, 1, 6), (112, 112, 5, 1, 6), (112, 112, 5, 1, 6)]  # fmt: skip
MAPPED = {2: (56, 24), 4: (28, 40), 7: (14, 80), 10: (14, 112)}  # block: side and channels of its map


def shapes():
    """Shapes of the arrays under their published names, with some of those that are left out."""
    found = {"_conv_stem.weight": (32, 3, 3, 3), "_conv_head.weight": (8, 112, 1, 1), "_fc.weight": (10, 8)}
    norms = {"_bn0": 32, "_bn1": 8, "_blocks.11._bn0": 4}
    for index, (inputs, outputs, size, _, expansion) in enumerate(BLOCKS):
        name, width = f"_blocks.{index}", inputs * expansion
        if expansion > 1:
            found[f"{name}._expand_conv.weight"] = (width, inputs, 1, 1)
            norms[f"{name}._bn0"] = width
        found[f"{name}._depthwise_conv.weight"] = (width, 1, size, size)
        found[f"{name}._project_conv.weight"] = (outputs, width, 1, 1)
        norms |= {f"{name}._bn1": width, f"{name}._bn2": outputs}
    for name, channels in norms.items():
        found |= {f"{name}.{array}": (channels,) for array in ("weight", "bias", "running_mean", "running_var")}
        found[f"{name}.num_batches_tracked"] = (1,)
    return found


@cache
def published():
    """Weights made from the names, that keep features of order one."""
    tensors = {}
    for name, shape in shapes().items():
        value = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape, np.float32)
        if name.endswith("running_var"):
            value = 0.5 + np.abs(value)
        elif len(shape) > 1:
            value *= np.float32(np.sqrt(2 / np.prod(shape[1:])))
        else:
            value = np.float32(name.endswith("weight")) + 0.1 * value
        tensors[name] = np.asarray(value, np.float32)
    return tensors


def convolved(x, kernel, stride):
    """x [C, H, W] with a kernel [O, I, k, k], O groups where I is 1: TensorFlow's SAME padding, as sums of products."""
    size = kernel.shape[-1]
    short = [max((-(-n // stride) - 1) * stride + size - n, 0) for n in x.shape[1:]]
    x = np.pad(x, ((0, 0), *((pad // 2, pad - pad // 2) for pad in short)))
    total = 0
    for row, column in np.ndindex(size, size):
        seen = x[:, row : x.shape[1] - size + 1 + row : stride, column : x.shape[2] - size + 1 + column : stride]
        weight = kernel[:, :, row, column]
        total += weight[:, :, None] * seen if kernel.shape[1] == 1 else np.einsum("oi,ihw->ohw", weight, seen)
    return total


def reference(tensors, image):
    """Maps of an image [224, 224, 3] in [-1, 1], by block."""

    def normed(x, name):
        weight, bias, mean, var = (tensors[f"{name}.{array}"][:, None, None] for array in
                                   ("weight", "bias", "running_mean", "running_var"))  # fmt: skip
        return (x - mean) / np.sqrt(var + 1e-3) * weight + bias

    def relu6(x):
        return np.clip(x, 0, 6)

    x = ((image.transpose(2, 0, 1).astype(np.float64) + 1) * 127.5 - 127) / 128
    x, maps = relu6(normed(convolved(x, tensors["_conv_stem.weight"], 2), "_bn0")), {}
    for index, (inputs, outputs, _, stride, expansion) in enumerate(BLOCKS):
        name, y = f"_blocks.{index}", x
        if expansion > 1:
            y = relu6(normed(convolved(y, tensors[f"{name}._expand_conv.weight"], 1), f"{name}._bn0"))
        y = relu6(normed(convolved(y, tensors[f"{name}._depthwise_conv.weight"], stride), f"{name}._bn1"))
        y = normed(convolved(y, tensors[f"{name}._project_conv.weight"], 1), f"{name}._bn2")
        x = x + y if stride == 1 and inputs == outputs else y
        if index in MAPPED:
            maps[index] = x
    return maps


def test_its_maps_are_those_of_the_published_layers(tmp_path):
    torch_files.save(tmp_path / "lite0.pth", published())
    line = efficientnet.convert(tmp_path / "lite0.pth", tmp_path / "imagenet.safetensors")
    assert "EfficientNet-Lite0 of 224 px" in line
    network = weights.load(tmp_path / "imagenet.safetensors")
    assert type(network) is EfficientNet
    image = np.random.default_rng(0).uniform(-1, 1, (224, 224, 3)).astype(np.float32)
    with jax.default_matmul_precision("highest"):
        got = jax.jit(EfficientNet.patches)(network, image[None])
    for one, (block, expected) in zip(got, reference(published(), image).items(), strict=True):
        side, channels = MAPPED[block]
        assert one.shape == (1, side * side, channels)
        expected = expected.transpose(1, 2, 0).reshape(1, side * side, channels)
        assert np.linalg.norm(one - expected) < 1e-5 * np.linalg.norm(expected)


def test_pictures_of_other_sizes_are_scaled(tmp_path):
    network = efficientnet.load(published(), "made up")
    small = np.random.default_rng(0).uniform(-1, 1, (1, 56, 56, 3)).astype(np.float32)
    large = small.repeat(8, 1).repeat(8, 2)  # 448 px
    with jax.default_matmul_precision("highest"):
        expected = network.patches(small.repeat(4, 1).repeat(4, 2))
        for one, other in zip(network.patches(large), expected, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-3)


def test_weights_of_other_networks_are_refused():
    with pytest.raises(ValueError, match=r"vgg.pth holds features.0.weight, and no EfficientNet-Lite; give efficientnet-lite0"):
        efficientnet.load({"features.0.weight": np.zeros(3)}, "vgg.pth")
    wider = published() | {"_blocks.5._project_conv.weight": np.zeros((88, 240, 1, 1), np.float32)}
    with pytest.raises(ValueError, match=r"wrong shape: _blocks.5._project_conv.weight is \(88, 240, 1, 1\)"):
        efficientnet.load(wider, "lite1.pth")
