"""How a converter runs as a command: what all of them take, check and print."""

import sys
from collections.abc import Callable
from pathlib import Path

from absl import flags

from coral_jax import commands, weights


def run(convert: Callable[..., str], **options: str) -> None:
    """Run `convert(checkpoint, out, **options)` as a command and print the line that it returns.

    options: further flags, name -> help; `convert` gets their texts, None where not given.
    Flags are defined here, not where converters are imported: several converters can then be imported together.
    """
    given = _define(checkpoint="The file or folder to convert.", out="The file to write.", **options)

    command = Path(sys.argv[0]).stem

    def main() -> None:
        values = {name: flag.value for name, flag in given.items()}
        for name in ("checkpoint", "out"):
            if not values[name]:
                raise ValueError(f"no --{name}; type python -m converters.{command} --checkpoint=FILE --out=PATH")
        checkpoint, out = Path(values.pop("checkpoint")), Path(values.pop("out"))
        if not checkpoint.exists():
            raise ValueError(f"there is no {checkpoint}; give the checkpoint's path with --checkpoint=FILE")
        check_new(out)
        if not out.suffix:
            raise ValueError(f"--out={out} would be a file without a suffix; name one, such as --out={out / 'x.safetensors'}")
        print(convert(checkpoint, out, **values))

    commands.run(main)


def origin(checkpoint: Path) -> dict[str, str]:
    """What a converted file's metadata says of the file it was made from: its name and SHA-256."""
    return {"source": checkpoint.name, "source_sha256": weights.fingerprint(checkpoint)}


def check_new(path: Path) -> None:
    """Raise ValueError where there is a file or folder already: converters overwrite nothing."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give a file in it, such as --out={path / 'x.safetensors'}")
    if path.exists():
        raise ValueError(f"{path} is there already; give another --out or remove it")


def _define(**texts: str) -> dict[str, flags.FlagHolder]:
    # Under the name that absl gives the program itself, so that --help shows them.
    return {
        name: flags.DEFINE(flags.ArgumentParser(), name, None, text, module_name=sys.argv[0]) for name, text in texts.items()
    }
