"""Features of pictures, which distances between sets of images compare: Inception's for FID and KID, else CLIP's."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from coral_jax import weights
from coral_jax.domains import Domain, weights_folder
from coral_jax.metrics import clean_resize
from coral_jax.models.clip import CLIP, preprocess
from coral_jax.models.inception import Inception
from coral_jax.runtime.compiling import jit

BATCH = 8
INCEPTION = "inception.safetensors"  # in the weights folder: it belongs to no domain


@dataclass(frozen=True)
class Embedder:
    """A network that turns pictures into features, and what distances of these are called: Clean-FID is Inception's alone."""

    network: Inception | CLIP
    frechet: str
    kernel: str
    fingerprint: str

    def features(self, pictures: Iterable[np.ndarray]) -> np.ndarray:
        """Pictures uint8 [H, W, 3] of any sizes -> [N, D].  Reads them in batches of 8; keeps no picture."""
        return np.concatenate(list(self._batches(pictures)))

    def _batches(self, pictures: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        for group in _groups(pictures):
            prepared = np.stack([self._prepare(picture) for picture in group])
            padding = np.repeat(prepared[-1:], BATCH - len(group), axis=0)  # one compiled program
            yield np.asarray(_embed(self.network, np.concatenate([prepared, padding])))[: len(group)]

    def _prepare(self, picture: np.ndarray) -> np.ndarray:
        if isinstance(self.network, Inception):
            return (clean_resize(picture) - 128) / 128
        return preprocess(Image.fromarray(picture), self.network.config)


def embedder(domain: Domain, inception: str | None, weights_dir: str | os.PathLike | None) -> Embedder:
    """Inception from the file `inception`, or from the weights folder if it is there; else the domain's CLIP.

    CLIP's features are clean-fid's own alternative (Kynkaanniemi et al. 2023), but here also what edits are trained to
    please: their distances are named clip_fd and clip_kd, so that nobody takes them for FID.
    ValueError for a file of another network.
    """
    path = Path(inception) if inception else weights_folder(weights_dir) / INCEPTION
    if not inception and not path.exists():
        return Embedder(domain.clip, "clip_fd", "clip_kd", domain.fingerprint)
    if not path.is_file():
        raise ValueError(f"there is no file {path}; make one with python -m converters.inception, or leave --inception out")
    network = weights.load(path)
    if not isinstance(network, Inception):
        raise ValueError(
            f"{path} holds a network of the kind {type(network).__name__}; give a file of python -m converters.inception"
        )
    return Embedder(network, "fid", "kid", weights.fingerprint(path))


def _groups(pictures: Iterable[np.ndarray]) -> Iterator[list[np.ndarray]]:
    pictures = iter(pictures)
    while group := list(islice(pictures, BATCH)):
        yield group


@jit
def _embed(network: Inception | CLIP, prepared: jax.Array) -> jax.Array:
    return network.features(prepared) if isinstance(network, Inception) else network.encode_pixels(prepared)
