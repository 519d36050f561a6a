"""Reads checkpoints as data: arrays and plain containers come out, and nothing that a file names is ever run."""

import io
import mmap
import os
import pickle
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from converters.pickles import LEGACY_START, Record, Refused, Unpickler, flatten, load_legacy, storage_array
from coral_jax import weights

_DAMAGE = (pickle.UnpicklingError, EOFError, RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError,
           AssertionError, OverflowError, MemoryError, zipfile.BadZipFile, zlib.error)  # fmt: skip
_TEXT_PICKLE = re.compile(rb"\((?:[dl]p?\d|lp\d|dp\d)|[\]}]q\x00|c\w[\w.]*\n")  # of the protocols 0 and 1
_UNPACK = "is packed ({}); unpack it first and give the file that was in it"
# How a file starts that is no checkpoint -> what it is.
_OTHERS = {
    rb"\x1f\x8b": _UNPACK.format("gzip"),
    rb"BZh": _UNPACK.format("bzip2"),
    rb"\xfd7zXZ": _UNPACK.format("xz"),
    rb"7z\xbc\xaf": _UNPACK.format("7-Zip"),
    rb"Rar!": _UNPACK.format("RAR"),
    rb"\x28\xb5\x2f\xfd": _UNPACK.format("Zstandard"),
    rb"(?s:.{257})ustar": _UNPACK.format("tar"),
    rb"version https://git-lfs": "is a pointer of Git LFS in place of the file; fetch the file itself, with git lfs pull",
    rb"(?i:(\xef\xbb\xbf)?\s*<(!doctype|html|head|script|\?xml))": "is a web page in place of the file, such as a download's "
    "question or error; fetch it again in a browser",
    rb"\x89HDF": "is an HDF5 file, which is not read here; give a checkpoint of PyTorch, TensorFlow's StyleGAN2 or safetensors",
    rb"\Z": "is empty; fetch it again",
}


def read(path: str | os.PathLike) -> object:
    """Read a checkpoint of any of the formats below, told by its first bytes and not by its name.

    ValueError if there is no such file, or it is of none of them.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give the checkpoint file in it")
    if not path.is_file():
        raise ValueError(f"there is no file {path}; give the checkpoint's path")
    with open(path, "rb") as file:
        start = file.read(512)
    if start.startswith(b"PK"):
        return _read_zip(path)
    if start[8:9] == b"{":
        return read_safetensors(path)
    if start.startswith(b"\x93NUMPY"):
        return read_npy(path)
    if start.startswith(b"\x80") or _TEXT_PICKLE.match(start):
        return read_pickle(path)
    for pattern, what in _OTHERS.items():
        if re.match(pattern, start):
            raise ValueError(f"{path} {what}")
    raise ValueError(
        f"{path} is no checkpoint: it starts with {start[:16]!r}; fetch it again "
        "(a download that failed often leaves something else in its place)"
    )


def read_safetensors(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read the named arrays of a safetensors file, as they are stored; ValueError if it is not one, or is this program's."""
    tensors, metadata = weights.load_tensors(path)
    if metadata.get("architecture") in weights.ARCHITECTURES:
        raise ValueError(f"{path} is a file of this program already, and needs no conversion; use it as it is")
    return tensors


def read_pickle(path: str | os.PathLike) -> object:
    """Read a .pkl, or a .pt of torch.save before its version 1.6: arrays, plain containers, Records in place of classes.

    A network of torch_utils.persistence becomes a Record of its state; the program text stored beside is dropped, never
    run. So does dnnlib.tflib.network.Network, and any other object. ValueError for a damaged file.
    """
    with open(path, "rb") as file, _damage(path):
        if file.read(len(LEGACY_START)) == LEGACY_START:
            file.seek(0)
            return load_legacy(file, memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
        file.seek(0)
        return Unpickler(file).load()


def read_npy(path: str | os.PathLike) -> object:
    """Read a .npy: an array, memory-mapped; what an array of objects holds: one object as itself, several as a list."""
    with open(path, "rb") as file, _damage(path):
        objects = _objects_of_npy(file)
        return np.load(path, allow_pickle=False, mmap_mode="r") if objects is None else objects


@contextmanager
def _damage(path: str | os.PathLike) -> Iterator[None]:
    """Any error that damage can lead to becomes a ValueError with one line."""
    try:
        yield
    except Refused as refused:
        raise ValueError(f"{path} tampers with its reader ({refused}): refused; fetch it from its author") from refused
    except _DAMAGE as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"{path} is damaged or cut short ({reason}); fetch it again") from error


# --- zip archives: of torch.save, TorchScript, numpy.savez, or of a download that is still packed --------------------------


def _read_zip(path: Path) -> object:
    with _damage(path), zipfile.ZipFile(path) as archive:
        if bad := archive.testzip():
            raise ValueError(f"the checksum of its part {bad} is wrong")
        files = [info.filename for info in archive.infolist() if not info.is_dir()]
        # Names below the top folder, which bears the name that the archive once had.
        members = {info.filename.partition("/")[2]: info for info in archive.infolist()}
        if "data.pkl" in members:
            return _read_torch(path, archive, members)
        if files and all(name.endswith(".npy") for name in files):
            arrays = {name.removesuffix(".npy"): _read_member(archive, name) for name in files}
            return arrays["arr_0"] if list(arrays) == ["arr_0"] else arrays  # what numpy calls an array without a name
    held = ", ".join(files[:3]) + (", ..." if len(files) > 3 else "")
    raise ValueError(f"{path} is a zip of {held or 'nothing'}; unpack it first and give the file that was in it")


def _read_torch(path: Path, archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo]) -> object:
    """What torch.save wrote, memory-mapped; of a TorchScript archive the state dict of its module."""
    with open(path, "rb") as file:
        mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    if "byteorder" in members and archive.read(members["byteorder"]) != b"little":
        raise ValueError("its numbers are big-endian")

    def storage(kind: str, key: str, count: int) -> np.ndarray | Record:
        info = members[f"data/{key}"]
        if info.compress_type != zipfile.ZIP_STORED:
            return storage_array(kind, archive.read(info), count)
        header = mapped[info.header_offset : info.header_offset + 30]  # its name and padding follow, then the numbers
        start = info.header_offset + 30 + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        return storage_array(kind, mapped[start : start + info.file_size], count)

    content = Unpickler(io.BytesIO(archive.read(members["data.pkl"])), storage).load()
    return flatten(content) if "constants.pkl" in members and isinstance(content, Record) else content


def _read_member(archive: zipfile.ZipFile, name: str) -> object:
    file = io.BytesIO(archive.read(name))
    objects = _objects_of_npy(file)
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False) if objects is None else objects


def _objects_of_npy(file: io.IOBase) -> object | None:
    """What an array of objects holds, read as data; None for an array of numbers."""
    version = np.lib.format.read_magic(file)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    _, _, dtype = header(file)
    if not dtype.hasobject:
        return None
    content = Unpickler(file).load()
    return content.tolist() if isinstance(content, np.ndarray) else content
