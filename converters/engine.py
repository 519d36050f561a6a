"""The mapping engine of the converters: tables of names and array layouts, strict in both directions."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx

from coral_jax import weights


class Layout(NamedTuple):
    """How one array is laid out there and here; `write` undoes `read`, to the bit in every format that is also written."""

    read: Callable[[np.ndarray], np.ndarray]  # theirs -> ours
    write: Callable[[np.ndarray], np.ndarray]  # ours -> theirs


def axes(*order: int) -> Layout:
    """A transposition: ours has the axes `order` of theirs."""
    back = tuple(order.index(axis) for axis in range(len(order)))
    return Layout(lambda theirs: theirs.transpose(order), lambda ours: ours.transpose(back))


def with_leading_ones(layout: Layout, count: int) -> Layout:
    """As `layout`, where theirs has `count` further axes of length 1 in front."""
    return Layout(
        lambda theirs: layout.read(theirs[(0,) * count]),
        lambda ours: layout.write(ours)[(np.newaxis,) * count],
    )


SAME = Layout(lambda theirs: theirs, lambda ours: ours)
LINEAR = axes(1, 0)  # [O, I] <-> [I, O]
CONV = axes(2, 3, 1, 0)  # [O, I, h, w] <-> [h, w, I, O]
IMAGE = axes(1, 2, 0)  # [C, h, w] <-> [h, w, C]
MODULATED = with_leading_ones(CONV, 1)  # [1, O, I, h, w] <-> [h, w, I, O]
ONE = Layout(lambda theirs: theirs.reshape(()), lambda ours: ours.reshape(1))  # [1] <-> a number

Table = dict[str, tuple[str, Layout]]
"""Our dotted state path -> (their name, layout)."""


def batch_norm(ours: str, theirs: str) -> Table:
    """The part of a table for a batch norm with PyTorch's names."""
    names = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
    return {f"{ours}.{own}": (f"{theirs}.{their}", SAME) for own, their in names.items()}


def fill(
    module: nnx.Module,
    table: Table,
    source: Mapping[str, np.ndarray],
    origin: str,
    ignored: Sequence[str] = (),
    keep_half: bool = False,
) -> None:
    """Fill a network (abstract or not), in place, from another implementation's arrays; strict both ways.

    origin: what errors call the source. ignored: regular expressions of whole source names that carry no weight.
    keep_half: leave float16 arrays float16, so that `weights.save` writes them as they came; else all become float32.
    ValueError lists every unused name of the source, every unfilled target and every wrong shape at once, and names arrays
    with values that are not finite; the module is then untouched.
    """
    variables = weights.named_variables(module)
    problems = [f"unfilled: {ours}, for which the table has no name" for ours in sorted(variables.keys() - table.keys())]
    problems += [f"unfilled: {ours}, for lack of {table[ours][0]}" for ours in table if table[ours][0] not in source]
    problems += [f"the network has no {ours}, for {table[ours][0]}" for ours in sorted(table.keys() - variables.keys())]
    used = {theirs for theirs, _ in table.values()}
    problems += [
        f"unused: {name} {np.shape(source[name])}"
        for name in sorted(source.keys() - used)
        if not any(re.fullmatch(pattern, name) for pattern in ignored)
    ]
    for ours, (theirs, layout) in table.items():
        if ours in variables and theirs in source:
            # Shapes are compared in their layout, before a transposition could fail on them.
            expected = layout.write(np.broadcast_to(np.float32(0), variables[ours].shape)).shape
            if np.shape(source[theirs]) != expected:
                problems.append(f"wrong shape: {theirs} is {np.shape(source[theirs])}, for {ours} it must be {expected}")
            if source[theirs].dtype.kind != "f":
                problems.append(f"wrong type: {theirs} holds {source[theirs].dtype} values, such as a quantised network's")
    if problems:
        raise ValueError(
            f"{origin} does not fit {type(module).__name__}; give a checkpoint of the kind that this command converts:\n  "
            + "\n  ".join(problems)
        )
    weights.check_finite({theirs: source[theirs] for theirs, _ in table.values()}, origin)
    arrays = {ours: layout.read(np.asarray(source[theirs])) for ours, (theirs, layout) in table.items()}
    weights.fill(module, arrays, origin)
    if keep_half:
        for ours, array in arrays.items():
            if array.dtype == np.float16:
                variables[ours].set_value(jnp.asarray(array))


def extract(module: nnx.Module, table: Table) -> dict[str, np.ndarray]:
    """The network's arrays under their names and in their layout: what `fill` would read. The table must be complete."""
    variables = weights.named_variables(module)
    if left := sorted(variables.keys() ^ table.keys()):
        raise ValueError(f"the table and {type(module).__name__} do not cover each other: {', '.join(left)}")
    return {theirs: layout.write(np.asarray(variables[ours][...])) for ours, (theirs, layout) in table.items()}
