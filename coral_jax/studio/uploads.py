"""A page's own photographs: uploaded, decoded as data, inverted by `coral_jax.photo` in a process of its own."""

import re
import secrets
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from coral_jax.pictures import SUFFIXES, read_picture
from coral_jax.runtime.files import file_name, free_name, read_text
from coral_jax.sitter import photo_folders

LOG = "log.txt"


@dataclass
class Upload:
    """A photograph that is being inverted."""

    name: str
    process: subprocess.Popen
    log: Path


def begin(folder: Path, photos: Path, file: str, content: bytes, domain: str, aligned: bool, weights_dir: str | None) -> Upload:
    """Start to make a photo of a picture's content in a page's folder; `file` is the name that the user knows it by.

    It gets a name that no photo in the folder `photos` has.  ValueError for what is no picture that can be read.
    """
    stem, _, suffix = Path(file).name.rpartition(".")
    if f".{suffix.lower()}" not in SUFFIXES:
        raise ValueError(f"{Path(file).name!r} is no picture that can be read; give one of {', '.join(SUFFIXES)}")
    name = free_name(file_name(stem or "photo"), folder, photos)
    source = folder / ".sources" / f"{name}.{suffix.lower()}"
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_bytes(content)
    try:
        read_picture(source)
    except ValueError as error:
        source.unlink()
        raise ValueError(str(error).replace(str(source), repr(Path(file).name))) from error
    command = [sys.executable, "-m", "coral_jax.photo", f"--image={source}", f"--domain={domain}", f"--out={folder / name}"]
    command += ["--aligned"] if aligned else []
    command += [f"--weights_dir={weights_dir}"] if weights_dir else []
    log = source.with_suffix(".log")
    with open(log, "wb") as file_of_log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file_of_log, stderr=file_of_log)
    return Upload(name, process, log)


def state_of(upload: Upload, folder: Path) -> dict:
    """How far it is: working, done or failed; the last line of its progress, or of what went wrong."""
    code = upload.process.poll()
    lines = [line for line in re.split(r"[\r\n]+", read_text(upload.log)) if line.strip()]
    last = lines[-1] if lines else "starting"
    if code is None:
        return {"name": upload.name, "state": "working", "line": _private(last, folder)}
    if code == 0 and upload.name in photo_folders(folder):
        return {"name": upload.name, "state": "done", "line": ""}
    said = next((line.removeprefix("error: ") for line in reversed(lines) if line.startswith("error: ")), last)
    return {"name": upload.name, "state": "failed", "line": _private(said, folder)}


def end(upload: Upload) -> None:
    """Stop its process, if it still works."""
    if upload.process.poll() is None:
        upload.process.kill()
        upload.process.wait()


def keep(folder: Path, name: str, photos: Path) -> str:
    """Copy a page's photo to the folder of photos, where every page and command finds it; returns its name there.

    ValueError for a photo that is not the page's own.
    """
    own = photo_folders(folder)
    if name not in own:
        raise ValueError(f"this page has no photograph {name!r}")
    kept = free_name(name, photos)
    photos.mkdir(parents=True, exist_ok=True)
    partial = photos / f".{kept}.{secrets.token_hex(4)}.partial"
    try:
        shutil.copytree(own[name], partial)
        partial.rename(photos / kept)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return kept


def _private(line: str, folder: Path) -> str:
    """A line without the paths of the server's own folders."""
    return line.replace(f"{folder}/.sources/", "").replace(f"{folder}/", "")
