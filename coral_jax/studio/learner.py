"""The process in which the studio trains: python -m coral_jax.studio.learner --folder=runs/happy, with words on stdin."""

import sys
import threading
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
from absl import flags

from coral_jax import commands
from coral_jax.artifact import Edit
from coral_jax.canvas import lowered, previews
from coral_jax.config import make, resolve
from coral_jax.domains import load_domain
from coral_jax.figures import png, training_sheet
from coral_jax.latents import parse_seeds, w_plus_of_seeds
from coral_jax.runtime.files import read_json, write_bytes
from coral_jax.step import TrainState
from coral_jax.studio.learning import LIVE, LIVE_FACES, PLAN
from coral_jax.training.loop import train


class Watcher:
    """Pauses and ends a training as the words on a stream say, and draws its faces at every checkpoint."""

    def __init__(self, edit: Edit, seeds: list[int], sheet: Path):
        """edit: with any trainables; each checkpoint's take their place."""
        self._edit, self._seeds, self._path = edit, seeds[:LIVE_FACES], sheet
        self._may_go, self._ended = threading.Event(), False
        self._may_go.set()

    def listen(self, stream: object) -> None:
        """Follow the words on a stream until it ends, which means: stop."""
        for word in stream:
            self.hear(word.strip())
        self.hear("stop")

    def hear(self, word: str) -> None:
        """pause, go, or stop."""
        if word == "pause":
            self._may_go.clear()
        else:
            self._ended = self._ended or word == "stop"
            self._may_go.set()

    def stops(self, done: int) -> bool:
        """Waits while the training is paused; True when it should end."""
        del done
        self._may_go.wait()
        return self._ended

    def saved(self, done: int, states: list[TrainState]) -> None:
        """Draw the sheet of a training under way."""
        if self._edit.method.per_face or self._ended:  # its deltas are of other faces than these; each would take seconds
            return
        edit = replace(self._edit, trainables=jax.tree.map(jnp.asarray, states[0].trainables))
        w_plus = w_plus_of_seeds(edit.domain.generator, self._seeds, edit.settings.truncation)
        original, edited, masks = edit.apply(w_plus)
        shares = edit.shares(w_plus, [mask.mean() for mask in masks])
        subtitle = f"{edit.settings.method} on {edit.domain.name}, after {done} of {edit.settings.steps} steps"
        write_bytes(self._path, png(training_sheet(edit.prompt, subtitle, original, edited, masks, shares)))


def as_shown(edit: Edit) -> Edit:
    """The edit, which is yet to be learned, as its sheets are drawn: by the generator of previews where that shows it."""
    generator = edit.domain.generator
    return edit.drawn_by(lowered(generator)) if edit.method.region is not None and previews(edit) else edit


def main() -> None:
    """Train what the folder's plan says."""
    folder = Path(flags.FLAGS.folder)
    plan = read_json(folder / PLAN, "start it in the studio")
    config = make(plan["prompt"], **plan["fields"])
    domain = load_domain(config.domain, config.weights_dir)
    chosen = resolve(config, domain.settings_of(config.prompt))
    segmenter = config.segmenter or domain.default_segmenter
    edit = Edit(config.prompt, domain, segmenter, chosen.settings, config.seed, chosen.tau, None)
    watcher = Watcher(as_shown(edit), parse_seeds(config.sheet_seeds), folder / LIVE)
    threading.Thread(target=watcher.listen, args=(sys.stdin,), daemon=True).start()
    train(config, folder, watcher)
    (folder / LIVE).unlink(missing_ok=True)


if __name__ == "__main__":
    flags.DEFINE_string("folder", None, "Folder of the run, which holds the plan.")
    commands.run(main)
