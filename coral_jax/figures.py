"""Sheets: what an edit does to faces, where, and in which layers (like the paper's figures 1 and 6)."""

import io
import re
import textwrap
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from coral_jax.metrics import LayerShare

TILE, GAP, MARGIN, LABEL = 176, 6, 32, 108  # pixels
PHOTO_TILE = 320
INK, FAINT, RULE, PAPER = (28, 30, 36), (140, 144, 154), (224, 226, 232), (255, 255, 255)
# Layers, coarse to fine: cold to warm.
SCALE = ((92, 60, 214), (38, 116, 232), (0, 168, 168), (70, 178, 60), (242, 164, 0), (232, 66, 42))


def training_sheet(
    title: str,
    subtitle: str,
    original: np.ndarray,
    edited: np.ndarray,
    masks: Sequence[np.ndarray],
    shares: Sequence[LayerShare],
) -> Image.Image:
    """The figure of a finished training: faces [N, size, size, 3] before and after, masks over them; then each layer.

    Images are in [-1, 1]; masks one [N, h, w] per masked layer, none where the whole image is edited.  The layers' masks
    are those of the first face that is edited as much as the mean one.
    """
    count = len(original)
    width = max(2 * MARGIN + LABEL + count * (TILE + GAP) - GAP, 1100)
    rows = [("original", [face_image(face) for face in original]), ("edited", [face_image(face) for face in edited])]
    if masks:
        where = [overlay(face, [mask[i] for mask in masks], shares) for i, face in enumerate(edited)]
        rows.append(("where", where))
    tile = min(TILE, (width - 2 * MARGIN + GAP) // max(len(shares), 1) - GAP)
    faces_height = len(rows) * (TILE + GAP)
    height = 112 + faces_height + (86 + tile + 100 if masks else MARGIN)
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    _header(draw, title, subtitle)
    for row, (name, tiles) in enumerate(rows):
        top = 112 + row * (TILE + GAP)
        draw.text((MARGIN, top + TILE // 2), name, INK, _font(19), anchor="lm")
        for column, picture in enumerate(tiles):
            sheet.paste(picture, (MARGIN + LABEL + column * (TILE + GAP), top))
    if not masks:
        return sheet
    top = 112 + faces_height + 22
    draw.line((MARGIN, top, width - MARGIN, top), RULE, 1)
    covered = sum(mask.mean(axis=(1, 2)) for mask in masks)
    face = int(np.argmax(covered >= covered.mean()))
    draw.text((MARGIN, top + 30), f"Mask of each layer, face {face + 1}", INK, _font(19), anchor="lm")
    legend = "framed: layers that carry the edit; above, a region has the colour of its strongest layer"
    draw.text((width - MARGIN, top + 30), legend, FAINT, _font(15), anchor="rm")
    pitch = tile + GAP if tile == TILE else (width - 2 * MARGIN - tile) / (len(shares) - 1)
    for column, share in enumerate(shares):
        left = MARGIN + round(column * pitch)
        _layer(sheet, draw, (left, top + 58), tile, edited[face], masks[column][face], share, _last(shares))
    return sheet


def alpha_sheet(
    title: str,
    subtitle: str,
    names: Sequence[str],
    original: np.ndarray,
    edited: dict[float | tuple[float, ...], np.ndarray],
    masks: Sequence[np.ndarray],
    shares: Sequence[LayerShare],
) -> Image.Image:
    """One row per face: the original, the edit at every alpha (of several edits: alphas), and where it applies."""
    columns = [("original" if alpha == 0 else f"alpha {alpha_text(alpha)}", images) for alpha, images in edited.items()]
    if 0.0 not in edited:
        columns.insert(0, ("original", original))
    height = 148 + len(names) * (TILE + GAP) + MARGIN
    headings = [name for name, _ in columns] + ["where"] * bool(masks)
    width = max(2 * MARGIN + LABEL + len(headings) * (TILE + GAP) - GAP, 720)
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    _header(draw, title, subtitle)
    for column, name in enumerate(headings):
        draw.text((MARGIN + LABEL + column * (TILE + GAP) + TILE // 2, 128), name, INK, _font(17), anchor="mm")
    for row, name in enumerate(names):
        top = 148 + row * (TILE + GAP)
        draw.multiline_text((MARGIN, top + TILE // 2), textwrap.fill(name, 11), FAINT, _font(17), anchor="lm")
        tiles = [face_image(images[row]) for _, images in columns]
        if masks:
            tiles.append(overlay(original[row], [mask[row] for mask in masks], shares))
        for column, picture in enumerate(tiles):
            sheet.paste(picture, (MARGIN + LABEL + column * (TILE + GAP), top))
    return sheet


def photo_sheet(title: str, subtitle: str, rows: Sequence[dict[str, np.ndarray]], tile: int = PHOTO_TILE) -> Image.Image:
    """Rows of pictures, uint8 [H, W, 3] of any size, each under its name, all in squares of `tile` pixels."""
    columns = max(len(row) for row in rows)
    pitch = tile + GAP
    sheet = Image.new("RGB", (max(2 * MARGIN + columns * pitch - GAP, 720), 108 + len(rows) * (pitch + 34) + MARGIN), PAPER)
    draw = ImageDraw.Draw(sheet)
    _header(draw, title, subtitle)
    for line, row in enumerate(rows):
        top = 142 + line * (pitch + 34)
        for column, (name, picture) in enumerate(row.items()):
            left = MARGIN + column * pitch
            draw.text((left + tile // 2, top - 18), name, INK, _font(17), anchor="mm")
            sheet.paste(ImageOps.pad(Image.fromarray(picture), (tile, tile), Image.Resampling.LANCZOS, PAPER), (left, top))
    return sheet


def comparison_sheet(
    title: str,
    subtitle: str,
    original: np.ndarray,
    edited: dict[str, np.ndarray],
    where: dict[str, np.ndarray],
) -> Image.Image:
    """Methods side by side, like the paper's figure 5: a row a face, a column a method, masks under its edits.

    Tiles uint8 [N, t, t, 3]: of the originals, of each method's edits, and of its masks where it has any.
    """
    count, tile = original.shape[:2]
    rows, top = (2 if where else 1), 150
    width = max(2 * MARGIN + (len(edited) + 1) * (tile + GAP) - GAP, 480)
    height = top + count * (rows * (tile + GAP) + 2 * GAP) + MARGIN
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    _header(draw, title, subtitle)
    for column, (name, tiles) in enumerate([("original", original), *edited.items()]):
        left = MARGIN + column * (tile + GAP)
        label = textwrap.fill(re.sub("[_:;]", " ", name), 17)
        draw.multiline_text((left + tile // 2, top - 10), label, INK, _font(14), anchor="md", align="center")
        for face in range(count):
            corner = (left, top + face * (rows * (tile + GAP) + 2 * GAP))
            sheet.paste(Image.fromarray(tiles[face]), corner)
            if name in where:
                sheet.paste(Image.fromarray(where[name][face]), (left, corner[1] + tile + GAP))
    return sheet


def alpha_text(alpha: float | tuple[float, ...]) -> str:
    """An alpha, or the alphas of several edits, as files and sheets name them: "+1", "+1_-0.5"."""
    return "_".join(f"{one:+g}" for one in (alpha if isinstance(alpha, tuple) else (alpha,)))


def to_pixels(image: np.ndarray) -> np.ndarray:
    """Image [h, w, 3] in [-1, 1] -> uint8."""
    return np.round(np.clip((image + 1.0) * 127.5, 0, 255)).astype(np.uint8)


def png(image: np.ndarray | Image.Image) -> bytes:
    """An image ([h, w, 3] in [-1, 1]), a mask ([h, w] in [0, 1]) or a sheet, as the content of a PNG file."""
    if isinstance(image, np.ndarray):
        pixels = to_pixels(image) if image.ndim == 3 else np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
        image = Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def face_image(image: np.ndarray, tile: int = TILE) -> Image.Image:
    """Image [h, w, 3] in [-1, 1], at the size of a tile; in the middle of it where it is no square, as masks have it."""
    return ImageOps.pad(Image.fromarray(to_pixels(image)), (tile, tile), Image.Resampling.LANCZOS, PAPER)


def layer_colour(layer: int, count: int) -> np.ndarray:
    """Colour [3] of layer `layer` (from 1) of `count`: cold for coarse layers, warm for fine ones."""
    position = (layer - 1) / max(count - 1, 1) * (len(SCALE) - 1)
    low = min(int(position), len(SCALE) - 2)
    return np.asarray(SCALE[low]) + (position - low) * (np.asarray(SCALE[low + 1]) - np.asarray(SCALE[low]))


def overlay(image: np.ndarray, masks: Sequence[np.ndarray], shares: Sequence[LayerShare]) -> Image.Image:
    """A pale face [h, w, 3], coloured where layers that matter edit: hue says which most, strength how much."""
    strengths = np.stack(
        [_resize_mask(mask, TILE, Image.Resampling.BILINEAR) * share.matters
         for mask, share in zip(masks, shares, strict=True)]
    )  # fmt: skip
    colours = np.stack([layer_colour(share.layer, _last(shares)) for share in shares])
    # The layer that singles out a pixel most gives its hue: mixing all of them would make every pixel brown.
    single = strengths * np.array([s.delta_norm / (s.area + 0.02) for s in shares])[:, None, None]
    single = (single / max(single.max(), 1e-6)) ** 4
    colour = np.tensordot(single, colours, axes=(0, 0)) / np.maximum(single.sum(axis=0), 1e-12)[..., None]
    return _tint(_pale(face_image(image)), colour, strengths.max(axis=0))


def layer_tile(image: np.ndarray, mask: np.ndarray, share: LayerShare, count: int, tile: int = TILE) -> Image.Image:
    """One layer's mask [h, w] over a pale face [H, W, 3]: in the layer's colour if it matters, else grey."""
    shade = layer_colour(share.layer, count) if share.matters else np.asarray(FAINT)
    strength = _resize_mask(mask, tile, Image.Resampling.NEAREST)
    return _tint(_pale(face_image(image, tile)), np.broadcast_to(shade, (tile, tile, 3)), strength)


def _layer(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, corner: tuple[int, int], tile: int, image: np.ndarray,
    mask: np.ndarray, share: LayerShare, count: int,
) -> None:  # fmt: skip
    """One layer's mask over the face, with number, resolution and share of area below."""
    left, top = corner
    colour = layer_colour(share.layer, count)
    ink = tuple(int(c) for c in colour) if share.matters else FAINT
    sheet.paste(layer_tile(image, mask, share, count, tile), corner)
    frame = (left, top, left + tile - 1, top + tile - 1)
    draw.rectangle(frame, outline=ink if share.matters else RULE, width=4 if share.matters else 1)
    middle, below = left + tile // 2, top + tile + 22
    number = str(share.layer)
    if share.matters:
        draw.ellipse((middle - 15, below - 15, middle + 15, below + 15), fill=ink)
    draw.text((middle, below), number, PAPER if share.matters else FAINT, _font(18), anchor="mm")
    size = f"{share.resolution} x {share.resolution} px" if tile >= 100 else f"{share.resolution} px"
    draw.text((middle, below + 30), size, FAINT, _font(14), anchor="mm")
    area = f"{share.area:.0%}" if share.area >= 0.0995 else f"{share.area:.1%}"
    draw.text((middle, below + 52), area if share.area else "off", INK if share.matters else FAINT, _font(16), "mm")


def _last(shares: Sequence[LayerShare]) -> int:
    """Number of the last layer, by which colours are spread."""
    return max(share.layer for share in shares)


def _header(draw: ImageDraw.ImageDraw, title: str, subtitle: str) -> None:
    draw.text((MARGIN, 44), title, INK, _font(32), anchor="lm")
    draw.text((MARGIN, 82), subtitle, FAINT, _font(16), anchor="lm")


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)


def _resize_mask(mask: np.ndarray, tile: int, resample: Image.Resampling) -> np.ndarray:
    """Mask [h, w] at the size of a tile, in [0, 1]."""
    return np.asarray(Image.fromarray(np.asarray(mask, np.float32)).resize((tile, tile), resample)).clip(0, 1)


def _pale(face: Image.Image) -> np.ndarray:
    """The face in pale greys, under which a tint is the only colour."""
    return 0.5 * np.asarray(face.convert("L").convert("RGB"), np.float32) + 110.0


def _tint(base: np.ndarray, colour: np.ndarray, strength: np.ndarray) -> Image.Image:
    weight = 0.75 * strength[..., None]
    return Image.fromarray(np.clip((1 - weight) * base + weight * colour, 0, 255).astype(np.uint8))
