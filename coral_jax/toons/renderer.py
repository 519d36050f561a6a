"""Draws toon faces: every part a signed distance turned into anti-aliased coverage, composited front to back."""

import functools

import jax
import jax.numpy as jnp
from jax import Array

from coral_jax.toons.faces import Face, numbers

SIZE = 64  # the domain's image size
_OVERSAMPLING = 2  # outlines are thinner than a pixel: draw finer, then average
PARTS = ("background", "clothes", "skin", "hair", "brows", "eyes", "iris", "nose", "mouth", "beard", "mustache",
         "glasses")  # fmt: skip
_DARK = jnp.asarray([0.10, 0.08, 0.10])


def _ellipse(x: Array, y: Array, rx: Array, ry: Array) -> Array:
    """Approximate signed distance to an ellipse (exact on its outline to first order)."""
    k0 = jnp.sqrt((x / rx) ** 2 + (y / ry) ** 2 + 1e-9)
    k1 = jnp.sqrt((x / rx**2) ** 2 + (y / ry**2) ** 2 + 1e-9)
    return k0 * (k0 - 1) / k1


def _band(u: Array, offset: Array, half: Array, width: Array) -> Array:
    """Signed distance to |offset| < half sqrt(1 - u^2), a lens along u in [-1, 1] whose half length is `width`."""
    root = jnp.sqrt(jnp.clip(1 - u * u, 0, None))
    slope = half * jnp.clip(u, -1, 1) / (jnp.maximum(root, 0.2) * width)
    inside = (jnp.abs(offset) - half * root) / jnp.sqrt(1 + slope * slope)
    return jnp.maximum(inside, (jnp.abs(u) - 1) * width)


class _Canvas:
    """Collects layers from the front to the back; each shows what the layers in front of it let through."""

    def __init__(self, shape: tuple[int, ...], pixel: float) -> None:
        self.shape_ = shape
        self.pixel = pixel
        self.alphas, self.shades, self.colours, self.part_numbers = [], [], [], []

    def cover(self, distance: Array) -> Array:
        return jnp.clip(0.5 - distance / self.pixel, 0, 1)

    def paint(self, alpha: Array, colour: Array, part: str, shade: Array | float = 1.0) -> None:
        """Paint `colour` [B, 3] or [3] with opacity `alpha` [B, h, w], its brightness varied by `shade`."""
        self.alphas.append(alpha)
        self.shades.append(jnp.broadcast_to(shade, self.shape_))
        self.colours.append(jnp.broadcast_to(colour, (self.shape_[0], 3)))
        self.part_numbers.append(PARTS.index(part))

    def shape(self, distance: Array, colour: Array, part: str, outline: float, shade: Array | float = 1.0) -> None:
        """A filled shape with a darker outline of its own colour outside of it."""
        self.paint(self.cover(distance), colour, part, shade)
        self.paint(self.cover(distance - outline), colour * 0.55, part)

    def composite(self) -> tuple[Array, Array]:
        """RGB [B, h, w, 3] in [0, 1] and the share of each part [B, h, w, P]."""

        def behind(left: Array, alpha: Array) -> tuple[Array, Array]:
            seen = left * alpha
            return left - seen, seen

        # A scan keeps XLA from fusing (and so recomputing) the whole stack of layers into each output channel.
        _, seen = jax.lax.scan(behind, jnp.ones(self.shape_), jnp.stack(self.alphas))
        rgb = jnp.einsum("lbhw,lbc->bhwc", seen * jnp.stack(self.shades), jnp.stack(self.colours))
        return rgb, jnp.einsum("lbhw,lp->bhwp", seen, jax.nn.one_hot(jnp.asarray(self.part_numbers), len(PARTS)))


def _head_distance(x: Array, y: Array, n: dict[str, Array], grow: Array | float = 0.0) -> Array:
    """An egg: narrower towards the chin by `jaw`."""
    taper = 1 - (0.10 + 0.16 * n["jaw"]) * jnp.clip(y / n["head_height"], 0, 1) ** 2
    return _ellipse(x, y, n["head_width"] * taper + grow, n["head_height"] + grow)


def _hair(x: Array, y: Array, n: dict[str, Array]) -> tuple[Array, Array, Array, Array]:
    """Signed distances to the hair in front of the head and behind it, its shade, and the stubble beside a mohawk."""
    far = jnp.full_like(x + y + n["volume"], 1.0)
    angle = jnp.arctan2(x, -(y + 0.10))
    bumps = 0.030 * jnp.abs(jnp.sin(7.5 * angle))
    small_bumps = 0.014 * jnp.abs(jnp.sin(17 * angle))
    curly = n["short_curly"] + n["long_curly"]
    volume = 0.035 + 0.05 * n["volume"] + 0.045 * curly
    side = x / n["head_width"]
    line = -0.33 + 0.42 * side**4 + 0.07 * n["parting"] * side - 0.05 * (1 - side**2)
    line = line + curly * (0.025 * jnp.sin(22 * x) + 0.03)
    cap = _head_distance(x, y + 0.02, n, volume) - curly * bumps
    front = jnp.maximum(cap, y - line)

    long_edge = 0.030 * jnp.sin(17 * y) * n["long_curly"]
    half = n["head_width"] + volume + 0.11 * jnp.clip(y + 0.1, 0, 1) + long_edge
    curtain = jnp.maximum(jnp.maximum(jnp.abs(x) - half, y - 0.80 - 0.03 * jnp.cos(9 * x)), -0.1 - y)
    behind_long = jnp.minimum(curtain, cap)
    ball = jnp.sqrt(x * x + (y + 0.22) ** 2 + 1e-9) - (0.66 + 0.08 * n["volume"]) - small_bumps
    afro_front = jnp.maximum(ball, y - (line + 0.05))

    fan = jnp.arctan2(x - 0.03 * n["parting"], 0.05 - y)
    reach = jnp.sqrt((x - 0.03 * n["parting"]) ** 2 + (y - 0.05) ** 2 + 1e-9)
    spikes = 0.89 + 0.05 * n["volume"] - 0.75 * fan**2 - 0.055 * jnp.abs(jnp.sin(15 * fan))
    crest = jnp.maximum(jnp.maximum(reach - spikes, (jnp.abs(fan) - 0.36) * reach), y + 0.33 + 0.03 * jnp.cos(12 * x))

    haired = 1 - n["bald"] - n["mohawk"]
    plain = haired - n["afro"]
    d_front = n["bald"] * far + n["mohawk"] * crest + n["afro"] * afro_front + plain * front
    lengthy = n["long"] + n["long_curly"]
    d_back = (n["bald"] + n["mohawk"]) * far + n["afro"] * ball + lengthy * behind_long
    d_back = d_back + (n["short"] + n["short_curly"]) * jnp.maximum(cap, y + 0.02)
    curls = 0.13 * jnp.sin(24 * x) * jnp.sin(24 * y) * (curly + 0.8 * n["afro"])
    strands = 0.07 * jnp.sin(34 * x + 6 * y) * (1 - curly - n["afro"])
    shade = 1 + curls + strands - 0.22 * jnp.clip(y + 0.35, 0, 1)
    stubble = jnp.maximum(_head_distance(x, y, n), y - line)
    return d_front, d_back, shade, jnp.where(n["mohawk"] > 0.5, stubble, far)


def _draw_eyes(c: _Canvas, x: Array, y: Array, n: dict[str, Array]) -> None:
    ax = jnp.abs(x) - n["eye_gap"]  # both eyes at once
    ey = y + 0.02
    rx, ry = 0.140 * n["eye_size"], 0.118 * n["eye_size"] * n["eye_open"]
    ball = _ellipse(ax, ey, rx, ry)
    lens = _ellipse(ax, ey, 0.205 + 0 * rx, 0.185 + 0 * rx)
    frame = jnp.maximum(jnp.abs(lens) - 0.017, -1.0)
    bridge = jnp.maximum(jnp.abs(y + 0.05) - 0.014, jnp.abs(x) - (n["eye_gap"] - 0.19))
    temple = jnp.maximum(jnp.abs(y + 0.05) - 0.014, jnp.maximum(0.19 + n["eye_gap"] - jnp.abs(x),
                                                                 jnp.abs(x) - n["head_width"]))  # fmt: skip
    glasses = jnp.minimum(jnp.minimum(frame, bridge), temple)
    c.paint(c.cover(glasses) * n["glasses"], jnp.asarray([0.13, 0.13, 0.17]), "glasses")
    glint = jnp.maximum(jnp.abs(ax + ey + 0.13) - 0.025, lens)
    c.paint(0.35 * c.cover(glint) * n["glasses"], jnp.ones(3), "glasses")

    spark = jnp.sqrt((x - jnp.sign(x) * n["eye_gap"] + 0.030) ** 2 + (ey + 0.032) ** 2 + 1e-9) - 0.021
    radius = jnp.sqrt(ax * ax + ey * ey + 1e-9)
    iris = 0.088 * n["eye_size"]
    inside = c.cover(ball)
    c.paint(inside * c.cover(spark), jnp.ones(3), "iris")
    c.paint(inside * c.cover(radius - 0.42 * iris), _DARK, "iris")
    glow = 0.78 + 0.45 * jnp.clip((ey + iris) / (2 * iris), 0, 1)
    c.paint(inside * c.cover(radius - iris), n["iris_rgb"], "iris", glow)
    c.paint(inside * c.cover(radius - iris - 0.012), n["iris_rgb"] * 0.35, "iris")
    c.paint(inside, jnp.asarray([0.985, 0.985, 0.97]), "eyes")
    lash = _ellipse(ax, ey + 0.012, rx + 0.014, ry + 0.012)
    c.paint(c.cover(lash), _DARK, "eyes")
    shadow = _ellipse(ax, ey + 0.055, rx + 0.035, ry + 0.055)
    c.paint(0.62 * c.cover(shadow) * n["makeup"] * jnp.clip(-ey * 14, 0, 1), jnp.asarray([0.62, 0.25, 0.72]), "skin")


def _draw_brows(c: _Canvas, x: Array, y: Array, n: dict[str, Array]) -> None:
    u = (jnp.abs(x) - n["eye_gap"] - 0.005) / 0.155  # -1 at the inner end
    centre = -0.225 - 0.075 * n["brow_raise"] + 0.060 * n["brow_tilt"] * u + 0.035 * u * u
    brow = _band(u, y - centre, n["brow_thickness"], 0.155)
    c.paint(c.cover(brow), n["hair_rgb"] * 0.62, "brows")


def _draw_mouth(c: _Canvas, x: Array, y: Array, n: dict[str, Array]) -> None:
    width = n["mouth_width"]
    u = x / width
    middle = 0.375 + 0.085 * n["curve"] * (0.55 - u * u)
    opening = 0.135 * n["opening"]
    gap = _band(u, y - middle, opening, width)
    lip = _band(u, y - middle, opening + 0.042, width + 0.02)
    inside = c.cover(gap) * jnp.clip(n["opening"] * 30, 0, 1)
    teeth = y - middle + opening * jnp.sqrt(jnp.clip(1 - u * u, 0, 1)) - 0.95 * opening * jnp.clip(n["curve"], 0, 1)
    c.paint(inside * c.cover(teeth) * jnp.clip(4 * n["curve"], 0, 1), jnp.ones(3) * 0.98, "mouth")
    c.paint(inside, jnp.asarray([0.36, 0.07, 0.10]), "mouth")
    seam = c.cover(_band(u, y - middle, jnp.full_like(width, 0.009), width)) * (1 - jnp.clip(n["opening"] * 30, 0, 1))
    c.paint(seam, n["lips_rgb"] * 0.45, "mouth")
    c.paint(c.cover(lip), n["lips_rgb"], "mouth", 1.05 - 0.8 * jnp.clip(middle - y, -0.1, 0.1))


def _draw_nose_and_mustache(c: _Canvas, x: Array, y: Array, n: dict[str, Array]) -> None:
    u = x / 0.235
    mustache = _band(u, y - (0.268 + 0.075 * u * u), jnp.full_like(n["nose"], 0.050), 0.235)
    tip = _ellipse(x, y - 0.165, 0.062 * n["nose"], 0.048 * n["nose"])
    c.paint(c.cover(tip), n["skin_rgb"] * jnp.asarray([[0.93, 0.80, 0.76]]), "nose", 1.02 - 1.6 * jnp.clip(y - 0.165, 0, 1))
    c.paint(c.cover(mustache) * n["mustache"], n["hair_rgb"] * 0.86, "mustache", 1 + 0.10 * jnp.sin(60 * x))


def _draw_head(c: _Canvas, x: Array, y: Array, n: dict[str, Array]) -> None:
    cheek = _ellipse(jnp.abs(x) - 0.30, y - 0.19, 0.115, 0.085)
    c.paint(0.55 * n["makeup"] * jnp.clip(0.5 - cheek / 0.09, 0, 1), jnp.asarray([0.95, 0.36, 0.46]), "skin")
    side = x / n["head_width"]
    face_line = 0.50 - 0.55 * side**4
    beard = jnp.maximum(_head_distance(x, y, n, 0.028) - 0.012 * jnp.abs(jnp.sin(26 * x)), face_line - 0.165 - y)
    c.shape(jnp.where(n["beard"] > 0.5, beard, 1.0), n["hair_rgb"] * 0.86, "beard", 0.010, 1 + 0.09 * jnp.sin(44 * x))
    head = _head_distance(x, y, n)
    light = 1.03 - 0.16 * jnp.clip(1 + head / 0.16, 0, 1) ** 2 - 0.05 * y
    c.shape(head, n["skin_rgb"], "skin", 0.014, light)


def _draw_behind(c: _Canvas, x: Array, y: Array, n: dict[str, Array], back: Array, shade: Array) -> None:
    ear = _ellipse(jnp.abs(x) - n["head_width"] - 0.015, y - 0.06, 0.065, 0.105)
    c.shape(ear, n["skin_rgb"] * 0.92, "skin", 0.012)
    top = 0.80 + 0.45 * jnp.clip(jnp.abs(x) - 0.16, 0, 1) ** 2
    body = jnp.maximum(top - y, jnp.abs(x) - 0.80)
    collar = jnp.maximum(body, jnp.abs(jnp.sqrt(x * x + (y - 0.74) ** 2 + 1e-9) - 0.235) - 0.030)
    c.paint(c.cover(collar), n["clothes_rgb"] * 0.72, "clothes")
    neck = jnp.maximum(jnp.abs(x) - 0.185, jnp.sqrt(x * x + (y - 0.74) ** 2 + 1e-9) - 0.235)
    c.paint(c.cover(jnp.maximum(neck, 0.3 - y)), n["skin_rgb"] * 0.80, "skin")
    c.shape(body, n["clothes_rgb"], "clothes", 0.014, 1.06 - 0.25 * jnp.clip(jnp.abs(x), 0, 1))
    c.shape(back, n["hair_rgb"] * 0.80, "hair", 0.014, shade)
    glow = 1.05 - 0.20 * jnp.clip(jnp.sqrt(x * x + y * y + 1e-9) - 0.25, 0, 1.2)
    c.paint(jnp.ones(c.shape_), n["background_rgb"], "background", glow)


def _spread(values: dict[str, Array]) -> dict[str, Array]:
    """Numbers [B] get two axes to meet the pixel grid; colours [B, 3] are renamed and stay as they are."""
    return {k if v.ndim == 1 else f"{k}_rgb": v[:, None, None] if v.ndim == 1 else v for k, v in values.items()}


def _draw(n: dict[str, Array], size: int) -> tuple[Array, Array]:
    n = _spread(n)
    axis = (jnp.arange(size) + 0.5) * (2 / size) - 1
    canvas = _Canvas((n["jaw"].shape[0], size, size), 2 / size)
    x = jnp.broadcast_to(axis[None, None, :], canvas.shape_)
    y = jnp.broadcast_to(axis[None, :, None] - 0.06, canvas.shape_)
    front, back, shade, stubble = _hair(x, y, n)
    _draw_brows(canvas, x, y, n)  # brows show through a fringe, as cartoonists draw them
    canvas.shape(front, n["hair_rgb"], "hair", 0.012, shade)
    _draw_eyes(canvas, x, y, n)
    _draw_mouth(canvas, x, y, n)
    _draw_nose_and_mustache(canvas, x, y, n)
    canvas.paint(0.30 * canvas.cover(stubble), n["hair_rgb"], "skin")
    _draw_head(canvas, x, y, n)
    _draw_behind(canvas, x, y, n, back, shade)
    rgb, parts = canvas.composite()
    return jnp.clip(rgb, 0, 1) * 2 - 1, parts


@functools.partial(jax.jit, static_argnames="size")
def render(face: Face, size: int = SIZE) -> tuple[Array, Array]:
    """Draw faces: images [B, size, size, 3] in [-1, 1], and each part's share of every pixel [B, size, size, P]."""
    return render_numbers(numbers(face), size)


@functools.partial(jax.jit, static_argnames="size")
def render_numbers(drawn: dict[str, Array], size: int = SIZE) -> tuple[Array, Array]:
    """`render` of what `faces.numbers` gives, or of numbers that no face has.

    One face at a time, so that its layers stay in the processor's cache: twice as fast on a CPU as all together.
    """

    def one(n: dict[str, Array]) -> tuple[Array, Array]:
        planes = _draw(jax.tree.map(lambda leaf: leaf[None], n), size * _OVERSAMPLING)
        cells = (size, _OVERSAMPLING, size, _OVERSAMPLING, -1)
        image, parts = (plane[0].reshape(cells).mean((1, 3)) for plane in planes)
        return image, parts

    return jax.lax.map(one, drawn)
