"""A run's folder: which configuration it belongs to, and whether that run is finished."""

import dataclasses
from pathlib import Path

from coral_jax.config import Settings
from coral_jax.runtime.files import read_json, write_json

_CAUSES = ("domain", "method")  # the settings follow from them, and would make a long list
ADDED = ("random_bits", "matmul_precision")  # fields that the records of older releases lack


def claim(workdir: Path, record: dict) -> None:
    """Make `workdir` the folder of the run that `record` describes, or check that it is; nothing is overwritten.

    ValueError names the fields in which the run that is there differs, or says that the folder holds other files.
    """
    path = workdir / "config.json"
    if path.exists():
        if found := differences(workdir, record):
            raise ValueError(
                f"{workdir} holds a run of another configuration: {found}; "
                "give another folder with --workdir=DIR, or delete this one"
            )
        return
    if workdir.exists() and not workdir.is_dir():
        raise ValueError(f"{workdir} is a file; give a folder with --workdir=DIR")
    # A hidden file is what a run killed in its first moment may leave.
    if workdir.exists() and any(not entry.name.startswith(".") for entry in workdir.iterdir()):
        raise ValueError(f"{workdir} holds files that no run made; give an empty or new folder with --workdir=DIR")
    write_json(path, record)


def differences(workdir: Path, record: dict) -> str:
    """In which fields the run that `workdir` belongs to differs from `record`; "" if in none, and where there is no run."""
    path = workdir / "config.json"
    there = _read(path) if path.exists() else record
    # Settings that are younger than the run were then what their defaults are now.
    there = {name: value for name, value in dataclasses.asdict(Settings()).items() if name in record} | there
    names = there.keys() | record.keys() - {name for name in ADDED if name not in there}
    fields = sorted(name for name in names if there.get(name) != record.get(name))
    fields = [name for name in _CAUSES if name in fields] or fields
    return ", ".join(f"{name} ({there.get(name)!r} there, {record.get(name)!r} here)" for name in fields)


def finished(workdir: Path) -> dict | None:
    """summary.json of a finished run, which is written last; None if the run is not finished."""
    path = workdir / "summary.json"
    if not path.exists():
        return None
    summary = _read(path)
    if "seconds_total" not in summary:
        raise ValueError(f"{path} is not a run's summary; delete {path.parent} or give another --workdir=DIR")
    return summary


def _read(path: Path) -> dict:
    return read_json(path, f"delete {path.parent} or give another --workdir=DIR")
