"""Latents of other programs: one face is one face, and `coral_jax.edit --latents` reads what comes out."""

import numpy as np
import pytest
import tiny

from converters import latents
from coral_jax import weights
from coral_jax.latents import load_latents
from coral_jax.models.stylegan2 import StyleGAN2Config

LARGE = StyleGAN2Config(1024, 2, 3, 1, tuple((2**k, 1) for k in range(2, 11)))  # 18 codes


def codes(*shape):
    """Latents of a shape."""
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def converted(tmp_path, array, name="x.npy"):
    """The name and the array in the converted file."""
    if name.endswith(".npy"):
        np.save(tmp_path / name, array)
    out = tmp_path / "out.safetensors"
    out.unlink(missing_ok=True)
    line = latents.convert(tmp_path / name, out)
    (tensor,) = weights.load_tensors(out)[0].items()
    assert str(out) in line and f"{len(tensor[1])} face(s)" in line
    return tensor


@pytest.mark.parametrize(
    "given, name, shape",
    [
        ((18, 512), "w_plus", (1, 18, 512)),
        ((16, 512), "w_plus", (1, 16, 512)),
        ((3, 18, 512), "w_plus", (3, 18, 512)),
        ((18, 18, 512), "w_plus", (18, 18, 512)),
        ((3, 16, 512), "w_plus", (3, 16, 512)),
        ((5, 512), "w", (5, 512)),
        ((5, 1, 512), "w", (5, 512)),
        ((1, 18, 512), "w_plus", (1, 18, 512)),
        ((512,), "w", (1, 512)),
    ],
)
def test_shapes(tmp_path, given, name, shape):
    array = codes(*given)
    got_name, got = converted(tmp_path, array)
    assert (got_name, got.shape, got.dtype) == (name, shape, np.float32)
    assert got.tobytes() == array.tobytes()


def test_double_precision_becomes_single(tmp_path):
    """And 68 faces of 18 codes, the form of StyleCLIP's w_plus.npy, stay what they are."""
    name, array = converted(tmp_path, codes(68, 18, 512).astype(np.float64))
    assert (name, array.shape, array.dtype) == ("w_plus", (68, 18, 512), np.float32)


def test_edit_reads_the_result(tmp_path):
    generator = tiny.generator(LARGE)
    for given, faces in (((18, 3), 1), ((4, 18, 3), 4), ((5, 3), 5), ((3,), 1)):
        converted(tmp_path, codes(*given))
        assert load_latents(tmp_path / "out.safetensors", generator).shape == (faces, 18, 3)


def test_dictionaries_lists_and_npz(tmp_path):
    array = codes(1, 18, 512)
    np.savez(tmp_path / "projected_w.npz", w=array)
    assert converted(tmp_path, None, "projected_w.npz")[1].tobytes() == array.tobytes()
    for content in ({"latents": array, "names": ["a"]}, [array[0]], {"face.png": array}, {"a.png": array[0]}):
        assert latents.faces(latents.array_of(content, "x"), "x").shape == (1, 18, 512)
    assert latents.array_of([array, array], "x").shape == (2, 18, 512)
    assert latents.array_of({"a.png": array[0], "b.png": array[0]}, "x").shape == (2, 18, 512)
    assert latents.faces(latents.array_of([codes(512)] * 3, "x"), "x").shape == (3, 512)


def test_torch_files(tmp_path):
    torch = pytest.importorskip("torch")
    array = codes(2, 18, 512)
    torch.save(torch.from_numpy(array), tmp_path / "latents.pt")
    name, got = converted(tmp_path, None, "latents.pt")
    assert name == "w_plus" and got.tobytes() == array.tobytes()
    torch.save(torch.from_numpy(array[0]).requires_grad_(), tmp_path / "face.pt", _use_new_zipfile_serialization=False)
    assert converted(tmp_path, None, "face.pt")[1].shape == (1, 18, 512)


@pytest.mark.parametrize(
    "array, text",
    [
        (np.zeros((3, 18, 512), int), "holds int64 values"),
        (np.full((2, 18, 4), np.nan), "NaN or infinite values, first in face 0; leave 2"),
        (np.zeros((2, 2, 18, 512)), r"has the shape \[2, 2, 18, 512\]"),
        (np.zeros((0, 18, 512)), r"has the shape \[0, 18, 512\]"),
        (np.zeros((18, 1, 512)), "18 w, which look like one face's codes; split"),
        (np.float32(3), r"has the shape \[\]"),
    ],
)
def test_refuses_what_is_no_latents(tmp_path, array, text):
    with pytest.raises(ValueError, match=text):
        converted(tmp_path, array)


def test_refuses_other_contents_and_damage(tmp_path):
    for content, text in (
        ({"a": codes(18, 4), "b": codes(3)}, "arrays of different shapes and none called w_plus"),
        ({"opts": {"a": 1}}, "holds no latents"),
        ([], "holds no latents"),
        ("text", "holds no latents"),
    ):
        with pytest.raises(ValueError, match=text):
            latents.array_of(content, "x")
    np.save(tmp_path / "x.npy", codes(18, 512))
    (tmp_path / "short.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:-5])
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object))
    for name in ("short.npy", "objects.npy"):
        with pytest.raises(ValueError, match=f"{name} is no array of numbers, or is damaged"):
            latents.convert(tmp_path / name, tmp_path / "out.safetensors")
    with pytest.raises(ValueError, match=r"name --out .*out\.safetensors"):
        latents.convert(tmp_path / "x.npy", tmp_path / "out.npy")
    assert not (tmp_path / "out.safetensors").exists()
