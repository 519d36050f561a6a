"""Which image tower sees small parts of faces: convolutions that keep every place, or a vision transformer of as much time.

    python -m benchmarks.towers --folder=faces_training --steps=500 --rates=5e-4,1e-3,2e-3

Both towers are trained as `faces.train_clip` does, without adversarial images, at each of the rates, and read images of the
same size.  The folder is the one of that training: its pools and tokenizer are read.  A stopped training continues.
"""

import dataclasses
import time
from pathlib import Path

import numpy as np
from absl import flags

from coral_jax import commands
from coral_jax.faces.train_clip import CONTEXT, POOLS, config, load_faces, separation, train
from coral_jax.tokenizer import Tokenizer

_FOLDER = flags.DEFINE_string("folder", "faces_training", "where pools and the tokenizer are")
_STEPS = flags.DEFINE_integer("steps", 500, "optimiser steps")
_RATES = flags.DEFINE_list("rates", ["5e-4", "1e-3", "2e-3"], "highest learning rates")

#: fields of CLIPConfig; patches of 8 px, since a lip or an eye is one patch of 16
TOWERS = {
    "convolutions": {},
    "transformer": {"vision_convs": (), "patch_size": 8, "vision_width": 96, "vision_layers": 3, "vision_heads": 4},
}


def main() -> None:
    """Train each tower at each rate, and print the mean and the least AUC over the words on faces that were held out."""
    folder = Path(_FOLDER.value)
    tokenizer = Tokenizer(folder / "tokenizer.json", CONTEXT)
    faces, held_out = load_faces(folder, POOLS)
    for rate in _RATES.value:
        for name, fields in TOWERS.items():
            described = dataclasses.replace(config(tokenizer.vocab_size), **fields)
            kept = folder / "towers" / f"{name}_{rate}_{_STEPS.value}"
            kept.mkdir(parents=True, exist_ok=True)
            began = time.process_time()
            clip = train(described, faces, tokenizer, kept, _STEPS.value, _STEPS.value, float(rate))
            spent = time.process_time() - began
            for colours in (False, True):
                found = [auc for auc, _, _ in separation(clip, tokenizer, held_out, colours).values()]
                shown = "recoloured" if colours else "plain"
                aucs = f"mean {np.mean(found):.3f}, least {min(found):.3f}"
                print(f"{name} {rate} {shown}: {aucs}, {spent:.0f} s of CPU", flush=True)


if __name__ == "__main__":
    commands.run(main)
