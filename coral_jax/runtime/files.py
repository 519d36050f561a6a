"""Files: written whole or not at all, read as people's editors write them, named so that file systems take it."""

import codecs
import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import unicodedata
from collections.abc import Iterator
from pathlib import Path

NAME_BYTES = 200  # file systems allow 255: room for suffixes and for the temporary name

# UTF-32 before UTF-16, whose mark begins like it.
_MARKS = {
    codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16",
}  # fmt: skip


def write_bytes(path: str | os.PathLike, data: bytes) -> None:
    """Write a file under a temporary name, then rename it: a reader sees the old content or the new, never a part."""
    with replacing(path) as partial, open(partial, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_json(path: str | os.PathLike, content: dict) -> None:
    """Write a JSON file, atomically."""
    write_bytes(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary name beside `path`, renamed to it at the end, or removed after an error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        yield partial
        os.replace(partial, path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT) and error.filename is None:  # `write` does not say where
            error.filename = str(path)
        raise
    finally:
        partial.unlink(missing_ok=True)


def read_text(path: str | os.PathLike) -> str:
    """A text file in UTF-8, or in UTF-16 or UTF-32 with a byte-order mark; the text comes without marks.

    ValueError for other encodings: which one it is would be a guess.
    """
    data = Path(path).read_bytes()
    encoding = next((encoding for mark, encoding in _MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path} is not {encoding.upper()} text (line {line}); save it as UTF-8") from error
    if "\0" in text:
        raise ValueError(f"{path} holds NUL characters, as binary files and UTF-16 without a mark do; save it as UTF-8 text")
    return text.replace("\ufeff", "")  # marks are in the middle, too, where files were joined


def read_json(path: str | os.PathLike, remedy: str) -> dict:
    """The object in a JSON file; ValueError, which ends in `remedy`, for anything else."""
    try:
        content = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON, or is cut short ({error}); {remedy}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__} and not an object of fields; {remedy}")
    return content


def check_fields(content: dict, fields: dict[str, type], what: str, remedy: str) -> None:
    """ValueError, which begins with `what` and ends in `remedy`, where an object lacks a field or has one of another type."""
    wrong = [f"{name} is missing" for name in fields if name not in content]
    wrong += [f"{name} is {content[name]!r}" for name, kind in fields.items()
              if name in content and not isinstance(content[name], kind)]  # fmt: skip
    if wrong:
        raise ValueError(f"{what} ({', '.join(wrong)}); {remedy}")


def expand(path: str | os.PathLike) -> Path:
    """A path with ~ or ~user at its start as the folder that is meant; ValueError where there is none."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(f"no home folder is known for {path}; write the path out, or set HOME") from error


def user_cache() -> Path:
    """This program's folder in the user's cache folder (XDG_CACHE_HOME, else ~/.cache); ValueError where there is no home."""
    return expand(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "coral_jax"


def file_name(text: str) -> str:
    """A text as the name of a file or folder: "_" for what is no letter, digit or one of "_.=-".

    A name that is too long ends in a part of the text's SHA-256 instead, and so does one without letter or digit, such as
    that of "..".
    """
    name = re.sub(r"[^\w.=-]+", "_", unicodedata.normalize("NFC", text))
    if len(name.encode()) <= NAME_BYTES and re.search(r"[^\W_]", name):
        return name
    beginning = name.strip(".").encode()[: NAME_BYTES - 17].decode(errors="ignore")
    return f"{beginning}_{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def free_name(name: str, *folders: Path) -> str:
    """The name, with a number behind it where one of the folders has an entry of that name in any case."""
    taken = {entry.name.casefold() for folder in folders if folder.is_dir() for entry in folder.iterdir()}
    numbered = [name, *(f"{name}_{number}" for number in range(2, len(taken) + 3))]
    return next(one for one in numbered if one.casefold() not in taken)
