"""Files are data: arrays come out of them as they went in, and what they want to run is refused by name."""

import argparse
import builtins
import io
import os
import pickle
import subprocess
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest

from converters import command, pickles, reading
from coral_jax import weights

DATA = Path(__file__).parent / "data"


class Runs:
    """An object whose pickle calls `function(*arguments)` when it is read."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


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
        (os.system, ("echo owned > {file}",), "system"),
        (eval, ("open('{file}', 'w')",), "builtins.eval"),
        (exec, ("open('{file}', 'w')",), "builtins.exec"),
        (builtins.getattr, (os, "system"), "builtins.getattr"),
        (subprocess.Popen, (["touch", "{file}"],), "subprocess.Popen"),
        (np.load, ("{file}",), "numpy.*load"),
        (np.dtype, ("O",), "numpy.dtype"),
        (np.dtype, ([("field", "f4")],), "damaged"),
        (io.open, ("{file}", "w"), "open"),
    ],
)
def test_hostile_pickle_is_refused_by_the_name_of_what_it_wants_to_run(tmp_path, function, arguments, name):
    file = tmp_path / "owned"
    arguments = tuple(a.format(file=file) if isinstance(a, str) else a for a in arguments)
    if function is builtins.getattr:
        arguments = ("text", "upper")  # a module itself cannot be pickled
    path = dump(tmp_path / "hostile.pkl", {"G_ema": Runs(function, *arguments)})
    with pytest.raises(ValueError, match=name) as raised:
        reading.read(path)
    assert str(path) in str(raised.value) and not file.exists()
    if name != "damaged":
        assert "refused" in str(raised.value)


def test_arrays_of_objects_are_refused(tmp_path):
    with pytest.raises(ValueError, match="refused"):
        reading.read(dump(tmp_path / "x.pkl", np.array([{}, None], dtype=object)))


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
    path.write_bytes(b"<!DOCTYPE html><html>Too many users have viewed this file</html>")
    with pytest.raises(ValueError, match="is no checkpoint.*<!DOCTYPE.*fetch it again"):
        reading.read(path)
    path.write_bytes((1000).to_bytes(8, "little") + b'{"a":')
    with pytest.raises(ValueError, match="not a safetensors file"):
        reading.read(path)


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


def test_without_torch_a_pt_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ValueError, match=r'pip install -e "\.\[convert\]"'):
        reading.read(DATA / "stylegan2_rosinality_64.pt")


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # of torch: archives of old programs are of that form
class TestTorchFiles:
    """What torch.save and TorchScript write."""

    @pytest.fixture(autouse=True)
    def torch(self):
        self.torch = pytest.importorskip("torch")

    @pytest.mark.parametrize("archive", [True, False])
    def test_containers_and_types(self, tmp_path, archive):
        torch, path = self.torch, tmp_path / "x.pt"
        content = {
            "half": torch.arange(3).half(), "brain": torch.ones(2, dtype=torch.bfloat16), "t": torch.ones(2, 3).t(),
            "parameter": torch.nn.Parameter(torch.ones(1)), "list": [torch.zeros(()), (1, "two")],
            "args": argparse.Namespace(lr=0.1), "state": torch.nn.Linear(2, 1).state_dict(),
        }  # fmt: skip
        torch.save(content, path, _use_new_zipfile_serialization=archive)
        read = reading.read(path)
        assert read["half"].dtype == np.float16 and read["brain"].dtype == np.float32
        assert read["t"].shape == (3, 2) and read["list"][1] == (1, "two") and read["args"] == {"lr": 0.1}
        assert type(read["state"]) is dict and type(read["parameter"]) is np.ndarray

    @pytest.mark.parametrize("archive", [True, False])
    def test_hostile(self, tmp_path, archive):
        path, file = tmp_path / "x.pt", tmp_path / "owned"
        content = {"g_ema": Runs(os.system, f"touch {file}")}
        self.torch.save(content, path, _use_new_zipfile_serialization=archive)
        with pytest.raises(ValueError, match="wants to run (posix|nt|os).system.*refused"):
            reading.read(path)
        assert not file.exists()

    def test_truncated_legacy(self, tmp_path):
        path = tmp_path / "x.pt"
        self.torch.save({"a": self.torch.ones(1000)}, path, _use_new_zipfile_serialization=False)
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(ValueError, match="x.pt is damaged or cut short.*fetch it again"):
            reading.read(path)

    def test_torchscript_is_read_without_torch_as_its_state_dict(self, tmp_path, monkeypatch):
        torch, path = self.torch, tmp_path / "x.pt"
        layers = [torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Sequential(torch.nn.ReLU(), torch.nn.PReLU())]
        module = torch.nn.Sequential(*layers).half()
        torch.jit.script(module).save(path)
        expected = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
        monkeypatch.setitem(sys.modules, "torch", None)
        read = reading.read(path)
        assert sorted(read) == sorted(expected)
        for name, value in read.items():
            assert value.dtype == expected[name].dtype and np.array_equal(value, expected[name]), name

    def test_hostile_torchscript(self, tmp_path):
        """An archive that looks like TorchScript, with a pickle of its own."""
        path = tmp_path / "x.pt"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x/constants.pkl", b"")
            archive.writestr("x/data.pkl", pickle.dumps(Runs(os.system, "true"), 2))
        with pytest.raises(ValueError, match="wants to run posix.system.*refused"):
            reading.read(path)
