"""How each attribute that a prompt may ask for is judged, and where in a face it may change.

Rules on what `judges` see: MediaPipe for expressions, faceres for age and sex, colours and sizes of the parser's parts for the
rest.  The parser also labelled what the CLIP was trained on; no second network for glasses, hats and hair was found.
A face that a rule finds doubtful neither has the attribute nor lacks it.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from coral_jax.faces.labels import hsv

Measures = dict[str, np.ndarray]  # by name: a number or a colour of each face
Rule = Callable[[Measures], np.ndarray]

_LUMINANCE = np.array([0.3, 0.59, 0.11], np.float32)
MOUTH = ("mouth", "lip")
FACE = ("skin", "brow", "eye", "glasses", "nose", *MOUTH)
HEAD = (*FACE, "ear", "earring", "neck", "hair")


class Attribute(NamedTuple):
    """How an attribute is judged.

    group: attributes of one group exclude or imply each other, so that an edit of one may change the others.  has, lacks: which
    faces certainly do.  region: parts of the face before the edit that may change; grown: parts after it that may, too.
    """

    group: str
    has: Rule
    lacks: Rule
    region: tuple[str, ...]
    grown: tuple[str, ...] = ()


def _smile(m: Measures) -> np.ndarray:
    return (m["mouthSmileLeft"] + m["mouthSmileRight"]) / 2


def _blink(m: Measures) -> np.ndarray:
    return (m["eyeBlinkLeft"] + m["eyeBlinkRight"]) / 2


def _hair_light(m: Measures) -> np.ndarray:
    return m["colour_hair"] @ _LUMINANCE / 255


def _redness(m: Measures) -> np.ndarray:
    """How much more red than green the lips have than the skin, as shares of their light."""
    lips, skin = (m[f"colour_{part}"] / m[f"colour_{part}"].sum(-1, keepdims=True) for part in ("lips", "skin"))
    return (lips - skin) @ np.array([1, -1, 0])


def _hair_of(hues: tuple[float, float], least: float) -> tuple[Rule, Rule]:
    """Hair whose hue in degrees lies between two and whose saturation is at least `least`; and hair that is far from it."""

    def near(m: Measures, margin: float) -> np.ndarray:
        hue, _, _ = hsv(m["colour_hair"])
        return (hue > hues[0] - margin) & (hue < hues[1] + margin)

    def has(m: Measures) -> np.ndarray:
        return near(m, 0) & (hsv(m["colour_hair"])[1] > least)

    def lacks(m: Measures) -> np.ndarray:
        return (m["share_hair"] > 0.04) & ~(near(m, 15) & (hsv(m["colour_hair"])[1] > least / 2))

    return has, lacks


def _uncovered(m: Measures) -> np.ndarray:
    return m["share_hat"] < 0.02


ATTRIBUTES = {
    "happy": Attribute("mouth", lambda m: _smile(m) > 0.45, lambda m: _smile(m) < 0.2, FACE),
    "serious": Attribute("mouth", lambda m: (_smile(m) < 0.1) & (m["jawOpen"] < 0.06), lambda m: _smile(m) > 0.45, FACE),
    "surprised": Attribute(
        "mouth", lambda m: (m["jawOpen"] > 0.2) & (_smile(m) < 0.4), lambda m: (m["jawOpen"] < 0.08) | (_smile(m) > 0.6), FACE
    ),
    "mouth_open": Attribute("mouth", lambda m: m["jawOpen"] > 0.2, lambda m: m["jawOpen"] < 0.05, FACE),
    "eyes_closed": Attribute("lids", lambda m: _blink(m) > 0.5, lambda m: _blink(m) < 0.25, ("brow", "eye", "glasses")),
    "old": Attribute("age", lambda m: m["age"] > 50, lambda m: m["age"] < 42, HEAD),
    "young": Attribute("age", lambda m: m["age"] < 27, lambda m: m["age"] > 34, HEAD),
    "man": Attribute("sex", lambda m: m["male"] > 0.8, lambda m: m["male"] < 0.3, HEAD, HEAD),
    "woman": Attribute("sex", lambda m: m["male"] < 0.2, lambda m: m["male"] > 0.7, HEAD, HEAD),
    "glasses": Attribute(
        "glasses", lambda m: m["share_glasses"] > 0.006, lambda m: m["share_glasses"] < 0.001,
        ("brow", "eye", "glasses", "nose"), ("glasses",),
    ),
    "sunglasses": Attribute(
        "glasses", lambda m: (m["share_glasses"] > 0.03) & (m["light_glasses"] < 0.55 * m["cheek"]),
        lambda m: m["share_glasses"] < 0.001, ("brow", "eye", "glasses", "nose"), ("glasses",),
    ),
    "hat": Attribute("hat", lambda m: m["share_hat"] > 0.05, lambda m: m["share_hat"] < 0.01, ("hair", "hat"), ("hat",)),
    "black_hair": Attribute(
        "hair colour", lambda m: _hair_light(m) < 0.19, lambda m: _hair_light(m) > 0.27, ("hair",)
    ),
    "brown_hair": Attribute(
        "hair colour",
        lambda m: (np.abs(_hair_light(m) - 0.3) < 0.1) & (hsv(m["colour_hair"])[1] > 0.3) & (hsv(m["colour_hair"])[0] < 45),
        lambda m: (_hair_light(m) < 0.14) | (_hair_light(m) > 0.55), ("hair",),
    ),
    "blond_hair": Attribute(
        "hair colour",
        lambda m: (_hair_light(m) > 0.46) & (hsv(m["colour_hair"])[1] > 0.2) & (hsv(m["colour_hair"])[0] < 55),
        lambda m: _hair_light(m) < 0.36, ("hair",),
    ),
    "grey_hair": Attribute(
        "hair colour", lambda m: (_hair_light(m) > 0.36) & (hsv(m["colour_hair"])[1] < 0.15),
        lambda m: (_hair_light(m) < 0.27) | (hsv(m["colour_hair"])[1] > 0.28), ("hair",),
    ),
    **{name: Attribute("hair colour", *_hair_of(hues, least), ("hair",)) for name, hues, least in (
        ("purple_hair", (250, 325), 0.2), ("pink_hair", (310, 360), 0.25), ("green_hair", (75, 175), 0.2),
        ("blue_hair", (185, 255), 0.25))},
    "long_hair": Attribute(
        "hair length", lambda m: m["below"] > 0.16, lambda m: m["below"] < 0.03, ("hair",), ("hair",)
    ),
    "bald": Attribute(
        "hair length", lambda m: (m["share_hair"] < 0.05) & _uncovered(m), lambda m: m["share_hair"] > 0.1, ("hair", "hat"),
    ),
    "bangs": Attribute("bangs", lambda m: m["bangs"] > 0.7, lambda m: m["bangs"] < 0.1, ("hair", "brow"), ("hair",)),
    # As red as the redder quarter of generated women's lips; less so than most men's.
    "lipstick": Attribute("lips", lambda m: _redness(m) > 0.15, lambda m: _redness(m) < 0.107, MOUTH),
    "blue_eyes": Attribute(
        "irises", lambda m: (np.abs(hsv(m["colour_iris"])[0] - 220) < 45) & (hsv(m["colour_iris"])[1] > 0.15),
        lambda m: (hsv(m["colour_iris"])[0] < 60) & (m["share_glasses"] < 0.001), ("eye",),
    ),
    "tanned": Attribute(
        "skin", lambda m: m["colour_skin"] @ _LUMINANCE / 255 < 0.45, lambda m: m["colour_skin"] @ _LUMINANCE / 255 > 0.6,
        (*FACE, "ear", "neck"),
    ),
}  # fmt: skip


def answers(found: Measures, names: list[str] | None = None) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By attribute: which faces certainly have it [N], and which certainly lack it."""
    with np.errstate(invalid="ignore"):
        return {name: (ATTRIBUTES[name].has(found), ATTRIBUTES[name].lacks(found)) for name in names or ATTRIBUTES}


def drift(before: Measures, after: Measures, asked: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """(how many attributes of groups not asked for turned over [N], how many were certain before).

    One turns over when the face certainly had it and certainly lacks it now, or the other way round.
    """
    groups = {ATTRIBUTES[name].group for name in asked}
    others = [name for name, attribute in ATTRIBUTES.items() if attribute.group not in groups]
    was, now = answers(before, others), answers(after, others)
    turned = sum((was[name][0] & now[name][1]).astype(int) + (was[name][1] & now[name][0]) for name in others)
    return turned, sum((was[name][0] | was[name][1]).astype(int) for name in others)
