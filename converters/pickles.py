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
    "ComplexFloatStorage": "c8", "ComplexDoubleStorage": "c16", "UntypedStorage": "u1",
}  # fmt: skip
_DTYPES = {"uint16": "<u2", "uint32": "<u4", "uint64": "<u8"}  # torch's types that have no storage of their own
LEGACY_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # torch.save before its version 1.6


class Dictionary(dict):
    """A dictionary of any class; attributes that were pickled with it are dropped."""

    __slots__ = ()

    def __init__(self, items: object = (), *_: object):
        super().__init__(items if isinstance(items, list | tuple | Mapping) else ())  # else the factory of a defaultdict

    def __setstate__(self, state: object) -> None:
        """Called by the unpickler with the attributes."""


class Record(dict):
    """An object that was not built: its attributes by name; `kind` is the class or function, as the file names it.

    What the file calls it with is dropped, and so is what the file puts into it as into a list or set.
    """

    __slots__ = ()
    kind = ""
    __hash__ = object.__hash__  # a file may use it as a key

    def __init__(self, *_: object, **__: object):
        super().__init__()

    def __setstate__(self, state: object) -> None:
        """Called by the unpickler with the attributes."""
        if isinstance(state, Mapping):
            self.update(state)

    def __call__(self, *_: object, **__: object) -> "Record":
        """A file may call what it made, such as the result of builtins.getattr: nothing happens."""
        return self

    def append(self, _: object) -> None:
        """Called by the unpickler with a part of a list or set."""

    extend = add = append


class Refused(Exception):
    """A pickle wants something that no data needs; the text says what."""


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
    """numpy.dtype of numbers, text or objects: its byte order arrives after it was made."""

    __slots__ = ("value",)

    def __init__(self, code: str):
        self.value = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        if state[1] in ("<", ">"):
            self.value = self.value.newbyteorder(state[1])


class _Array(np.ndarray):
    """numpy.ndarray: its content arrives after it was made. Objects in it are what this unpickler made of them."""

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, data = state
        if not isinstance(dtype, _Dtype):
            shape, dtype, data = (), _Dtype("O"), [dtype]  # a Record, in place of numbers of an unknown type
        if dtype.value.hasobject != isinstance(data, list):  # bytes would be taken for addresses of objects
            raise Refused("numpy.ndarray of objects that are bytes")
        super().__setstate__((1, shape, dtype.value, fortran, _bytes(data)))


def record_class(kind: str) -> type[Record]:
    """A class of Records for one name in one pickle, so that no pickle can set an attribute that others see."""
    return type("Record", (Record,), {"kind": kind, "__slots__": ()})


def storage_array(kind: str, data: bytes | memoryview, count: int) -> np.ndarray | Record:
    """A torch storage: `count` numbers, sharing the memory of data; a Record where their type is not known."""
    if kind not in _STORAGES:
        return record_class(kind)()
    if _STORAGES[kind] == "bf16":  # the upper half of a float32
        return (np.frombuffer(data, "<u2", count).astype("<u4") << 16).view("<f4")
    return np.frombuffer(data, np.dtype(_STORAGES[kind]).newbyteorder("<"), count)


def _tensor(
    storage: np.ndarray | Record, offset: int, shape: tuple, strides: tuple, *rest: object
) -> np.ndarray | Record:
    """torch._utils._rebuild_tensor_v2: a view of a storage, checked to lie inside it."""
    if isinstance(storage, Record):
        return storage
    if storage.ndim != 1 or not storage.flags.c_contiguous or storage.dtype.hasobject:
        raise ValueError("a tensor is made from what is no storage")
    if any(rest[2:]):  # requires_grad, backward_hooks, and then bits for lazy negation and conjugation
        raise ValueError("a tensor is stored negated or conjugated")
    if len(shape) != len(strides) or min((offset, *shape, *strides)) < 0:
        raise ValueError("a tensor's shape and strides do not belong together")
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    if 0 not in shape and last >= storage.size:
        raise ValueError("a tensor lies beyond its storage")
    strides = [stride * storage.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, strides, writeable=False)


def _typed_tensor(
    storage: np.ndarray, offset: int, shape: tuple, strides: tuple, grad: bool, hooks: object, dtype: object, *rest: object
) -> np.ndarray | Record:
    """torch._utils._rebuild_tensor_v3: a view of bytes, of a type that is named; a Record where it is not known."""
    if dtype not in _DTYPES:
        return record_class(getattr(dtype, "kind", str(dtype)))()
    if isinstance(storage, Record):
        return storage
    return _tensor(storage.view(_DTYPES[dtype]), offset, shape, strides, grad, hooks, *rest)


def _bytes(data: object) -> object:
    """Bytes, which a pickle of Python 2 writes as a str."""
    return data.encode("latin1") if isinstance(data, str) else data


def _dtype(code: str, *_: object) -> _Dtype | Record:
    """numpy.dtype of numbers, text or objects; a Record for others, such as fields."""
    if isinstance(code, str) and re.fullmatch(r"[<>|=]?([biufc?O]\d{0,2}|[SU]\d+)", code):
        return _Dtype(code)
    return record_class(f"numpy.dtype({code!r})")()


def _scalar(dtype: _Dtype | Record, data: bytes) -> object:
    """numpy.core.multiarray.scalar: one number."""
    return np.frombuffer(_bytes(data), dtype.value, 1)[0] if isinstance(dtype, _Dtype) else dtype


def _frombuffer(data: bytes, dtype: _Dtype | Record, shape: tuple, order: str) -> np.ndarray | Record:
    """numpy.core.numeric._frombuffer: an array of a pickle of protocol 5."""
    return np.frombuffer(data, dtype.value).reshape(shape, order=order) if isinstance(dtype, _Dtype) else dtype


class Unpickler(pickle.Unpickler):
    """Builds arrays and plain containers, and Records in place of all else that a pickle names: nothing is ever run.

    storage(kind, key, count): gives the numbers of a torch storage that lies beside the pickle. A pickle that is damaged
    raises whatever its damage leads to; Refused where it tampers with what this module gives it.
    """

    def __init__(self, file: io.IOBase, storage: Callable | None = None):
        super().__init__(file, encoding="latin1")
        self._storage = storage

    def find_class(self, module: str, name: str) -> object:
        """What a name in the pickle stands for: always something made here."""
        if module in ("torch", "torch.cuda", "torch.storage") and name in _STORAGES:
            return name
        if module == "torch" and name in _DTYPES:
            return name
        renamed = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module).replace("numpy._core", "numpy.core")
        full = f"{renamed}.{name}"
        if full in _DICTIONARIES:
            return type("Dictionary", (Dictionary,), {"__slots__": ()})
        if full == "numpy.ndarray":
            return full
        if full == "torch.storage._load_from_bytes":
            return _Call(lambda data: load_legacy(io.BytesIO(data), memoryview(data)))  # shares the memory of data
        return _Call(_CALLS[full]) if full in _CALLS else record_class(full)

    def persistent_load(self, pid: object) -> np.ndarray:
        """A torch storage, kept outside the pickle: ('storage', type, key, device, count), and a view's place or None."""
        if self._storage is None or not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage" or any(pid[5:]):
            raise ValueError("it refers to data that is not in it")
        return self._storage(getattr(pid[1], "kind", pid[1]), str(pid[2]), pid[4])


def load_legacy(file: io.IOBase, data: memoryview) -> object:
    """What torch.save wrote before its version 1.6; `data` is the whole file, and arrays share its memory.

    The storages follow the pickle that uses them: it is read twice, and the first time finds where they are.
    """
    header = [Unpickler(file).load() for _ in range(3)]  # magic number, version, sizes of numbers
    if not LEGACY_START.endswith(header[0].to_bytes(10, "little") + b".") or not header[2].get("little_endian", True):
        raise ValueError("it is of an unknown format")
    begin, sizes = file.tell(), {}

    def counted(kind: str, key: str, count: int) -> np.ndarray:
        size = 2 if _STORAGES[kind] == "bf16" else np.dtype(_STORAGES[kind]).itemsize
        sizes[key] = size * count
        if not 0 <= sizes[key] <= len(data):
            raise ValueError("a tensor lies beyond its end")
        return np.zeros(count, f"V{size}")  # takes no memory before it is written to

    Unpickler(file, counted).load()
    keys, starts = Unpickler(file).load(), {}
    place = file.tell()
    for key in keys:
        starts[key], place = place + 8, place + 8 + sizes[key]  # 8 bytes repeat the count
    file.seek(begin)
    return Unpickler(file, lambda kind, key, count: storage_array(kind, data[starts[key] :], count)).load()


def flatten(record: Record, prefix: str = "") -> dict[str, np.ndarray | Record]:
    """The arrays of a network in Records by dotted name, as its state dict would have them.

    Both forms: a torch module (arrays in _parameters and _buffers, networks in _modules) and TorchScript (all in one).
    What stands in the place of an array in the first form, and is none, is a Record.
    """
    if prefix.count(".") > 64:
        raise ValueError("a network in the file holds itself")
    left_out = record.get("_non_persistent_buffers_set", ())
    own = record
    if "_modules" in record:
        buffers = {name: value for name, value in record.get("_buffers", {}).items() if name not in left_out}
        own = {**record.get("_parameters", {}), **buffers}
    arrays = {prefix + name: value for name, value in own.items() if isinstance(value, np.ndarray)}
    if own is not record:
        arrays |= {prefix + name: value for name, value in own.items() if isinstance(value, Record)}
    for name, value in record.get("_modules", record).items():
        if isinstance(value, Record):
            arrays |= flatten(value, f"{prefix}{name}.")
    return arrays


def _persistent(meta: Mapping) -> Record:
    """torch_utils.persistence: the state of the object; the text of its module is dropped unread."""
    record = record_class(str(meta["class_name"]))()
    record.update(meta["state"])
    return record


_DICTIONARIES = (
    "builtins.dict", "collections.OrderedDict", "collections.defaultdict", "collections.Counter",
    "dnnlib.util.EasyDict", "dnnlib.EasyDict",
)  # fmt: skip
_CALLS = {
    "numpy.dtype": _dtype,
    "numpy.core.multiarray._reconstruct": lambda *_: np.ndarray.__new__(_Array, (0,), np.uint8),
    "numpy.core.multiarray.scalar": _scalar,
    "numpy.core.numeric._frombuffer": _frombuffer,
    "_codecs.encode": lambda text, _: text.encode("latin1"),
    "builtins.set": set,
    "builtins.bytes": lambda: b"",  # how protocol 2 writes empty ones
    "copyreg._reconstructor": lambda made, *_: made(),  # an object of protocol 0 or 1
    "torch.Size": tuple,
    "torch.device": lambda *args: str(args),
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _typed_tensor,
    "torch._utils._rebuild_parameter": lambda array, *_: array,
    "torch._utils._rebuild_parameter_with_state": lambda array, *_: array,
    "torch._tensor._rebuild_from_type_v2": lambda function, _, args, __: function(*args),  # with attributes of its own
    "torch_utils.persistence._reconstruct_persistent_obj": _persistent,
    **{f"torch.jit._pickle.build_{kind}list": list for kind in ("int", "tensor", "double", "bool")},
    "torch.jit._pickle.restore_type_tag": lambda value, _: value,
}
