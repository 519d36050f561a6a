"""What an edit does at negative alpha, where the opposite has a name: `happy` at -1 should make smiling faces serious.

    python -m benchmarks.reversal --edit=runs/happy_faces --opposite=serious --alphas=-0.5,-1

The faces are held-out ones that certainly lack the opposite; the rows are metrics of the opposite prompt.
"""

from absl import flags

from coral_jax import commands
from coral_jax.artifact import load_edit

_EDIT = flags.DEFINE_string("edit", None, "folder of a run")
_OPPOSITE = flags.DEFINE_string("opposite", None, "prompt that says what the reversed edit should do")
_ALPHAS = flags.DEFINE_list("alphas", ["-0.5", "-1"], "strengths to measure")
_FACES = flags.DEFINE_integer("faces", 48, "number of faces to measure on")
_WEIGHTS_DIR = flags.DEFINE_string("weights_dir", None, "folder of domains other than the embedded ones")


def main() -> None:
    """Print a row for each alpha; ValueError where the domain cannot judge the opposite."""
    if not _EDIT.value or not _OPPOSITE.value:
        raise ValueError("give an edit and its opposite, such as --edit=runs/happy_faces --opposite=serious")
    edit = load_edit(_EDIT.value, _WEIGHTS_DIR.value)
    if edit.domain.truth is None:
        raise ValueError(f"domain {edit.domain.name} has no judge; give an edit of one that has, such as toons or faces")
    for alpha in map(float, _ALPHAS.value):
        found = edit.domain.truth.measure(
            edit.domain, _OPPOSITE.value, lambda w_plus, alpha=alpha: edit.apply(w_plus, alpha), _FACES.value
        )
        if found is None:
            raise ValueError(f"nothing judges {_OPPOSITE.value!r}; give a prompt in words of {edit.domain.name}")
        numbers = " ".join(f"{name} {value:.2f}" for name, value in found.items() if isinstance(value, float))
        print(f"{edit.prompt} at alpha {alpha:g}, measured as {_OPPOSITE.value}: {numbers}", flush=True)


if __name__ == "__main__":
    commands.run(main)
