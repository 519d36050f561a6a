"""What `converters.domain` starts a domain's settings from, for kinds of generators.

The paper publishes tau (0.85, "typically") and at most 20,000 steps, which is what `coral_jax.config` takes where a domain
says nothing.  The other numbers are ours.  Those of faces come from the domain `faces` (`docs/faces.md`), whose W space is
StyleGAN2-FFHQ's: truncation, both rates and lambda_l2, which were found with 60 to 150 steps of one face; a run of the
paper's length may want lower rates.  lambda_id is StyleCLIP's; lambda_area and lambda_tv depend on CLIP and are guessed.
None was tuned on these generators: try the prompt with a few before you trust one.
"""

from fractions import Fraction
from typing import NamedTuple

_SHARED = {"tau": 0.85, "truncation": 0.7, "lambda_area": 8e-5, "lambda_tv": 1e-5}  # 0.7: psi at which StyleCLIP draws faces
_FACES = _SHARED | {
    "learning_rate": 0.15,
    "region_learning_rate": 0.002,  # masks that learn at the editor's rate close before there is an edit
    "lambda_l2": 5e-5,
    "lambda_id": 0.1,
    "methods": {
        "attention_global": {"learning_rate": 0.013, "region_learning_rate": 0.004},
        "segment_global": {"learning_rate": 0.013, "region_learning_rate": 0.05},
        "segment_mapper": {"region_learning_rate": 0.05},
    },
}
_DRAWN = _FACES | {"lambda_id": 0.02}  # the identity network knows photographs
_OBJECTS = _SHARED | {"region_learning_rate": 0.012, "lambda_l2": 8.7e-5}  # as toons have it


class Template(NamedTuple):
    """Settings of a kind of generator, and what it draws.

    size: in pixels, checked where given. faces: an identity network makes sense. bars: the share of the image's height that
    is a bar above the picture, and as much below. alignment: of the pictures that it was trained on, of domains.ALIGNMENTS.
    """

    settings: dict[str, object]
    subject: str = "face"
    size: int | None = None
    faces: bool = True
    bars: Fraction = Fraction(0)
    alignment: str | None = None

    def content_rows(self, size: int) -> tuple[int, int] | None:
        """(first, end) of the picture's rows in an image of `size` rows; None where all are."""
        bar = int(self.bars * size)
        return (bar, size - bar) if bar else None


TEMPLATES = {
    "ffhq": Template(_FACES, size=1024, alignment="ffhq"),
    "ffhq_512": Template(_FACES, size=512, alignment="ffhq"),
    "ffhq_256": Template(_FACES, size=256, alignment="ffhq"),
    # LSUN's cars are 4:3, and were padded with black: of 512 px, rows 64 to 448 are the picture.
    "cars": Template(_OBJECTS, "car", faces=False, bars=Fraction(1, 8)),
    "cats": Template(_OBJECTS, "cat", faces=False),
    "sketch": Template(_DRAWN, alignment="ffhq"),
    "pixar": Template(_DRAWN, alignment="ffhq"),
}
