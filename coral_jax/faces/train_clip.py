"""Trains the CLIP of faces on generated faces, labelled by critics and recoloured, and on captions of a small vocabulary.

    python -m coral_jax.faces.train_clip --folder=faces_training

Losses and hardening are the toons' (`toons.train_clip`): every true pair of a batch is a match, no match is better than good,
and the last part of the training sees faces moved up its own loss.  Pairs of which the labels do not say whether they match
are left out.  A stopped run continues from its last checkpoint; the result is the same up to the platform's rounding.
"""

import functools
import hashlib
import itertools
import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags, logging
from flax import nnx
from jax import Array

from coral_jax import weights
from coral_jax.faces import labels, pool
from coral_jax.faces.captions import PHRASES, VOCABULARY, caption
from coral_jax.faces.recolour import Prepared, prepare, recoloured
from coral_jax.models.clip import CLIP, CLIPConfig
from coral_jax.runtime.numerics import key_of
from coral_jax.tokenizer import Tokenizer
from coral_jax.worlds.contrastive import Probed, adversarial, pairs_loss
from coral_jax.worlds.fitting import fresh

POOLS = ("plain", "moved", "edited", "edited_again")
SIZE = 128  # px that the image tower reads: as many as the losses of an edit see
CONTEXT = 32
_TOKENS = 24  # the longest caption has fewer
_BATCH, _CAPTIONS = 32, 24  # captions besides one of each attribute
_RADIUS = 3.3  # of adversarial changes, Euclidean
_SAVED = 50  # steps between checkpoints
_HELD_OUT = 6  # every sixth face trains nothing


def config(vocab_size: int) -> CLIPConfig:
    """The CLIP of faces: four convolutions and a flat layer over 8 x 8 positions; a text tower of one block."""
    return CLIPConfig(
        image_size=SIZE, patch_size=16, vision_width=256, vision_layers=0, vision_heads=1, vision_convs=(32, 64, 96, 128),
        text_width=96, text_layers=1, text_heads=2, embed_dim=128, context=CONTEXT, vocab_size=vocab_size,
    )  # fmt: skip


def train_tokenizer(path: Path) -> None:
    """A tokenizer for the grammar's words; any other word is spelt in smaller pieces."""
    random = np.random.default_rng(0)
    captions = [caption(list(random.choice(VOCABULARY, random.integers(1, 4), False)), random) for _ in range(5000)]
    Tokenizer.train(captions, 900, path)


def training_loss(
    probed: Probed, images: Array, ids: Array, match: Array, sure: Array, true: Array, known: Array, key: Array,
    radius: float,
) -> Array:  # fmt: skip
    """The losses of images and captions and the probe's cross-entropy, on images moved by up to `radius` up that loss."""
    text = probed.clip.encode_text(ids)

    said = (match, sure, true, known)
    if radius:
        fixed = jax.lax.stop_gradient(text)
        images = adversarial(lambda images: pairs_loss(probed, images, fixed, *said), images, key, radius)
    return pairs_loss(probed, jax.lax.stop_gradient(images), text, *said)


def varied(images: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Images [B, S, S, 3] mirrored, shifted, blurred, brighter or darker, noisy: an edit must not win by any of these."""
    images = np.where(random.random((len(images), 1, 1, 1)) < 0.5, images[:, :, ::-1], images)
    padded = np.pad(images, ((0, 0), (3, 3), (3, 3), (0, 0)), "edge")
    dy, dx = random.integers(0, 7, (2, len(images)))
    size = images.shape[1]
    images = np.stack([image[y : y + size, x : x + size] for image, y, x in zip(padded, dy, dx, strict=True)])
    near = (np.roll(images, 1, 1) + np.roll(images, -1, 1) + np.roll(images, 1, 2) + np.roll(images, -1, 2)) / 4

    def uniform(low: float, high: float, channels: int = 1) -> np.ndarray:
        return random.uniform(low, high, (len(images), 1, 1, channels)).astype(np.float32)

    images = images + np.maximum(uniform(-0.4, 0.4), 0) * (near - images)
    noise = uniform(0, 0.03) * random.standard_normal(images.shape, np.float32)
    return images * uniform(0.85, 1.15) + uniform(-0.1, 0.1) + uniform(-0.05, 0.05, 3) + noise


def sample_captions(
    true: np.ndarray, known: np.ndarray, random: np.random.Generator
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """One caption of each attribute, and some of two or three that are true of one face: (texts, match, sure) [B, captions].

    It is not sure whether a caption matches a face where nothing known speaks against it, and something is not known.
    """
    chosen = [[i] for i in range(len(VOCABULARY))]
    for row in random.integers(len(true), size=_CAPTIONS):
        own = np.flatnonzero(true[row] & known[row])
        count = min(len(own), random.choice([2, 3], p=[0.75, 0.25]))
        chosen.append(list(random.choice(own, count, False)) if count else [int(random.integers(len(VOCABULARY)))])
    match = np.stack([(true & known)[:, group].all(axis=1) for group in chosen], axis=1)
    possible = np.stack([(true | ~known)[:, group].all(axis=1) for group in chosen], axis=1)
    return [caption([VOCABULARY[i] for i in group], random) for group in chosen], match, match == possible


def batch(faces: Prepared, tokenizer: Tokenizer, step: int) -> tuple:
    """The batch of a step: half of its faces have an attribute drawn at random, so that rare ones are seen."""
    random = np.random.default_rng((5, step))
    having = [np.flatnonzero(column) for column in (faces.true & faces.known).T]
    having = [rows for rows in having if len(rows)]
    rows = random.integers(len(faces.images), size=_BATCH)
    for place in range(_BATCH // 2):
        rows[place] = random.choice(having[random.integers(len(having))])
    images, true, known = recoloured(faces, rows, random)
    texts, match, sure = sample_captions(true, known, random)
    ids = tokenizer(texts)[:, :_TOKENS]
    return varied(images / np.float32(127.5) - 1, random), ids, match.astype(np.float32), sure, true.astype(np.float32), known


def batches(faces: Prepared, tokenizer: Tokenizer, first: int) -> Iterator[tuple]:
    """The batches from step `first` on, made beside the training; each depends on its step alone, so a run can continue."""
    with ThreadPoolExecutor(1) as beside:
        coming = beside.submit(batch, faces, tokenizer, first)
        for step in itertools.count(first + 1):
            made, coming = coming.result(), beside.submit(batch, faces, tokenizer, step)
            yield made


def train(
    described: CLIPConfig, faces: Prepared, tokenizer: Tokenizer, folder: Path, steps: int, hard_from: int, rate: float
) -> CLIP:
    """Adam with warm-up and cosine decay; from step `hard_from` on, on adversarial images."""
    schedule = optax.warmup_cosine_decay_schedule(0.0, rate, min(50, steps // 4), steps, rate / 50)
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, b2=0.99, weight_decay=0.02))
    trainee = Probed(fresh(CLIP, described), len(VOCABULARY), nnx.Rngs(1))
    checkpoint, of = folder / "clip_checkpoint.safetensors", _digest(faces)
    state, first = _resumed(checkpoint, of, (trainee, optimiser.init(trainee)))
    trainee, state = state

    @functools.partial(jax.jit, static_argnums=4, donate_argnums=(0, 1))
    def update(trainee: Probed, state: optax.OptState, batch: tuple, key: Array, radius: float) -> tuple:
        value, gradient = jax.value_and_grad(training_loss)(trainee, *batch, key, radius)
        updates, state = optimiser.update(gradient, state, trainee)
        return optax.apply_updates(trainee, updates), state, value

    began, recent = time.monotonic(), []
    for step, some in zip(range(first, steps), batches(faces, tokenizer, first), strict=False):
        radius = _RADIUS if step >= hard_from else 0.0
        trainee, state, value = update(trainee, state, some, key_of(step), radius)
        recent.append(float(value))
        if (step + 1) % _SAVED == 0 or step + 1 == steps:
            _save(checkpoint, of, (trainee, state), step + 1)
            spent = time.monotonic() - began
            logging.info("clip %d/%d loss %.3f, %.0f s", step + 1, steps, np.mean(recent[-_SAVED:]), spent)
    return trainee.clip


def _digest(faces: Prepared) -> str:
    return hashlib.sha256(b"".join(values.tobytes() for values in vars(faces).values())).hexdigest()


def _save(path: Path, faces: str, state: tuple, step: int) -> None:
    leaves = jax.device_get(jax.tree.leaves(state))
    weights.save_tensors(path, {str(i): leaf for i, leaf in enumerate(leaves)}, {"step": str(step), "faces": faces})


def _resumed(path: Path, faces: str, state: tuple) -> tuple[tuple, int]:
    """The state and the number of steps done, from a checkpoint where there is one of the same faces."""
    if not path.exists():
        return state, 0
    tensors, metadata = weights.load_tensors(path)
    if metadata.get("faces") != faces:
        logging.info("%s is of other faces; starting anew", path)
        return state, 0
    leaves = [jnp.asarray(tensors[str(i)]) for i in range(len(tensors))]
    return jax.tree.unflatten(jax.tree.structure(state), leaves), int(metadata["step"])


def separation(clip: CLIP, tokenizer: Tokenizer, faces: Prepared, colours: bool) -> dict[str, tuple[float, int, int]]:
    """For each attribute, how often its plainest caption is nearer to a face that has it than to one that has not (AUC).

    With the numbers of both; an attribute that no face has, or lacks, is left out.  `colours`: of recoloured faces.
    """
    images, true, known = faces.images.astype(np.float32), faces.true, faces.known
    if colours:
        images, true, known = recoloured(faces, np.arange(len(images)), np.random.default_rng(9))
    encode = jax.jit(lambda clip, images: clip.encode_image(images))
    image = np.concatenate([encode(clip, images[i : i + 64] / 127.5 - 1) for i in range(0, len(images), 64)])
    text = np.asarray(clip.encode_text(tokenizer([PHRASES[name][0].removeprefix("=") for name in VOCABULARY])))
    text, image = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (text, image))
    scores, found = image @ text.T, {}
    for i, name in enumerate(VOCABULARY):
        have, lack = scores[true[:, i] & known[:, i], i], scores[~true[:, i] & known[:, i], i]
        if len(have) and len(lack):
            found[name] = (float(np.mean(have[:, None] > lack[None])), len(have), len(lack))
    return found


def measure(weights_file: Path, tokenizer: Tokenizer, faces: Prepared, path: Path) -> None:
    """Write a CLIP's table of AUCs, plain and recoloured, with the SHA-256 of its file, and log their means."""
    clip = weights.load(weights_file)
    table = {name: separation(clip, tokenizer, faces, name == "recoloured") for name in ("plain", "recoloured")}
    path.write_text(json.dumps({"weights_sha256": weights.fingerprint(weights_file)} | table, indent=1) + "\n")
    for name, found in table.items():
        aucs = {word: round(value[0], 3) for word, value in found.items()}
        logging.info("%s: mean %.3f, least %.3f; %s", name, np.mean(list(aucs.values())), min(aucs.values()), aucs)


def prepared(folder: Path, names: Sequence[str]) -> Prepared:
    """All faces of some pools of the folder, with their labels."""
    every = pool.joined([pool.load(folder, name) for name in names])
    true, known = labels.truths(labels.measures(every))
    return prepare(every, true, known, SIZE)


def load_faces(folder: Path, pools: Sequence[str]) -> tuple[Prepared, Prepared]:
    """The pools to train on: (five of six faces, the others, which are held out)."""
    faces = prepared(folder, pools)
    held_out = np.arange(len(faces.true)) % _HELD_OUT == 0
    return tuple(Prepared(*(values[rows] for values in vars(faces).values())) for rows in (~held_out, held_out))


def main(_: list[str]) -> None:
    """Train, and write tokenizer.json, clip.safetensors and the table of AUCs, clip.json, into the folder."""
    logging.set_verbosity(logging.INFO)
    folder = Path(_FOLDER.value)
    train_tokenizer(folder / "tokenizer.json")
    tokenizer = Tokenizer(folder / "tokenizer.json", CONTEXT)
    faces, held_out = load_faces(folder, _POOLS.value)
    counts = dict(zip(VOCABULARY, (faces.true & faces.known).sum(axis=0).tolist(), strict=True))
    logging.info("%d faces, %d held out; %s", len(faces.images), len(held_out.images), counts)
    clip = train(config(tokenizer.vocab_size), faces, tokenizer, folder, _STEPS.value, _HARD_FROM.value, _RATE.value)
    weights.save(folder / "clip.safetensors", clip, np.float16)
    measure(folder / "clip.safetensors", tokenizer, held_out, folder / "clip.json")


if __name__ == "__main__":
    _FOLDER = flags.DEFINE_string("folder", "faces_training", "where packages, pools and results are kept")
    _POOLS = flags.DEFINE_list("pools", list(POOLS), "what to train on; the first CLIPs have no edited faces yet")
    _STEPS = flags.DEFINE_integer("steps", 1800, "optimiser steps")
    _HARD_FROM = flags.DEFINE_integer("hard_from", 1200, "the step from which images are adversarial")
    _RATE = flags.DEFINE_float("rate", 2e-3, "highest learning rate")
    app.run(main)
