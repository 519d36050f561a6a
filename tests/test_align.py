"""FFHQ's alignment as e4e runs it, and fields of the aligned picture brought back to the photograph."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from coral_jax import weights
from coral_jax.photos.align import (
    Box,
    Square,
    _blurred,
    aligned,
    box_around,
    mapped_back,
    square_of,
    square_of_points,
)

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="module")
def golden():
    return weights.load_tensors(DATA / "ffhq_align.safetensors")[0]


@pytest.fixture(scope="module")
def picture():
    return np.asarray(Image.open(DATA / "align_input.png").convert("RGB"))


def square_of_dlib(points):
    """dlib's 68 landmarks, as the goldens have them."""
    points = points.astype(np.float64)
    return square_of(points[36:42].mean(axis=0), points[42:48].mean(axis=0), (points[48] + points[54]) / 2)


@pytest.mark.parametrize("case", range(4), ids=["upright", "turned", "past the border", "larger than the picture"])
def test_faces_are_aligned_as_ffhq_is(golden, picture, case):
    found = aligned(picture, square_of_dlib(golden[f"landmarks_{case}"]), 256)
    assert found.shape == (256, 256, 3) and found.dtype == np.uint8
    assert np.abs(found[::4, ::4].astype(int) - golden[f"aligned_{case}"]).max() <= 2


def test_a_wide_blur_is_made_of_a_smaller_picture():
    rng = np.random.default_rng(0)
    pixels = np.asarray(Image.fromarray(rng.uniform(0, 255, (8, 10)).astype(np.float32)).resize((500, 400)))
    narrow, wide = (_blurred(pixels, deviation) for deviation in (8.0, 50.0))
    np.testing.assert_array_equal(narrow, gaussian_filter(pixels, 8.0))
    np.testing.assert_allclose(wide, gaussian_filter(pixels, 50.0), atol=0.2)
    assert np.abs(wide - pixels).max() > 20


def test_mediapipes_points_give_the_square_of_eyes_and_mouth():
    points = np.full((478, 2), np.nan, np.float32)
    points[[33, 133, 362, 263, 61, 291]] = [[10, 50], [30, 50], [60, 52], [80, 48], [30, 100], [60, 104]]
    found = square_of_points(points)
    np.testing.assert_allclose(np.stack(found), np.stack(square_of(*np.array([[20.0, 50], [70, 50], [45, 102]]))))
    assert found.side == pytest.approx(2 * max(2.0 * 50, 1.8 * 52)) and found.down[0] == pytest.approx(0)


@pytest.mark.parametrize("case", [0, 1])
def test_what_is_aligned_goes_back_where_it_was(golden, picture, case):
    square = square_of_dlib(golden[f"landmarks_{case}"])
    box = box_around(square, picture.shape[1], picture.shape[0])
    crop = aligned(picture, square, 512)
    back = np.stack([mapped_back(crop[..., channel], square, box) for channel in range(3)], axis=-1)
    inside = mapped_back(np.ones((512, 512)), square, box) > 0.99
    assert inside.mean() > 0.4
    difference = np.abs(back - picture[box.slices])[inside]
    assert difference.mean() < 1.5  # of a shift by half a pixel, it is 3.6 and 4.0


def test_a_field_stays_inside_the_square():
    square = Square(np.array([10.0, 20.0]), np.array([30.0, 10.0]), np.array([-10.0, 30.0]))
    box = Box(0, 0, 80, 90)
    back = mapped_back(np.ones((7, 7)), square, box)
    assert back.shape == (90, 80) and back.max() == pytest.approx(1)
    rows, columns = np.nonzero(back)
    away = np.stack([columns, rows], axis=1) - square.corner
    shares = away @ np.linalg.inv(np.stack([square.across, square.down]))
    assert shares.min() > -0.1 and shares.max() < 1.1
    assert back.sum() == pytest.approx(1000, rel=0.03)  # the square's area


def test_a_square_outside_the_photograph_is_refused():
    with pytest.raises(ValueError, match="outside the photograph"):
        box_around(Square(np.array([200.0, 0.0]), np.array([10.0, 0.0]), np.array([0.0, 10.0])), 100, 100)
