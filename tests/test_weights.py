"""Weight files: round trips, strictness, atomicity, equal bytes."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from coral_jax import weights
from coral_jax.models.clip import CLIP, CLIPConfig
from coral_jax.models.identity import Identity, IdentityConfig

RNG_KEY = jax.random.key(0, impl="unsafe_rbg")  # compiles ten times faster than the default
CLIP_CONFIG = CLIPConfig(
    image_size=16, patch_size=8, vision_width=16, vision_layers=1, vision_heads=2,
    text_width=16, text_layers=1, text_heads=2, embed_dim=8, context=6, vocab_size=10,
)  # fmt: skip
IDENTITY_CONFIG = IdentityConfig(units=(1, 1), widths=(4, 8), input_size=16, embed_dim=4)


@pytest.fixture(scope="module")
def trained():
    """A small identity network whose running statistics are not the initial ones."""

    @jax.jit
    def make(crops):
        network = Identity(IDENTITY_CONFIG, nnx.Rngs(RNG_KEY))
        network.embed_crop(crops, train=True)
        return network

    return make(np.random.default_rng(0).random((4, 16, 16, 3), np.float32))


@pytest.fixture
def identity(trained):
    """A copy that a test may change."""
    return jax.tree.map(lambda leaf: leaf, trained)


@pytest.mark.parametrize("network, config", [(CLIP, CLIP_CONFIG), (Identity, IDENTITY_CONFIG)])
def test_round_trip_is_exact_and_keeps_class_and_config(network, config, tmp_path):
    saved = jax.jit(lambda: network(config, nnx.Rngs(RNG_KEY)))()
    weights.save(tmp_path / "deep" / "net.safetensors", saved)
    loaded = weights.load(tmp_path / "deep" / "net.safetensors")
    assert type(loaded) is type(saved) and loaded.config == saved.config
    assert jax.tree.structure(loaded) == jax.tree.structure(saved)  # so one compiled step serves both
    before, after = weights.named_variables(saved), weights.named_variables(loaded)
    assert before.keys() == after.keys()
    for name in before:
        np.testing.assert_array_equal(after[name][...], before[name][...])


def test_loaded_statistics_and_outputs_are_the_saved_ones(identity, tmp_path):
    weights.save(tmp_path / "identity.safetensors", identity)
    loaded = weights.load(tmp_path / "identity.safetensors")
    images = np.random.default_rng(1).random((2, 32, 32, 3), np.float32)
    embed = jax.jit(Identity.embed)
    np.testing.assert_array_equal(embed(loaded, images), embed(identity, images))
    assert bool((loaded.stem_norm.mean[...] != 0).all())


def test_half_precision_storage_loads_as_float32(identity, tmp_path):
    weights.save(tmp_path / "half.safetensors", identity, dtype=np.float16)
    weights.save(tmp_path / "full.safetensors", identity)
    stored, metadata = weights.load_tensors(tmp_path / "half.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {np.dtype(np.float16)}
    assert metadata["architecture"] == "identity" and json.loads(metadata["config"])["widths"] == [4, 8]
    loaded = weights.load(tmp_path / "half.safetensors")
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(loaded))
    np.testing.assert_allclose(loaded.stem.kernel[...], identity.stem.kernel[...], rtol=1e-3)
    assert (tmp_path / "half.safetensors").stat().st_size < 0.75 * (tmp_path / "full.safetensors").stat().st_size


def test_values_beyond_half_precision_are_refused(identity, tmp_path):
    identity.stem.kernel[...] = identity.stem.kernel[...] + 1e5
    with pytest.raises(ValueError, match="stem.kernel has values beyond the range of float16; save with dtype=None"):
        weights.save(tmp_path / "net.safetensors", identity, dtype=np.float16)
    assert list(tmp_path.iterdir()) == []


def test_all_misfits_are_listed_at_once(identity, tmp_path):
    path = tmp_path / "net.safetensors"
    weights.save(path, identity)
    tensors, metadata = weights.load_tensors(path)
    del tensors["stem.kernel"], tensors["norm.var"]
    tensors |= {"extra": np.zeros(3), "linear.bias": np.zeros(5)}
    weights.save_tensors(path, tensors, metadata)
    with pytest.raises(ValueError) as caught:
        weights.load(path)
    message = str(caught.value)
    for part in ("missing: stem.kernel (3, 3, 3, 4)", "missing: norm.var (8,)", "unused: extra (3,)"):
        assert part in message
    assert "wrong shape: linear.bias is (5,), the network's is (4,)" in message


@pytest.mark.parametrize("dtype, value", [(np.float32, np.nan), (np.float16, np.inf), (np.float64, 1e39)])
def test_values_that_are_not_finite_are_refused_by_name(identity, tmp_path, dtype, value):
    """float64 beyond float32 would become infinite."""
    path = tmp_path / "net.safetensors"
    weights.save(path, identity)
    tensors, metadata = weights.load_tensors(path)
    tensors["linear.kernel"] = tensors["linear.kernel"].astype(dtype)
    tensors["linear.kernel"][:2, 0] = value
    weights.save_tensors(path, tensors, metadata)
    with pytest.raises(ValueError, match=r"net.safetensors has values .* in linear.kernel \(2 of 512\); such weights"):
        weights.load(path)
    before = np.asarray(identity.stem.kernel[...])
    with pytest.raises(ValueError, match="test has values that are NaN"):
        weights.fill(identity, tensors | {"stem.kernel": np.zeros((3, 3, 3, 4))}, "test")
    np.testing.assert_array_equal(identity.stem.kernel[...], before)


def write_raw(path, kind, data, shape):
    """A safetensors file of one tensor "a", of a type that numpy may not have."""
    header = json.dumps({"a": {"dtype": kind, "shape": shape, "data_offsets": [0, len(data)]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)


def test_bfloat16_is_read_as_the_same_float32(tmp_path):
    values = np.float32([1.5, -2, 3e38])
    write_raw(tmp_path / "b.safetensors", "BF16", (values.view("<u4") >> 16).astype("<u2").tobytes(), [3])
    (read,) = weights.load_tensors(tmp_path / "b.safetensors")[0].values()
    assert read.dtype == np.float32 and np.array_equal(read, (values.view("<u4") & 0xFFFF0000).view("<f4"))


@pytest.mark.parametrize("kind", ["F8_E4M3", "F8_E5M2", "F8_E8M0"])
def test_types_of_eight_bits_are_refused_in_one_line(tmp_path, kind):
    write_raw(tmp_path / "f8.safetensors", kind, bytes(4), [4])
    with pytest.raises(ValueError, match=f"f8.safetensors: a is stored as {kind}, .*; save it as float16 or float32"):
        weights.load_tensors(tmp_path / "f8.safetensors")


def test_a_failed_fill_leaves_the_network_alone(identity):
    before = np.asarray(identity.stem.kernel[...])
    tensors = {name: np.zeros(variable.shape) for name, variable in weights.named_variables(identity).items()}
    del tensors["linear.bias"]
    with pytest.raises(ValueError, match="missing: linear.bias"):
        weights.fill(identity, tensors, "test")
    np.testing.assert_array_equal(identity.stem.kernel[...], before)


def test_plain_tensors_round_trip_with_any_layout(tmp_path):
    tensors = {
        "transposed": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "strided": np.arange(10)[::3],
        "scalar": np.float32(2.5),
        "empty": np.zeros((0, 3), np.float16),
    }
    weights.save_tensors(tmp_path / "t.safetensors", tensors, {"prompt": "na\u00efve \u201ceyes\u201d"})
    loaded, metadata = weights.load_tensors(tmp_path / "t.safetensors")
    assert metadata == {"prompt": "na\u00efve \u201ceyes\u201d"} and loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype and loaded[name].shape == tensor.shape
        np.testing.assert_array_equal(loaded[name], tensor)


def test_equal_content_gives_equal_bytes(tmp_path):
    metadata = {f"key{i}": str(i) for i in range(8)}
    tensors = {f"t{i}": np.full((i + 1,), i, np.float32) for i in range(8)}
    weights.save_tensors(tmp_path / "a", tensors, metadata)
    weights.save_tensors(tmp_path / "b", dict(reversed(tensors.items())), dict(reversed(metadata.items())))
    assert weights.fingerprint(tmp_path / "a") == weights.fingerprint(tmp_path / "b")
    weights.save_tensors(tmp_path / "b", tensors | {"t0": np.ones(1, np.float32)}, metadata)
    assert weights.fingerprint(tmp_path / "a") != weights.fingerprint(tmp_path / "b")


def test_fingerprint_is_sha256(tmp_path):
    (tmp_path / "f").write_bytes(b"abc")
    assert weights.fingerprint(tmp_path / "f") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "t.safetensors"
    weights.save_tensors(path, {"a": np.ones(2)}, {})

    def full_disk(_):
        raise OSError("no space left on device")

    monkeypatch.setattr(weights.os, "fsync", full_disk)
    with pytest.raises(OSError, match="no space"):
        weights.save_tensors(path, {"a": np.zeros(2)}, {})
    assert [entry.name for entry in tmp_path.iterdir()] == ["t.safetensors"]
    np.testing.assert_array_equal(weights.load_tensors(path)[0]["a"], np.ones(2))


@pytest.mark.parametrize("content", [b"", b"not weights at all", None])
def test_other_and_cut_files_are_explained(identity, tmp_path, content):
    path = tmp_path / "net.safetensors"
    weights.save(path, identity)
    path.write_bytes(path.read_bytes()[:-10] if content is None else content)
    with pytest.raises(ValueError, match="is not a safetensors file, or is cut short"):
        weights.load(path)


def test_unknown_networks_and_configs_are_explained(identity, tmp_path):
    path = tmp_path / "net.safetensors"
    weights.save_tensors(path, {}, {})
    with pytest.raises(ValueError, match="does not say which network it holds"):
        weights.load(path)
    weights.save_tensors(path, {}, {"architecture": "identity", "config": '{"depth": 3}'})
    with pytest.raises(ValueError, match="its config does not fit IdentityConfig"):
        weights.load(path)
    with pytest.raises(ValueError, match="Linear cannot be saved"):
        weights.save(path, nnx.Linear(1, 1, rngs=nnx.Rngs(0)))
