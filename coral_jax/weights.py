"""Networks and named arrays in safetensors files: strict, atomic, the same bytes for the same content."""

import dataclasses
import hashlib
import importlib
import json
import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import BinaryIO

import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from flax import nnx

from coral_jax.runtime.files import replacing

# Architecture key -> (module, network class, config class); imported only when a file asks for it.
ARCHITECTURES = {
    "stylegan2": ("coral_jax.models.stylegan2", "StyleGAN2", "StyleGAN2Config"),
    "mobile_stylegan": ("coral_jax.models.mobile_stylegan", "MobileStyleGAN", "MobileStyleGANConfig"),
    "clip": ("coral_jax.models.clip", "CLIP", "CLIPConfig"),
    "identity": ("coral_jax.models.identity", "Identity", "IdentityConfig"),
    "inception": ("coral_jax.models.inception", "Inception", "InceptionConfig"),
    "efficientnet": ("coral_jax.models.efficientnet", "EfficientNet", "EfficientNetConfig"),
    "classifier": ("coral_jax.models.classifier", "Classifier", "ClassifierConfig"),
    "mixture_segmenter": ("coral_jax.models.segmenter", "MixtureSegmenter", "MixtureSegmenterConfig"),
    "flat_encoder": ("coral_jax.models.encoder", "FlatEncoder", "FlatEncoderConfig"),
    "pyramid_encoder": ("coral_jax.models.encoder", "PyramidEncoder", "PyramidEncoderConfig"),
    "pixel_classifier": ("coral_jax.models.segmenter", "PixelClassifier", "PixelClassifierConfig"),
}

_TYPES = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL")  # of safetensors


def save(
    path: str | os.PathLike,
    module: nnx.Module,
    dtype: np.dtype | type | None = None,
    metadata: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Writes a network: tensors under their dotted state path ("blocks.0.conv.kernel"), its class and config beside.

    dtype: storage type of the floating tensors (np.float16 halves the file); None keeps theirs. metadata: further texts.
    """
    architecture = _architecture_of(module)
    tensors = {name: np.asarray(variable[...]) for name, variable in named_variables(module).items()}
    if dtype is not None:
        tensors = {name: _cast(name, tensor, np.dtype(dtype)) for name, tensor in tensors.items()}
    config = json.dumps(dataclasses.asdict(module.config), sort_keys=True)
    save_tensors(path, tensors, {**metadata, "architecture": architecture, "config": config})


def load(path: str | os.PathLike) -> nnx.Module:
    """Reads a network that `save` wrote; floating tensors become float32. ValueError lists all that does not fit."""
    tensors, metadata = load_tensors(path)
    network_class, config = _from_metadata(path, metadata)
    module = nnx.eval_shape(lambda: network_class(config, nnx.Rngs(0)))
    fill(module, tensors, str(path))
    return module


def fill(module: nnx.Module, tensors: dict[str, np.ndarray], source: str) -> None:
    """Puts named tensors into a network (abstract or not), in place; strict both ways.

    ValueError names every missing, unused and wrong-shaped tensor of `source` at once, and every one with values that are
    not finite in the network's type; the module is then untouched.
    """
    variables = named_variables(module)
    problems = [f"missing: {name} {tuple(variables[name].shape)}" for name in sorted(variables.keys() - tensors.keys())]
    problems += [f"unused: {name} {tensors[name].shape}" for name in sorted(tensors.keys() - variables.keys())]
    problems += [
        f"wrong shape: {name} is {tensors[name].shape}, the network's is {tuple(variables[name].shape)}"
        for name in sorted(variables.keys() & tensors.keys())
        if tensors[name].shape != tuple(variables[name].shape)
    ]
    if problems:
        raise ValueError(
            f"{source} does not fit {type(module).__name__}; convert it again or give the file that belongs here:\n  "
            + "\n  ".join(problems)
        )
    check_finite(tensors, source)
    for name, variable in variables.items():
        variable.set_value(jnp.asarray(tensors[name], variable.dtype))


def check_finite(tensors: Mapping[str, np.ndarray], source: str) -> None:
    """ValueError names every tensor of `source` with values that are not finite, or are not as float32."""
    found = []
    for name, tensor in tensors.items():
        with np.errstate(over="ignore"):
            bad = np.size(tensor) - np.count_nonzero(np.isfinite(np.asarray(tensor, np.float32)))
        if bad:
            found.append(f"{name} ({bad:,} of {np.size(tensor):,})")
    if found:
        raise ValueError(
            f"{source} has values that are NaN, infinite or beyond float32 in {', '.join(found[:5])}"
            + (f" and {len(found) - 5} more arrays" if len(found) > 5 else "")
            + "; such weights cannot be used: fetch the file again, or take an earlier checkpoint of its training"
        )


def named_variables(module: nnx.Module) -> dict[str, nnx.Variable]:
    """The network's parameters and statistics by dotted path, sorted."""
    return {".".join(map(str, path)): variable for path, variable in nnx.to_flat_state(nnx.state(module))}


def fingerprint(path: str | os.PathLike) -> str:
    """SHA-256 of a file, hexadecimal: says whether two weights are the same ones."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_tensors(path: str | os.PathLike, tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Writes named arrays and text metadata to a safetensors file, atomically; equal content gives equal bytes."""
    tensors = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    with replacing(path) as partial:  # written from the arrays: large ones must not be copied on the way
        partial.touch()
        mode = partial.stat().st_mode  # as the user's umask has it; the library's own file is for the user alone
        safetensors.numpy.save_file(tensors, partial, metadata or None)  # the library breaks the header on {}
        partial.chmod(mode)
        with open(partial, "r+b") as file:
            _order_header(file)
            file.flush()
            os.fsync(file.fileno())


def load_tensors(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Reads (tensors, metadata) of a safetensors file as they were stored, bfloat16 as float32.

    ValueError if it is not one, and for types of fewer bits.
    """
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            types = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
            if unknown := [name for name, kind in types.items() if kind not in _TYPES]:
                stored = f"{path}: {unknown[0]} is stored as {types[unknown[0]]}, which is not read here"
                raise ValueError(f"{stored}; save it as float16 or float32")
            tensors = {name: file.get_tensor(name) for name in types}
            metadata = file.metadata() or {}
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"{path} is not a safetensors file, or is cut short ({error}); "
            "fetch it again, or convert a checkpoint of another format with converters/"
        ) from error
    # numpy itself has no bfloat16; as float32 it is the same number.
    return {name: tensor.astype(np.float32) if types[name] == "BF16" else tensor for name, tensor in tensors.items()}, metadata


def _order_header(file: BinaryIO) -> None:
    """Put a safetensors file's header in a fixed order, in place: the library writes metadata in a random one."""
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    header = json.loads(file.read(length))
    text = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    if len(text) > length:
        raise ValueError(f"the header grew from {length} to {len(text)} bytes; another release of safetensors is needed")
    file.seek(8)
    file.write(text.ljust(length))


def _architecture_of(module: nnx.Module) -> str:
    for key, (_, class_name, _) in ARCHITECTURES.items():
        if type(module).__name__ == class_name:
            return key
    raise ValueError(f"{type(module).__name__} cannot be saved; add it to weights.ARCHITECTURES")


def _from_metadata(path: str | os.PathLike, metadata: dict[str, str]) -> tuple[type, object]:
    """The network class and its config that a file's metadata names."""
    key = metadata.get("architecture")
    if key not in ARCHITECTURES or "config" not in metadata:
        raise ValueError(
            f"{path} does not say which network it holds (architecture {key!r}; known: {', '.join(ARCHITECTURES)}); "
            "convert it with converters/"
        )
    module_name, class_name, config_name = ARCHITECTURES[key]
    source = importlib.import_module(module_name)
    try:
        fields = {name: _tuples(value) for name, value in json.loads(metadata["config"]).items()}
        return getattr(source, class_name), getattr(source, config_name)(**fields)
    except (TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: its config does not fit {config_name} ({error}); convert it again") from error


def _tuples(value: object) -> object:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _cast(name: str, tensor: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if not np.issubdtype(tensor.dtype, np.floating):
        return tensor
    with np.errstate(over="ignore"):
        stored = tensor.astype(dtype)
    if not np.array_equal(np.isfinite(tensor), np.isfinite(stored)):
        raise ValueError(f"{name} has values beyond the range of {dtype}; save with dtype=None instead")
    return stored
