"""What an edit does at negative alpha: whether it takes the attribute away, or gives one that has a name.

    python -m benchmarks.reversal --edit=toons:happy --alphas=-0.5,-1
    python -m benchmarks.reversal --edit=runs/happy --alphas=-1 --undo
    python -m benchmarks.reversal --edit=runs/happy_faces --opposite=serious

Without --opposite, faces are held-out ones that have the attribute of the edit's prompt, and the row says what of it is left
(on toons, which know the face without it).  With --opposite, they certainly lack the opposite, and the rows are metrics of
that prompt.
"""

from absl import flags

from coral_jax import commands
from coral_jax.artifact import Edit, load_edit
from coral_jax.config import check_alphas
from coral_jax.gallery import undoing
from coral_jax.shelf import edit_path

_EDIT = flags.DEFINE_string("edit", None, "folder of a run, or an edit of the package, such as toons:happy")
_OPPOSITE = flags.DEFINE_string("opposite", None, "prompt that says what the reversed edit should do")
_ALPHAS = flags.DEFINE_list("alphas", ["-0.5", "-1"], "strengths to measure")
_UNDO = flags.DEFINE_bool("undo", False, "as --undo of coral_jax.edit")
_FACES = flags.DEFINE_integer("faces", 48, "number of faces to measure on")
_WEIGHTS_DIR = flags.DEFINE_string("weights_dir", None, "folder of domains other than the embedded ones")


def main() -> None:
    """Print a row for each alpha; ValueError where the domain cannot judge."""
    if not _EDIT.value:
        raise ValueError("give an edit, such as --edit=toons:happy, or --edit=runs/happy_faces --opposite=serious")
    edit = load_edit(edit_path(_EDIT.value), _WEIGHTS_DIR.value)
    if edit.domain.truth is None:
        raise ValueError(f"domain {edit.domain.name} has no judge; give an edit of one that has, such as toons or faces")
    alphas = check_alphas(_ALPHAS.value)
    if _UNDO.value:
        (edit,) = undoing([edit], alphas)
    for alpha in alphas:
        print(f"{edit.prompt} at alpha {alpha:g}, {row(edit, alpha, _OPPOSITE.value, _FACES.value)}", flush=True)


def row(edit: Edit, alpha: float, opposite: str | None, count: int) -> str:
    """What is measured at one alpha, as a line of text; ValueError where the domain cannot judge it."""
    truth = edit.domain.truth

    def apply(w_plus: object) -> tuple:
        return edit.apply(w_plus, alpha)

    if opposite is not None:
        found, title = truth.measure(edit.domain, opposite, apply, count), f"measured as {opposite}"
        if found is None:
            raise ValueError(f"nothing judges {opposite!r}; give a prompt in words of {edit.domain.name}")
    else:
        removal = getattr(truth, "measure_removal", None)  # of photo-like faces, none knows the face without
        found, title = removal and removal(edit.domain, edit.prompt, apply, count), "on faces that have it"
        if found is None:
            raise ValueError(f"nothing knows a face without {edit.prompt!r} here; give --opposite=PROMPT, such as serious")
    shares = {value: share for value, share in found.get("now", {}).items() if share}
    numbers = {name: value for name, value in found.items() if isinstance(value, float)} | shares
    return f"{title}: " + " ".join(f"{name} {value:.2f}" for name, value in numbers.items())


if __name__ == "__main__":
    commands.run(main)
