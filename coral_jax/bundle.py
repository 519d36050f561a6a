"""A published edit: one zip file with the edit, its sheet and a card, read wherever the folder of a run is."""

import contextlib
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from coral_jax.runtime.files import replacing

EDIT_FILES = ("edit.json", "weights.safetensors")  # what an edit is; the rest is for people
MOST_BYTES = 1 << 30  # of one file that is unpacked: weights of edits are a few megabytes
MOST_DESCRIPTION = 1 << 20  # of edit.json, which is a page of text
_NEW = (1980, 1, 1, 0, 0, 0)  # the same content gives the same bytes


def is_bundle(path: Path) -> bool:
    """Whether a path names a published edit and not a folder."""
    return path.suffix == ".zip" and path.is_file()


def write_bundle(path: Path, members: Mapping[str, bytes]) -> None:
    """Write files, by name, into one zip file, atomically; equal content gives equal bytes."""
    with replacing(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, content in members.items():
            info = zipfile.ZipInfo(name, _NEW)
            info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            bundle.writestr(info, content)


def read_member(path: Path, name: str) -> bytes:
    """One file of a published edit; ValueError where it is missing, too large, or the zip file is damaged."""
    try:
        with zipfile.ZipFile(path) as bundle:
            info = bundle.getinfo(name)
            most = MOST_DESCRIPTION if name == "edit.json" else MOST_BYTES
            if info.file_size > most:
                raise ValueError(f"{path}: {name} is larger than {most} bytes, which no edit is; publish it again")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"{path}: {name} is packed by another way than deflate; publish it again")
            with bundle.open(info) as file:
                return file.read(most)
    except KeyError:
        raise ValueError(f"{path} is not a published edit: it lacks {name}; give a file of coral_jax.publish") from None
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is damaged, or no zip file ({error}); fetch it again") from error


@contextlib.contextmanager
def unpacked(path: Path, names: Sequence[str] = EDIT_FILES) -> Iterator[Path]:
    """A folder with the edit's own files, for the time of the block; nothing else of the zip file is written anywhere."""
    with tempfile.TemporaryDirectory(prefix="coral_jax_edit_") as folder:
        for name in names:
            (Path(folder) / name).write_bytes(read_member(path, name))
        yield Path(folder)
