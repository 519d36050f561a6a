"""Which words are true of which faces: rules on what the critics saw, with the doubtful left unknown.

Places are those of aligned faces at 256 px.  Colours are means inside the parser's regions.
"""

from collections.abc import Callable

import numpy as np

from coral_jax.faces.captions import VOCABULARY
from coral_jax.faces.critics import EXPRESSIONS, PARTS
from coral_jax.faces.pool import Pool

Measures = dict[str, np.ndarray]

_LUMINANCE = np.array([0.3, 0.59, 0.11], np.float32)
_IRIS = 6.0  # its radius in px
_FOREHEAD = (slice(76, 92), slice(96, 160))
_CHEEKS, _CHIN = (slice(136, 160), slice(84, 172)), (slice(200, 218), slice(104, 152))
_BELOW = slice(204, 256)  # rows under the mouth


def mask(labels: np.ndarray, *names: str) -> np.ndarray:
    """Where labels [..., h, w] are one of these parts."""
    return np.isin(labels, [i for i, part in enumerate(PARTS) if part in names])


def irises(image: np.ndarray, labels: np.ndarray) -> list[tuple[float, float]]:
    """Centres (x, y) of the irises, the darkest discs of the parser's eyes; none for an eye that is hardly open."""
    found = []
    dark = 255 - image.astype(np.float32) @ _LUMINANCE
    for label in np.flatnonzero(np.array(PARTS) == "eye"):
        y, x = np.nonzero(labels == label)
        if len(y) < 40:
            continue
        weight = dark[y, x] - dark[y, x].min() + 1e-3
        weight = weight**2
        centre = np.array([np.average(x, weights=weight), np.average(y, weights=weight)])
        for _ in range(3):  # mean shift: the white of the eye on one side draws the mean off
            near = weight * ((x - centre[0]) ** 2 + (y - centre[1]) ** 2 < _IRIS**2)
            centre = np.array([np.average(x, weights=near + 1e-6), np.average(y, weights=near + 1e-6)])
        found.append((float(centre[0]), float(centre[1])))
    return found


def iris_mask(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Share of iris [256, 256] at each pixel: soft discs with a hole for the pupil, inside the eyes."""
    y, x = np.mgrid[: labels.shape[0], : labels.shape[1]]
    share = np.zeros(labels.shape, np.float32)
    for centre in irises(image, labels):
        distance = np.hypot(x - centre[0], y - centre[1])
        share = np.maximum(share, np.clip(_IRIS + 0.5 - distance, 0, 1) * (1 - 0.7 * np.clip(2.5 - distance, 0, 1)))
    return share * mask(labels, "eye")


def _mean(image: np.ndarray, where: np.ndarray) -> np.ndarray:
    return image[where].mean(axis=0) if where.sum() > 30 else np.full(3, np.nan)


def _of_face(image: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray | float]:
    """Measures of one face [256, 256, 3] with the parser's labels [256, 256]."""
    found = {f"share_{part}": mask(labels, part).mean() for part in dict.fromkeys(PARTS)}
    skin = mask(labels, "skin", "nose")
    for name, where in (("hair", mask(labels, "hair")), ("skin", skin), ("lips", mask(labels, "lip"))):
        found[f"colour_{name}"] = _mean(image, where)
    found["colour_iris"] = _mean(image, iris_mask(image, labels) > 0.5)
    light = image.astype(np.float32) @ _LUMINANCE
    for name, part in (("mouth", "mouth"), ("glasses", "glasses")):
        where = mask(labels, part)
        found[f"light_{name}"] = light[where].mean() if where.sum() > 30 else np.nan
        found[f"bright_{name}"] = np.percentile(light[where], 80) if where.sum() > 30 else np.nan
    rows = mask(labels, "mouth").sum(axis=0)
    found["gap"] = float(np.percentile(rows, 98))  # of the lips, in px
    found["eye_height"] = float(np.percentile(mask(labels, "eye").sum(axis=0), 95))
    found["bangs"] = mask(labels[_FOREHEAD], "hair").mean()
    found["below"] = mask(labels[_BELOW], "hair").mean()
    cheeks = light[_CHEEKS][mask(labels[_CHEEKS], "skin")]
    cheek = np.median(cheeks) if len(cheeks) > 200 else np.nan
    found["cheek"] = cheek
    found["chin"] = cheek - np.median(light[_CHIN])
    found["upper_lip"] = cheek - _upper_lip(light, labels)
    return found


def _upper_lip(light: np.ndarray, labels: np.ndarray) -> float:
    """Median luminance of the skin between nose and lips."""
    nose, lips = mask(labels, "nose"), mask(labels, "lip", "mouth")
    if nose.sum() < 100 or lips.sum() < 100:
        return np.nan
    low, high = np.nonzero(nose.any(axis=1))[0].max() + 3, np.nonzero(lips.any(axis=1))[0].min() - 1
    columns = np.nonzero(lips.any(axis=0))[0]
    band = light[low : max(high, low + 2), columns.min() + 6 : columns.max() - 5]
    return float(np.median(band)) if band.size else np.nan


def measures_of(images: np.ndarray, labels: np.ndarray) -> Measures:
    """Sizes and colours of the parts of faces [N, 256, 256, 3] (bytes) with the parser's labels [N, 256, 256]."""
    each = [_of_face(image, parts) for image, parts in zip(images, labels, strict=True)]
    return {name: np.array([face[name] for face in each]) for name in each[0]}


def measures(pool: Pool) -> Measures:
    """What the rules read of each face: a number or a colour each, NaN where there is nothing to measure."""
    expressions = {name: pool.expression[:, i] for i, name in enumerate(EXPRESSIONS)}
    return measures_of(pool.images, pool.labels) | expressions | {"age": pool.age, "male": pool.male}


def hsv(colour: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hue in degrees, saturation and value of colours [..., 3] from 0 to 255."""
    red, green, blue = np.moveaxis(np.asarray(colour, np.float64) / 255, -1, 0)
    most, least = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    span = most - least + 1e-9
    others = np.where(most == green, (blue - red) / span + 2, (red - green) / span + 4)
    return np.where(most == red, ((green - blue) / span) % 6, others) * 60, span / (most + 1e-9), most


def truths(found: Measures) -> tuple[np.ndarray, np.ndarray]:
    """(true [N, A], known [N, A]) of the words of VOCABULARY."""
    count = len(found["age"])
    true, known = np.zeros((count, len(VOCABULARY)), bool), np.zeros((count, len(VOCABULARY)), bool)

    def put(name: str, yes: np.ndarray, no: np.ndarray) -> None:
        column = VOCABULARY.index(name)
        true[:, column], known[:, column] = yes, yes | no

    with np.errstate(invalid="ignore"):
        _expressions(found, put)
        _people(found, put)
        _hair(found, put)
        _colours(found, put)
    return true, known


Put = Callable[[str, np.ndarray, np.ndarray], None]


def _expressions(m: Measures, put: Put) -> None:
    teeth = (m["share_mouth"] > 0.0022) & (m["bright_mouth"] > 135)
    closed = m["share_mouth"] < 0.0005
    put("happy", (m["happy"] > 0.9) & ~closed, m["happy"] < 0.2)
    put("teeth", (m["happy"] > 0.8) & teeth, closed | (m["happy"] < 0.1))
    put("serious", (m["neutral"] > 0.8) & closed, (m["neutral"] < 0.1))
    put("surprised", m["surprised"] > 0.5, m["surprised"] < 0.03)
    put("mouth_open", m["gap"] > 11, m["gap"] < 3)
    sees = m["share_glasses"] < 0.001
    put("eyes_closed", sees & (m["bangs"] < 0.7) & (m["eye_height"] < 2), sees & (m["eye_height"] > 6))  # between: squinting


def _people(m: Measures, put: Put) -> None:
    put("old", m["age"] > 52, m["age"] < 44)
    put("young", m["age"] < 27, m["age"] > 34)
    put("child", m["age"] < 12, m["age"] > 18)
    put("man", (m["male"] > 0.85) & (m["age"] > 14), m["male"] < 0.3)
    put("woman", (m["male"] < 0.15) & (m["age"] > 14), m["male"] > 0.7)
    worn = m["share_glasses"] > 0.006
    dark = m["light_glasses"] / m["cheek"]
    put("glasses", worn & (dark > 0.55), m["share_glasses"] < 0.001)
    put("sunglasses", (m["share_glasses"] > 0.04) & (dark < 0.48), ~worn | (dark > 0.65))
    put("hat", m["share_hat"] > 0.05, m["share_hat"] < 0.01)
    grown = (m["male"] > 0.8) & (m["age"] > 18)
    bare = (m["male"] < 0.2) | (m["age"] < 10)
    darker = np.minimum(m["chin"], m["upper_lip"])
    put("beard", grown & (darker > 38), bare | (darker < 12))


def _hair(m: Measures, put: Put) -> None:
    uncovered = m["share_hat"] < 0.02
    put("long_hair", m["below"] > 0.16, (m["below"] < 0.03) & (m["share_hair"] > 0.02))
    put("short_hair", (m["below"] < 0.01) & (m["share_hair"] > 0.06) & uncovered, m["below"] > 0.12)
    put("bald", (m["share_hair"] < 0.05) & uncovered, m["share_hair"] > 0.1)
    put("bangs", m["bangs"] > 0.7, m["bangs"] < 0.1)
    has = (m["share_hair"] > 0.05) & np.isfinite(m["colour_hair"]).all(axis=-1)
    for name, (yes, no) in hair_colours(m["colour_hair"]).items():
        if name == "grey_hair":
            yes = yes & (m["age"] > 30)
        put(name, has & yes, (has & no) | (~has if name in _UNNATURAL else False))


#: hair colour that nobody is born with -> its hues in degrees
_UNNATURAL = {"purple_hair": (255, 315), "pink_hair": (312, 348), "green_hair": (80, 165), "blue_hair": (195, 248)}


def hair_colours(colour: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By attribute of hair: which mean colours [N, 3], 0 to 255, certainly are it, and which certainly are not."""
    hue, saturation, value = hsv(colour)
    light, chroma = colour @ _LUMINANCE / 255, saturation * value
    dyed = (hue > 65) & (hue < 340) & (chroma > 0.12)
    reddish = (hue < 24) | (hue > 350)
    orange = (hue < 32) & (saturation > 0.55)
    found = {
        "black_hair": ((light < 0.19) & ~dyed, (light > 0.27) | (dyed & (light > 0.1))),
        "brown_hair": (
            (light > 0.21) & (light < 0.4) & (saturation > 0.3) & (hue < 45),
            (light < 0.14) | (light > 0.55) | dyed,
        ),
        "blond_hair": (
            (light > 0.46) & (saturation > 0.22) & (hue > 20) & (hue < 55) & ~orange,
            (light < 0.42) | (saturation < 0.1) | dyed | ((hue < 24) & (saturation > 0.65)),
        ),
        "grey_hair": ((light > 0.36) & (saturation < 0.15), (light < 0.27) | (saturation > 0.28)),
        "red_hair": (
            (saturation > 0.55) & reddish & (light > 0.2),
            (saturation < 0.4) | (light < 0.14) | ((hue > 35) & (hue < 335)),
        ),
    }
    for name, (low, high) in _UNNATURAL.items():
        bright = light > 0.4 if name == "pink_hair" else True
        far = (hue < low - 20) | (hue > high + 20) | (chroma < 0.06)
        found[name] = (hue > low) & (hue < high) & (chroma > 0.15) & (saturation > 0.25) & bright, far
    return found


def _colours(m: Measures, put: Put) -> None:
    _, lips, _ = hsv(m["colour_lips"])
    _, skin, _ = hsv(m["colour_skin"])
    none = np.zeros(len(lips), bool)
    put("lipstick", none, (lips - skin < 0.05) | ((m["male"] > 0.7) & (lips - skin < 0.12)))
    hue, saturation, value = hsv(m["colour_iris"])
    sees = (m["share_glasses"] < 0.001) & np.isfinite(value)
    put("blue_eyes", none, sees & (hue < 45) & (saturation > 0.3))
    put("brown_eyes", sees & (hue < 35) & (saturation > 0.35) & (value < 0.45), none)
    light = m["colour_skin"] @ _LUMINANCE / 255
    put("pale", none, light < 0.55)
    put("tanned", none, light > 0.72)
