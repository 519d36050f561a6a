"""Pictures of every kind come out as they look on a screen."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from coral_jax.evaluation.pictures import pictures
from coral_jax.pictures import read_picture

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def rows_of(*colours):
    """A picture of 16-px squares, one above the other."""
    return np.repeat(np.repeat(np.array(colours, np.uint8)[:, None], 16, axis=0), 16, axis=1)


def assert_rows(image, *colours, within=0):
    assert image.dtype == np.uint8 and image.shape == (16 * len(colours), 16, 3)
    assert np.abs(image.astype(int) - rows_of(*colours)).max() <= within


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def save_deep_png(path, array, colour):
    """16 bits a channel, which Pillow writes for grey only."""
    data = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    header = struct.pack(">IIBBBBB", array.shape[1], array.shape[0], 16, colour, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b""))


@pytest.mark.parametrize("form", ["grey", "grey by Pillow", "colours"])
def test_sixteen_bits_are_scaled(tmp_path, form):
    values = np.array([[0, 255, 256], [32768, 65280, 65535]], np.uint16)
    expected = np.repeat(np.array([[0, 0, 1], [128, 255, 255]], np.uint8)[..., None], 3, axis=-1)
    if form == "grey by Pillow":
        Image.fromarray(values).save(tmp_path / "x.png")
    elif form == "grey":
        save_deep_png(tmp_path / "x.png", values, 0)
    else:
        save_deep_png(tmp_path / "x.png", np.repeat(values[..., None], 3, axis=-1), 2)
    np.testing.assert_array_equal(read_picture(tmp_path / "x.png"), expected)


@pytest.mark.parametrize("orientation, upright", [(1, (RED, BLUE)), (3, (BLUE, RED)), (4, (BLUE, RED))])
@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
def test_photographs_are_turned_upright(tmp_path, kind, orientation, upright):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(rows_of(RED, BLUE)).save(tmp_path / f"x.{kind}", exif=exif, quality=95)
    found = read_picture(tmp_path / f"x.{kind}")
    for place, colour in zip((8, 24), upright, strict=True):
        assert np.abs(found[place, 8].astype(int) - colour).max() <= 6


def test_a_photograph_taken_sideways_changes_its_sides(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it a quarter clockwise
    Image.fromarray(rows_of(RED, BLUE)).save(tmp_path / "x.png", exif=exif)
    found = read_picture(tmp_path / "x.png")
    assert found.shape == (16, 32, 3) and tuple(found[8, 8]) == BLUE and tuple(found[8, 24]) == RED


def test_what_is_transparent_is_white(tmp_path):
    clear = np.dstack([rows_of(RED, BLUE), np.repeat(np.uint8([255, 0]), 16)[:, None].repeat(16, axis=1)])
    image = Image.fromarray(clear)
    image.save(tmp_path / "rgba.png")
    image.save(tmp_path / "rgba.webp", lossless=True, exact=True)
    Image.fromarray(rows_of(RED, BLUE)).save(tmp_path / "key.png", transparency=BLUE)
    palette = Image.fromarray(rows_of(RED, BLUE)).convert("P", palette=Image.Palette.ADAPTIVE)
    palette.save(tmp_path / "palette.png", transparency=palette.getpixel((0, 20)))
    palette.save(tmp_path / "palette.gif", transparency=palette.getpixel((0, 20)))
    Image.fromarray(clear[..., [0, 3]].copy(), "LA").save(tmp_path / "la.png")
    for path in sorted(tmp_path.iterdir()):
        assert_rows(read_picture(path), WHITE if path.stem == "la" else RED, WHITE)


def test_half_transparent_is_halfway_to_white(tmp_path):
    Image.new("RGBA", (16, 16), (255, 0, 0, 128)).save(tmp_path / "x.png")
    assert_rows(read_picture(tmp_path / "x.png"), (255, 127, 127))


def test_other_modes_become_colours(tmp_path):
    image = Image.fromarray(rows_of(RED, BLUE))
    image.convert("L").save(tmp_path / "grey.png")
    image.convert("1", dither=Image.Dither.NONE).save(tmp_path / "bits.png")
    image.convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "palette.png")
    image.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100, subsampling=0)
    image.save(tmp_path / "x.tiff")
    assert_rows(read_picture(tmp_path / "grey.png"), (76,) * 3, (29,) * 3)
    assert_rows(read_picture(tmp_path / "bits.png"), (0, 0, 0), (0, 0, 0))
    assert_rows(read_picture(tmp_path / "palette.png"), RED, BLUE)
    assert_rows(read_picture(tmp_path / "cmyk.jpg"), RED, BLUE, within=3)
    assert_rows(read_picture(tmp_path / "x.tiff"), RED, BLUE)


@pytest.mark.parametrize("kind", ["gif", "webp", "png"])
def test_of_an_animation_the_first_picture_counts(tmp_path, kind):
    frames = [Image.fromarray(rows_of(colour)) for colour in (RED, BLUE, WHITE)]
    frames[0].save(tmp_path / f"x.{kind}", save_all=True, append_images=frames[1:], lossless=True)
    assert_rows(read_picture(tmp_path / f"x.{kind}"), RED)


def test_what_cannot_be_read_is_explained(tmp_path, monkeypatch):
    Image.fromarray(rows_of(RED, BLUE)).save(tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:-40])
    Image.fromarray(rows_of(RED, BLUE)).save(tmp_path / "program.eps")
    (tmp_path / "program.eps").rename(tmp_path / "program.png")  # Pillow would run Ghostscript
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "float.tiff")
    (tmp_path / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic")
    (tmp_path / "phone.jpg").write_bytes(b"\0\0\0\x18ftypheic")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    Image.new("1", (200, 200)).save(tmp_path / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    cases = {"cut.jpg": "(?i)truncated", "program.png": "cannot identify", "float.tiff": "do not say which number is white",
             "phone.heic": "needs a plug-in", "phone.jpg": "cannot identify", "empty.png": "cannot identify",
             "folder.png": "there is no picture", "lost.png": "there is no picture",
             "huge.png": "decompression bomb"}  # fmt: skip
    for name, message in cases.items():
        with pytest.raises(ValueError, match=message) as caught:
            read_picture(tmp_path / name)
        assert name in str(caught.value)


def test_a_folder_gives_all_its_pictures_or_says_which_it_cannot(tmp_path):
    for name in ("a.png", "b/c.TIF", "d.gif", "._a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        if name.startswith("._"):
            (tmp_path / name).write_bytes(b"of macOS, no picture")
        else:
            Image.fromarray(rows_of(RED)).save(tmp_path / name)
    (tmp_path / "set.png").mkdir()
    found = pictures(str(tmp_path))
    assert found.count == 3
    for image in found.images:
        assert_rows(image, RED)
    (tmp_path / "b" / "x.HEIC").write_bytes(b"")
    with pytest.raises(ValueError, match=r"1 pictures cannot be read, such as .*x\.HEIC; save them as JPEG"):
        pictures(str(tmp_path))
