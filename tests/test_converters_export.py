"""Generators there and back: between our format and those of other programs, not a bit changes."""

import pytest
import tiny
from test_converters_stylegan2 import DATA, PICKLES, ROSINALITY, assert_same, generator_of

from converters import export, reading, stylegan2
from coral_jax import weights
from coral_jax.models.stylegan2 import StyleGAN2Config


def assert_same_weights(path, other):
    """Two files with the same tensors to the bit, and the same config; they come from different sources."""
    (tensors, said), (others, said_there) = weights.load_tensors(path), weights.load_tensors(other)
    assert tensors.keys() == others.keys() and said["config"] == said_there["config"]
    assert all(tensors[name].dtype == others[name].dtype for name in tensors)
    assert all(tensors[name].tobytes() == others[name].tobytes() for name in tensors)
    assert said["source_sha256"] != said_there["source_sha256"]


def test_rosinality_there_and_back_changes_no_bit(tmp_path):
    """Their checkpoint -> ours -> their checkpoint: names, shapes, types and bits, filters included; and ours again."""
    torch = pytest.importorskip("torch")
    theirs = torch.load(DATA / ROSINALITY, weights_only=True)
    stylegan2.convert(DATA / ROSINALITY, tmp_path / "ours.safetensors")
    line = export.convert(tmp_path / "ours.safetensors", tmp_path / "again.pt", "rosinality")
    assert "Generator(64, 48, 8) with its table `channels` set to {4: 24, 8: 24, 16: 20, 32: 16, 64: 16}" in line
    again = torch.load(tmp_path / "again.pt", weights_only=True)
    assert sorted(again) == sorted(theirs) and sorted(again["g_ema"]) == sorted(theirs["g_ema"])
    for name, tensor in theirs["g_ema"].items():
        assert again["g_ema"][name].dtype == tensor.dtype and torch.equal(again["g_ema"][name], tensor), name
    assert torch.equal(again["latent_avg"], theirs["latent_avg"])
    stylegan2.convert(tmp_path / "again.pt", tmp_path / "twice.safetensors")
    assert_same_weights(tmp_path / "twice.safetensors", tmp_path / "ours.safetensors")


@pytest.mark.parametrize("name", PICKLES)
def test_nvidia_there_and_back_changes_no_bit(tmp_path, name):
    theirs = reading.flatten(reading.read(DATA / name)["G_ema"])
    stylegan2.convert(DATA / name, tmp_path / "ours.safetensors")
    line = export.convert(tmp_path / "ours.safetensors", tmp_path / "again.safetensors", "nvidia")
    assert "channel_base=640, channel_max=24" in line
    again = reading.read(tmp_path / "again.safetensors")
    assert sorted(again) == sorted(theirs)
    for key, array in theirs.items():
        assert again[key].shape == array.shape and again[key].tobytes() == array.tobytes(), key
    stylegan2.convert(tmp_path / "again.safetensors", tmp_path / "twice.safetensors")
    assert_same_weights(tmp_path / "twice.safetensors", tmp_path / "ours.safetensors")


def test_between_the_formats_through_ours(tmp_path):
    """pkl -> .pt and .pt -> NVIDIA's names, what users of these programs ask for most."""
    pytest.importorskip("torch")
    ours = generator_of(reading.read(DATA / PICKLES[1]))
    (tmp_path / "x.pt").write_bytes(export.rosinality_bytes(ours))
    assert_same(generator_of(reading.read(tmp_path / "x.pt")), ours)
    assert_same(generator_of(export.nvidia_arrays(ours)), ours)


@pytest.mark.parametrize(
    "config, format, text",
    [
        ((1024, 512, 8, lambda r: min(512, 32768 // r)), "rosinality", "Generator(1024, 512, 8, channel_multiplier=2)"),
        ((256, 512, 8, lambda r: min(512, 16384 // r)), "rosinality", "Generator(256, 512, 8, channel_multiplier=1)"),
        ((1024, 512, 8, lambda r: min(512, 32768 // r)), "nvidia", "channel_base=32768, channel_max=512"),
        ((16, 5, 2, lambda r: {4: 8, 8: 6, 16: 4}[r]), "nvidia", "channels_dict set to {4: 8, 8: 6, 16: 4}"),
    ],
)
def test_export_names_the_network_into_which_its_file_loads(config, format, text):
    size, width, depth, channels = config
    sizes = [2**k for k in range(2, size.bit_length())]
    made = StyleGAN2Config(size, width, width, depth, tuple((r, channels(r)) for r in sizes))
    assert text in export.constructor(made, format)


def test_export_refuses_what_it_cannot_write(tmp_path):
    weights.save(tmp_path / "g.safetensors", tiny.generator())
    weights.save(tmp_path / "i.safetensors", tiny.frozen().identity)
    with pytest.raises(ValueError, match="no format 'tensorflow'; type --format=rosinality or --format=nvidia"):
        export.convert(tmp_path / "g.safetensors", tmp_path / "x", "tensorflow")
    with pytest.raises(ValueError, match="no --format; type"):
        export.convert(tmp_path / "g.safetensors", tmp_path / "x", None)
    with pytest.raises(ValueError, match="holds no generator but Identity; give a StyleGAN2"):
        export.convert(tmp_path / "i.safetensors", tmp_path / "x.safetensors", "nvidia")
    with pytest.raises(ValueError, match=r"name --out .*x\.safetensors"):
        export.convert(tmp_path / "g.safetensors", tmp_path / "x.pkl", "nvidia")
    pytest.importorskip("torch")
    with pytest.raises(ValueError, match="this one has z 6 and w 5: export it with --format=nvidia"):
        export.convert(tmp_path / "g.safetensors", tmp_path / "x.pt", "rosinality")
