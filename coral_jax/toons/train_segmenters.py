"""Fits the toons segmenters on the generator's features.

    python -m coral_jax.toons.train_segmenters --folder=toons_training

The mixture sees no labels; the pixel classifier sees the part labels of a few dozen faces (DatasetGAN's setting).
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging

from coral_jax import weights
from coral_jax.blend import Features, original_synthesis
from coral_jax.models.segmenter import (
    MixtureSegmenterConfig,
    PixelClassifierConfig,
    fit_mixture,
    fit_pixel_classifier,
    pixel_features,
)
from coral_jax.models.stylegan2 import StyleGAN2
from coral_jax.runtime.numerics import key_of
from coral_jax.toons.faces import Z_DIM, faces_from_z
from coral_jax.toons.renderer import PARTS, render

_LAYERS = (5, 7, 9)  # the last convolutions at 16, 32 and 64 px
_MIXTURE_FACES, _LABELLED_FACES, _TEST_FACES = 64, 48, 16
_PIXELS = 60_000


def _scene(generator: StyleGAN2, count: int, seed: int) -> tuple[Features, np.ndarray]:
    """Features of `count` generated faces and the part label of every pixel [count, h, w]."""
    z = jax.random.normal(key_of(seed), (count, Z_DIM))
    _, features = jax.jit(original_synthesis)(generator, generator.broadcast(generator.mapping(z)))
    return features, np.asarray(jnp.argmax(render(faces_from_z(z))[1], axis=-1))


def _pixels(features: Features, layers: tuple, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A random choice of pixels: their features [N, C], and their row numbers among all."""
    rows = np.asarray(pixel_features(features, layers, size)).reshape(-1, sum(c for _, c in layers))
    chosen = np.random.default_rng(seed).choice(len(rows), min(_PIXELS, len(rows)), replace=False)
    return rows[chosen], chosen


def main(_: list[str]) -> None:
    """Fit, and write mixture.safetensors and parts.safetensors into the folder."""
    logging.set_verbosity(logging.INFO)
    folder = Path(_FOLDER.value)
    generator = weights.load(folder / "generator.safetensors")
    size = generator.size
    layers = tuple((i, generator.layers[i - 1].channels) for i in _LAYERS)
    features, _ = _scene(generator, _MIXTURE_FACES, 11)
    mixture = fit_mixture(MixtureSegmenterConfig(layers, size), _pixels(features, layers, size, 0)[0])
    weights.save(folder / "mixture.safetensors", mixture, np.float16)
    features, labels = _scene(generator, _LABELLED_FACES, 12)
    pixels, rows = _pixels(features, layers, size, 1)
    config = PixelClassifierConfig(layers, size, len(PARTS))
    parts = fit_pixel_classifier(config, pixels, labels.reshape(-1)[rows], steps=1500)
    weights.save(folder / "parts.safetensors", parts, np.float16)
    features, labels = _scene(generator, _TEST_FACES, 13)
    guess = np.asarray(jnp.argmax(parts.logits(features), axis=-1))
    recall = {p: round(float(np.mean(guess[labels == i] == i)), 3) for i, p in enumerate(PARTS) if (labels == i).any()}
    logging.info("parts: %.4f of pixels right; of each part %s", np.mean(guess == labels), recall)


if __name__ == "__main__":  # other programs have flags of the same names
    _FOLDER = flags.DEFINE_string("folder", "toons_training", "where the generator is and results go")
    app.run(main)
