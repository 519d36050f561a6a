"""The command line of trainings that start from a converted generator."""

from collections.abc import Callable
from pathlib import Path

from absl import app, flags, logging

flags.disclaim_key_flags()  # they are those of the program that runs: its --help lists them


def run(train: Callable[[Path, str, int, int], None], examples: tuple[str, int, str], steps: int) -> None:
    """Run train(folder, path of the generator, number of examples, optimiser steps) with what the command line says.

    examples: name, default and help of the flag that gives their number; `steps`: the default of --steps.
    """
    folder = flags.DEFINE_string("folder", "faces_training", "where packages, pools, what is drawn and results are kept")
    generator = flags.DEFINE_string("generator", None, "the converted generator, with read-outs", required=True)
    number = flags.DEFINE_integer(*examples)
    taken = flags.DEFINE_integer("steps", steps, "optimiser steps")

    def main(_: list[str]) -> None:
        logging.set_verbosity(logging.INFO)
        train(Path(folder.value), generator.value, number.value, taken.value)

    app.run(main)
