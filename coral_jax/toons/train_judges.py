"""Trains the networks that judge toons: the identity network (a loss and a metric) and the evaluation classifier.

    python -m coral_jax.toons.train_judges --folder=toons_training

Identity: two drawings of one person (same head, skin, eyes, nose; everything that an edit may change drawn anew) must
embed alike and unlike other persons. Classifier: one question for each group of attributes.
"""

from collections.abc import Iterator
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags, logging
from jax import Array

from coral_jax import weights
from coral_jax.models.classifier import Classifier, ClassifierConfig
from coral_jax.models.identity import Identity, IdentityConfig
from coral_jax.toons.faces import GROUPS, Z_DIM, Face, faces_from_z
from coral_jax.toons.pool import Pool, augment, from_bytes, load_training_pool, to_bytes
from coral_jax.toons.renderer import render
from coral_jax.worlds.contrastive import partner_loss
from coral_jax.worlds.fitting import fit, fresh

IDENTITY = IdentityConfig(units=(1, 1, 1, 1), widths=(16, 32, 64, 128), input_size=48, embed_dim=128)
CLASSIFIER = ClassifierConfig((24, 48, 96, 128), tuple((name, len(values)) for name, values in GROUPS.items()))
#: jitters that make a person; all other jitters and every category may change
PERSON = ("head_width", "head_height", "jaw", "brow_thickness", "eye_size", "eye_gap", "nose", "mouth_width", "skin",
          "skin_hue")  # fmt: skip
_TEMPERATURE = 0.1


def draw_pairs(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two drawings of each of `count` persons, as bytes [count, h, w, 3] each."""
    random = np.random.default_rng(seed)
    pairs: tuple[list, list] = ([], [])
    for _ in range(0, count, 256):
        person = faces_from_z(random.standard_normal((256, Z_DIM)).astype(np.float32))
        for images in pairs:
            other = faces_from_z(random.standard_normal((256, Z_DIM)).astype(np.float32))
            jitter = {k: (person if k in PERSON else other).jitter[k] for k in other.jitter}
            images.append(to_bytes(render(Face(other.category, jitter))[0]))
    return np.concatenate(pairs[0])[:count], np.concatenate(pairs[1])[:count]


def _identity_loss(identity: Identity, images: Array) -> tuple[Array, Identity]:
    """Images [2 B, ...], the second half the partners of the first."""
    return partner_loss(identity.embed(images, train=True), _TEMPERATURE), identity


def _identity_batches(pairs: tuple[np.ndarray, np.ndarray], seed: int) -> Iterator[tuple]:
    random = np.random.default_rng(seed)
    while True:
        rows = random.integers(len(pairs[0]), size=40)
        yield (augment(from_bytes(np.concatenate([pairs[0][rows], pairs[1][rows]])), random),)


def _classifier_loss(classifier: Classifier, images: Array, answers: dict[str, Array]) -> Array:
    logits = classifier(images)
    losses = [optax.softmax_cross_entropy_with_integer_labels(logits[k], answers[k]) for k in answers]
    # The colour of hair that is not there has no answer.
    haired = answers["hair_style"] != 0
    losses[list(answers).index("hair_colour")] *= haired
    return sum(jnp.mean(loss) for loss in losses)


def _classifier_batches(pool: Pool, seed: int) -> Iterator[tuple]:
    random = np.random.default_rng(seed)
    category = {k: np.asarray(v) for k, v in pool.faces().category.items()}
    for rows in pool.batches(64, seed):
        yield augment(from_bytes(pool.images[rows]), random), {k: category[k][rows] for k in GROUPS}


def main(_: list[str]) -> None:
    """Train, and write identity.safetensors and classifier.safetensors into the folder."""
    logging.set_verbosity(logging.INFO)
    folder = Path(_FOLDER.value)
    identity_steps, classifier_steps = (int(s) for s in _STEPS.value)
    pool = load_training_pool(folder, _POOL.value)
    classifier = fresh(Classifier, CLASSIFIER)
    classifier = fit(classifier, _classifier_loss, _classifier_batches(pool, 7), classifier_steps, 2e-3, "classifier")
    weights.save(folder / "classifier.safetensors", classifier, np.float16)
    logging.info("drawing %d pairs", _PERSONS.value)
    batches = _identity_batches(draw_pairs(_PERSONS.value, 6), 8)
    identity = fit(fresh(Identity, IDENTITY), _identity_loss, batches, identity_steps, 2e-3, "identity")
    weights.save(folder / "identity.safetensors", identity, np.float16)


if __name__ == "__main__":  # other programs have flags of the same names
    _FOLDER = flags.DEFINE_string("folder", "toons_training", "where pools and results are kept")
    _POOL = flags.DEFINE_integer("pool", 14336, "number of drawn faces to learn from")
    _PERSONS = flags.DEFINE_integer("persons", 2048, "number of persons drawn twice for the identity network")
    _STEPS = flags.DEFINE_list("steps", ["450", "700"], "steps of identity and classifier")
    app.run(main)
