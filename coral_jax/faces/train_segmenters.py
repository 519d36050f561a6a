"""Fits the segmenters of faces on the generator's features.

    python -m coral_jax.faces.train_segmenters --folder=faces_training --generator=generator.safetensors

The mixture sees no labels; the pixel classifier sees the parser's of a few dozen faces (DatasetGAN's setting).
"""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging

from coral_jax import weights
from coral_jax.blend import Features
from coral_jax.faces import labels, pool
from coral_jax.faces.pool import Pool
from coral_jax.models.generator import Generator
from coral_jax.models.segmenter import (
    MixtureSegmenterConfig,
    PixelClassifier,
    PixelClassifierConfig,
    fit_mixture,
    fit_pixel_classifier,
    pixel_features,
)

#: the pixel classifier's segments, of the parser's PARTS
SEGMENTS = (
    ("background",), ("skin",), ("brow",), ("eye",), ("glasses",), ("mouth",), ("lip",), ("hair",), ("hat",), ("nose",),
    ("neck", "necklace"), ("cloth",), ("ear", "earring"),
)  # fmt: skip
_LAYERS, _SIZE = (9, 11), 128  # the last convolutions at 64 and 128 px
_FACES, _TEST_FACES = 140, 24
_PIXELS, _EACH = 400, 40  # of a face, at random; of each segment


@functools.partial(jax.jit, static_argnums=2)
def features(generator: Generator, w: jax.Array, layers: tuple[int, ...]) -> Features:
    """Features of some layers for w [B, w_dim]; the layers after them are not drawn."""
    found = {}
    for layer, x, _ in generator.walk(generator.broadcast(w)):
        found[layer.index] = x
        if layer.index == max(layers):
            return {index: found[index] for index in layers}


def segments(face_labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The parser's labels [256, 256] -> (segment [128, 128], whether the 2 x 2 pixels agree on it)."""
    merged = np.zeros(face_labels.shape, np.int32)
    for segment, names in enumerate(SEGMENTS):
        merged[labels.mask(face_labels, *names)] = segment
    blocks = merged.reshape(_SIZE, 2, _SIZE, 2).transpose(0, 2, 1, 3).reshape(_SIZE, _SIZE, 4)
    return blocks[..., 0], (blocks == blocks[..., :1]).all(axis=-1)


def sample(generator: Generator, faces: Pool, layers: tuple) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels of faces: features [N, C] and segments [N], some of each segment; and features drawn evenly, for the mixture."""
    random = np.random.default_rng(0)
    balanced, answers, even = [], [], []
    for w, face_labels in zip(faces.w, faces.labels, strict=True):
        seen = features(generator, w[None], _LAYERS)
        rows = np.asarray(pixel_features(seen, layers, _SIZE)).reshape(_SIZE * _SIZE, -1)
        segment, clear = (values.ravel() for values in segments(face_labels))
        places = [np.flatnonzero(clear & (segment == i)) for i in range(len(SEGMENTS))]
        chosen = np.concatenate([random.permutation(place)[:_EACH] for place in places])
        balanced.append(rows[chosen])
        answers.append(segment[chosen])
        even.append(rows[random.choice(len(rows), _PIXELS, replace=False)])
    return np.concatenate(balanced), np.concatenate(answers), np.concatenate(even)


def overlap(generator: Generator, classifier: PixelClassifier, faces: Pool) -> tuple[float, dict[str, float]]:
    """On held-out faces and pixels that the parser is clear about: share of right ones, and each segment's IoU."""
    confusion = np.zeros((len(SEGMENTS), len(SEGMENTS)))
    for w, face_labels in zip(faces.w, faces.labels, strict=True):
        guess = np.asarray(jnp.argmax(classifier.logits(features(generator, w[None], _LAYERS))[0], axis=-1))
        segment, clear = segments(face_labels)
        np.add.at(confusion, (segment[clear], guess[clear]), 1)
    right = np.diag(confusion)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - right
    names = [names[0] for names in SEGMENTS]
    return right.sum() / confusion.sum(), {n: round(float(r / u), 3) for n, r, u in zip(names, right, union, strict=True) if u}


def main(_: list[str]) -> None:
    """Fit, and write mixture.safetensors and parts.safetensors into the folder."""
    logging.set_verbosity(logging.INFO)
    folder = Path(_FOLDER.value)
    generator = weights.load(_GENERATOR.value)
    faces = pool.joined([pool.load(folder, name) for name in ("plain", "moved")])  # hats are rare among plain ones
    faces = faces.rows(np.random.default_rng(3).permutation(len(faces))[: _TEST_FACES + _FACES])
    layers = tuple((index, generator.layers[index - 1].channels) for index in _LAYERS)
    pixels, answers, even = sample(generator, faces.rows(slice(_TEST_FACES, None)), layers)
    config = PixelClassifierConfig(layers, _SIZE, len(SEGMENTS), hidden=(64,))
    parts = fit_pixel_classifier(config, pixels, answers, steps=1500, batch=1024, learning_rate=2e-3)
    weights.save(folder / "parts.safetensors", parts, np.float16)
    mixture = fit_mixture(MixtureSegmenterConfig(layers, _SIZE), even)
    weights.save(folder / "mixture.safetensors", mixture, np.float16)
    share, found = overlap(generator, parts, faces.rows(slice(_TEST_FACES)))
    logging.info("parts: %.3f of pixels right; IoU %s", share, found)


if __name__ == "__main__":
    _FOLDER = flags.DEFINE_string("folder", "faces_training", "where packages, pools and results are kept")
    _GENERATOR = flags.DEFINE_string("generator", None, "the converted generator of 1024 px", required=True)
    app.run(main)
