"""Apply a learned edit to faces: python -m coral_jax.edit --edit=runs/surprised --seeds=0-15 --alpha=-1,0,1"""

import sys
from pathlib import Path

from absl import flags

from coral_jax import commands
from coral_jax.artifact import load_edit
from coral_jax.gallery import apply_to_faces, check_alphas
from coral_jax.latents import load_latents, parse_seeds, w_plus_of_seeds
from coral_jax.recipe import redraw
from coral_jax.shelf import edit_path, home_of

_EDIT = flags.DEFINE_string("edit", None, "A run's folder, a published zip file, or one of the package: toons:happy.")
_SEEDS = flags.DEFINE_string("seeds", None, "Faces to edit, such as 0-15 or 3,5,9 (default 0-15).")
_LATENTS = flags.DEFINE_string("latents", None, "Faces to edit: .npy or .safetensors with w or w_plus, not --seeds.")
_ALPHA = flags.DEFINE_list("alpha", ["1"], "Strengths from -1.5 to 1.5, such as -1,0,1; negative reverses the edit.")
_TAU = flags.DEFINE_float("tau", None, "Mask values below it become zero, 0 to 1 (default: as trained).")
_OUT = flags.DEFINE_string("out", None, "Folder for the images (default: edited/ beside the edit).")
_RECIPE = flags.DEFINE_string("recipe", None, "A picture to draw again: recipe.json of the studio; no other flag says what.")
_RUNS = flags.DEFINE_string("runs", "runs", "Folder in which the edits of --recipe are looked up.")
_WEIGHTS_DIR = flags.DEFINE_string("weights_dir", None, "Folder of domains other than the embedded ones.")


def main() -> None:
    """Draw the faces of --seeds or --latents under the edit of --edit."""
    if _RECIPE.value is not None:
        _redraw(Path(_RECIPE.value))
        return
    if _EDIT.value is None:
        raise ValueError("no edit; type python -m coral_jax.edit --edit=runs/surprised")
    if _SEEDS.value is not None and _LATENTS.value is not None:
        raise ValueError("--seeds and --latents both say which faces; give one of them")
    alphas = check_alphas(_ALPHA.value)
    seeds = parse_seeds(_SEEDS.value or "0-15")
    edit = load_edit(edit_path(_EDIT.value), _WEIGHTS_DIR.value)
    if _LATENTS.value is None:
        w_plus = w_plus_of_seeds(edit.domain.generator, seeds, edit.settings.truncation)
        names = [f"seed {seed}" for seed in seeds]
    else:
        w_plus = load_latents(_LATENTS.value, edit.domain.generator)
        names = [f"face {index}" for index in range(len(w_plus))]
    out = Path(_OUT.value) if _OUT.value else home_of(_EDIT.value) / "edited"
    apply_to_faces(edit, w_plus, names, alphas, _TAU.value, out)


def _redraw(recipe: Path) -> None:
    given = [name for name in ("edit", "seeds", "latents", "alpha", "tau") if flags.FLAGS[name].present]
    if given:
        raise ValueError(f"--recipe says all that --{given[0]} would; leave one of the two out")
    out = Path(_OUT.value) if _OUT.value else recipe.parent
    print(f"{redraw(recipe, out, Path(_RUNS.value), _WEIGHTS_DIR.value)} shows it", file=sys.stderr)


if __name__ == "__main__":
    commands.run(main)
