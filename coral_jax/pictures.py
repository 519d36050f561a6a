"""Pictures that people have, as files of any common kind, read as what they show on a screen."""

import os
import struct
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

MOST_PIXELS = 80_000_000  # beyond, Pillow itself takes a picture for an attack

# Pillow would open more, and runs another program for some of it.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
UNREAD = (".heic", ".heif", ".avif")  # photographs too, but Pillow does not decode all of them everywhere
HEIC = (".heic", ".heif")  # read where the plug-in pillow-heif is installed


def read_picture(path: str | os.PathLike) -> np.ndarray:
    """A picture as uint8 [H, W, 3]: upright, as EXIF says; on white where it is transparent; the first one of several.

    16 bits are scaled to 8.  ValueError for what is no picture, is cut short, or is of a kind that this does not read.
    """
    path, formats = Path(path), FORMATS
    if not path.is_file():
        raise ValueError(f"there is no picture {path}; give a file such as face.jpg")
    if path.suffix.lower() in HEIC:
        _register_heic(path)
        formats = (*FORMATS, "HEIF")
    elif path.suffix.lower() in UNREAD:
        raise ValueError(f"{path} is of a kind that cannot be read ({', '.join(UNREAD)}); save it as JPEG or PNG")
    try:
        with warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning):
            opened = Image.open(path, formats=formats)
        with opened as image:
            if image.width * image.height > MOST_PIXELS:
                millions = f"{image.width} x {image.height} pixels, and at most {MOST_PIXELS // 10**6} million are read"
                raise ValueError(f"it has {millions}: make it smaller")
            return _pixels(ImageOps.exif_transpose(image), image.format)
    except (OSError, ValueError, SyntaxError, TypeError, struct.error, Image.DecompressionBombError) as error:
        reason = str(error) or type(error).__name__
        raise ValueError(f"{path} cannot be read as a picture ({reason}); save it as PNG or JPEG, or leave it out") from error


def _register_heic(path: Path) -> None:
    """Let Pillow read HEIC; ValueError where its plug-in is not there."""
    try:
        import pillow_heif
    except ImportError as error:
        other = "or save the picture as JPEG or PNG"
        raise ValueError(f"{path} is HEIC, which needs a plug-in: pip install pillow-heif, {other}") from error
    pillow_heif.register_heif_opener()


def _pixels(image: Image.Image, kind: str) -> np.ndarray:
    if image.mode.startswith("I;16") or (image.mode == "I" and kind == "PNG"):  # which of them, Pillow's version decides
        # The high byte, which is what Pillow takes of 16-bit colours; its own conversion of grey clips at 255.
        grey = np.asarray(image).astype(np.uint32) >> 8
        return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=-1)
    if image.mode in ("I", "F"):
        raise ValueError("32 bits a channel do not say which number is white")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))
