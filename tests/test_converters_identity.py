"""IR-SE weights into ours: sizes from the weights, every array, what is said of wrong files.  IR-SE50: test_identity.py."""

import numpy as np
import pytest
import torch_files
from flax import nnx
from rule import rule_tensor

from converters import identity
from coral_jax import weights
from coral_jax.models import load_identity
from coral_jax.models.identity import Identity, IdentityConfig


def small(units=(1, 2), widths=(16, 32), grid=2, embed_dim=8):
    """Weights of an IR-SE network of other sizes, under the published names."""
    config = IdentityConfig(units, widths, grid * 2 ** len(units), embed_dim)
    network = nnx.eval_shape(lambda: Identity(config, nnx.Rngs(0)))
    variables = weights.named_variables(network)
    shapes = {
        theirs: layout.write(np.broadcast_to(np.float32(0), variables[ours].shape)).shape
        for ours, (theirs, layout) in identity.table(config).items()
    }
    return config, {name: rule_tensor(name, shape) for name, shape in shapes.items()}


def test_a_pth_of_torch_is_converted(tmp_path):
    config, tensors = small()
    torch_files.save(tmp_path / "small.pth", {f"module.{name}": tensor for name, tensor in tensors.items()})
    said = identity.convert(tmp_path / "small.pth", tmp_path / "small.safetensors")
    assert said.endswith("identity network of 3 units, widths 16, 32, 8 px to 8 numbers")
    converted = load_identity(tmp_path / "small.safetensors")
    assert converted.config == config
    for ours, (theirs, layout) in identity.table(config).items():
        np.testing.assert_array_equal(weights.named_variables(converted)[ours][...], layout.read(tensors[theirs]))


@pytest.mark.parametrize(("units", "widths", "grid"), [((3, 1), (16, 32), 3), ((1, 1, 2), (16, 48, 32), 1), ((2,), (32,), 2)])
def test_units_and_widths_come_from_the_weights(units, widths, grid):
    config, tensors = small(units, widths, grid)
    assert identity.config_of(tensors) == config
    assert identity.load(tensors, "small").config == config


def test_every_layout_is_undone_to_the_bit():
    config, tensors = small()
    network = identity.load(tensors, "small")
    back = identity.engine.extract(network, identity.table(config))
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(back[name], tensor)


def test_other_weights_are_refused(tmp_path):
    _, tensors = small()
    with pytest.raises(ValueError, match=r"not an IR-SE face network: no input_layer.0.weight.*give model_ir_se50.pth"):
        identity.config_of({"conv1.weight": np.zeros((64, 3, 3, 3))})
    with pytest.raises(ValueError, match="without squeeze-and-excitation"):
        identity.config_of({name: tensor for name, tensor in tensors.items() if "fc1" not in name})
    with pytest.raises(ValueError, match="x.pth holds a list, and no IR-SE face network; give model_ir_se50.pth"):
        identity.tensors_of([1, 2], "x.pth")
    broken = tensors | {"body.1.res_layer.1.weight": np.zeros((32, 16, 5, 5)), "arcface.weight": np.zeros((3, 8))}
    del broken["output_layer.4.running_mean"]
    with pytest.raises(ValueError) as caught:
        identity.load(broken, "broken.pth")
    for part in ("unused: arcface.weight (3, 8)", "for lack of output_layer.4.running_mean", "(32, 16, 5, 5)"):
        assert part in str(caught.value)
