"""An edit pasted back into the photograph: inside the masks, and not a bit outside them.

What goes back is what the edit changes in the inverted face, not the face: an inversion is never quite the person.  Where the
edit changes much (a mouth opens) and the inversion is off by some pixels there, the change alone would leave both contours,
the photograph's and the generator's: there the edited face takes over, with the photograph's colours.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image
from scipy.ndimage import distance_transform_edt, gaussian_filter

from coral_jax.photos.align import Square, box_around, mapped_back

FEATHER = 1 / 48  # share of the crop's side over which the paste fades in, inside the masks' border
MASKED = 0.1  # a pixel is inside where the largest mask is at least this
_COLOURS, _NEAR = 1 / 24, 1 / 100  # deviations of the blurs that tell colours from detail, and smooth what decides
# Of 255, from where on and from where on wholly: a change that asks for new contours, a misfit that shows as double ones.
_MUCH, _FAR = (10.0, 30.0), (4.0, 16.0)


def inside_of(masks: Sequence[np.ndarray] | None, size: int) -> np.ndarray:
    """Where an edit may paste, [size, size] from 0 to 1: inside the union of masks [h, h] of any size, feathered at its border.

    None is an edit without masks: the whole crop, feathered.
    """
    union = np.full((size, size), 1.0 if masks is None else 0.0, np.float32)
    for mask in masks or ():
        resized = Image.fromarray(np.asarray(mask, np.float32)).resize((size, size), Image.Resampling.BILINEAR)
        union = np.maximum(union, np.asarray(resized))
    distance = distance_transform_edt(np.pad(union >= MASKED, 1))[1:-1, 1:-1]
    return _smooth(distance / max(FEATHER * size, 1.0)).astype(np.float32)


def change_of(photo: np.ndarray, inverted: np.ndarray, edited: np.ndarray) -> np.ndarray:
    """What is added to the aligned photograph, [S, S, 3] of 255, from it, its inversion and that one's edit, uint8 each."""
    photo, inverted, edited = (image.astype(np.float32) for image in (photo, inverted, edited))
    size, change, misfit = len(photo), edited - inverted, photo - inverted
    detail = misfit - _blurred(misfit, _COLOURS * size)
    much, far = (_blurred(np.abs(field).max(axis=-1), _NEAR * size) for field in (change, detail))
    return change - (_between(much, _MUCH) * _between(far, _FAR))[..., None] * detail


def paste(picture: np.ndarray, square: Square, change: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The picture, uint8 [H, W, 3], with change [S, S, 3] of 255 added to the square of it, as much as inside [S, S] says.

    Also where that is, uint8 [H, W]: where it is 0, the picture is what it was, bit for bit.
    """
    height, width = picture.shape[:2]
    box = box_around(square, width, height)
    weight = mapped_back(inside, square, box)
    pasted, where = picture.copy(), np.zeros((height, width), np.uint8)
    touched = weight > 0
    where[box.slices] = np.where(touched, np.maximum(np.rint(255 * weight), 1), 0)
    for channel in range(3):
        target = pasted[box.slices][..., channel]
        value = target + mapped_back(change[..., channel] * inside, square, box)
        target[touched] = np.clip(np.rint(value), 0, 255).astype(np.uint8)[touched]
    return pasted, where


def _blurred(image: np.ndarray, deviation: float) -> np.ndarray:
    return gaussian_filter(image, [deviation, deviation, 0][: image.ndim], mode="nearest")


def _between(x: np.ndarray, bounds: tuple[float, float]) -> np.ndarray:
    """0 up to the lower bound, 1 from the upper one on, smooth between."""
    return _smooth((x - bounds[0]) / (bounds[1] - bounds[0]))


def _smooth(x: np.ndarray) -> np.ndarray:
    """0 up to 0, 1 from 1 on, without a corner between."""
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)
