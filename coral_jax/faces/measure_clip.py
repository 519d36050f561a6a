"""Measures the CLIP that comes with the package on faces that had no part in its training.

    python -m coral_jax.faces.draw --folder=faces_training --generator=generator.safetensors --name=held_out --count=160
    python -m coral_jax.faces.draw --folder=faces_training --generator=generator.safetensors --name=held_out_moved --count=120
    python -m coral_jax.faces.measure_clip --folder=faces_training
"""

from pathlib import Path

from absl import app, flags, logging

from coral_jax.faces.train_clip import CONTEXT, measure, prepared
from coral_jax.tokenizer import Tokenizer


def main(_: list[str]) -> None:
    """Write clip_held_out.json into the folder: the AUC of each word that some of these faces have."""
    logging.set_verbosity(logging.INFO)
    folder, own = Path(_FOLDER.value), Path(__file__).with_name("weights")
    faces = prepared(folder, ("held_out", "held_out_moved"))
    logging.info("%d faces", len(faces.images))
    tokenizer = Tokenizer(own / "tokenizer.json", CONTEXT)
    measure(own / "clip.safetensors", tokenizer, faces, folder / "clip_held_out.json")


if __name__ == "__main__":
    _FOLDER = flags.DEFINE_string("folder", "faces_training", "where pools and results are kept")
    app.run(main)
