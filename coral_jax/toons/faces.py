"""What a toon face is: its attributes, how a latent z decides them, and the numbers that the renderer draws from.

A `Face` holds categories (what a caption can speak of) and jitters (what makes two faces with the same categories differ).
`numbers` turns it into the continuous quantities that are drawn; setting an attribute changes a category and nothing else,
so the ideal edit of every face is known.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

Z_DIM = 32
SHAPE_CODES = 6  # codes 0-5 of w_plus (through the first convolution at 32 px) carry the shape, the others the colours

EXPRESSIONS = ("neutral", "happy", "sad", "angry", "surprised")
EYE_COLOURS = ("blue", "green", "brown")
HAIR_STYLES = ("bald", "mohawk", "afro", "short", "short_curly", "long", "long_curly")
HAIR_COLOURS = ("black", "brown", "blond", "red", "grey", "purple")
SWITCHES = ("beard", "mustache", "glasses", "lipstick", "makeup")

#: The groups of attributes, each with its values: what the classifier answers and what `drift` counts.
GROUPS: dict[str, tuple[str, ...]] = {
    "expression": EXPRESSIONS,
    "eye_colour": EYE_COLOURS,
    "hair_style": HAIR_STYLES,
    "hair_colour": HAIR_COLOURS,
    **{name: ("no", "yes") for name in SWITCHES},
}

#: attribute -> (group, the values that have it)
ATTRIBUTES: dict[str, tuple[str, tuple[str, ...]]] = {
    **{name: ("expression", (name,)) for name in EXPRESSIONS[1:]},
    **{f"{name}_eyes": ("eye_colour", (name,)) for name in EYE_COLOURS},
    "mohawk": ("hair_style", ("mohawk",)),
    "afro": ("hair_style", ("afro",)),
    "bald": ("hair_style", ("bald",)),
    "curly_hair": ("hair_style", ("short_curly", "long_curly")),
    "long_hair": ("hair_style", ("long", "long_curly")),
    "short_hair": ("hair_style", ("short", "short_curly")),
    **{f"{name}_hair": ("hair_colour", (name,)) for name in HAIR_COLOURS},
    **{name: (name, ("yes",)) for name in SWITCHES},
}

#: attribute -> what each of its values is without it; those of which no other value is the plain one are left out
PLAIN: dict[str, dict[str, str]] = {
    **{name: {name: "neutral"} for name in EXPRESSIONS[1:]},
    "curly_hair": {"short_curly": "short", "long_curly": "long"},
    **{name: {"yes": "no"} for name in SWITCHES},
}

# Upper ends, on the uniform scale, of the intervals of one latent coordinate that give each category.
_STYLE_SHARES = (0.12, 0.13, 0.12, 0.21, 0.12, 0.18, 0.12)
_SWITCH_SHARES = {"beard": 0.30, "mustache": 0.30, "glasses": 0.30, "lipstick": 0.35, "makeup": 0.30}

#: jitters of shape and of colour: one uniform number in [-1, 1] each.
SHAPE_JITTERS = ("head_width", "head_height", "jaw", "volume", "parting", "brow_thickness", "eye_size", "eye_gap",
                 "nose", "mouth_width", "intensity", "brow_raise")  # fmt: skip
COLOUR_JITTERS = ("skin", "skin_hue", "clothes", "clothes_light", "background", "hair_light", "lip_hue")


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Face:
    """A batch of faces: category numbers (int32 [B]) by group, jitters in [-1, 1] (float32 [B]) by name."""

    category: dict[str, Array]
    jitter: dict[str, Array]


def normalise_z(z: Array) -> Array:
    """z [B, Z_DIM] -> unit root mean square, as StyleGAN2's mapping sees it."""
    return z * jax.lax.rsqrt(jnp.mean(z * z, axis=-1, keepdims=True) + 1e-8)


def _choose(u: Array, shares: tuple[float, ...]) -> Array:
    edges = jnp.cumsum(jnp.asarray(shares))[:-1] / sum(shares)
    return jnp.sum(u[:, None] >= edges[None], axis=-1).astype(jnp.int32)


def faces_from_z(z: Array) -> Face:
    """The faces that latents z [B, Z_DIM] mean: categories from intervals of single coordinates, jitters from others."""
    u = jax.scipy.stats.norm.cdf(normalise_z(z))
    columns = iter(range(Z_DIM))
    category = {
        "expression": _choose(u[:, next(columns)], (1.0,) * 5),
        "eye_colour": _choose(u[:, next(columns)], (1.0,) * 3),
        "hair_style": _choose(u[:, next(columns)], _STYLE_SHARES),
        "hair_colour": _choose(u[:, next(columns)], (1.0,) * 6),
    }
    for name in SWITCHES:
        share = _SWITCH_SHARES[name]
        category[name] = _choose(u[:, next(columns)], (1 - share, share))
    jitter = {name: 2 * u[:, next(columns)] - 1 for name in SHAPE_JITTERS + COLOUR_JITTERS}
    return Face(category, jitter)


def mix(shape: Face, colour: Face) -> Face:
    """The face with the shape of one and the colours of another (StyleGAN's style mixing, made exact)."""
    colours = ("eye_colour", "hair_colour", "lipstick", "makeup")
    category = {k: (colour if k in colours else shape).category[k] for k in GROUPS}
    jitter = {k: (colour if k in COLOUR_JITTERS else shape).jitter[k] for k in shape.jitter}
    return Face(category, jitter)


def has(face: Face, attribute: str) -> Array:
    """Whether each face has the attribute: bool [B]. The colour of hair that is not there does not count."""
    group, values = ATTRIBUTES[attribute]
    found = jnp.isin(face.category[group], jnp.asarray([GROUPS[group].index(v) for v in values]))
    return found & (face.category["hair_style"] != 0) if group == "hair_colour" else found


def can_have(face: Face, attribute: str) -> Array:
    """Whether the attribute could be seen on each face after setting it (no hair colour on bald heads): bool [B]."""
    bald = face.category["hair_style"] == 0
    return ~bald if ATTRIBUTES[attribute][0] == "hair_colour" else jnp.ones_like(bald)


def with_attribute(face: Face, attribute: str) -> Face:
    """The same faces with the attribute set: the ideal edit. Length and curliness of hair are kept where they can be."""
    group, values = ATTRIBUTES[attribute]
    new = jnp.full_like(face.category[group], GROUPS[group].index(values[0]))
    if len(values) > 1:
        old, kept = face.category["hair_style"], {"curly_hair": "long", "long_hair": "short_curly",
                                                  "short_hair": "long_curly"}[attribute]  # fmt: skip
        second = (old == HAIR_STYLES.index(kept)) | (old == HAIR_STYLES.index(values[1]))
        new = jnp.where(second, HAIR_STYLES.index(values[1]), new)
    return Face({**face.category, group: new}, face.jitter)


def without_attribute(face: Face, attribute: str) -> Face:
    """The same faces with the attribute, one of `PLAIN`, taken away: the ideal removal.  Others stay as they are."""
    group = ATTRIBUTES[attribute][0]
    values, new = GROUPS[group], face.category[group]
    for value, plain in PLAIN[attribute].items():
        new = jnp.where(face.category[group] == values.index(value), values.index(plain), new)
    return Face({**face.category, group: new}, face.jitter)


_EXPRESSION_TABLE = jnp.asarray(
    # curve, opening, width, brow raise, brow tilt (inner end up), eye opening
    [
        [0.20, 0.00, 0.00, 0.00, 0.00, 0.84],
        [1.00, 0.42, 0.28, 0.25, 0.15, 0.78],
        [-1.00, 0.00, -0.05, 0.15, 1.00, 0.62],
        [-0.55, 0.14, 0.05, -0.55, -1.25, 0.70],
        [0.00, 1.00, -0.42, 1.25, 0.10, 1.20],
    ]
)
_HAIR_TABLE = jnp.asarray(
    [[0.13, 0.11, 0.13], [0.40, 0.24, 0.13], [0.93, 0.76, 0.36], [0.76, 0.22, 0.12], [0.66, 0.67, 0.70],
     [0.56, 0.26, 0.78]]
)  # fmt: skip
_IRIS_TABLE = jnp.asarray([[0.16, 0.45, 0.95], [0.16, 0.66, 0.26], [0.45, 0.24, 0.08]])


def _hsv(h: Array, s: Array, v: Array) -> Array:
    """Hue in turns, saturation, value [B] -> RGB [B, 3] in [0, 1]."""
    offsets = jnp.asarray([0.0, 2 / 3, 1 / 3])
    ramp = jnp.clip(jnp.abs((h[:, None] + offsets[None]) % 1.0 * 6 - 3) - 1, 0, 1)
    return v[:, None] * (1 - s[:, None] * (1 - ramp))


def _shape_numbers(face: Face) -> dict[str, Array]:
    j, c = face.jitter, face.category
    strength = 1 + 0.14 * j["intensity"]
    neutral = _EXPRESSION_TABLE[0]
    expression = neutral[None] + (_EXPRESSION_TABLE[c["expression"]] - neutral[None]) * strength[:, None]
    curve, opening, width, raised, tilt, eye = jnp.moveaxis(expression, -1, 0)
    return {
        "head_width": 0.53 + 0.045 * j["head_width"],
        "head_height": 0.61 + 0.035 * j["head_height"],
        "jaw": 0.5 + 0.5 * j["jaw"],
        "volume": 0.5 + 0.5 * j["volume"],
        "parting": j["parting"],
        "brow_raise": raised + 0.15 * j["brow_raise"],
        "brow_tilt": tilt,
        "brow_thickness": 0.032 + 0.010 * j["brow_thickness"],
        "eye_open": eye,
        "eye_size": 1.0 + 0.09 * j["eye_size"],
        "eye_gap": 0.215 + 0.018 * j["eye_gap"],
        "nose": 1.0 + 0.25 * j["nose"],
        "mouth_width": 0.20 * (1 + width) + 0.02 * j["mouth_width"],
        "curve": curve,
        "opening": opening,
        **{name: c[name].astype(jnp.float32) for name in ("beard", "mustache", "glasses")},
        **{s: (c["hair_style"] == i).astype(jnp.float32) for i, s in enumerate(HAIR_STYLES)},
    }


def _colour_numbers(face: Face) -> dict[str, Array]:
    j, c = face.jitter, face.category
    tone = (0.5 + 0.5 * j["skin"])[:, None]
    light, dark = jnp.asarray([[1.0, 0.85, 0.73]]), jnp.asarray([[0.47, 0.30, 0.21]])
    skin = dark + (light - dark) * tone + 0.02 * j["skin_hue"][:, None] * jnp.asarray([[1.0, 0.0, -1.0]])
    skin = jnp.clip(skin, 0, 1)
    hair = jnp.clip(_HAIR_TABLE[c["hair_colour"]] * (1 + 0.12 * j["hair_light"][:, None]), 0, 1)
    natural = skin * jnp.asarray([[0.84, 0.62, 0.60]])
    painted = _hsv(0.955 + 0.035 * j["lip_hue"], jnp.full_like(j["lip_hue"], 0.92), 0.83 + 0.05 * j["lip_hue"])
    lips = jnp.where(c["lipstick"][:, None] == 1, painted, natural)
    clothes = _hsv(0.5 + 0.5 * j["clothes"], 0.55 + 0.0 * j["clothes"], 0.62 + 0.25 * j["clothes_light"])
    background = _hsv(0.5 + 0.5 * j["background"], 0.20 + 0.0 * j["background"], 0.93 + 0.0 * j["background"])
    colours = {"skin": skin, "hair": hair, "iris": _IRIS_TABLE[c["eye_colour"]], "lips": lips, "clothes": clothes,
               "background": background}  # fmt: skip
    return {**colours, "makeup": c["makeup"].astype(jnp.float32)}


def numbers(face: Face) -> dict[str, Array]:
    """What is drawn: lengths in half image widths, shares, and RGB in [0, 1]; [B] or [B, 3] each."""
    return {**_shape_numbers(face), **_colour_numbers(face)}


def vectors(face: Face) -> tuple[Array, Array]:
    """(shape, colour): the drawn numbers as two matrices [B, n] of roughly zero mean and unit spread, for the latent w."""
    shape, colour = _shape_numbers(face), _colour_numbers(face)
    middle = {"head_width": (0.53, 0.03), "head_height": (0.61, 0.02), "jaw": (0.5, 0.3), "volume": (0.5, 0.3),
              "parting": (0.0, 0.6), "brow_raise": (0.2, 0.6), "brow_thickness": (0.032, 0.006),
              "eye_open": (0.83, 0.2), "eye_size": (1.0, 0.05), "eye_gap": (0.215, 0.01), "nose": (1.0, 0.15),
              "mouth_width": (0.2, 0.05), "curve": (0.0, 0.65), "opening": (0.3, 0.35), "brow_tilt": (0.0, 0.7),
              "makeup": (0.3, 0.45)}  # fmt: skip
    middle |= {name: (0.3, 0.45) for name in ("beard", "mustache", "glasses")}
    middle |= {name: (0.14, 0.35) for name in HAIR_STYLES}

    def matrix(values: dict[str, Array]) -> Array:
        parts = []
        for name, value in values.items():
            centre, spread = middle.get(name, (0.5, 0.3))
            parts.append(((value - centre) / spread).reshape(value.shape[0], -1))
        return jnp.concatenate(parts, axis=-1)

    return matrix(shape), matrix(colour)
