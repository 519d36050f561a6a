"""Reads checkpoints as data: arrays and plain containers come out, and nothing that a file names is ever run."""

import argparse
import io
import mmap
import os
import pickle
import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from converters.pickles import Record, Refused, Unpickler, storage_array
from coral_jax import weights

_LEGACY_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # torch.save before its version 1.6
_DAMAGE = (pickle.UnpicklingError, EOFError, RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError,
           AssertionError, ImportError, OverflowError, MemoryError, UnicodeDecodeError)  # fmt: skip


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
        start = file.read(16)
    if start.startswith(b"PK") or start.startswith(_LEGACY_START):
        return read_torch(path)
    if start[8:9] == b"{":
        return read_safetensors(path)
    if start.startswith(b"\x80"):
        return read_pickle(path)
    raise ValueError(
        f"{path} is no checkpoint: it starts with {start!r}; fetch it again "
        "(a download that failed often leaves a web page, or a pointer to the file, in its place)"
    )


def read_safetensors(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read the named arrays of a safetensors file, as they are stored; ValueError if it is not one, or is this program's."""
    tensors, metadata = weights.load_tensors(path)
    if metadata.get("architecture") in weights.ARCHITECTURES:
        raise ValueError(f"{path} is a file of this program already, and needs no conversion; use it as it is")
    return tensors


def read_torch(path: str | os.PathLike) -> object:
    """Read a .pt or .pth: plain containers of numpy arrays, memory-mapped where the file allows it.

    What torch.save wrote goes through torch.load(weights_only=True). A TorchScript archive becomes the flat state dict of
    its module ("visual.conv1.weight"), read by this module alone: torch could only load it by building its program.
    ValueError for a damaged file, one that holds more than data, and where torch is not installed.
    """
    path = Path(path)
    with open(path, "rb") as file:
        archive = file.read(2) == b"PK"
    if archive and _check_archive(path):
        return _read_torchscript(path)
    try:
        import torch
    except ImportError as error:
        raise ValueError(f'{path} is read with torch; type pip install -e ".[convert]"') from error
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # training options; an object without methods
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    except _DAMAGE as error:
        if wanted := re.search(r"(?:Unsupported (?:global|class)|GLOBAL)\W+(?:GLOBAL )?([\w.]+)", str(error)):
            raise _refusal(path, wanted[1]) from error
        raise _damaged(path, error) from error
    return _without_torch(loaded, torch)


def read_pickle(path: str | os.PathLike) -> object:
    """Read a .pkl of NVIDIA's programs: numpy arrays, plain containers, and Records in place of their classes.

    A network of torch_utils.persistence becomes a Record of its state; the program text stored beside is dropped, never
    run. So does dnnlib.tflib.network.Network. ValueError for a damaged file and for anything else that a pickle names.
    """
    with open(path, "rb") as file:
        return _unpickle(Unpickler(file), path)


def flatten(record: Record, prefix: str = "") -> dict[str, np.ndarray]:
    """The arrays of a network in Records by dotted name, as its state dict would have them.

    Both forms: a torch module (arrays in _parameters and _buffers, networks in _modules) and TorchScript (all in one).
    """
    arrays = {}
    for name, value in record.items():
        if name in ("_parameters", "_buffers", "_modules"):
            arrays |= flatten(value, prefix)
        elif isinstance(value, np.ndarray):
            arrays[prefix + name] = value
        elif isinstance(value, Record) and value.kind:
            arrays |= flatten(value, f"{prefix}{name}.")
    return arrays


def _damaged(path: str | os.PathLike, error: Exception | str) -> ValueError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return ValueError(f"{path} is damaged or cut short ({reason}); fetch it again")


def _refusal(path: str | os.PathLike, wanted: str) -> ValueError:
    return ValueError(
        f"{path} wants to run {wanted} when it is read: refused, since a checkpoint holds numbers and no programs; "
        "fetch it from its author, or save its state dict alone"
    )


def _unpickle(unpickler: pickle.Unpickler, path: str | os.PathLike) -> object:
    try:
        return unpickler.load()
    except Refused as refused:
        raise _refusal(path, str(refused)) from refused
    except _DAMAGE as error:
        raise _damaged(path, error) from error


def _without_torch(value: object, torch: object) -> object:
    """The same with numpy arrays in place of tensors; bfloat16, which numpy lacks, becomes float32."""
    if isinstance(value, torch.Tensor):
        value = value.detach()
        return (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    if isinstance(value, Mapping):
        return {key: _without_torch(item, torch) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [_without_torch(item, torch) for item in value]
        return items if isinstance(value, list) else tuple(items)
    return vars(value) if isinstance(value, argparse.Namespace) else value


# --- zip archives of torch.save and TorchScript --------------------------------------------------------------------------


def _check_archive(path: Path) -> bool:
    """Whether it is a TorchScript archive. ValueError if a member's checksum does not fit: torch does not look at them."""
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
            members = _members(archive)
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, zlib.error) as error:
        raise _damaged(path, error) from error
    if bad:
        raise _damaged(path, f"the checksum of its part {bad} is wrong")
    return "constants.pkl" in members


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Members by their name below the top folder, which bears the name that the archive once had."""
    return {info.filename.partition("/")[2]: info for info in archive.infolist()}


def _read_torchscript(path: Path) -> dict[str, np.ndarray]:
    with open(path, "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    with zipfile.ZipFile(path) as archive:
        members = _members(archive)
        if "data.pkl" not in members:
            raise _damaged(path, "it has no data.pkl")
        program = archive.read(members["data.pkl"])

    def storage(kind: str, key: str, count: int) -> np.ndarray:
        info = members[f"data/{key}"]
        if info.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"data/{key} is compressed")
        header = mapped[info.header_offset : info.header_offset + 30]  # its name and padding follow, then the numbers
        start = info.header_offset + 30 + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        return storage_array(kind, memoryview(mapped)[start : start + info.file_size], count)

    module = _unpickle(Unpickler(io.BytesIO(program), storage, torchscript=True), path)
    if not isinstance(module, Record):
        raise _damaged(path, "its data.pkl holds no module")
    return flatten(module)
