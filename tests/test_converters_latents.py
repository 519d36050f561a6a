"""Latents of other programs: one face is one face, and `coral_jax.edit --latents` reads what comes out."""

from pathlib import Path

import numpy as np
import pytest
import tiny
import torch_files

from converters import latents
from coral_jax import weights
from coral_jax.latents import load_latents
from coral_jax.models.stylegan2 import StyleGAN2Config

DATA = Path(__file__).parent / "data"
LARGE = StyleGAN2Config(1024, 2, 3, 1, tuple((2**k, 1) for k in range(2, 11)))  # 18 codes


def codes(*shape):
    """Latents of a shape."""
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def converted(tmp_path, array, name="x.npy", kind=None):
    """The name and the array in the converted file."""
    if array is not None:
        np.save(tmp_path / name, array)
    out = tmp_path / "out.safetensors"
    out.unlink(missing_ok=True)
    line = latents.convert(tmp_path / name, out, kind)
    (tensor,) = weights.load_tensors(out)[0].items()
    assert str(out) in line and f"{len(tensor[1])} face(s)" in line
    return tensor


@pytest.mark.parametrize(
    "given, name, shape",
    [
        ((1, 512), "w", (1, 512)),
        ((40, 512), "w", (40, 512)),
        ((3, 18, 512), "w_plus", (3, 18, 512)),
        ((18, 18, 512), "w_plus", (18, 18, 512)),
        ((3, 16, 512), "w_plus", (3, 16, 512)),
        ((18, 1, 512), "w", (18, 512)),
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
    for given, faces in (((1, 18, 3), 1), ((4, 18, 3), 4), ((40, 3), 40), ((3,), 1), ((18, 1, 3), 18)):
        converted(tmp_path, codes(*given))
        assert load_latents(tmp_path / "out.safetensors", generator).shape == (faces, 18, 3)


@pytest.mark.parametrize("given", [(18, 512), (16, 512), (5, 512)])
def test_an_array_that_may_be_either_is_asked_about(tmp_path, given):
    array = codes(*given)
    with pytest.raises(ValueError, match=f"one face's w_plus, or {given[0]} faces' w. type --kind=w_plus or --kind=w"):
        converted(tmp_path, array)
    assert converted(tmp_path, array, kind="w_plus")[1].shape == (1, *given)
    name, got = converted(tmp_path, array, kind="w")
    assert name == "w" and got.tobytes() == array.tobytes()


@pytest.mark.parametrize(
    "names, shape, kind, expected",
    [
        (["w"], (18, 512), "w", (18, 512)),
        (["w"], (1, 18, 512), "w_plus", (1, 18, 512)),  # projected_w.npz of NVIDIA's programs
        (["w"], (3, 1, 512), "w", (3, 512)),
        (["w_plus", "W_plus", "wp", "ws"], (18, 512), "w_plus", (1, 18, 512)),
        (["z", "Z"], (18, 512), "z", (18, 512)),
        (["z"], (512,), "z", (1, 512)),
        (["latents", "dlatents"], (2, 18, 512), "w_plus", (2, 18, 512)),
    ],
)
def test_the_name_goes_before_the_shape(tmp_path, names, shape, kind, expected):
    array = codes(*shape)
    for name in names:
        np.savez(tmp_path / "x.npz", **{name: array})
        got_kind, got = converted(tmp_path, None, "x.npz")
        assert (got_kind, got.shape) == (kind, expected) and got.tobytes() == array.tobytes()


def test_a_name_and_a_flag_must_agree(tmp_path):
    np.savez(tmp_path / "x.npz", w=codes(18, 512))
    with pytest.raises(ValueError, match=r"--kind=w_plus, but .*x.npz names its latents w; leave the flag out"):
        converted(tmp_path, None, "x.npz", kind="w_plus")
    with pytest.raises(ValueError, match="no kind 'v' of latents; type --kind=w_plus, --kind=w, --kind=z"):
        converted(tmp_path, None, "x.npz", kind="v")
    with pytest.raises(ValueError, match=r"has the shape \[2, 18, 512\], read as z"):
        latents.faces({"z": codes(2, 18, 512)}, "x")


def test_z_is_mapped_by_the_generator_that_draws_it(tmp_path):
    generator = tiny.generator(LARGE)
    name, z = converted(tmp_path, None, DATA / "latents_z.pt")
    assert name == "z" and z.shape == (3, 16)
    with pytest.raises(ValueError, match=r"has the shape \[3, 16\], read as z; .* z \[N, 2\]"):
        load_latents(tmp_path / "out.safetensors", generator)
    z = codes(18, 2)
    weights.save_tensors(tmp_path / "z.safetensors", {"z": z}, {})
    expected = np.asarray(generator.broadcast(generator.mapping(z)))
    np.testing.assert_allclose(load_latents(tmp_path / "z.safetensors", generator), expected, atol=1e-5)


def test_lists_and_dictionaries_hold_faces():
    array = codes(1, 18, 512)
    projected = {"img": codes(3, 64, 64), "latent": array[0], "noise": [codes(1, 1, 4, 4)]}  # of rosinality's projector
    for content in (
        {"latents": array, "names": ["a"]}, [array[0]], {"face.png": array}, {"a.png": array[0]}, {"00012": array[0]},
        {"Latent": [array]}, {"latents": {"a.png": array[0]}}, {"a.jpg": projected}, [[array[0]]], {"opts": {}, "x": array},
    ):  # fmt: skip
        kind, got = latents.faces(content, "x")
        assert kind == "w_plus" and got.shape == (1, 18, 512) and got.tobytes() == array.tobytes()
    assert latents.faces([array, array], "x")[1].shape == (2, 18, 512)
    assert latents.faces({"a.png": array[0], "b.png": array[0]}, "x")[1].shape == (2, 18, 512)
    assert latents.faces({"a.jpg": projected | {"latent": codes(512)}}, "x")[0] == "w"
    kind, got = latents.faces([codes(512)] * 3, "x")
    assert kind == "w" and got.shape == (3, 512)


def test_a_dictionary_in_a_npy_is_read_as_data(tmp_path):
    stored = np.load(DATA / "latents_dict.npy", allow_pickle=True).item()
    name, got = converted(tmp_path, None, DATA / "latents_dict.npy")
    assert name == "w_plus" and np.array_equal(got, np.stack([stored["one.jpg"], stored["two.jpg"]]))
    np.save(tmp_path / "list.npy", np.array([codes(1, 18, 8), codes(2, 18, 8)], dtype=object), allow_pickle=True)
    assert converted(tmp_path, None, tmp_path / "list.npy")[1].shape == (3, 18, 8)
    np.savez(tmp_path / "dict.npz", np.array({"a.png": codes(18, 8)}, dtype=object))
    assert converted(tmp_path, None, tmp_path / "dict.npz")[1].shape == (1, 18, 8)


def test_torch_files(tmp_path):
    array = codes(2, 18, 512)
    torch_files.save(tmp_path / "latents.pt", array)
    name, got = converted(tmp_path, None, "latents.pt")
    assert name == "w_plus" and got.tobytes() == array.tobytes()


@pytest.mark.parametrize(
    "array, text",
    [
        (np.zeros((3, 18, 512), int), "holds int64 values"),
        (np.full((2, 18, 4), np.nan), "NaN or infinite values, first in face 0; leave 2"),
        (np.zeros((2, 2, 18, 512)), r"has the shape \[2, 2, 18, 512\]"),
        (np.zeros((0, 18, 512)), r"has the shape \[0, 18, 512\]"),
        (np.full((2, 18, 4), 1e39), "NaN or infinite values, first in face 0; leave 2"),
        (np.float32(3), r"has the shape \[\]"),
    ],
)
def test_refuses_what_is_no_latents(tmp_path, array, text):
    with pytest.raises(ValueError, match=text):
        converted(tmp_path, array)


@pytest.mark.parametrize(
    "content, text",
    [
        ({"a": codes(18, 4), "b": codes(3)}, "holds a, b, and no latents by name; name them w_plus, w or z"),
        ({"a.png": codes(18, 4), "b.png": codes(4)}, r"faces of different forms \(w \[1, 4\], w_plus \[1, 18, 4\]\)"),
        ({"opts": {"a": 1}}, "holds opts, and no latents by name"),
        ({"w_mean": codes(4), "w_std": codes(4)}, "holds w_mean, w_std, and no latents by name"),
        ([], "holds no latents"),
        ("text", "holds no latents"),
    ],
)
def test_refuses_other_contents(content, text):
    with pytest.raises(ValueError, match=text):
        latents.faces(content, "x")


def test_refuses_damage(tmp_path):
    np.save(tmp_path / "x.npy", codes(18, 512))
    (tmp_path / "short.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:-5])
    (tmp_path / "cut.npy").write_bytes((DATA / "latents_dict.npy").read_bytes()[:-5])
    for name in ("short.npy", "cut.npy"):
        with pytest.raises(ValueError, match=f"{name} is damaged or cut short"):
            latents.convert(tmp_path / name, tmp_path / "out.safetensors")
    with pytest.raises(ValueError, match=r"name --out .*out\.safetensors"):
        latents.convert(tmp_path / "x.npy", tmp_path / "out.npy")
    assert not (tmp_path / "out.safetensors").exists()
