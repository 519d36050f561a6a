"""FFHQ's alignment: where in a photograph the square lies that a face generator knows, cut out and mapped back.

As `align_face` of FFHQ and e4e.  Points are (x, y) in pixels, a pixel's middle at whole numbers.
"""

from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

# Of MediaPipe's 478 points: corners of the eyes, left in the picture and right, and of the mouth.
_LEFT_EYE, _RIGHT_EYE, _MOUTH = (33, 133), (362, 263), (61, 291)
_WIDE = 16  # px: deviation of a blur that half the picture's pixels show as well


class Square(NamedTuple):
    """A turned square of a photograph: its corner [2] that becomes the top left one, and its sides [2] across and down."""

    corner: np.ndarray
    across: np.ndarray
    down: np.ndarray

    @property
    def side(self) -> float:
        """Length of a side in pixels."""
        return float(np.hypot(*self.across))

    @property
    def corners(self) -> np.ndarray:
        """Corners [4, 2]: top left, bottom left, bottom right, top right of the aligned picture."""
        return self.corner + np.stack([0 * self.down, self.down, self.across + self.down, self.across])

    def near(self, other: "Square") -> bool:
        """Whether this is about the other square: no corner is off by more than a tenth of its side."""
        return float(np.hypot(*(self.corners - other.corners).T).max()) <= 0.1 * other.side

    def moved(self, offset: tuple[float, float], times: float = 1.0) -> "Square":
        """The square in a picture that starts at `offset` of this one and is then `times` as large."""
        return Square((self.corner - np.asarray(offset)) * times, self.across * times, self.down * times)


def square_of(left_eye: np.ndarray, right_eye: np.ndarray, mouth: np.ndarray) -> Square:
    """FFHQ's square of a face with these middles of the eyes (left and right in the picture) and of the mouth, [2] each."""
    eyes = (left_eye + right_eye) / 2
    between, down = right_eye - left_eye, mouth - eyes
    x = between - down[::-1] * (-1, 1)
    x *= max(2.0 * np.hypot(*between), 1.8 * np.hypot(*down)) / np.hypot(*x)
    y = x[::-1] * (-1, 1)
    return Square(eyes + 0.1 * down - x - y, 2 * x, 2 * y)


def whole(size: int) -> Square:
    """All of a square picture."""
    return Square(np.array([-0.5, -0.5]), np.array([float(size), 0.0]), np.array([0.0, float(size)]))


def square_of_points(points: np.ndarray) -> Square:
    """FFHQ's square of a face with MediaPipe's landmarks, [478, 2] in pixels."""
    middles = (points[list(pair)].mean(axis=0).astype(np.float64) for pair in (_LEFT_EYE, _RIGHT_EYE, _MOUTH))
    return square_of(*middles)


def aligned(picture: np.ndarray, square: Square, size: int) -> np.ndarray:
    """The square of a picture, uint8 [H, W, 3], at size x size: uint8 [size, size, 3].

    What lies beyond the picture's border is its blurred reflection.  All of a picture is scaled, and no border is blurred.
    """
    image = Image.fromarray(picture)
    if np.array_equal(square.corners, whole(image.width).corners) and image.width == image.height:
        return np.asarray(image.resize((size, size), Image.Resampling.LANCZOS))
    shrink = int(square.side / size / 2)
    if shrink > 1:
        image = image.resize((round(image.width / shrink), round(image.height / shrink)), Image.Resampling.LANCZOS)
        square = square.moved((0, 0), 1 / shrink)
    border = max(round(square.side * 0.1), 3)
    low, high = np.floor(square.corners.min(axis=0)).astype(int), np.ceil(square.corners.max(axis=0)).astype(int)
    box = (*np.maximum(low - border, 0), *np.minimum(high + border, image.size))
    image, square = image.crop(box), square.moved(box[:2])
    low, high = low - box[:2], high - box[:2]
    pad = np.concatenate([np.maximum(border - low, 0), np.maximum(high - image.size + border, 0)])  # left, top, right, bottom
    if pad.max() > border - 4:
        pad = np.maximum(pad, round(square.side * 0.3))
        image, square = _padded(image, pad, 0.02 * square.side), square.moved(-pad[:2])
    corners = tuple((square.corners + 0.5).ravel())
    return np.asarray(image.transform((size, size), Image.Transform.QUAD, corners, Image.Resampling.BILINEAR))


def _padded(image: Image.Image, pad: np.ndarray, blur: float) -> Image.Image:
    """The image with `pad` pixels (left, top, right, bottom) of its reflection, which fade into its median colour."""
    left, top, right, bottom = (int(p) for p in pad)
    height, width = image.height + top + bottom, image.width + left + right
    y, x = np.ogrid[:height, :width]
    across, down = np.minimum(x / left, (width - 1 - x) / right), np.minimum(y / top, (height - 1 - y) / bottom)
    beyond = np.maximum(1 - across, 1 - down).astype(np.float32)  # 0 at the picture's border, 1 at the padding's end
    soft, flat = np.clip(beyond * 3 + 1, 0, 1), np.clip(beyond, 0, 1)
    channels = []
    for channel in image.split():  # one by one: a close face in a large photograph would take gigabytes
        pixels = np.pad(np.asarray(channel, np.float32), ((top, bottom), (left, right)), "reflect")
        pixels += (_blurred(pixels, blur) - pixels) * soft
        pixels += (np.median(pixels) - pixels) * flat
        channels.append(np.uint8(np.clip(np.rint(pixels), 0, 255)))
    return Image.fromarray(np.stack(channels, axis=-1))


def _blurred(pixels: np.ndarray, deviation: float) -> np.ndarray:
    """A Gaussian blur of pixels, float32 [H, W]; a wide one is made of a smaller picture, in a fraction of its time."""
    times = int(deviation / _WIDE)
    if times < 2:
        return gaussian_filter(pixels, deviation)
    height, width = pixels.shape
    size = round(width / times), round(height / times)
    small = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))
    small = gaussian_filter(small, [deviation * size[1] / height, deviation * size[0] / width])
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BILINEAR))


class Box(NamedTuple):
    """A part of a photograph: columns from left to right, rows from top to bottom, the ends not among them."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns, to index a picture with."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


def box_around(square: Square, width: int, height: int) -> Box:
    """The part of a width x height picture in which the square lies; ValueError where it lies outside."""
    low, high = np.floor(square.corners.min(axis=0)).astype(int), np.ceil(square.corners.max(axis=0)).astype(int) + 1
    (left, top), (right, bottom) = np.maximum(low, 0), np.minimum(high, (width, height))
    if left >= right or top >= bottom:
        raise ValueError("the face lies outside the photograph; give another picture")
    return Box(int(left), int(top), int(right), int(bottom))


def mapped_back(field: np.ndarray, square: Square, box: Box) -> np.ndarray:
    """A field [S, S] of the aligned picture where its pixels lie in the photograph: float32 [rows, columns] of the box.

    Zero outside the square.  Made smaller by means first where the photograph has fewer pixels, else interpolated.
    """
    image = Image.fromarray(np.asarray(field, np.float32))
    fewer = round(square.side)
    if fewer < image.width:
        image = image.resize((max(fewer, 1),) * 2, Image.Resampling.BOX)
    size = image.width
    # Photograph -> aligned picture, both measured from the upper left corner of the first pixel.
    inverse = np.linalg.inv(np.stack([square.across, square.down], axis=1)) * size
    shift = inverse @ (np.asarray(box[:2]) - (square.corner + 0.5))
    coefficients = (*inverse[0], shift[0], *inverse[1], shift[1])
    shape = box.right - box.left, box.bottom - box.top
    return np.asarray(image.transform(shape, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR))
