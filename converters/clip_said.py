"""What the files that lie with a CLIP's weights say of it, put together; what they contradict each other in is refused."""

import json
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from coral_jax.models.clip import PIXEL_MEAN, PIXEL_STD


@dataclass
class Said:
    """Fields of CLIPConfig, each with the file that says it, and lines for the user on what was not understood."""

    fields: dict[str, object] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, file: str, **fields: object) -> None:
        """Take the fields that `file` says; ValueError where another file says something else."""
        for name, value in fields.items():
            if self.fields.setdefault(name, value) != value:
                raise ValueError(
                    f"{self.files[name]} says {name} {self.fields[name]}, and {file} says {value}; "
                    "keep the one that belongs to the weights and move the other elsewhere"
                )
            self.files.setdefault(name, file)

    def take(self, file: Path, found: tuple[Mapping[str, object], list[str]]) -> None:
        """`add` what the reader of a file found, and its notes."""
        fields, notes = found
        self.add(str(file), **fields)
        self.notes += notes


def check(
    given: Mapping[str, object],
    where: str,
    used: Set[str],
    fixed: Mapping[str, tuple],
    harmless: Set[str],
) -> list[str]:
    """Check every field of a part of a config file; returns a line for each that is not known.

    used: fields that are read elsewhere. fixed: those with which the features change, and the values that this program
    does, the default first: ValueError for another. harmless: those that change nothing. where: what errors call the part.
    """
    for name, allowed in fixed.items():
        if name in given and given[name] not in allowed:
            raise ValueError(
                f"{where}: {name} is {given[name]!r}, and this program only does {allowed[0]!r}; give another CLIP"
            )
    unknown = sorted(given.keys() - used - fixed.keys() - harmless)
    return [f"note: {where}: {name} is not known here and was ignored" for name in unknown]


def read_json(file: Path) -> dict:
    """The object in a JSON file; ValueError where it is damaged or holds something else."""
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{file} is not JSON ({error}); fetch it again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds no JSON object, but a {type(content).__name__}; fetch it again")
    return content


def part(config: Mapping, name: str, file: Path) -> dict:
    """A part of a config file; ValueError where it is missing or no JSON object."""
    if not isinstance(config.get(name), dict):
        raise ValueError(f"{file} has no {name}, or one that is not a JSON object; fetch the file again")
    return config[name]


def numbers(given: object, name: str, file: str) -> tuple[float, ...]:
    """Three numbers, one a channel; ValueError for anything else. One number stands for all three."""
    values = given if isinstance(given, list | tuple) else [given] * 3
    if len(values) != 3 or not all(isinstance(value, int | float) for value in values):
        raise ValueError(f"{file}: {name} is {given!r}, and must be three numbers; fetch the file again")
    for known in (PIXEL_MEAN, PIXEL_STD):  # which files round to different digits
        if np.allclose(values, known, atol=1e-4):
            return known
    return tuple(float(value) for value in values)


def whole(given: object, name: str, file: str) -> int:
    """A number of things, at least 1; ValueError for anything else."""
    if not isinstance(given, int) or given < 1:
        raise ValueError(f"{file}: {name} is {given!r}, and must be a whole number above 0; fetch the file again")
    return given


def side(given: object, name: str, file: str) -> int:
    """The side of a square, given as a number, [height, width] or one of Hugging Face's dictionaries; else ValueError."""
    values = list(given.values()) if isinstance(given, Mapping) else given if isinstance(given, list | tuple) else [given]
    if not values or len(set(values)) > 1 or not isinstance(values[0], int):
        raise ValueError(f"{file}: {name} is {given!r}, and this program only takes squares; give another CLIP")
    return values[0]
