"""Files fetched once and kept: streamed to a temporary name, resumed, checked by SHA-256, moved when they are right."""

import errno
import hashlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path

from coral_jax import weights
from coral_jax.download.manifest import File
from coral_jax.download.sources import Cut, Failed, opened
from coral_jax.runtime.files import write_json
from coral_jax.runtime.progress import ByteProgress

DOWNLOADS, CHECKSUMS = "downloads", "checksums.json"  # in the weights folder
_CHUNK = 1 << 20


class Unavailable(Exception):
    """No source gives a file; the reasons are printed."""


class Store:
    """The weights folder's downloads, and the SHA-256 that each of its files had when it was first used.

    given: a folder of files that the user already has, tried before the web.
    """

    def __init__(self, weights_dir: Path, given: Path | None = None):
        """ValueError for a `given` that is no folder, and for damaged records."""
        if given is not None and not given.is_dir():
            raise ValueError(f"there is no folder {given}; give one with --from=FOLDER")
        self.folder, self._given = weights_dir / DOWNLOADS, given
        self.accepted = False  # licences without commercial use: without it, such files are not taken from the web
        self._checksums = weights_dir / CHECKSUMS
        self._recorded = {}
        if self._checksums.is_file():
            try:
                self._recorded = dict(json.loads(self._checksums.read_text(encoding="utf-8")))
            except ValueError as error:
                raise ValueError(f"{self._checksums} is damaged ({error}); remove it to record checksums anew") from error

    def path(self, file: File) -> Path:
        """Where a file is kept."""
        return self.folder / file.name

    def at_hand(self, file: File) -> bool:
        """Whether it needs no fetching."""
        return self.path(file).is_file() or self._given_path(file) is not None

    def get(self, file: File) -> Path:
        """The file's path, after fetching it where it is not there; Unavailable where no source gives the right one."""
        path = self.path(file)
        if path.is_file():
            problem = self._problem(file, weights.fingerprint(path))
            if problem is None:
                return path
            path.unlink()
            print(f"  {path}: {problem}; removed", file=sys.stderr)
        for source in filter(None, (self._given_path(file), *file.sources)):
            try:
                if isinstance(source, str) and not (file.licence.commercial or self.accepted):
                    raise Failed("its licence is not accepted; add --accept_licence if you accept it")
                self._fetch(file, source)
                return path
            except Failed as error:
                print(f"  {source}: {error}", file=sys.stderr)
        raise Unavailable(f"no source gives {file.name}")

    def record(self, files: Iterable[File]) -> None:
        """Keep the SHA-256 of files that have been used and whose manifest does not tell it."""
        new = {file.name: weights.fingerprint(self.path(file)) for file in files
               if file.sha256 is None and file.name not in self._recorded}  # fmt: skip
        if new:
            self._recorded |= new
            write_json(self._checksums, dict(sorted(self._recorded.items())))

    def _given_path(self, file: File) -> Path | None:
        path = self._given and self._given / file.name
        return path if path and path.is_file() else None

    def _problem(self, file: File, found: str, told: str | None = None) -> str | None:
        """What is wrong with a SHA-256, None for nothing. told: what the source says it is."""
        if file.sha256 and found != file.sha256:
            return f"its SHA-256 is {found}, and the manifest says {file.sha256}"
        recorded = self._recorded.get(file.name)
        if not file.sha256 and recorded and found != recorded:
            return f"its SHA-256 is {found}, and it was {recorded} when it was first used (recorded in {self._checksums})"
        if told and found != told:
            return f"its SHA-256 is {found}, and the source says {told}"
        return None

    def _fetch(self, file: File, source: str | Path) -> None:
        """Put a source's file in its place; Failed where it cannot, and then nothing has its name."""
        path = self.path(file)
        partial = path.with_name(f".{path.name}.{hashlib.sha256(str(source).encode()).hexdigest()[:8]}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            found, told = _receive(file, source, partial)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise ValueError(
                f"the disk is full: {file.name} does not fit into {path.parent}; make room there, or give another disk's "
                "folder with --weights_dir, and type the same command: it resumes"
            ) from error
        problem = self._problem(file, found, told)
        if problem is None:
            partial.replace(path)
        for left in path.parent.glob(f".{path.name}.*.partial*") if problem is None else _of(partial):
            left.unlink(missing_ok=True)
        if problem:
            raise Failed(f"{problem}; removed")


def _of(partial: Path) -> tuple[Path, Path]:
    """A partial file, and the file with the tag of what it is a part of."""
    return partial, partial.with_name(f"{partial.name}.tag")


def _receive(file: File, source: str | Path, partial: Path) -> tuple[str, str | None]:
    """Stream a source into `partial`, after what is there already; its SHA-256, and what the source says it is.

    A cut connection is taken up again as long as each attempt brings some bytes.
    """
    size = -1
    while True:
        try:
            return _attempt(file, source, partial)
        except Cut:
            if not partial.is_file() or partial.stat().st_size <= size or not _of(partial)[1].is_file():
                raise
            size = partial.stat().st_size


def _attempt(file: File, source: str | Path, partial: Path) -> tuple[str, str | None]:
    tag_file = _of(partial)[1]
    tag = tag_file.read_text(encoding="utf-8") if tag_file.is_file() else None
    start = partial.stat().st_size if tag and partial.is_file() else 0
    digest = hashlib.sha256()
    with opened(source, start, tag) as stream, open(partial, "r+b" if stream.start else "wb") as out:
        while out.tell() < stream.start:  # what is there already, read to go on with its SHA-256
            digest.update(out.read(min(_CHUNK, stream.start - out.tell())))
        tag_file.unlink(missing_ok=True)
        if stream.tag:
            tag_file.write_text(stream.tag, encoding="utf-8")
        count, total = stream.start, stream.total or file.size
        with ByteProgress(file.name, count, total or 0) as progress:
            for chunk in stream.chunks():
                out.write(chunk)
                digest.update(chunk)
                count += len(chunk)
                if total:
                    progress.show(count, {})
        return digest.hexdigest(), stream.sha256
