"""Fetch published weights and make domains of them: python -m coral_jax.download ffhq"""

import sys
from pathlib import Path

from absl import flags

from coral_jax import commands
from coral_jax.download import manifest
from coral_jax.download.making import make

_LIST = flags.DEFINE_boolean("list", False, "Show every entry, and of every file its size, licence and sources.")
_DRY_RUN = flags.DEFINE_boolean("dry_run", False, "Say what would be done, and do nothing.")
_FROM = flags.DEFINE_string("from", None, "Folder of files that are there already, under the names that --list shows.")
_ACCEPT = flags.DEFINE_boolean("accept_licence", False, "Accept licences that allow no commercial use.")
_WEIGHTS_DIR = flags.DEFINE_string("weights_dir", None, "Where domains are; CORAL_JAX_WEIGHTS, else the user's cache.")
_MANIFEST = flags.DEFINE_string("manifest", None, "A list of entries and sources to use in place of the package's.")


def main(*names: str) -> None:
    """Make the domain of each entry of these names, or list all entries."""
    entries = manifest.load(Path(_MANIFEST.value) if _MANIFEST.value else manifest.MANIFEST)
    if _LIST.value:
        print("\n".join(manifest.listing(entries)))
        return
    if not names:
        raise ValueError(f"no name; type python -m coral_jax.download {next(iter(entries))} (--list shows all)")
    given = Path(_FROM.value) if _FROM.value else None
    for entry in [manifest.entry_of(entries, name) for name in names]:
        make(entry, _WEIGHTS_DIR.value, given, _accept, _DRY_RUN.value)


def _accept(licences: list[str]) -> None:
    """Ask for licences that allow no commercial use; ValueError where they are refused, or nobody can be asked."""
    if _ACCEPT.value:
        return
    print("these weights are not for commercial use:\n  " + "\n  ".join(licences), file=sys.stderr)
    if not sys.stdin.isatty():
        raise ValueError("the licences need your consent, and this is no terminal; add --accept_licence if you accept them")
    print("Do you accept? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise ValueError("the licences are not accepted, and nothing was fetched")


if __name__ == "__main__":
    commands.run(main, words=sys.maxsize)
