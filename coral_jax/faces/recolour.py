"""Parts of faces in other colours: what a recoloured face shows is known, and most of it never occurs in a pool."""

import colorsys
import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from coral_jax.faces.captions import VOCABULARY
from coral_jax.faces.labels import hair_colours, iris_mask, mask
from coral_jax.faces.pool import Pool

#: part -> attribute -> its colour; "" is a colour that is none of the part's attributes
COLOURS: Mapping[str, Mapping[str, tuple[int, int, int]]] = {
    "hair": {
        "black_hair": (25, 20, 20), "brown_hair": (95, 60, 38), "blond_hair": (215, 180, 120), "grey_hair": (165, 165, 165),
        "red_hair": (150, 55, 25), "purple_hair": (130, 50, 170), "blue_hair": (50, 80, 190), "green_hair": (50, 150, 70),
        "pink_hair": (230, 110, 170),
    },
    "iris": {"blue_eyes": (75, 135, 225), "brown_eyes": (90, 52, 27), "": (50, 175, 60)},
    "lips": {"lipstick": (190, 20, 45), "": (190, 130, 115)},
    "skin": {"pale": (238, 215, 205), "tanned": (176, 118, 78)},
    "background": {"": (128, 128, 128)},
    "cloth": {"": (128, 128, 128)},
}  # fmt: skip
_CHANCE = {"hair": 0.4, "iris": 0.75, "lips": 0.5, "skin": 0.35, "background": 0.25, "cloth": 0.25}
_SPREAD = {"hair": 18, "iris": 18, "lips": 25, "skin": 10, "background": 120, "cloth": 120}  # of a colour, in levels
_OPACITY = {"hair": (0.7, 1), "iris": (0.85, 1), "lips": (0.5, 0.95), "skin": (0.5, 0.9), "background": (0.2, 0.9),
            "cloth": (0.2, 0.9)}  # fmt: skip
PARTS = tuple(COLOURS)
_LUMINANCE = np.array([0.3, 0.59, 0.11], np.float32)
_DULL = 0.4  # chance that skin gets any colour: none of its attributes is then known
_ANY = 0.5  # chance that hair gets any colour: what copper or a blue shine is not is learnt from these


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Faces to recolour: images [N, S, S, 3] and shares of PARTS [N, S, S, P] as bytes, and what is known of them [N, A]."""

    images: np.ndarray
    shares: np.ndarray
    true: np.ndarray
    known: np.ndarray


def prepare(pool: Pool, true: np.ndarray, known: np.ndarray, size: int) -> Prepared:
    """A pool's faces at `size` px."""
    shrink = jax.jit(lambda x: jax.image.resize(x.astype(jnp.float32), (*x.shape[:1], size, size, x.shape[3]), "area"))
    images, shares = [], []
    for image, labels, hair in zip(pool.images, pool.labels, pool.hair, strict=True):
        hair = np.clip((np.repeat(np.repeat(hair, 2, 0), 2, 1) / 255.0 - 0.3) / 0.6, 0, 1)  # the parser's own is a soft glow
        skin = mask(labels, "skin", "nose", "neck", "ear")
        parts = [hair, iris_mask(image, labels), mask(labels, "lip"), skin, mask(labels, "background"), mask(labels, "cloth")]
        images.append(shrink(image[None])[0])
        shares.append(shrink(np.stack(parts, -1).astype(np.float32)[None])[0] * 255)
    return Prepared(np.rint(images).astype(np.uint8), np.rint(shares).astype(np.uint8), true, known)


def tinted(images: np.ndarray, share: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """images [B, h, w, 3], 0 to 255, with a part in colour [B, 3] that keeps its shading; share [B, h, w] is its opacity."""
    light = images @ _LUMINANCE
    weight = share.sum(axis=(1, 2)) + 1e-6
    mean = (light * share).sum(axis=(1, 2)) / weight + 1
    shaded = np.clip(colour[:, None, None] * (light / mean[:, None, None])[..., None], 0, 255)
    return images + share[..., None] * (shaded - images)


def recoloured(
    faces: Prepared, rows: np.ndarray, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Some of the faces with parts recoloured at random: images [B, S, S, 3], 0 to 255, and (true, known) [B, A] of them."""
    images = faces.images[rows].astype(np.float32)
    shares = faces.shares[rows].astype(np.float32) / 255
    true, known = faces.true[rows].copy(), faces.known[rows].copy()
    for place, (part, colours) in enumerate(COLOURS.items()):
        enough = shares[..., place].sum(axis=(1, 2)) > (0.02 * shares[0, ..., 0].size if part == "hair" else 3)
        chosen = np.flatnonzero((random.random(len(rows)) < _CHANCE[part]) & enough)
        if not len(chosen):
            continue
        names = list(colours)
        name = random.integers(len(names), size=len(chosen))
        colour = np.array(list(colours.values()), np.float32)[name]
        colour += random.uniform(-1, 1, colour.shape) * _SPREAD[part]
        opacity = random.uniform(*_OPACITY[part], len(chosen))
        if part == "hair":
            free = random.random(len(chosen)) < _ANY
            colour[free] = any_hair(free.sum(), random)
        stained = (random.random(len(chosen)) < _DULL) & (part == "skin")
        colour[stained] = random.uniform(0, 255, (stained.sum(), 3))
        opacity[stained] *= random.uniform(0.4, 1, stained.sum())
        share = shares[chosen][..., place]
        images[chosen] = tinted(images[chosen], share * opacity[:, None, None], np.clip(colour, 0, 255))
        if part == "hair":  # called by what it looks like now
            called = hair_colours(np.einsum("bhwc,bhw->bc", images[chosen], share) / share.sum(axis=(1, 2))[:, None])
        else:  # by what it was painted with
            called = {one: ((name == i) & ~stained, (name != i) & ~stained) for i, one in enumerate(names) if one}
        for attribute, (yes, no) in called.items():
            column = VOCABULARY.index(attribute)
            true[chosen, column], known[chosen, column] = yes, yes | no
    return images, true, known


def any_hair(count: int, random: np.random.Generator) -> np.ndarray:
    """Colours [count, 3], 0 to 255, half of them of natural hues."""
    hue = np.where(random.random(count) < 0.5, random.uniform(0, 60, count), random.uniform(0, 360, count)) / 360
    saturation, value = random.uniform(0, 0.9, count), random.uniform(0.08, 0.95, count)
    rgb = [colorsys.hsv_to_rgb(*one) for one in zip(hue, saturation, value, strict=True)]
    return np.array(rgb, np.float32).reshape(count, 3) * 255
