"""What `converters.domain` starts a domain's settings from, for kinds of generators.

The paper publishes tau (0.85, "typically") and at most 20,000 steps, which is what `coral_jax.config` takes where a domain
says nothing.  The other numbers are ours: lambda_l2 is StyleCLIP's mapper's, per squared unit; lambda_id StyleCLIP's;
lambda_area and lambda_tv are guessed.  None was tuned on these generators: try the prompt with a few before you trust one.
"""

from typing import NamedTuple

_FACES = {
    "tau": 0.85,
    "truncation": 0.7,  # psi at which StyleCLIP draws faces
    "lambda_l2": 8.7e-5,
    "lambda_id": 0.1,
    "lambda_area": 8e-5,
    "lambda_tv": 1e-5,
}
_DRAWN = _FACES | {"lambda_id": 0.02}  # the identity network knows photographs
_OBJECTS = {name: value for name, value in _FACES.items() if name != "lambda_id"}


class Template(NamedTuple):
    """Settings of a kind of generator; `size` in pixels is checked, where given; `faces`: an identity network makes sense."""

    settings: dict[str, float]
    size: int | None = None
    faces: bool = True


TEMPLATES = {
    "ffhq": Template(_FACES, 1024),
    "ffhq_512": Template(_FACES, 512),
    "ffhq_256": Template(_FACES, 256),
    "cars": Template(_OBJECTS, 512, faces=False),  # 16 codes; pictures of 512x384, black above and below
    "sketch": Template(_DRAWN),
    "pixar": Template(_DRAWN),
}
