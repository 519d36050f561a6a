"""Make photos of pictures, for coral_jax.edit --photo: python -m coral_jax.photo --image=me.jpg --out=photos/me"""

from pathlib import Path

import numpy as np
from absl import flags

from coral_jax import commands
from coral_jax.domains import load_domain
from coral_jax.landmarks import Landmarker, landmarker_model
from coral_jax.photos.align import Square
from coral_jax.photos.finding import found_face, given_face, sources_of
from coral_jax.photos.making import LIKENESS, make_photos

_IMAGE = flags.DEFINE_multi_string("image", None, "A picture, or a folder of pictures; may be given several times.")
_DOMAIN = flags.DEFINE_string("domain", "faces", "The domain whose edits are to be applied.")
_OUT = flags.DEFINE_string("out", None, "The photo's folder; of several pictures, where each gets one.")
_FACE = flags.DEFINE_integer("face", None, "Which face, counted from 1, the largest first (default: the largest).")
_ALIGNED = flags.DEFINE_boolean("aligned", False, "The pictures are aligned already: no face is looked for.")
_LIKENESS = flags.DEFINE_float("likeness", LIKENESS, "From 0, edits work best, to 1, most like the picture.")
_BATCH = flags.DEFINE_integer("batch_size", 1, "How many pictures are inverted at once; memory grows with it.")
_WEIGHTS_DIR = flags.DEFINE_string("weights_dir", None, "Folder of domains other than the embedded ones.")


def main() -> None:
    """Make a photo of each picture of --image."""
    if not _IMAGE.value or not _OUT.value:
        raise ValueError("give a picture and a folder; type python -m coral_jax.photo --image=me.jpg --out=photos/me")
    if _BATCH.value < 1:
        raise ValueError(f"--batch_size is {_BATCH.value}; give at least 1")
    if _ALIGNED.value and _FACE.value is not None:
        raise ValueError("--face says which face to look for, and --aligned to look for none; give one of them")
    sources = sources_of(_IMAGE.value, _OUT.value)
    domain = load_domain(_DOMAIN.value, _WEIGHTS_DIR.value)
    if _ALIGNED.value:
        make_photos(domain, sources, given_face, _LIKENESS.value, _BATCH.value, _WEIGHTS_DIR.value)
        return
    if domain.alignment is None:
        raise ValueError(f"it is not known how pictures are aligned for {domain.name}; align them yourself, and add --aligned")
    with Landmarker(landmarker_model(_WEIGHTS_DIR.value)) as landmarker:

        def locate(picture: np.ndarray, path: Path) -> Square:
            return found_face(landmarker, picture, path, _FACE.value)

        make_photos(domain, sources, locate, _LIKENESS.value, _BATCH.value, _WEIGHTS_DIR.value)


if __name__ == "__main__":
    commands.run(main)
