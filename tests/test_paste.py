"""Edits pasted back: inside the masks as the generator changed it, and not a bit outside them."""

import tracemalloc

import numpy as np
import pytest
from PIL import Image

from coral_jax.photos.align import Square, aligned
from coral_jax.photos.paste import change_of, inside_of, paste


@pytest.fixture(scope="module")
def turned():
    """A photograph of 12 million pixels with a face off its centre, turned by 20 degrees."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 255, (30, 40, 3), np.uint8)
    picture = np.asarray(Image.fromarray(small).resize((4000, 3000), Image.Resampling.BICUBIC))
    angle = np.deg2rad(20)
    across = 1400 * np.array([np.cos(angle), np.sin(angle)])
    return picture, Square(np.array([2300.0, 900.0]), across, across[::-1] * (-1, 1))


def test_nothing_changes_outside_the_mask(turned):
    picture, square = turned
    before = picture.copy()
    mask = np.zeros((16, 16), np.float32)
    mask[9:12, 5:11] = 1.0
    inside = inside_of([mask, np.zeros((4, 4), np.float32)], 256)
    tracemalloc.start()
    pasted, where = paste(picture, square, np.full((256, 256, 3), 80.0, np.float32), inside)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(picture, before)
    np.testing.assert_array_equal(pasted[where == 0], picture[where == 0])
    changed = (pasted != picture).any(axis=-1)
    assert 0.5 < changed.sum() / (1400**2 * 18 / 256) < 1.5  # as large as the mask
    rows, columns = np.nonzero(where)
    shares = (np.stack([columns, rows], axis=1) - square.corner) @ np.linalg.inv(np.stack([square.across, square.down]))
    # The mask, and half a value of it beyond, over which it is interpolated.
    assert (shares.min(axis=0) > np.array([4.5, 8.5]) / 16 - 0.01).all()
    assert (shares.max(axis=0) < np.array([11.5, 12.5]) / 16 + 0.01).all()
    assert peak < 500e6


def test_a_mask_of_zero_changes_nothing(turned):
    picture, square = turned
    inside = inside_of([np.zeros((8, 8), np.float32)], 64)
    pasted, where = paste(picture, square, np.full((64, 64, 3), 99.0, np.float32), inside)
    assert not where.any()
    np.testing.assert_array_equal(pasted, picture)


def test_the_border_of_masks_is_feathered_inside_them():
    mask = np.zeros((8, 8), np.float32)
    mask[2:6, 2:6] = 1.0
    inside = inside_of([mask], 256)
    assert inside[128, 128] == 1 and inside[40, 128] == 0
    edge = inside[:128, 128]
    ramp = edge[(edge > 0) & (edge < 1)]
    assert len(ramp) >= 4 and (np.diff(ramp) > 0).all()
    whole = inside_of(None, 96)
    assert whole[48, 48] == 1 and 0 < whole[0, 48] <= 0.5 and whole.min() > 0


def test_a_change_keeps_what_the_inversion_missed():
    """A mole that the generator did not draw stays, where the edit changes little."""
    rng = np.random.default_rng(0)
    inverted = np.full((96, 96, 3), 120, np.uint8)
    photo = inverted + rng.integers(0, 12, inverted.shape, np.uint8)
    photo[40:44, 40:44] = 20
    edited = inverted + np.uint8(10)
    np.testing.assert_allclose(change_of(photo, inverted, edited), 10, atol=0.5)


def test_where_much_changes_the_edited_face_takes_over():
    """A mouth that opens: the photograph's own lips, which the inversion has elsewhere, do not stay."""
    photo, inverted, edited = (np.full((192, 192, 3), 150, np.uint8) for _ in range(3))
    photo[90:96, 60:130], inverted[98:104, 60:130], edited[84:112, 60:130] = 60, 60, 20
    result = photo + change_of(photo, inverted, edited)
    alone = photo.astype(float) + edited - inverted.astype(float)
    inside = slice(88, 108), slice(70, 120)
    assert np.ptp(alone[inside]) > 80  # the double contour
    assert np.ptp(result[inside]) < 0.5 * np.ptp(alone[inside])
    assert np.abs(result[inside] - 20).mean() < 30


def test_photographs_come_out_as_they_were_read(turned):
    picture, square = turned
    crop = aligned(picture, square, 128)
    pasted, _ = paste(picture, square, change_of(crop, crop, crop), inside_of(None, 128))
    np.testing.assert_array_equal(pasted, picture)
