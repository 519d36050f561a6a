"""Writes files as torch.save does, without torch, and pickles of classes that are not installed."""

import collections
import io
import pickle
import zipfile

import numpy as np

STORAGES = {"f8": "DoubleStorage", "f4": "FloatStorage", "f2": "HalfStorage", "i8": "LongStorage", "i4": "IntStorage"}


class Name:
    """A class or function by name, which a pickle refers to; it need not exist."""

    def __init__(self, module, name):
        self.module, self.name = module, name

    def __call__(self):
        raise AssertionError("only written")


class Runs:
    """An object whose pickle calls `function(*arguments)` when it is read."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


class Made:
    """An object whose pickle calls `function(*arguments)`, a Name, and gives it `state` when it is read."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = (function, arguments, state)

    def __call__(self):
        raise AssertionError("only written")


class _Storage:
    def __init__(self, array):
        self.array = array


class _Pickler(pickle._Pickler):
    """Pickler in Python, protocol 2; arrays are torch's tensors if `storages` is a list, which gets their numbers."""

    def __init__(self, file, storages=None):
        super().__init__(file, 2)
        self.storages = storages

    def save(self, value, save_persistent_id=True):
        if isinstance(value, Name):
            return self.write(f"c{value.module}\n{value.name}\n".encode())
        return super().save(value, save_persistent_id)

    def reducer_override(self, value):
        if isinstance(value, Made):
            return value.reduced
        if isinstance(value, np.ndarray) and self.storages is not None:
            strides = tuple(stride // value.itemsize for stride in np.ascontiguousarray(value).strides)
            arguments = (_Storage(value), 0, value.shape, strides, False, collections.OrderedDict())
            return Name("torch._utils", "_rebuild_tensor_v2"), arguments
        return NotImplemented

    def persistent_id(self, value):
        if not isinstance(value, _Storage):
            return None
        self.storages.append(value.array)
        kind = Name("torch", STORAGES[value.array.dtype.str[1:]])
        return ("storage", kind, str(len(self.storages) - 1), "cpu", value.array.size)


def save(path, content, **compression):
    """Write a .pt of today's form."""
    file, storages = io.BytesIO(), []
    _Pickler(file, storages).dump(content)
    with zipfile.ZipFile(path, "w", **compression) as archive:
        archive.writestr("x/data.pkl", file.getvalue())
        archive.writestr("x/byteorder", "little")
        archive.writestr("x/version", "3\n")
        for index, array in enumerate(storages):
            archive.writestr(f"x/data/{index}", np.ascontiguousarray(array).tobytes())
    return path


def save_pickle(path, content):
    """Write a plain pickle."""
    with open(path, "wb") as file:
        _Pickler(file).dump(content)
    return path
