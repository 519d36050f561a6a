"""What an optimised program says of itself: its instructions, their bytes, estimated cycles and lines of source."""

import re
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

_BITS = {"pred": 8, "s8": 8, "u8": 8, "bf16": 16, "f16": 16, "s16": 16, "u16": 16, "f32": 32, "s32": 32, "u32": 32}
_ARRAY = re.compile(r"\b(" + "|".join(_BITS) + r")\[([\d,]*)\]")
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?([\w.\-]+) = (.*?)\s([a-z][\w\-]*)\((.*)")
_COLLECTIVE = re.compile(r"\s(all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)(-start)?\(")
_MOVES_NOTHING = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all")


class Instruction(NamedTuple):
    """One instruction; `moved` bytes are those of its operands and its result, over all rounds of the loop that it is in."""

    name: str
    opcode: str
    moved: int
    cycles: int  # likewise, the TPU compiler's own estimate; 0 where it gives none
    source: str  # "ops.py:12 conv2d", the innermost of ours; "" where there is none


def instructions(text: str) -> list[Instruction]:
    """The entry computation of an optimised program, `compiled.as_text()`, and the loops in there."""
    bodies = re.findall(r"^(ENTRY |%[\w.\-]+).*\{\n((?:  .*\n)*)", text, re.MULTILINE)
    return _of_computation("ENTRY ", {name: body.splitlines() for name, body in bodies}, _sources(text), 1)


def _rounds(loop: str, condition: str) -> int:
    """How often a `while` runs: what the compiler says, else the number that its condition compares with, else once."""
    said = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop)
    limit = re.search(r" = s32\[\][^ ]* constant\((\d+)\)", condition)
    found = said or limit
    return int(found[1]) if found else 1


def has_loops(text: str) -> bool:
    """Whether an optimised program holds a loop, whose rounds XLA's cost analysis counts once."""
    return " while(" in text


def _of_computation(computation: str, lines: dict[str, list[str]], source: Callable, rounds: int) -> list[Instruction]:
    found, sizes = [], {}
    for line in lines[computation]:
        matched = _INSTRUCTION.match(line)
        if not matched:
            continue
        name, shape, opcode, rest = matched.groups()
        # Work space of a library's call is no data.
        sizes[name] = _size(re.sub(r"\b[us]8\[", "space[", shape) if opcode == "custom-call" else shape)
        if opcode == "while":
            condition, body = (re.search(rf"{part}=(%[\w.\-]+)", rest)[1] for part in ("condition", "body"))
            found += _of_computation(body, lines, source, rounds * _rounds(line, "\n".join(lines[condition])))
            continue
        operands = re.findall(r"%([\w.\-]+)", rest.partition("), ")[0])
        moved = 0 if opcode in _MOVES_NOTHING else sizes[name] + sum(sizes.get(operand, 0) for operand in operands)
        cycles = re.search(r'"estimated_cycles":"(\d+)"', line)
        cycles = rounds * int(cycles[1]) if cycles else 0
        frame = re.search(r"stack_frame_id=(\d+)", line)
        found.append(Instruction(name, opcode, rounds * moved, cycles, source(frame and int(frame[1]))))
    return found


def collectives(text: str) -> dict[str, int]:
    """How often devices meet, by kind, in all of an optimised program."""
    return dict(Counter(kind for kind, _ in _COLLECTIVE.findall(text)))


def _size(shape: str) -> int:
    total = 0
    for kind, sides in _ARRAY.findall(shape):
        size = _BITS[kind] // 8
        for side in filter(None, sides.split(",")):
            size *= int(side)
        total += size
    return total


def _sources(text: str):
    """A function from the number of a stack frame, or None, to our innermost line of it."""

    def table(name: str, pattern: str) -> dict[int, tuple[str, ...]]:
        rows = re.search(rf"^{name}\n((?:\d+ .*\n)*)", text, re.MULTILINE)
        return {int(number): rest for number, *rest in re.findall(rf"^(\d+) {pattern}", rows[1] if rows else "", re.MULTILINE)}

    files, functions = table("FileNames", '"(.*)"'), table("FunctionNames", '"(.*)"')
    places = table("FileLocations", r"\{file_name_id=(\d+) function_name_id=(\d+) line=(\d+)")
    frames = table("StackFrames", r"\{file_location_id=(\d+)(?: parent_frame_id=(\d+))?")

    def source(frame: int | None) -> str:
        while frame in frames:
            place, parent = frames[frame]
            file, function, line = places[int(place)]
            path = files[int(file)][0]
            if "coral_jax/" in path:
                return f"{path.rpartition('/')[2]}:{line} {functions[int(function)][0]}"
            if not parent or int(parent) == frame:
                break
            frame = int(parent)
        return ""

    return source
