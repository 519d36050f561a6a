"""An unpickler that runs nothing: out of a pickle come arrays, plain containers and Records, whatever it names."""

import io
import pickle
import re
from collections.abc import Callable, Mapping

import numpy as np

# What torch names in its files -> the same numbers in numpy; numpy has no bfloat16, see storage_array.
_STORAGES = {
    "DoubleStorage": "f8", "FloatStorage": "f4", "HalfStorage": "f2", "BFloat16Storage": "bf16", "LongStorage": "i8",
    "IntStorage": "i4", "ShortStorage": "i2", "CharStorage": "i1", "ByteStorage": "u1", "BoolStorage": "?",
}  # fmt: skip
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # opens a file of torch.save before its version 1.6


class Record(dict):
    """An object of a class that was not built: its attributes by name; `kind` is the class, as the file names it."""

    __slots__ = ()
    kind = ""

    def __setstate__(self, state: object) -> None:
        """Called by the unpickler with the attributes; dictionaries that were pickled with attributes ignore them."""
        if self.kind and isinstance(state, Mapping):
            self.update(state)


class Refused(Exception):
    """A pickle named something that is not data; the text says what."""


class _Call:
    """A function that a pickle may name. An object of its own, since a pickle can set attributes on what it is given."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable):
        self._function = function

    def __call__(self, *args: object) -> object:
        return self._function(*args)

    def __setstate__(self, state: object) -> None:
        raise Refused("an assignment to a function")


class _Dtype:
    """numpy.dtype of numbers: its byte order arrives after it was made."""

    __slots__ = ("value",)

    def __init__(self, code: str):
        if not re.fullmatch(r"[<>|=]?[biufc?]\d{0,2}", code):
            raise Refused(f"numpy.dtype({code!r})")
        self.value = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        if state[1] in ("<", ">"):
            self.value = self.value.newbyteorder(state[1])


class _Array(np.ndarray):
    """numpy.ndarray: its content arrives after it was made. Only numbers: an array of objects could hold anything."""

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, data = state
        if not isinstance(dtype, _Dtype) or not isinstance(data, bytes | str):
            raise Refused("numpy.ndarray of objects")
        # A str is what a pickle of Python 2 gives for bytes.
        super().__setstate__((1, shape, dtype.value, fortran, data.encode("latin1") if isinstance(data, str) else data))


def _record_class(kind: str) -> type[Record]:
    """A class of Records for one pickle alone, so that no pickle can set an attribute that others see."""
    return type("Record", (Record,), {"kind": kind, "__slots__": ()})


def storage_array(kind: str, data: bytes | memoryview, count: int) -> np.ndarray:
    """A torch storage: `count` numbers, sharing the memory of data."""
    if kind not in _STORAGES:
        raise ValueError(f"numbers of the type torch.{kind} are not known here")
    if _STORAGES[kind] == "bf16":  # the upper half of a float32
        return (np.frombuffer(data, "<u2", count).astype("<u4") << 16).view("<f4")
    return np.frombuffer(data, "<" + _STORAGES[kind], count)


def _tensor(storage: np.ndarray, offset: int, shape: tuple, strides: tuple, *_: object) -> np.ndarray:
    """torch._utils._rebuild_tensor_v2: a view of a storage, checked to lie inside it."""
    if len(shape) != len(strides) or min((offset, *shape, *strides)) < 0:
        raise ValueError("a tensor's shape and strides do not belong together")
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    if 0 not in shape and last >= storage.size:
        raise ValueError("a tensor lies beyond its storage")
    strides = [stride * storage.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, strides, writeable=False)


def _frombuffer(data: bytes, dtype: _Dtype, shape: tuple, order: str) -> np.ndarray:
    """numpy.core.numeric._frombuffer: an array of a pickle of protocol 5."""
    return np.frombuffer(data, dtype.value).reshape(shape, order=order)


class Unpickler(pickle.Unpickler):
    """Builds arrays, plain containers and Records; raises Refused for every other name in a pickle.

    storage(kind, key, count): gives the numbers of a torch storage that lies beside the pickle. torchscript: classes of a
    TorchScript program become Records too. A pickle that is damaged raises whatever its damage leads to.
    """

    def __init__(self, file: io.IOBase, storage: Callable | None = None, torchscript: bool = False):
        super().__init__(file, encoding="latin1")
        self._storage, self._torchscript = storage, torchscript

    def find_class(self, module: str, name: str) -> object:
        """What a name in the pickle stands for: always something made here."""
        if module == "torch" and name in _STORAGES:
            return name
        if module == "torch" and name in ("float32", "float16", "bfloat16", "float64", "int64", "contiguous_format"):
            return name
        full = f"{module.replace('__builtin__', 'builtins').replace('numpy._core', 'numpy.core')}.{name}"
        if full == "dnnlib.tflib.network.Network" or (self._torchscript and module.startswith("__torch__")):
            return _record_class(full)
        if full in ("collections.OrderedDict", "dnnlib.util.EasyDict", "dnnlib.EasyDict", "builtins.dict"):
            return _record_class("")
        if full == "numpy.ndarray":
            return full
        if full in _CALLS:
            return _Call(_CALLS[full])
        if full == "torch.storage._load_from_bytes":
            return _Call(self._load_from_bytes)
        raise Refused(f"{module}.{name}")

    def persistent_load(self, pid: object) -> np.ndarray:
        """A torch storage, kept outside the pickle: ('storage', type, key, device, count)."""
        if self._storage is None or not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
            raise ValueError("it refers to data that is not in it")
        return self._storage(pid[1], str(pid[2]), pid[4])

    def _load_from_bytes(self, data: bytes) -> np.ndarray:
        """torch.storage._load_from_bytes: a storage in a legacy torch.save file of its own."""
        file = io.BytesIO(data)  # shares the memory of data
        found = {}

        def storage(kind: str, key: str, count: int) -> tuple:
            found[key] = (kind, count)
            return key

        header = [Unpickler(file).load() for _ in range(3)]  # magic number, version, sizes of numbers
        if header[0] != _LEGACY_MAGIC or not header[2].get("little_endian", True):
            raise ValueError("it holds a storage of an unknown format")
        wanted = Unpickler(file, storage).load()
        keys = Unpickler(file).load()
        if not isinstance(wanted, str) or keys != [wanted]:
            raise ValueError("it holds a storage of an unknown format")
        kind, count = found[wanted]
        return storage_array(kind, memoryview(data)[file.tell() + 8 :], count)  # 8 bytes repeat the count


_CALLS = {
    "numpy.dtype": lambda code, *_: _Dtype(code),
    "numpy.core.multiarray._reconstruct": lambda *_: np.ndarray.__new__(_Array, (0,), np.uint8),
    "numpy.core.multiarray.scalar": lambda dtype, data: np.frombuffer(data, dtype.value, 1)[0],
    "numpy.core.numeric._frombuffer": _frombuffer,
    "_codecs.encode": lambda text, _: text.encode("latin1"),
    "builtins.set": set,
    "builtins.bytes": lambda: b"",  # how protocol 2 writes empty ones
    "torch.Size": tuple,
    "torch.device": lambda *args: str(args),
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": lambda array, *_: array,
    "torch_utils.persistence._reconstruct_persistent_obj": lambda meta: _persistent(meta),
    **{f"torch.jit._pickle.build_{kind}list": list for kind in ("int", "tensor", "double", "bool")},
    "torch.jit._pickle.restore_type_tag": lambda value, _: value,
}


def _persistent(meta: Mapping) -> Record:
    """torch_utils.persistence: the state of the object; the text of its module is dropped unread."""
    record = _record_class(str(meta["class_name"]))()
    record.update(meta["state"])
    return record
