"""Many texts that say the same: CLIP's idea of a prompt, less what depends on one wording.

For CLIPs of photographs, the templates of OpenAI's ImageNet prompts that StyleCLIP uses: 79, all of them but "a photo of many".
"""

from coral_jax.domains import Domain

_PICTURES = (
    "a photo", "a bad photo", "a good photo", "a low resolution photo", "a cropped photo", "a bright photo", "a dark photo",
    "a close-up photo", "a black and white photo", "a pixelated photo", "a jpeg corrupted photo", "a blurry photo",
    "a sculpture", "a rendering", "a rendition", "a tattoo", "a drawing", "a painting", "a doodle", "a sketch", "graffiti",
    "art", "itap",
)  # fmt: skip
_SEEN_AS = ("hard to see", "clean", "dirty", "cool", "large", "small", "nice", "weird")
_MADE_AS = ("embroidered", "plastic", "origami", "toy", "cartoon", "plushie")
TEMPLATES = (
    *(f"{picture} of {article} {{}}." for picture in _PICTURES for article in ("a", "the")),
    *(f"a photo of {article} {seen} {{}}." for seen in _SEEN_AS for article in ("a", "the")),
    *(f"{article} {made} {{}}." for made in _MADE_AS for article in ("a", "the")),
    *(f"{article} {{}} in a video game." for article in ("a", "the")),
    *("a photo of my {}.", "a photo of one {}.", "itap of my {}."),
)


def wordings(domain: Domain, prompt: str) -> tuple[list[str], list[str]]:
    """Texts for a picture of the domain as the prompt asks for it, and for any picture of the domain."""
    if domain.language is not None:
        return domain.language.wordings(prompt)
    asked = prompt if domain.subject in prompt.lower().split() else f"{prompt} {domain.subject}"  # "surprised face"
    return [template.format(asked) for template in TEMPLATES], [template.format(domain.subject) for template in TEMPLATES]
