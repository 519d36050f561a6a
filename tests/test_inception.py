"""The Inception of FID against a torch copy, its golden features, and the conversion of both published forms."""

import zlib
from functools import cache
from pathlib import Path

import jax
import numpy as np
import pytest

from converters import inception
from coral_jax import weights
from coral_jax.models.inception import Inception

GOLDEN = Path(__file__).parent / "data" / "inception_rule.safetensors"


def rule_tensor(name, shape):
    """Weights made from the name, that keep features of order one."""
    value = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape, np.float32)
    if name.endswith("running_var"):
        return 0.5 + np.abs(value)
    if len(shape) > 1:
        return value * np.float32(np.sqrt(2 / np.prod(shape[1:])))
    return 1 + 0.1 * value if name.endswith("weight") else 0.1 * value


@cache
def published():
    """Weights by the rule, under pytorch-fid's names and with its extras."""
    variables = weights.named_variables(inception.empty())
    shapes = {
        theirs: layout.write(np.broadcast_to(np.float32(0), variables[ours].shape)).shape
        for ours, (theirs, layout) in inception.pytorch_fid_table().items()
    }
    tensors = {name: rule_tensor(name, shape) for name, shape in shapes.items()}
    return tensors | {"fc.weight": np.zeros((1008, 2048), np.float32), "fc.bias": np.zeros(1008, np.float32)}


def nvidia_form(tensors):
    """The same network under the names of NVIDIA's TorchScript, for batch norms without a scale."""
    ours_to_theirs = {ours: theirs for ours, (theirs, _) in inception.nvidia_table().items()}
    renamed = {
        ours_to_theirs[ours]: tensors[theirs]
        for ours, (theirs, _) in inception.pytorch_fid_table().items()
        if not ours.endswith("norm.scale")
    }
    return renamed | {"output.weight": tensors["fc.weight"], "output.bias": tensors["fc.bias"]}


def images():
    """Two images [2, 299, 299, 3] in [-1, 1]: noise, and waves."""
    noise = np.random.default_rng(0).uniform(-1, 1, (299, 299, 3))
    rows, columns = np.indices((299, 299)) / 298
    waves = np.stack([np.sin(40 * rows), np.cos(30 * columns), rows - columns], axis=-1)
    return np.stack([noise, waves]).astype(np.float32)


def features(network):
    """Features of `images()`."""
    with jax.default_matmul_precision("highest"):
        return np.asarray(jax.jit(Inception.features)(network, images()))


def assert_equal(network, expected):
    """Every array the same."""
    arrays, expected = weights.named_variables(network), weights.named_variables(expected)
    for name in arrays.keys() | expected.keys():
        np.testing.assert_array_equal(arrays[name][...], expected[name][...])


def relative_error(got, expected):
    """Norm of the error over the norm of what was expected."""
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))


def torch_features(torch, tensors, batch):
    """FID's Inception-v3 in torch, from the facts of torchvision's layers and pytorch-fid's three differences."""
    functional = torch.nn.functional
    tensors = {name: torch.from_numpy(tensor) for name, tensor in tensors.items()}

    def conv(x, name, stride=1, padding=0):
        x = functional.conv2d(x, tensors[f"{name}.conv.weight"], stride=stride, padding=padding)
        statistics = (tensors[f"{name}.bn.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias"))
        return functional.relu(functional.batch_norm(x, *statistics, eps=0.001))

    def chain(x, block, *steps):
        for name, padding, *stride in steps:
            x = conv(x, f"{block}.{name}", *(stride or [1]), padding)
        return x

    def average(x):
        return functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)

    def maximum(x):
        return functional.max_pool2d(x, 3, stride=1, padding=1)

    def halve(x):
        return functional.max_pool2d(x, 3, stride=2)

    x = conv(torch.from_numpy(batch.transpose(0, 3, 1, 2)), "Conv2d_1a_3x3", 2)
    x = halve(conv(conv(x, "Conv2d_2a_3x3"), "Conv2d_2b_3x3", padding=1))
    x = halve(conv(conv(x, "Conv2d_3b_1x1"), "Conv2d_4a_3x3"))
    for block in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
        x = torch.cat([
            chain(x, block, ("branch1x1", 0)),
            chain(x, block, ("branch5x5_1", 0), ("branch5x5_2", 2)),
            chain(x, block, ("branch3x3dbl_1", 0), ("branch3x3dbl_2", 1), ("branch3x3dbl_3", 1)),
            chain(average(x), block, ("branch_pool", 0)),
        ], 1)  # fmt: skip
    x = torch.cat([
        chain(x, "Mixed_6a", ("branch3x3", 0, 2)),
        chain(x, "Mixed_6a", ("branch3x3dbl_1", 0), ("branch3x3dbl_2", 1), ("branch3x3dbl_3", 0, 2)),
        halve(x),
    ], 1)  # fmt: skip
    row, column = (0, 3), (3, 0)
    for block in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
        x = torch.cat([
            chain(x, block, ("branch1x1", 0)),
            chain(x, block, ("branch7x7_1", 0), ("branch7x7_2", row), ("branch7x7_3", column)),
            chain(x, block, ("branch7x7dbl_1", 0), ("branch7x7dbl_2", column), ("branch7x7dbl_3", row),
                  ("branch7x7dbl_4", column), ("branch7x7dbl_5", row)),
            chain(average(x), block, ("branch_pool", 0)),
        ], 1)  # fmt: skip
    x = torch.cat([
        chain(x, "Mixed_7a", ("branch3x3_1", 0), ("branch3x3_2", 0, 2)),
        chain(x, "Mixed_7a", ("branch7x7x3_1", 0), ("branch7x7x3_2", row), ("branch7x7x3_3", column),
              ("branch7x7x3_4", 0, 2)),
        halve(x),
    ], 1)  # fmt: skip
    for block, pool in (("Mixed_7b", average), ("Mixed_7c", maximum)):
        three, double = chain(x, block, ("branch3x3_1", 0)), chain(x, block, ("branch3x3dbl_1", 0), ("branch3x3dbl_2", 1))
        x = torch.cat([
            chain(x, block, ("branch1x1", 0)),
            chain(three, block, ("branch3x3_2a", (0, 1))), chain(three, block, ("branch3x3_2b", (1, 0))),
            chain(double, block, ("branch3x3dbl_3a", (0, 1))), chain(double, block, ("branch3x3dbl_3b", (1, 0))),
            chain(pool(x), block, ("branch_pool", 0)),
        ], 1)  # fmt: skip
    return x.mean(dim=(2, 3)).numpy()


def test_features_are_the_golden_ones():
    network, _ = inception.load(published(), "the rule's weights")
    expected = weights.load_tensors(GOLDEN)[0]["features"]
    assert relative_error(expected[0], expected[1]) > 0.05  # the images are told apart
    assert relative_error(features(network), expected) < 1e-5


def test_the_golden_features_are_those_of_torch():
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        computed = torch_features(torch, published(), images())
    assert relative_error(computed, weights.load_tensors(GOLDEN)[0]["features"]) < 1e-5


def test_another_size_is_an_error():
    with pytest.raises(ValueError, match=r"expected \[B, 299, 299, 3\]; resize them first"):
        inception.empty().features(np.zeros((1, 256, 256, 3), np.float32))


def test_a_converted_file_gives_back_the_same_network(tmp_path):
    source, out = tmp_path / "inception.safetensors", tmp_path / "out.safetensors"
    weights.save_tensors(source, published(), {})
    line = inception.convert(source, out)
    assert "from the weights of pytorch-fid" in line and str(out) in line
    converted = weights.load(out)
    assert type(converted) is Inception
    expected, _ = inception.load(published(), "the rule's weights")
    assert_equal(converted, expected)


def test_nvidias_torchscript_gives_the_same_network_with_scales_of_one():
    scaleless = {name: np.ones_like(v) if name.endswith("bn.weight") else v for name, v in published().items()}
    network, form = inception.load(nvidia_form(scaleless), "NVIDIA's weights")
    expected, _ = inception.load(scaleless, "pytorch-fid's weights")
    assert form == "NVIDIA"
    assert_equal(network, expected)


@pytest.mark.parametrize(("nvidia", "pytorch_fid"), [
    ("layers.conv", "Conv2d_1a_3x3"),
    ("layers.conv_4", "Conv2d_4a_3x3"),
    ("layers.mixed.tower.conv_1", "Mixed_5b.branch5x5_2"),
    ("layers.mixed_2.tower_1.conv_2", "Mixed_5d.branch3x3dbl_3"),
    ("layers.mixed_2.tower_2.conv", "Mixed_5d.branch_pool"),
    ("layers.mixed_3.tower.conv_2", "Mixed_6a.branch3x3dbl_3"),
    ("layers.mixed_4.tower.conv_1", "Mixed_6b.branch7x7_2"),
    ("layers.mixed_7.tower_1.conv_3", "Mixed_6e.branch7x7dbl_4"),
    ("layers.mixed_8.tower_1.conv_2", "Mixed_7a.branch7x7x3_3"),
    ("layers.mixed_9.tower_1_mixed_conv", "Mixed_7b.branch3x3dbl_3a"),
    ("layers.mixed_10.tower_mixed_conv_1", "Mixed_7c.branch3x3_2b"),
    ("layers.mixed_10.tower_2_conv", "Mixed_7c.branch_pool"),
])  # fmt: skip
def test_both_forms_name_the_same_convolutions(nvidia, pytorch_fid):
    nvidias = {theirs: ours for ours, (theirs, _) in inception.nvidia_table().items()}
    pytorchs = {theirs: ours for ours, (theirs, _) in inception.pytorch_fid_table().items()}
    assert nvidias[f"{nvidia}.weight"] == pytorchs[f"{pytorch_fid}.conv.weight"]
    assert nvidias[f"{nvidia}.var"] == pytorchs[f"{pytorch_fid}.bn.running_var"]


def test_other_weights_are_refused():
    with pytest.raises(ValueError, match="wrong.pth holds body.0.weight, and no Inception-v3 of FID; give pt_inception"):
        inception.load({"body.0.weight": np.zeros(3)}, "wrong.pth")
    with pytest.raises(ValueError, match="its head has 1000 classes, not 1008"):
        inception.load(published() | {"fc.weight": np.zeros((1000, 2048))}, "torchvision.pth")
    broken = {name: tensor for name, tensor in published().items() if name != "Mixed_7c.branch_pool.bn.bias"}
    broken |= {"Conv2d_2b_3x3.conv.weight": np.zeros((64, 32, 5, 5)), "extra": np.zeros(2)}
    with pytest.raises(ValueError) as caught:
        inception.load(broken, "broken.pth")
    for part in ("for lack of Mixed_7c.branch_pool.bn.bias", "unused: extra (2,)", "(64, 32, 5, 5)", "(64, 32, 3, 3)"):
        assert part in str(caught.value)
