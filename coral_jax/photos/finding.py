"""Pictures that are to become photos: which files they are, and where the face lies in each."""

import hashlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from coral_jax.landmarks import Landmarker
from coral_jax.photos.align import Square, square_of_points, whole
from coral_jax.pictures import HEIC, SUFFIXES
from coral_jax.runtime.files import file_name


class Source(NamedTuple):
    """A picture's file, and the folder of the photo that it becomes."""

    path: Path
    folder: Path

    @property
    def name(self) -> str:
        """What the photo's images are called."""
        return file_name(self.path.stem)

    @property
    def sha256(self) -> str:
        """SHA-256 of the file."""
        with open(self.path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def sources_of(images: Sequence[str | os.PathLike], out: str | os.PathLike) -> list[Source]:
    """The pictures of files and folders: one file becomes `out`, several a folder each in it, and a file only once.

    ValueError where there is none, and for two whose folders would be one.
    """
    paths, several = [], len(images) > 1
    for image in map(Path, images):
        if image.is_dir():
            several = True
            inside = sorted(path for path in image.iterdir() if path.suffix.lower() in (*SUFFIXES, *HEIC))
            if not inside:
                raise ValueError(f"there is no picture in {image} (looked for: {', '.join(SUFFIXES)}); give another folder")
            paths += inside
        elif image.is_file():
            paths.append(image)
        else:
            raise ValueError(f"there is no picture {image}; give a file such as --image=me.jpg, or a folder of such files")
    if not several:
        return [Source(paths[0], Path(out))]
    found = {}
    for path in paths:
        other = found.setdefault(file_name(path.stem).casefold(), path)
        if not path.samefile(other):
            raise ValueError(f"{other} and {path} would share the folder {Path(out) / path.stem}; rename one of them")
    return [Source(path, Path(out) / file_name(path.stem)) for path in found.values()]


def found_face(landmarker: Landmarker, picture: np.ndarray, path: Path, number: int | None) -> Square:
    """Where face `number` lies in a picture, counted from 1, the largest first; the largest for None, and a line says so.

    ValueError where there is no such face.
    """
    faces = landmarker.find(picture)
    if not faces:
        raise ValueError(
            f"no face was found in {path}; give a picture in which a face is seen from the front, large and upright (crop it "
            "where the face is small), or one that is aligned already, with --aligned"
        )
    if number is not None and not 1 <= number <= len(faces):
        raise ValueError(f"--face={number}, and {path} has {len(faces)} face(s); give a number from 1 to {len(faces)}")
    if number is None and len(faces) > 1:
        others = f"--face=2 to --face={len(faces)} take" if len(faces) > 2 else "--face=2 takes"
        print(f"{path}: {len(faces)} faces; this is the largest one, {others} others", file=sys.stderr)
    return square_of_points(faces[(number or 1) - 1].points)


def given_face(picture: np.ndarray, path: Path) -> Square:
    """All of a picture that is aligned already; ValueError for one that is not square."""
    height, width = picture.shape[:2]
    if height != width:
        raise ValueError(
            f"{path} has {width} x {height} pixels, and an aligned picture is square; leave --aligned out, or crop it"
        )
    return whole(width)
