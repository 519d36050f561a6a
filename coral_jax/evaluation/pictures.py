"""Sets of pictures to compare edits with: a folder, or a data set of tensorflow-datasets, one picture at a time."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from coral_jax.pictures import SUFFIXES, UNREAD, read_picture
from coral_jax.runtime.files import expand

NAMED = "tfds:"  # begins a name that is no folder


class Pictures(NamedTuple):
    """How many pictures there are, and an iterator that reads each when it is asked for: uint8 [H, W, 3]."""

    count: int
    images: Iterator[np.ndarray]


def pictures(source: str) -> Pictures:
    """The pictures of "some/folder" (and its subfolders) or of "tfds:NAME" or "tfds:NAME@SPLIT" (the split train if not given).

    Data sets are read by `tfds.data_source`, which needs no TensorFlow; one that is not on this machine is downloaded by
    tensorflow-datasets, into TFDS_DATA_DIR.  ValueError for a source that is not there, or holds no pictures.
    """
    if source.startswith(NAMED):
        name, _, split = source.removeprefix(NAMED).partition("@")
        return _of_data_set(name, split or "train")
    return _of_folder(expand(source))


def _of_folder(folder: Path) -> Pictures:
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}; give a folder of pictures, or tfds:NAME such as tfds:celeb_a@test")
    entries = sorted(entry for entry in folder.rglob("*") if not entry.name.startswith("."))  # macOS hides more than pictures
    if unread := [entry for entry in entries if entry.suffix.lower() in UNREAD]:
        raise ValueError(f"{len(unread)} pictures cannot be read, such as {unread[0]}; save them as JPEG, or move them")
    files = [entry for entry in entries if entry.suffix.lower() in SUFFIXES and entry.is_file()]
    if not files:
        raise ValueError(f"{folder} holds no pictures ({', '.join(SUFFIXES)}); give another folder, or tfds:NAME")
    return Pictures(len(files), map(read_picture, files))


def _of_data_set(name: str, split: str) -> Pictures:
    import tensorflow_datasets as tfds  # half a second, for those who ask for it

    try:
        # array_record: the one format of its own that can be read at random without TensorFlow.
        found = tfds.data_source(
            name, split=split, data_dir=os.environ.get("TFDS_DATA_DIR"), builder_kwargs={"file_format": "array_record"}
        )
    except (ValueError, ImportError, NotImplementedError, OSError) as error:
        reason = next(line for line in [*map(str.strip, str(error).splitlines()), "no reason given"] if line)
        raise ValueError(
            f"tensorflow-datasets cannot read {NAMED}{name}@{split}: {reason}; give a data set's name as "
            "tfds.list_builders() knows it and one of its splits, prepared as array_record, or a folder of pictures"
        ) from error
    if len(found) == 0 or "image" not in found[0]:
        held = ", ".join(found[0]) if len(found) else "nothing"
        raise ValueError(f"{NAMED}{name}@{split} holds {held}, and no image; give a data set of pictures, or a folder")
    return Pictures(len(found), (_as_rgb(found[index]["image"]) for index in range(len(found))))


def _as_rgb(image: np.ndarray) -> np.ndarray:
    """Decoded [H, W, 1], [H, W, 3] or [H, W, 4] -> [H, W, 3]."""
    return np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image[..., :3]
