"""Figures: colours that can be checked, sizes, and which layers are marked."""

import io

import numpy as np
import pytest
from PIL import Image

from coral_jax import metrics
from coral_jax.figures import (
    LABEL,
    MARGIN,
    TILE,
    alpha_sheet,
    face_image,
    layer_colour,
    overlay,
    png,
    to_pixels,
    training_sheet,
)

RED, GREY = np.array([1.0, -1.0, -1.0]), np.zeros(3)
RESOLUTIONS = [4, 8, 8]


def faces(count, colour, size=16):
    return np.broadcast_to(np.asarray(colour, np.float32), (count, size, size, 3))


def layer_shares(resolutions, masks, *more):
    """The shares of layers with these masks."""
    return metrics.layer_shares(resolutions, [mask.mean() for mask in masks], *more)


def masks(count, values=(0.0, 1.0, 0.5)):
    """Masks whose left halves have the values of the layers."""
    made = []
    for resolution, value in zip(RESOLUTIONS, values, strict=True):
        mask = np.zeros((count, resolution, resolution), np.float32)
        mask[:, :, : resolution // 2] = value
        made.append(mask)
    return made


def test_a_wide_image_lies_in_the_middle_of_its_tile():
    tile = np.asarray(face_image(faces(1, RED)[0, 2:14], 32))
    assert tile.shape == (32, 32, 3) and (tile[4:28] == (255, 0, 0)).all()
    assert (tile[:4] == 255).all() and (tile[28:] == 255).all()


def test_pixels_are_clipped_and_rounded():
    image = np.array([[[-1.0, 0.0, 1.0], [-3.0, 3.0, 0.999]]])
    assert to_pixels(image).tolist() == [[[0, 128, 255], [0, 255, 255]]]


@pytest.mark.parametrize("array, mode", [(np.full((4, 6, 3), -1.0), "RGB"), (np.ones((4, 6)), "L")])
def test_a_png_keeps_size_and_values(array, mode):
    image = Image.open(io.BytesIO(png(array)))
    assert image.size == (6, 4) and image.mode == mode
    assert image.getextrema() == (((0, 0),) * 3 if mode == "RGB" else (255, 255))


def test_shares_mark_layers_with_area_and_change():
    shares = layer_shares([4, 8, 8, 16, 16], [np.full((2, 4, 4), a) for a in (0.5, 0.5, 0.0, 0.001, 0.2)], [1, 0.05, 9, 9, 1])
    assert [share.matters for share in shares] == [True, False, False, False, True]
    assert [round(share.area, 4) for share in shares] == [0.5, 0.5, 0.0, 0.001, 0.2]
    assert [share.layer for share in shares] == [1, 2, 3, 4, 5] and shares[3].resolution == 16


def test_no_layer_matters_where_nothing_is_edited():
    assert not any(share.matters for share in layer_shares(RESOLUTIONS, masks(1, (0, 0, 0)), [1, 1, 1]))
    assert not any(share.matters for share in layer_shares(RESOLUTIONS, masks(1), [0, 0, 0]))


def test_shares_have_the_numbers_of_their_layers():
    (share,) = layer_shares([16], [np.full((2, 16, 16), 0.5)], [1.0], [4])
    assert (share.layer, share.resolution, share.matters) == (4, 16, True)
    assert overlay(faces(1, RED)[0], [np.full((16, 16), 0.5)], [share]).size == (TILE, TILE)


def test_sheets_without_masks_have_no_row_or_column_for_them():
    tall = training_sheet("x", "y", faces(2, GREY), faces(2, RED), masks(2), layer_shares(RESOLUTIONS, masks(2), [1, 1, 1]))
    short = training_sheet("x", "y", faces(2, GREY), faces(2, RED), [], [])
    assert short.size[0] == tall.size[0] and 112 + 2 * TILE < short.size[1] < 112 + 3 * TILE
    drawn = {alpha: faces(2, RED) for alpha in (-1.0, 0.5, 1.0, 1.5)}
    wide = alpha_sheet("x", "y", ["a", "b"], faces(2, GREY), drawn, masks(2), layer_shares(RESOLUTIONS, masks(2), [1, 1, 1]))
    assert alpha_sheet("x", "y", ["a", "b"], faces(2, GREY), drawn, [], []).size == (wide.size[0] - TILE - 6, wide.size[1])


def test_colours_go_from_cold_to_warm():
    first, last = layer_colour(1, 9), layer_colour(9, 9)
    assert first[2] > first[0] and last[0] > last[2]
    assert len({tuple(layer_colour(layer, 13).round()) for layer in range(1, 14)}) == 13
    assert layer_colour(1, 1).shape == (3,)


def test_an_overlay_is_coloured_inside_the_mask_and_grey_outside():
    made = masks(1, (0.0, 1.0, 0.0))
    shares = layer_shares(RESOLUTIONS, made, [1, 1, 1])
    pixels = np.asarray(overlay(faces(1, RED)[0], [mask[0] for mask in made], shares), int)
    assert pixels.shape == (TILE, TILE, 3)
    inside, outside = pixels[TILE // 2, 20], pixels[TILE // 2, -20]
    assert np.ptp(outside) == 0
    nearest = min(range(1, 4), key=lambda layer: np.abs(inside - layer_colour(layer, 3)).sum())
    assert nearest == 2 and np.ptp(inside) > 50


def test_the_training_sheet_shows_every_face_in_its_row():
    made = masks(3)
    original, edited = faces(3, GREY), faces(3, RED)
    sheet = training_sheet("red", "a method", original, edited, made, layer_shares(RESOLUTIONS, made, [1, 1, 1]))
    pixels = np.asarray(sheet)
    centres = MARGIN + LABEL + np.arange(3) * (TILE + 6) + TILE // 2
    grey = np.asarray(face_image(original[0]))[0, 0]
    rows = [112 + row * (TILE + 6) + TILE // 2 for row in range(3)]
    assert (pixels[rows[0], centres] == grey).all()
    assert (pixels[rows[1], centres] == (255, 0, 0)).all()
    assert sheet.size[0] >= MARGIN + LABEL + 3 * (TILE + 6)


@pytest.mark.parametrize("count, layers", [(1, 13), (8, 13), (8, 9)])
def test_everything_fits_on_the_training_sheet(count, layers):
    made = [np.ones((count, 4, 4), np.float32)] * layers
    shares = layer_shares([4] * layers, made, [1.0] * layers)
    sheet = np.asarray(training_sheet("x", "y", faces(count, RED), faces(count, RED), made, shares))
    edge = np.concatenate([sheet[:, :8].ravel(), sheet[:, -8:].ravel(), sheet[:8].ravel(), sheet[-8:].ravel()])
    assert (edge == 255).all()
    last = layer_colour(layers, layers).astype(int)
    assert (np.abs(sheet.astype(int) - last).max(axis=-1) <= 1).any()  # the frame of the last layer


def test_the_alpha_sheet_has_a_column_per_alpha_and_the_original_once():
    made = masks(2)
    shares = layer_shares(RESOLUTIONS, made, [1, 1, 1])
    drawn = {-1.0: faces(2, -RED), 0.0: faces(2, GREY), 1.0: faces(2, RED)}
    names = ["seed 0", "seed 1"]
    three = alpha_sheet("red", "m", names, faces(2, GREY), drawn, made, shares)
    del drawn[0.0]
    assert alpha_sheet("red", "m", names, faces(2, GREY), drawn, made, shares).size == three.size
    pixels, middle = np.asarray(three), 148 + TILE // 2
    found = [pixels[middle, MARGIN + LABEL + column * (TILE + 6) + TILE // 2].tolist() for column in range(3)]
    assert found == [[0, 255, 255], [128, 128, 128], [255, 0, 0]]
