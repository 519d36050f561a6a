"""Files are data: arrays come out of them as they went in, and nothing that they name is run."""

import builtins
import bz2
import gzip
import io
import lzma
import os
import pickle
import re
import subprocess
import sys
import tarfile
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch_files
from torch_files import Made, Name, Runs

from converters import command, pickles, reading
from coral_jax import weights

DATA = Path(__file__).parent / "data"


def dump(path, value, protocol=4):
    path.write_bytes(pickle.dumps(value, protocol))
    return path


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_numbers_and_plain_containers_come_out_as_they_went_in(tmp_path, protocol):
    arrays = {
        "f4": np.arange(6, dtype=np.float32).reshape(2, 3), "f2": np.float16([1.5]), "big": np.arange(3, dtype=">f8"),
        "order": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "none": np.zeros((0, 4)), "scalar": np.float64(0.25),
        "bool": np.array([True, False]), "number": np.array(3),
    }  # fmt: skip
    value = {"arrays": arrays, "rest": [1, 2.5, "text", None, (True, b"bytes"), {"a", "b"}]}
    again = reading.read(dump(tmp_path / "x.pkl", value, protocol))
    assert again["rest"] == value["rest"]
    for name, array in arrays.items():
        np.testing.assert_array_equal(again["arrays"][name], array)
        assert again["arrays"][name].dtype.str[1:] == array.dtype.str[1:], name


@pytest.mark.parametrize(
    "function, arguments, name",
    [
        (os.system, ("echo owned > {file}",), ".system"),
        (eval, ("open('{file}', 'w')",), "builtins.eval"),
        (exec, ("open('{file}', 'w')",), "builtins.exec"),
        (builtins.getattr, ("text", "upper"), "builtins.getattr"),  # a module itself cannot be pickled
        (subprocess.Popen, (["touch", "{file}"],), ".Popen"),
        (np.load, ("{file}",), "load"),
        (np.dtype, ("V8",), "numpy.dtype('V8')"),
        (io.open, ("{file}", "w"), "open"),
    ],
)
@pytest.mark.parametrize("protocol", [1, 4])
def test_a_hostile_pickle_runs_nothing_and_says_what_it_wanted(tmp_path, function, arguments, name, protocol):
    file = tmp_path / "owned"
    arguments = tuple(a.format(file=file) if isinstance(a, str) else a for a in arguments)
    content = reading.read(dump(tmp_path / "hostile.pkl", {"G_ema": Runs(function, *arguments), "rest": 1}, protocol))
    record = content["G_ema"]
    assert isinstance(record, pickles.Record) and record.kind.endswith(name) and record == {} and content["rest"] == 1
    assert not file.exists()


def test_results_of_strange_calls_can_be_called_and_filled(tmp_path):
    """As lists, sets, dictionaries and objects of unknown classes are; also as keys."""
    path = torch_files.save_pickle(
        tmp_path / "x.pkl", {Made(Name("enum", "Enum"), 3): Made(Made(Name("builtins", "getattr"), 1, "x"), 2, state={"a": 1})}
    )
    ((key, value),) = reading.read(path).items()
    assert key.kind == "enum.Enum" and value.kind == "builtins.getattr" and value == {"a": 1}
    path.write_bytes(b"\x80\x02cmy\nList\n)\x81(K\x01K\x02eK\x03a.")  # NEWOBJ, APPENDS, APPEND
    assert reading.read(path).kind == "my.List" and reading.read(path) == {}


def test_objects_in_arrays_are_read_as_data(tmp_path):
    array = np.array([{"a": 1}, None, np.ones(2)], dtype=object)
    for protocol in (2, 4):
        again = reading.read(dump(tmp_path / "x.pkl", array, protocol))
        assert again[0] == {"a": 1} and again[1] is None and np.array_equal(again[2], np.ones(2))
    np.save(tmp_path / "x.npy", np.array([Runs(os.system, "true"), 2], dtype=object), allow_pickle=True)
    hostile, number = reading.read(tmp_path / "x.npy")
    assert hostile.kind.endswith("system") and number == 2
    # Bytes in the place of objects would be taken for their addresses.
    path = tmp_path / "x.pkl"
    data, count = re.subn(rb"\]q.Na", b"U\x08AAAAAAAA", pickle.dumps(np.array([None], dtype=object), 2))
    path.write_bytes(data)
    assert count == 1
    with pytest.raises(ValueError, match="tampers with its reader .numpy.ndarray of objects that are bytes.: refused"):
        reading.read(path)


@pytest.mark.parametrize(
    "name", ["collections OrderedDict", "numpy dtype", "dnnlib.util EasyDict", "torch.storage _load_from_bytes"]
)
def test_a_pickle_cannot_change_what_the_next_one_is_read_with(tmp_path, name):
    """BUILD on a class or function would set attributes of it."""
    module, attribute = name.split()
    path = tmp_path / "x.pkl"
    path.write_bytes(b"\x80\x02c" + f"{module}\n{attribute}\n".encode() + b"}U\x04kindU\x05ownedsb.")
    with pytest.raises(ValueError):
        reading.read(path)
    assert pickles.Record.kind == "" and "kind" not in vars(pickles._Call)


def test_persistent_networks_become_records_and_their_source_is_not_run(tmp_path, monkeypatch):
    file = tmp_path / "owned"
    module = types.ModuleType("torch_utils.persistence")

    def _reconstruct_persistent_obj(meta):
        raise AssertionError("a reader must not get here")

    module._reconstruct_persistent_obj = _reconstruct_persistent_obj
    _reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    module.EasyDict = type("EasyDict", (dict,), {"__module__": "dnnlib.util", "__qualname__": "EasyDict"})
    for name in ("torch_utils", "torch_utils.persistence", "dnnlib", "dnnlib.util"):
        monkeypatch.setitem(sys.modules, name, module)
    state = {"_parameters": {"weight": np.ones(2, np.float32)}, "_buffers": {}, "_modules": {}, "z_dim": 4}
    state["_init_kwargs"] = module.EasyDict(c_dim=0)
    meta = {"type": "class", "version": 6, "module_src": f"open({str(file)!r}, 'w')", "class_name": "Generator", "state": state}
    path = dump(tmp_path / "x.pkl", {"G_ema": Runs(_reconstruct_persistent_obj, meta)})
    record = reading.read(path)["G_ema"]
    assert isinstance(record, pickles.Record) and record.kind == "Generator" and record["z_dim"] == 4
    assert record["_init_kwargs"] == {"c_dim": 0}
    assert list(reading.flatten(record)) == ["weight"] and not file.exists()
    assert "module_src" not in record


def test_tensors_in_a_pickle_are_read_without_torch():
    """The goldens' tensors are torch's; every one of them is an array after reading."""
    flat = reading.flatten(reading.read(DATA / "stylegan2_nvlabs_auto2.pkl")["G_ema"])
    assert flat["synthesis.b8.conv1.weight"].shape == (24, 24, 3, 3) and len(flat) == 75
    assert all(type(value) is np.ndarray and value.dtype == np.float32 for value in flat.values())


@pytest.mark.parametrize(
    "shape, strides, offset", [((2, 3), (3, 1), 1), ((7,), (1,), 0), ((2,), (-1,), 1), ((2, 2), (1,), 0), ((2,), (1,), -1)]
)
def test_tensors_must_lie_inside_their_storage(shape, strides, offset):
    with pytest.raises(ValueError):
        pickles._tensor(np.zeros(6, np.float32), offset, shape, strides)


@pytest.mark.parametrize("storage", [np.broadcast_to(np.zeros(1), 6), np.zeros((2, 3)), np.zeros(6, object)])
def test_tensors_are_made_of_storages(storage):
    """One that is made of another tensor could reach beyond its memory."""
    with pytest.raises(ValueError, match="from what is no storage"):
        pickles._tensor(storage, 0, (6,), (1,))


@pytest.mark.parametrize("keep", [0.0, 0.01, 0.5, 0.999])
def test_truncated_pickle(tmp_path, keep):
    data = (DATA / "stylegan2_nvlabs_auto2.pkl").read_bytes()
    path = tmp_path / "short.pkl"
    path.write_bytes(data[: int(keep * len(data))])
    with pytest.raises(ValueError, match="short.pkl.*fetch it again"):
        reading.read(path)


def test_no_checkpoint_at_all(tmp_path):
    with pytest.raises(ValueError, match="there is no file"):
        reading.read(tmp_path / "absent.pt")
    with pytest.raises(ValueError, match="is a folder; give the checkpoint file in it"):
        reading.read(tmp_path)
    path = tmp_path / "x.pt"
    path.write_bytes((1000).to_bytes(8, "little") + b'{"a":')
    with pytest.raises(ValueError, match="not a safetensors file"):
        reading.read(path)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.mark.parametrize(
    "data, text",
    [
        (b"<!DOCTYPE html><html>Too many users have viewed this file</html>", "is a web page in place of the file"),
        (b"\xef\xbb\xbf\r\n <HTML><head>", "is a web page in place of the file"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "is a web page in place of the file"),
        (POINTER, "is a pointer of Git LFS in place of the file; .*git lfs pull"),
        (gzip.compress(b"x" * 100, mtime=0), "is packed .gzip.; unpack it first"),
        (bz2.compress(b"x"), "is packed .bzip2.; unpack it first"),
        (lzma.compress(b"x"), "is packed .xz.; unpack it first"),
        (b"7z\xbc\xaf\x27\x1c", "is packed .7-Zip.; unpack it first"),
        (b"", "is empty; fetch it again"),
        (b"hello, this is text", "is no checkpoint: it starts with b'hello, this is t'"),
    ],
)
def test_what_lies_in_the_place_of_a_checkpoint_is_named(tmp_path, data, text):
    (tmp_path / "x.pt").write_bytes(data)
    with pytest.raises(ValueError, match=f"x.pt {text}") as raised:
        reading.read(tmp_path / "x.pt")
    assert "\n" not in str(raised.value)


def test_downloads_that_are_still_packed_say_so(tmp_path):
    inner = DATA / "latents_z.pt"
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.write(inner, "checkpoints/790000.pt")
    with pytest.raises(ValueError, match="x.zip is a zip of checkpoints/790000.pt; unpack it first"):
        reading.read(tmp_path / "x.zip")
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        archive.add(inner, "790000.pt")
    with pytest.raises(ValueError, match="x.tar is packed .tar.; unpack it first"):
        reading.read(tmp_path / "x.tar")


def test_truncated_or_altered_archive(tmp_path):
    """Neither needs torch: the archive's own structure and checksums tell."""
    data = bytearray((DATA / "stylegan2_rosinality_64.pt").read_bytes())
    path = tmp_path / "x.pt"
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="x.pt is damaged or cut short.*fetch it again"):
        reading.read(path)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        info = archive.getinfo("stylegan2_rosinality_64/data/0")
    data[info.header_offset + 1000] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="the checksum of its part .*data/0 is wrong"):
        reading.read(path)


def test_a_file_that_is_converted_already(tmp_path):
    weights.save_tensors(tmp_path / "ours.safetensors", {"x": np.zeros(1)}, {"architecture": "clip"})
    with pytest.raises(ValueError, match="is a file of this program already, .* use it as it is"):
        reading.read(tmp_path / "ours.safetensors")


def test_a_folder_is_no_file_to_write(tmp_path):
    with pytest.raises(ValueError, match=r"is a folder; give a file in it, such as --out=\S*x.safetensors"):
        command.check_new(tmp_path)


def test_torch_files_are_read_without_torch(tmp_path, monkeypatch):
    """Memory-mapped, or unpacked where someone packed the archive again."""
    monkeypatch.setitem(sys.modules, "torch", None)
    content = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "half": np.float16([1.5]), "list": [1, (2.5, "text")]}
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        again = reading.read(torch_files.save(tmp_path / "x.pt", content, compression=compression))
        assert np.array_equal(again["a"], content["a"]) and again["half"].dtype == np.float16
        assert again["list"] == content["list"]
    golden = reading.read(DATA / "stylegan2_rosinality_64.pt")
    stored = weights.load_tensors(DATA / "stylegan2_rosinality_64_weights.safetensors")[0]
    assert golden["latent_avg"].shape == (48,) and len(golden["g_ema"]) > 50
    assert stored
