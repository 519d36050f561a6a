"""Publish a learned edit as one file: python -m coral_jax.publish --edit=runs/surprised --out=surprised.zip"""

import sys
from pathlib import Path

from absl import flags

from coral_jax import commands
from coral_jax.artifact import edit_folder
from coral_jax.publishing import publish

_EDIT = flags.DEFINE_string("edit", None, "Folder of a finished run, or its edit/ folder.")
_OUT = flags.DEFINE_string("out", None, "The zip file (default: the run's name, in this folder).")
_HALF = flags.DEFINE_bool("half", False, "Store the weights as float16: half the size, and almost the same edit.")
_SHEET = flags.DEFINE_bool("sheet", True, "Put the run's sheet.png into the file.")
_LICENCE = flags.DEFINE_string("licence", None, "Licence of the edit, such as Apache-2.0 (default on toons: Apache-2.0).")


def main() -> None:
    """Publish --edit as --out."""
    if _EDIT.value is None:
        raise ValueError("no edit; type python -m coral_jax.publish --edit=runs/surprised --out=surprised.zip")
    folder = Path(_EDIT.value)
    out = Path(_OUT.value) if _OUT.value else Path(f"{edit_folder(folder).resolve().parent.name}.zip")
    publish(folder, out, _LICENCE.value, half=_HALF.value, sheet=_SHEET.value)
    print(f"{out} holds the edit; --edit takes it as it is", file=sys.stderr)


if __name__ == "__main__":
    commands.run(main)
