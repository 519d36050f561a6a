"""Trains the toons CLIP on drawn (and, where there is a generator, generated) faces and their captions.

    python -m coral_jax.toons.train_clip --folder=toons_training

Which captions are true of which faces is known, so every true pair of a batch counts as a match, not only the diagonal.
An edit is found by gradient ascent on this network, so it must not be fooled by what such an ascent draws first: it also
sees faces with stained parts (`stain`), exaggerated ones (`pool.generate_pool`), and faces moved a little way up its own
loss (`adversarial`); and no match is ever better than good (`ceiling_loss`).
"""

from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from absl import app, flags, logging
from flax import nnx
from jax import Array

from coral_jax import weights
from coral_jax.models.clip import CLIP, CLIPConfig
from coral_jax.runtime.numerics import key_of
from coral_jax.tokenizer import Tokenizer
from coral_jax.toons.captions import PHRASES, caption
from coral_jax.toons.faces import ATTRIBUTES, EYE_COLOURS, HAIR_COLOURS, Face, has
from coral_jax.toons.pool import Pool, augment, from_bytes, load_training_pool
from coral_jax.toons.renderer import PARTS
from coral_jax.worlds.contrastive import Probed, adversarial, pairs_loss
from coral_jax.worlds.fitting import fit, fresh

_BATCH = 64
_CAPTIONS = 40  # per batch, beside one for each attribute
_RADIUS = 2.0  # of adversarial changes, Euclidean; making a face's lips red is a change of about 4
CONTEXT = 32

# parts that are stained together, and the attributes that their colour decides
_STAINED = {
    ("hair", "brows", "beard", "mustache"): [f"{name}_hair" for name in HAIR_COLOURS],
    ("mouth",): ["lipstick"],
    ("iris",): [f"{name}_eyes" for name in EYE_COLOURS],
    ("skin", "nose"): ["makeup"],
    ("clothes", "background"): [],
}


def config(vocab_size: int) -> CLIPConfig:
    """The toons CLIP: 64 px in patches of 16; with 8, small parts are too few of the tokens to be found in an hour."""
    return CLIPConfig(
        image_size=64, patch_size=16, vision_width=192, vision_layers=4, vision_heads=3, text_width=128, text_layers=3,
        text_heads=2, embed_dim=128, context=CONTEXT, vocab_size=vocab_size,
    )  # fmt: skip


def truths(face: Face) -> np.ndarray:
    """Which attributes the faces have: bool [B, A], in the order of ATTRIBUTES."""
    return np.stack([np.asarray(has(face, name)) for name in ATTRIBUTES], axis=-1)


def train_tokenizer(path: Path) -> None:
    """A tokenizer for the grammar's words; any other word is spelt in smaller pieces."""
    random = np.random.default_rng(0)
    names = list(ATTRIBUTES)
    captions = [caption(list(random.choice(names, random.integers(1, 4), False)), random) for _ in range(4000)]
    Tokenizer.train(captions, 900, path)


def stain(images: np.ndarray, parts: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Blend parts of half of the faces [B, h, w, 3] with a random colour, all over or in a blot: (images, known).

    `parts` [B, h, w, P] are shares of pixels. `known` [B, A] is False where the stain may have changed an attribute.
    """
    known = np.ones((len(images), len(ATTRIBUTES)), bool)
    y, x = np.mgrid[: images.shape[1], : images.shape[2]]
    images = images.copy()
    for i in np.flatnonzero(random.random(len(images)) < 0.5):
        for names, attributes in _STAINED.items():
            if random.random() < 0.6:
                continue
            opacity = random.uniform(0.1, 0.7) * parts[i][..., [PARTS.index(name) for name in names]].sum(-1)
            if random.random() < 0.5:
                cy, cx = random.uniform(0.2, 0.8, 2) * images.shape[1]
                opacity = opacity * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * random.uniform(4, 16) ** 2))
            colour = random.uniform(-1, 1, 3)
            images[i] += opacity[..., None] * (colour - images[i])
            known[i, [list(ATTRIBUTES).index(name) for name in attributes]] = False
    return images, known


def _sample_captions(
    true: np.ndarray, known: np.ndarray, random: np.random.Generator
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Captions of up to three attributes each true of some face of the batch, and one of each attribute.

    With them which captions match which faces [B, captions], and whether that is known: it is not where all that is
    known of a caption is true of the face, and something is not known.
    """
    names = list(ATTRIBUTES)
    chosen = [[i] for i in range(len(names))]
    for row in random.integers(len(true), size=_CAPTIONS):
        own = np.flatnonzero(true[row])
        count = min(len(own), random.choice([1, 2, 3], p=[0.2, 0.6, 0.2]))
        chosen.append(list(random.choice(own, count, False)))
    match = np.stack([(true & known)[:, group].all(axis=1) for group in chosen], axis=1)
    possible = np.stack([(true | ~known)[:, group].all(axis=1) for group in chosen], axis=1)
    return [caption([names[i] for i in group], random) for group in chosen], match, match == possible


def _batches(pool: Pool, tokenizer: Tokenizer, seed: int) -> Iterator[tuple]:
    random = np.random.default_rng(seed)
    true = truths(pool.faces())
    for step, rows in enumerate(pool.batches(_BATCH, seed)):
        images, known = from_bytes(pool.images[rows]), np.ones_like(true[rows])
        drawn = rows < len(pool.parts)  # what the generator draws comes without parts
        images[drawn], known[drawn] = stain(images[drawn], from_bytes(pool.parts[rows[drawn]]) / 2 + 0.5, random)
        texts, match, sure = _sample_captions(true[rows], known, random)
        ids = tokenizer(texts)[:, :20]
        yield augment(images, random), ids, match.astype(np.float32), sure, true[rows], known, np.uint32(step)


def training_loss(
    probed: Probed, images: Array, ids: Array, match: Array, sure: Array, true: Array, known: Array, step: Array
) -> Array:
    """The losses of images and captions and the probe's binary cross-entropy, on adversarial images."""
    text = probed.clip.encode_text(ids)

    said, fixed = (match, sure, true, known), jax.lax.stop_gradient(text)
    moved = adversarial(lambda images: pairs_loss(probed, images, fixed, *said), images, key_of(step), _RADIUS)
    return pairs_loss(probed, jax.lax.stop_gradient(moved), text, *said)


def attribute_separation(clip: CLIP, tokenizer: Tokenizer, pool: Pool) -> dict[str, float]:
    """For each attribute, how often its plainest prompt is closer to a face that has it than to one that has not (AUC)."""
    prompts = [PHRASES[name][0].removeprefix("=") for name in ATTRIBUTES]
    text = np.array(clip.encode_text(tokenizer(prompts)))
    encode = jax.jit(lambda clip, images: clip.encode_image(images))
    image = np.concatenate([np.asarray(encode(clip, from_bytes(pool.images[i : i + 128]))) for i in range(0, 1024, 128)])
    text /= np.linalg.norm(text, axis=-1, keepdims=True)
    image /= np.linalg.norm(image, axis=-1, keepdims=True)
    scores, true = image @ text.T, truths(pool.faces())[:1024]
    return {
        name: float(np.mean(scores[true[:, i], i][:, None] > scores[~true[:, i], i][None])) for i, name in enumerate(ATTRIBUTES)
    }


def main(_: list[str]) -> None:
    """Train, and write tokenizer.json and clip.safetensors into the folder."""
    logging.set_verbosity(logging.INFO)
    folder = Path(_FOLDER.value)
    train_tokenizer(folder / "tokenizer.json")
    tokenizer = Tokenizer(folder / "tokenizer.json", CONTEXT)
    pool = load_training_pool(folder, _POOL.value)
    clip = fresh(CLIP, config(tokenizer.vocab_size))
    if (folder / "clip.safetensors").exists():  # go on with it, for example once the generator is there
        clip = weights.load(folder / "clip.safetensors")
    trainee = Probed(clip, len(ATTRIBUTES), nnx.Rngs(1))
    clip = fit(trainee, training_loss, _batches(pool, tokenizer, 5), _STEPS.value, 1.5e-3, "clip").clip
    weights.save(folder / "clip.safetensors", clip, np.float16)
    logging.info("separation %s", {k: round(v, 3) for k, v in attribute_separation(clip, tokenizer, pool).items()})


if __name__ == "__main__":  # other programs have flags of the same names
    _FOLDER = flags.DEFINE_string("folder", "toons_training", "where pools and results are kept")
    _POOL = flags.DEFINE_integer("pool", 14336, "number of drawn faces to learn from")
    _STEPS = flags.DEFINE_integer("steps", 1600, "optimiser steps")
    app.run(main)
