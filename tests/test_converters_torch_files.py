"""What torch.save and TorchScript write is read without torch, to the bit."""

import argparse
import os
import pickle
import sys
import zipfile

import numpy as np
import pytest
from torch_files import Runs

from converters import reading, stylegan2


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # of torch: archives of old programs are of that form
class TestTorchFiles:
    """What torch.save and TorchScript write."""

    @pytest.fixture(autouse=True)
    def torch(self):
        self.torch = pytest.importorskip("torch")

    @pytest.mark.parametrize("archive", [True, False])
    def test_every_bit_is_what_torch_reads(self, tmp_path, archive):
        torch, path = self.torch, tmp_path / "x.pt"
        shared = torch.randn(7, 5)
        floats = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
        whole = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
        content = {
            **{str(dtype): (100 * torch.randn(3, 4)).to(dtype) for dtype in (*floats, *whole)},
            "t": shared.t(), "part": shared[2:, 1::2], "number": torch.tensor(2.5), "none": torch.zeros(0, 3),
            "parameter": torch.nn.Parameter(torch.randn(2)), "state": torch.nn.Linear(2, 1).state_dict(),
            "complex": shared + 1j,
            "list": [torch.zeros(()), (1, "two")], "args": argparse.Namespace(lr=0.1), "size": shared.shape,
            "attribute": torch.randn(2), "nan": torch.tensor([float("nan"), float("inf"), -0.0]),
        }  # fmt: skip
        content["attribute"].note = "of its own"
        torch.save(content, path, _use_new_zipfile_serialization=archive)
        with torch.serialization.safe_globals([argparse.Namespace]):
            expected = torch.load(path, weights_only=True)
        read = reading.read(path)
        assert list(read) == list(expected)
        pairs = [(read[name], tensor) for name, tensor in expected.items() if isinstance(tensor, torch.Tensor)]
        pairs += [(read["state"][name], tensor) for name, tensor in expected["state"].items()]
        pairs += [(read["list"][0], expected["list"][0])]
        for array, tensor in pairs:
            tensor = tensor.detach()
            wanted = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
            assert array.dtype == wanted.dtype and array.shape == wanted.shape and array.tobytes() == wanted.tobytes()
        assert read["args"] == {"lr": 0.1} and read["list"][1] == (1, "two") and read["size"] == (7, 5)

    def test_types_without_a_storage_of_their_own(self, tmp_path):
        torch, path = self.torch, tmp_path / "x.pt"
        eight = torch.ones(2).to(torch.float8_e4m3fn)
        torch.save({"u": torch.arange(3).to(torch.uint16), "g_ema": {"input.input": eight}}, path)
        read = reading.read(path)
        assert np.array_equal(read["u"], np.arange(3, dtype=np.uint16))
        assert read["g_ema"]["input.input"].kind == "torch.float8_e4m3fn"
        with pytest.raises(ValueError, match="input.input is an object of torch.float8_e4m3fn, .*; save it as float32"):
            stylegan2.load(read, "theirs")

    def test_a_module_saved_whole(self, tmp_path):
        torch, path = self.torch, tmp_path / "x.pt"
        network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
        network.register_buffer("passing", torch.ones(2), persistent=False)
        torch.save(network, path)
        expected = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
        read = reading.flatten(reading.read(path))
        assert sorted(read) == sorted(expected) and all(np.array_equal(read[name], expected[name]) for name in read)

    @pytest.mark.parametrize("archive", [True, False])
    def test_hostile(self, tmp_path, archive):
        path, file = tmp_path / "x.pt", tmp_path / "owned"
        content = {"g_ema": Runs(os.system, f"touch {file}")}
        self.torch.save(content, path, _use_new_zipfile_serialization=archive)
        assert reading.read(path)["g_ema"].kind.endswith("system") and not file.exists()

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
        assert reading.read(path) == {}
