"""Edits by name: those that come with the package, and those in a folder of runs.

A name never leads outside: it is looked up among what is there, and is no path.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from coral_jax.artifact import describe_edit, edit_folder
from coral_jax.bundle import is_bundle, unpacked
from coral_jax.domains import EMBEDDED
from coral_jax.runtime.errors import nearest

RUNS = Path("runs")  # where training puts them
EVALUATIONS = 2  # folders below the runs folder, at most, is where evaluations are
_DEPTH = EVALUATIONS + 2  # is where edits are: an evaluation has them in METHOD/PROMPT


@dataclass(frozen=True)
class Known:
    """An edit that can be loaded: its name, where it is, and what edit.json says of it."""

    name: str
    path: Path
    prompt: str
    method: str
    domain: str
    tau: float
    sha256: str  # of the weights


def shelf(runs: Path = RUNS) -> dict[str, Known]:
    """The edits by name: "toons:happy" comes with the domain toons, "happy" is runs/happy or, where that is no edit,
    runs/happy.zip.

    What cannot be read as an edit is left out.
    """
    found = {}
    for name, path in [*_packaged(), *_in_runs(runs)]:
        if name not in found and (known := _describe(name, path)) is not None:  # a folder comes before its zip file
            found[name] = known
    return found


def find(name: str, runs: Path = RUNS) -> Known:
    """The edit of that name; ValueError for one that is not there."""
    found = shelf(runs)
    if name not in found:
        raise ValueError(f"there is no edit {name!r} in {runs} or in the package{nearest(name, found)}")
    return found[name]


def edit_path(text: str) -> Path:
    """What --edit says as a path: "toons:happy" is the edit of that name in the package."""
    return dict(_packaged()).get(text, Path(text))


def home_of(text: str) -> Path:
    """The folder in which results of --edit go: a run's own; for a published edit, a folder of its name.

    ValueError where there is no edit.
    """
    path = edit_path(text)
    if not is_bundle(path):
        return edit_folder(path).parent
    return path.with_suffix("") if path == Path(text) else RUNS / path.stem


def _packaged() -> Iterator[tuple[str, Path]]:
    for domain, folder in EMBEDDED.items():
        for path in sorted((folder.parent / "edits").glob("*.zip")):
            yield f"{domain}:{path.stem}", path


def _in_runs(runs: Path) -> Iterator[tuple[str, Path]]:
    """Runs and published edits up to `_DEPTH` folders down; links that lead out of the runs folder are not followed."""
    root = runs.resolve()
    level = [runs] if runs.is_dir() else []
    for _ in range(_DEPTH):
        below = []
        for folder in level:
            for entry in sorted(folder.iterdir()):
                if entry.name.startswith(".") or not entry.resolve().is_relative_to(root):
                    continue
                if is_bundle(entry) or (entry / "edit" / "edit.json").is_file():
                    yield entry.relative_to(runs).as_posix().removesuffix(".zip"), entry
                elif entry.is_dir() and not (entry / "config.json").exists():  # the folder of an unfinished run
                    below.append(entry)
        level = below


def _describe(name: str, path: Path) -> Known | None:
    """What edit.json says of the edit at a path, which gets this name; None for what cannot be read as an edit."""
    try:
        with unpacked(path, ["edit.json"]) if is_bundle(path) else contextlib.nullcontext(edit_folder(path)) as folder:
            said = describe_edit(folder, str(path))
        return Known(name, path, said["prompt"], said["method"], said["domain"], float(said["tau"]), said["weights_sha256"])
    except (ValueError, OSError):
        return None
