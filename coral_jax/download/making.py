"""A domain from published files: what there is to do, and each network fetched, converted and put together."""

import filecmp
import importlib
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import coral_jax
from coral_jax import weights
from coral_jax.domains import frozen_files, weights_folder
from coral_jax.download.manifest import Alternatives, Entry, File
from coral_jax.download.sources import link
from coral_jax.download.store import Store, Unavailable
from coral_jax.runtime.files import read_json, write_bytes, write_json

# Of converters/, where a file says none.
CONVERTERS = {"generator": "stylegan2", "clip": "clip", "identity": "identity", "encoder": "encoder"}
MODULES = (*CONVERTERS.values(), "efficientnet", "mobilestylegan", "domain")


class Converted(NamedTuple):
    """A network in this program's form, with the checkpoint and all files that it was made from."""

    path: Path
    checkpoint: Path
    files: tuple[File, ...]


def make(
    entry: Entry,
    weights_dir: str | None,
    given: Path | None,
    accept: Callable[[list[str]], None],
    dry_run: bool = False,
) -> None:
    """Fetch what is missing, make the entry's domain and print the line to type next; print the plan first.

    An entry of one file is fetched into the weights folder, and converted if need be.  A packaged domain that is there
    already gets the settings of this version of the package.

    given: a folder of files that are there already. accept: called with the licences of what is to be fetched that allow no
    commercial use; raises ValueError where they are refused. dry_run: only print the plan. ValueError where the domain
    cannot be made; files that were fetched until then are kept.
    """
    folder = weights_folder(weights_dir) / entry.name
    if entry.file:
        _put(entry, Store(folder.parent, given), accept, dry_run)
        return
    if (folder / "domain.json").is_file():
        print(f"{folder}: the domain {entry.name} is there already")
        if entry.packaged and not dry_run:
            print(_renewed(entry.packaged, folder))
        print(_next(entry, weights_dir))
        return
    if folder.exists():
        raise ValueError(f"{folder} is there and holds no domain; remove it, or give another folder with --weights_dir")
    store = Store(folder.parent, given)
    usable = {kind: _usable(alternatives, store) for kind, alternatives in entry.networks.items()}
    print("\n".join(_plan(entry, usable, store, folder)), flush=True)
    converters = _converters()
    if dry_run:
        return
    if licences := _licences(usable, store):
        accept(licences)
        store.accepted = True
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{entry.name}.", dir=folder.parent) as partial:
        made = {kind: _network(kind, groups, store, Path(partial), converters) for kind, groups in usable.items()}
        if missing := [kind for kind, network in made.items() if network is None]:
            print("\n".join(_by_hand([usable[kind][0] for kind in missing], store)), file=sys.stderr)
            raise ValueError(
                f"{entry.name} lacks its {' and '.join(missing)}; type the same command to try again (it resumes), or get "
                f"the files by hand as said above and add --from=FOLDER"
            )
        put_together = _packaged if entry.packaged else _domain
        print(put_together(entry, made, weights_dir, converters["domain"]))
    store.record(file for network in made.values() for file in network.files)
    print(f"{store.folder} holds the published files; the domain does not need them, and other entries may")
    print(_next(entry, weights_dir))


def _put(entry: Entry, store: Store, accept: Callable[[list[str]], None], dry_run: bool) -> None:
    """Fetch an entry's one file into the weights folder, or what it is converted to; ValueError where it cannot be had."""
    file = entry.file
    path = store.folder.parent / (f"{entry.name}.safetensors" if file.converter else file.name)
    if path.is_file():
        print(f"{path}: it is there already")
        return
    print(f"{file}\n  {'at hand' if store.at_hand(file) else f'from {file.sources[0]}'}, to {path}", flush=True)
    converter = _converters()[file.converter] if file.converter else None
    if dry_run:
        return
    if not (file.licence.commercial or store.at_hand(file)):
        accept([file.licence.text])
        store.accepted = True
    try:
        fetched = store.get(file)
    except Unavailable as error:
        print("\n".join(_by_hand([(file,)], store)), file=sys.stderr)
        raise ValueError(
            f"{error}; type the same command to try again, or add --from=FOLDER with a file got by hand"
        ) from error
    if converter is None:
        fetched.replace(path)
        print(path)
        return
    print(converter.convert(fetched, path))
    fetched.unlink()


def _plan(entry: Entry, usable: dict[str, Alternatives], store: Store, folder: Path) -> Iterator[str]:
    yield f"{entry.name}: {entry.about}"
    for kind, (first, *others) in usable.items():
        for file in first:
            yield f"  {kind}: {file}"
            yield f"    {'at hand' if store.at_hand(file) else f'from {file.sources[0]}'}"
        if others:
            yield f"  {kind}, if that fails: {', or '.join(' + '.join(file.name for file in files) for files in others)}"
    fitting = "" if entry.packaged else "fitting the segmenter, "
    yield f"  then: converting, {fitting}making the domain in {folder}"


def _usable(alternatives: Alternatives, store: Store) -> Alternatives:
    """The sets of files in the order in which to try them: those at hand first."""
    return tuple(sorted(alternatives, key=lambda files: not all(map(store.at_hand, files))))


def _converters() -> dict[str, ModuleType]:
    """The modules of converters/, which are not installed with the package."""
    try:
        return {name: importlib.import_module(f"converters.{name}") for name in MODULES}
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "converters":
            raise
        raise ValueError("there is no converters/ here; run this command from the folder of the repository") from error


def _licences(usable: dict[str, Alternatives], store: Store) -> list[str]:
    """The licences without commercial use of all that may be fetched, sorted."""
    missing = [groups for groups in usable.values() if not all(map(store.at_hand, groups[0]))]
    files = (file for groups in missing for files in groups for file in files)
    return sorted({file.licence.text for file in files if not file.licence.commercial})


def _network(
    kind: str, alternatives: Alternatives, store: Store, folder: Path, converters: dict[str, ModuleType]
) -> Converted | None:
    """A network, converted in `folder` from the first set of files that can be had; None where there is none."""
    for index, files in enumerate(alternatives):
        out = folder / f"{kind}{index}" / f"{kind}.safetensors"
        try:
            for file in files:
                store.get(file)
        except Unavailable as error:
            print(f"{kind}: {error}", file=sys.stderr)
            continue
        checkpoint = store.folder / Path(files[0].name).parts[0]
        try:
            line = converters[files[0].converter or CONVERTERS[kind]].convert(checkpoint, out)
        except ValueError as error:
            print(f"{kind}: {error}; remove {checkpoint} to fetch it again", file=sys.stderr)
            continue
        print(line.replace(f"{out.parent}{os.sep}", ""), flush=True)
        return Converted(out, checkpoint, files)
    return None


def _domain(entry: Entry, made: dict[str, Converted], weights_dir: str | None, converter: ModuleType) -> str:
    origins = {f"{kind}.safetensors": str(network.checkpoint) for kind, network in made.items()}
    origins["tokenizer.json"] = origins["clip.safetensors"]
    paths = {kind: network.path for kind, network in made.items()}
    return converter.make_domain(
        entry.name, paths["generator"], paths["clip"], paths.get("identity"), template=entry.template,
        subject=entry.subject, segmenter_fit=True, encoder=paths.get("encoder"), weights_dir=weights_dir, origins=origins,
    )  # fmt: skip


def _packaged(entry: Entry, made: dict[str, Converted], weights_dir: str | None, converter: ModuleType) -> str:
    """The domain of a package of coral_jax, which has all but the generator."""
    folder, network = weights_folder(weights_dir) / entry.name, made["generator"]
    source, description, networks, others = _of_package(entry.packaged)
    with converter.whole_folder(folder) as partial:
        for file in networks + others:
            shutil.copyfile(source / file, partial / file)
        shutil.copyfile(network.path, partial / description["generator"])
        origin = {"path": str(network.checkpoint)} | converter.original(network.path)
        origin["sha256"] = weights.fingerprint(partial / description["generator"])
        write_json(partial / "domain.json", description | {"sources": {description["generator"]: origin}})
    return f"{folder}: domain {entry.name}; use it with :domain={entry.name}"


def _of_package(name: str) -> tuple[Path, dict, list[str], list[str]]:
    """A package's domain: the folder of its weights, its domain.json, the networks that edits learn with, its other files."""
    source = Path(coral_jax.__file__).parent / name / "weights"
    description = read_json(source / "domain.json", "install coral_jax again")
    networks = [file for file in frozen_files(description) if file != description["generator"]]
    return source, description, networks, [*filter(None, [description.get("encoder")]), "LICENSE"]


def _renewed(package: str, folder: Path) -> str:
    """Give a packaged domain this version's domain.json and encoder, if its networks are this version's; what to say of it.

    Other networks stay: edits that were learned with them need them.
    """
    source, description, networks, others = _of_package(package)

    def is_shared(file: str) -> bool:
        return (folder / file).is_file() and filecmp.cmp(source / file, folder / file, shallow=False)

    if other := [file for file in networks if not is_shared(file)]:
        return (f"of another version of coral_jax: {', '.join(other)}; edits that were learned with them need them. For this "
                f"version's, remove {folder} and type the same command")  # fmt: skip
    known = read_json(folder / "domain.json", f"remove {folder} and type the same command")
    for file in others:
        write_bytes(folder / file, (source / file).read_bytes())
    write_json(folder / "domain.json", description | {"sources": known.get("sources", {})})
    return "its settings are those of this version of coral_jax"


def _by_hand(groups: list[tuple[File, ...]], store: Store) -> Iterator[str]:
    yield "not to be had from any source; get by hand:"
    for file in (file for files in groups for file in files if not store.at_hand(file)):
        yield f"  {file.name}"
        yield from (f"    from {link(source)}" for source in file.sources)
        yield f"    to   FOLDER{os.sep}{file.name}"


def _next(entry: Entry, weights_dir: str | None) -> str:
    """The command to type next."""
    prompt = f" --config.prompt={shlex.quote(entry.prompt)}" if entry.prompt else ""
    place = f" --config.weights_dir={shlex.quote(weights_dir)}" if weights_dir else ""
    return f"next: python -m coral_jax.train --config=configs/surprised.py:domain={entry.name}{prompt}{place}"
