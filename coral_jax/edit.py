"""Apply learned edits to faces: python -m coral_jax.edit --edit=runs/surprised --seeds=0-15 --alpha=-1,0,1"""

import sys
from pathlib import Path

from absl import flags

from coral_jax import commands
from coral_jax.artifact import load_edit
from coral_jax.composition import compose
from coral_jax.gallery import apply_to_faces, strengths_of, undoing
from coral_jax.latents import load_latents, parse_seeds, w_plus_of_seeds
from coral_jax.photos.apply import apply_to_photo
from coral_jax.recipe import redraw
from coral_jax.runtime.files import file_name
from coral_jax.shelf import edit_path, home_of

_EDIT = flags.DEFINE_multi_string(
    "edit", None, "A run's folder, a published zip file, or one of the package, toons:happy; several are applied together."
)
_SEEDS = flags.DEFINE_string("seeds", None, "Faces to edit, such as 0-15 or 3,5,9 (default 0-15).")
_LATENTS = flags.DEFINE_string("latents", None, "Faces to edit: .npy or .safetensors with w or w_plus, not --seeds.")
_PHOTO = flags.DEFINE_string("photo", None, "Photograph to edit: a folder of coral_jax.photo, not --seeds.")
_ALPHA = flags.DEFINE_list("alpha", ["1"], "Strengths from -1.5 to 1.5, such as -1,0,1; of several edits, one for each.")
_UNDO = flags.DEFINE_bool("undo", False, "Negative alphas take the edit back from faces that have it: removed, not reversed.")
_TAU = flags.DEFINE_float("tau", None, "Mask values below it become zero, 0 to 1 (default: as trained).")
_OUT = flags.DEFINE_string("out", None, "Folder for the images (default: edited/ beside the edit; in the photo's folder).")
_RECIPE = flags.DEFINE_string("recipe", None, "A picture to draw again: recipe.json of the studio; no other flag says what.")
_RUNS = flags.DEFINE_string("runs", "runs", "Folder in which the edits of --recipe are looked up.")
_PHOTOS = flags.DEFINE_string("photos", "photos", "Folder in which the photo of --recipe is looked up.")
_WEIGHTS_DIR = flags.DEFINE_string("weights_dir", None, "Folder of domains other than the embedded ones.")


def main() -> None:
    """Draw the faces of --seeds, --latents or --photo under the edits of --edit, or the picture of --recipe."""
    if _RECIPE.value is not None:
        _redraw(Path(_RECIPE.value))
        return
    if not _EDIT.value:
        raise ValueError("no edit; type python -m coral_jax.edit --edit=runs/surprised")
    given = {"--seeds": _SEEDS.value, "--latents": _LATENTS.value, "--photo": _PHOTO.value}
    if len(which := [name for name, value in given.items() if value is not None]) > 1:
        raise ValueError(f"{' and '.join(which)} {'both' if len(which) == 2 else 'all'} say which faces; give one of them")
    alphas = strengths_of(_ALPHA.value, len(_EDIT.value))
    seeds = parse_seeds(_SEEDS.value or "0-15")
    edits = [load_edit(edit_path(text), _WEIGHTS_DIR.value) for text in _EDIT.value]
    edit = compose(undoing(edits, alphas) if _UNDO.value else edits)
    folders = [home_of(text) for text in _EDIT.value]
    name = file_name("+".join(folder.resolve().name for folder in folders))
    if _PHOTO.value is not None:
        out = Path(_OUT.value) if _OUT.value else Path(_PHOTO.value) / name
        apply_to_photo(edit, _PHOTO.value, alphas, _TAU.value, out)
        return
    if _LATENTS.value is None:
        w_plus = w_plus_of_seeds(edit.domain.generator, seeds, edit.truncation)
        names = [f"seed {seed}" for seed in seeds]
    else:
        w_plus = load_latents(_LATENTS.value, edit.domain.generator)
        names = [f"face {index}" for index in range(len(w_plus))]
    edited = "edited" if len(folders) == 1 else f"edited_{name}"
    out = Path(_OUT.value) if _OUT.value else folders[0] / edited
    apply_to_faces(edit, w_plus, names, alphas, _TAU.value, out)


def _redraw(recipe: Path) -> None:
    given = [name for name in ("edit", "seeds", "latents", "photo", "alpha", "undo", "tau") if flags.FLAGS[name].present]
    if given:
        raise ValueError(f"--recipe says all that --{given[0]} would; leave one of the two out")
    out = Path(_OUT.value) if _OUT.value else recipe.parent
    picture = redraw(recipe, out, Path(_RUNS.value), Path(_PHOTOS.value), _WEIGHTS_DIR.value)
    print(f"{picture} shows it", file=sys.stderr)


if __name__ == "__main__":
    commands.run(main)
