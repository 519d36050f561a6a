"""faces/critics.py and faces/packages.py: the arithmetic of published networks against plain loops, on random arrays."""

import io
import tarfile

import jax.numpy as jnp
import numpy as np
import pytest

from coral_jax import weights
from coral_jax.faces import critics, packages


def _random(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def _same(x: np.ndarray, kernel: np.ndarray, stride: int) -> np.ndarray:
    """TensorFlow's SAME convolution of x [H, W, C] with kernel [h, w, C, C'], one position at a time."""
    size = kernel.shape[0]
    height, width = -(-x.shape[0] // stride), -(-x.shape[1] // stride)
    pads = [max((n - 1) * stride + size - have, 0) for n, have in zip((height, width), x.shape[:2], strict=True)]
    x = np.pad(x, [(pad // 2, pad - pad // 2) for pad in pads] + [(0, 0)])
    y = np.zeros((height, width, kernel.shape[3]))
    for i in range(height):
        for j in range(width):
            y[i, j] = np.tensordot(x[i * stride : i * stride + size, j * stride : j * stride + size], kernel, 3)
    return y


@pytest.mark.parametrize("stride", [1, 2])
def test_convolutions_are_tensorflows(stride):
    x = _random(1, 8, 7, 3)
    arrays = {"a/filters": _random(3, 3, 3, 5), "a/bias": _random(5)}
    want = _same(x[0], arrays["a/filters"], stride) + arrays["a/bias"]
    np.testing.assert_allclose(critics.conv(jnp.asarray(x), arrays, "a", stride)[0], want, atol=1e-4)


@pytest.mark.parametrize("stride", [1, 2])
def test_separable_convolutions_are_tensorflows(stride):
    x = _random(1, 8, 7, 3)
    arrays = {"a/depthwise_filter": _random(3, 3, 3, 1), "a/pointwise_filter": _random(1, 1, 3, 4), "a/bias": _random(4)}
    full = np.zeros((3, 3, 3, 3), np.float32)
    for channel in range(3):
        full[:, :, channel, channel] = arrays["a/depthwise_filter"][:, :, channel, 0]
    want = _same(x[0], full, stride) @ arrays["a/pointwise_filter"][0, 0] + arrays["a/bias"]
    np.testing.assert_allclose(critics.separable(jnp.asarray(x), arrays, "a", stride)[0], want, atol=1e-4)


def test_the_parsers_batch_norms_are_folded_into_its_convolutions():
    state = {f"{name}.weight": _random(4, 3, 1, 1) for name in ("x.conv1", "y.downsample.0", "z.conv_out")}
    for norm in ("x.bn1", "y.downsample.1"):
        state |= {f"{norm}.weight": _random(4), f"{norm}.bias": _random(4) + 1, f"{norm}.running_mean": _random(4) + 2}
        state |= {f"{norm}.running_var": np.square(_random(4)) + 0.1}
    arrays, x = critics.folded(state), _random(5, 3)
    for name, norm in (("x.conv1", "x.bn1"), ("y.downsample.0", "y.downsample.1")):
        y = x @ state[f"{name}.weight"][:, :, 0, 0].T
        y = (y - state[f"{norm}.running_mean"]) / np.sqrt(state[f"{norm}.running_var"] + 1e-5)
        want = y * state[f"{norm}.weight"] + state[f"{norm}.bias"]
        np.testing.assert_allclose(x @ arrays[f"{name}/kernel"][0, 0] + arrays[f"{name}/bias"], want, atol=1e-5)
    np.testing.assert_array_equal(arrays["z.conv_out/bias"], 0)  # it has no batch norm


def test_a_faces_frame_is_cut_before_it_is_made_smaller():
    images = np.full((1, 256, 256, 3), -1, np.float32)
    images[:, 35:223, 32:220] = 1
    framed = critics.framed(jnp.asarray(images))
    assert framed.shape == (1, 112, 112, 3)
    want = (255 - np.array([122.782, 117.001, 104.298])) / 255
    np.testing.assert_allclose(framed, np.broadcast_to(want, framed.shape), atol=1e-5)


def test_8_bit_numbers_are_scaled_and_floats_are_not():
    manifest = [{"weights": [
        {"name": "a", "shape": [2], "quantization": {"scale": 0.5, "min": -1.0}}, {"name": "b", "shape": [1, 2]},
    ]}]  # fmt: skip
    data = bytes([0, 4]) + np.array([1.5, -2], np.float32).tobytes()
    arrays = packages.dequantised(manifest, data)
    np.testing.assert_array_equal(arrays["a"], [-1, 1])
    np.testing.assert_array_equal(arrays["b"], [[1.5, -2]])
    with pytest.raises(ValueError, match="10 bytes and there are 11"):
        packages.dequantised(manifest, data + b"!")


def test_only_the_archive_with_the_right_sha256_is_read(tmp_path):
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as tar:
        info = tarfile.TarInfo("package/x")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
    right = packages.Package("a.tgz", weights.fingerprint(tmp_path / "a.tgz"), ("false",))
    assert packages.member(packages.fetch(right, tmp_path), "package/x") == b"abc"
    with pytest.raises(ValueError, match="not the archive with SHA-256 00"):
        packages.fetch(packages.Package("a.tgz", "00", ("false",)), tmp_path)
    with pytest.raises(ValueError, match="b.tgz cannot be fetched"):
        packages.fetch(packages.Package("b.tgz", "00", ("false",)), tmp_path)
