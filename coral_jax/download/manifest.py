"""The manifest: which entries there are, of which files they are made, where these lie and under which licence."""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from coral_jax.runtime.errors import nearest

MANIFEST = Path(__file__).with_name("manifest.toml")
KINDS = ("generator", "clip", "identity", "encoder")  # of a domain's networks; the last two may be left out


@dataclass(frozen=True)
class Licence:
    """text: what to accept, with a link. commercial: whether it allows commercial use."""

    text: str
    commercial: bool


@dataclass(frozen=True)
class File:
    """A published file.

    size: in bytes. sources: as the manifest writes them. converter: the module of converters/ that reads it, where that is
    not the usual one of its network.
    """

    name: str
    licence: Licence
    sources: tuple[str, ...]
    size: int | None = None
    sha256: str | None = None
    converter: str | None = None

    def __str__(self) -> str:
        size = "size not known"
        if self.size is not None:
            size = f"{self.size / 1e6:.1f} MB" if self.size >= 1e6 else f"{self.size / 1e3:.1f} kB"
        return f"{self.name} ({size}; {self.licence.text})"


Alternatives = tuple[tuple[File, ...], ...]  # sets of files, any of which gives the network


@dataclass(frozen=True)
class Entry:
    """A domain that can be made, or one file of the weights folder.

    networks: of each of KINDS that is fetched, the sets of files to take it from.
    template: of converters.domain. subject: what it draws. prompt: one to try first, where "surprised" makes no sense.
    packaged: the package of coral_jax that has all but the generator, in place of template and subject.
    file: one file for the weights folder, in place of all of these; with a converter, what that makes of it.
    """

    name: str
    about: str
    networks: dict[str, Alternatives]
    template: str | None = None
    subject: str | None = None
    prompt: str | None = None
    packaged: str | None = None
    file: File | None = None

    def files(self) -> Iterator[File]:
        """All files that it may be made of."""
        if self.file:
            yield self.file
        yield from (file for groups in self.networks.values() for group in groups for file in group)


def load(path: Path = MANIFEST) -> dict[str, Entry]:
    """The entries of a manifest by name; ValueError for a file that is not there or does not hold together."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        licences = {name: Licence(**fields) for name, fields in content["licences"].items()}
        files = {name: _file(name, licences, **fields) for name, fields in content["files"].items()}
        networks = {name: tuple(tuple(files[file] for file in group) for group in groups)
                    for name, groups in content["networks"].items()}  # fmt: skip
        return {name: _entry(name, networks, files, **fields) for name, fields in content["entries"].items()}
    except FileNotFoundError as error:
        raise ValueError(f"there is no manifest {path}; leave --manifest out to use the package's") from error
    except KeyError as error:
        raise ValueError(f"{path}: {error} is named and not there; add it, or correct the name") from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a manifest ({error}); {MANIFEST} is one to start from") from error


def entry_of(entries: dict[str, Entry], name: str) -> Entry:
    """The entry of that name; ValueError with the nearest one."""
    if name not in entries:
        raise ValueError(f"unknown entry {name!r}{nearest(name, entries)} (known: {', '.join(entries)}; --list shows all)")
    return entries[name]


def listing(entries: dict[str, Entry]) -> Iterator[str]:
    """Lines that show every entry with its networks, and every file with its size, licence and sources."""
    shown = set()
    for entry in entries.values():
        yield f"{entry.name}: {entry.about}"
        for kind, alternatives in entry.networks.items():
            choices = (" + ".join(file.name for file in group) for group in alternatives)
            yield f"  {kind}: {', or '.join(choices)}"
        if entry.file:
            yield f"  file: {entry.file.name}"
    for entry in entries.values():
        for file in entry.files():
            if file not in shown:
                shown.add(file)
                yield f"{file}"
                yield f"  sha256: {file.sha256 or 'not known; recorded when the file is first used'}"
                yield from (f"  {source}" for source in file.sources)


def _file(name: str, licences: dict[str, Licence], licence: str, sources: list[str], **fields: object) -> File:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or path.name.startswith("."):
        raise ValueError(f"{name!r} cannot name a file; write NAME or FOLDER/NAME")
    return File(name, licences[licence], tuple(sources), **fields)


def _entry(
    name: str,
    known: dict[str, Alternatives],
    files: dict[str, File],
    networks: dict[str, str] | None = None,
    file: str | None = None,
    **fields: str,
) -> Entry:
    if file:
        if networks or fields.keys() != {"about"}:
            raise ValueError(f"{name} is one file; write its about, and nothing else")
        return Entry(name, networks={}, file=files[file], **fields)
    networks = networks or {}
    if unknown := networks.keys() - KINDS:
        raise ValueError(f"{name} has networks {sorted(unknown)}; write some of {', '.join(KINDS)}")
    if missing := ({"generator"} if "packaged" in fields else {"generator", "clip"}) - networks.keys():
        raise ValueError(f"{name} lacks the networks {sorted(missing)}")
    if "packaged" not in fields and not {"template", "subject"} <= fields.keys():
        raise ValueError(f"{name} lacks its template or its subject")
    return Entry(name, networks={kind: known[networks[kind]] for kind in KINDS if kind in networks}, **fields)
