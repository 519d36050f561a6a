"""Finds a network in a checkpoint, through whatever known programs put around it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from converters.pickles import Record, flatten

# Keys of a checkpoint and, with a dot, prefixes of its names; capitals do not count.
AVERAGES = (
    "g_ema", "gs", "params_ema", "ema", "generator_ema", "netg_ema", "net_g_ema", "model_ema", "ema_model", "state_dict_ema",
)  # fmt: skip
WORDS = (
    *AVERAGES, "state_dict", "model_state_dict", "model", "params", "module", "_orig_mod", "network", "net",
    "generator", "decoder", "g", "netg", "net_g", "facenet", "backbone",
)  # fmt: skip
# What may lie beside a network under a prefix without being a part of it.
_COMPANIONS = (*WORDS, "encoder", "discriminator", "d", "netd", "net_d", "latent_avg", "n_averaged")
_PREFIXES = re.compile(rf"(?:(?:{'|'.join(WORDS)})\.)*", re.IGNORECASE)
_DEPTH = 4  # of keys within keys


class Found(NamedTuple):
    """A network's arrays under the names of its implementation, and what they lay in, innermost first."""

    arrays: dict[str, np.ndarray]
    around: tuple[Mapping, ...]


class _StateDict(NamedTuple):
    arrays: dict[str, np.ndarray | Record]
    around: tuple[Mapping, ...]
    keys: tuple[str, ...]


def find(content: object, markers: Sequence[str], origin: str, missing: str) -> Found:
    """The network that has one of the names `markers`, through known keys and prefixes; the moving average if there is one.

    missing: how the error ends that says what the checkpoint holds instead. ValueError where there is no such network or
    more than one, where it is a part of a larger network, and where an array of it is none.
    """
    found = {}
    for state in state_dicts(content):
        prefixes = {name.removesuffix(marker) for name in state.arrays for marker in markers if name.endswith(marker)}
        for prefix in filter(_PREFIXES.fullmatch, sorted(prefixes)):
            found[" ".join([*state.keys, prefix]).strip() or "no key"] = state, prefix
    averages = [place for place in found if set(re.split(r"[. ]", place.lower())) & set(AVERAGES)]
    if not found:
        raise ValueError(f"{origin} holds {described(content)}, {missing}")
    if not averages and (unread := _unread_average(content)):
        raise ValueError(f"{origin} holds {unread}, a moving average that cannot be read; save its state dict alone")
    if len(places := averages or list(found)) > 1:
        raise ValueError(f"{origin} holds such a network more than once: {', '.join(places)}; save the state dict of one alone")
    state, prefix = found[places[0]]
    arrays = {name.removeprefix(prefix): array for name, array in state.arrays.items() if name.startswith(prefix)}
    beside = {name: array for name, array in state.arrays.items() if not name.startswith(prefix)}
    if strangers := [name for name in beside if _first_word(name, prefix) not in _COMPANIONS]:
        raise ValueError(
            f"{origin} holds a larger network, of which {prefix}* is a part; others are {', '.join(strangers[:3])} "
            f"({len(strangers)} in all): there is no such network here, so save the state dict of the part alone"
        )
    for name, array in arrays.items():
        if isinstance(array, Record) or array.dtype.hasobject:
            what = f"an object of {array.kind}" if isinstance(array, Record) else "an array of objects"
            raise ValueError(f"{origin}: {name} is {what}, which is not run, and no array of numbers; save it as float32")
    return Found(arrays, state.around)


def state_dicts(content: object, around: tuple[Mapping, ...] = (), keys: tuple[str, ...] = ()) -> Iterator[_StateDict]:
    """Every mapping of names to arrays in a checkpoint, through known keys; networks in Records as their state dicts."""
    if not isinstance(content, Mapping) or len(keys) > _DEPTH:
        return
    # An object in the place of an array has a name with a dot; options and optimisers have none.
    arrays = flatten(content) if isinstance(content, Record) else {
        name: value
        for name, value in content.items()
        if isinstance(name, str) and (isinstance(value, np.ndarray) or ("." in name and isinstance(value, Record)))
    }  # fmt: skip
    if arrays:
        yield _StateDict(arrays, (content, *around), keys)
    if not isinstance(content, Record):
        for key, value in content.items():
            if isinstance(key, str) and key.lower() in WORDS:
                yield from state_dicts(value, (content, *around), (*keys, key))


def described(content: object) -> str:
    """What a checkpoint holds, for an error's line: the keys that are there, and the class of what was not built."""
    if isinstance(content, Record):
        return f"an object of {content.kind}, which is not run"
    if not isinstance(content, Mapping):
        return f"a {type(content).__name__}"
    names = [
        str(key) + (f" (an object of {value.kind}, which is not run)" if isinstance(value, Record) else "")
        for key, value in content.items()
    ]
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "") or "nothing"


def _unread_average(content: object) -> str | None:
    """The key of a moving average that is there, in a form that is not known."""
    for key, value in content.items() if isinstance(content, Mapping) else ():
        if str(key).lower() in AVERAGES and (isinstance(value, Record) or any(state_dicts(value))):
            return str(key)
    return None


def _first_word(name: str, prefix: str) -> str:
    """The word of a name that first differs from the prefix."""
    words, shared = name.lower().split("."), prefix.lower().split(".")
    return next((word for word, other in zip(words, [*shared, *words], strict=False) if word != other), "")
