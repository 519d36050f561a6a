"""Trains the toons CLIP contrastively on drawn (and, where there is a generator, generated) faces and their captions.

    python -m coral_jax.toons.train_clip --folder=toons_training

Which captions are true of which faces is known, so every true pair of a batch counts as a match, not only the diagonal.
"""

from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags, logging
from flax import nnx
from jax import Array

from coral_jax import weights
from coral_jax.models.clip import CLIP, CLIPConfig
from coral_jax.tokenizer import Tokenizer
from coral_jax.toons.captions import PHRASES, caption
from coral_jax.toons.faces import ATTRIBUTES, Face, has
from coral_jax.toons.fitting import fit, fresh
from coral_jax.toons.pool import Pool, augment, from_bytes, load_training_pool

_FOLDER = flags.DEFINE_string("folder", "toons_training", "where pools and results are kept")
_POOL = flags.DEFINE_integer("pool", 14336, "number of drawn faces to learn from")
_STEPS = flags.DEFINE_integer("steps", 1600, "optimiser steps")

_BATCH = 64
_CAPTIONS = 40  # per batch, beside one for each attribute
CONTEXT = 32


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


def _sample_captions(true: np.ndarray, random: np.random.Generator) -> tuple[list[str], np.ndarray]:
    """Captions of up to three attributes each true of some face of the batch, and one of each attribute; with matches."""
    names = list(ATTRIBUTES)
    chosen = [[name] for name in names]
    for row in random.integers(len(true), size=_CAPTIONS):
        own = np.flatnonzero(true[row])
        count = min(len(own), random.choice([1, 2, 3], p=[0.2, 0.6, 0.2]))
        chosen.append([names[i] for i in random.choice(own, count, False)])
    match = np.stack([true[:, [names.index(n) for n in group]].all(axis=1) for group in chosen], axis=1)
    return [caption(group, random) for group in chosen], match


def _batches(pool: Pool, tokenizer: Tokenizer, seed: int) -> Iterator[tuple]:
    random = np.random.default_rng(seed)
    true = truths(pool.faces())
    for rows in pool.batches(_BATCH, seed):
        texts, match = _sample_captions(true[rows], random)
        ids = tokenizer(texts)[:, :20]
        yield augment(from_bytes(pool.images[rows]), random), ids, match.astype(np.float32), true[rows]


class Trainee(nnx.Module):
    """The CLIP, with a linear probe of all attributes on its image features that is dropped afterwards.

    Without the probe hair, which fills the image, is learnt at once, and eyes, mouths and beards not within 900 steps.
    """

    def __init__(self, clip: CLIP, rngs: nnx.Rngs) -> None:
        self.clip = clip
        self.probe = nnx.Linear(clip.config.embed_dim, len(ATTRIBUTES), rngs=rngs)


def training_loss(trainee: Trainee, images: Array, ids: Array, match: Array, true: Array) -> Array:
    """The contrastive loss of images and captions, and the probe's binary cross-entropy."""
    image = trainee.clip.encode_image(images)
    probe = optax.sigmoid_binary_cross_entropy(trainee.probe(image), true)
    return contrastive_loss(image, trainee.clip.encode_text(ids), trainee.clip.logit_scale[...], match) + 8 * probe.mean()


def contrastive_loss(image: Array, text: Array, log_scale: Array, match: Array) -> Array:
    """Cross-entropy in both directions, the target of a row being uniform over its matches [images, captions]."""
    image = image / jnp.linalg.norm(image, axis=-1, keepdims=True)
    text = text / jnp.linalg.norm(text, axis=-1, keepdims=True)
    logits = jnp.exp(jnp.minimum(log_scale, np.log(30.0))) * image @ text.T

    def one_way(logits: Array, match: Array) -> Array:
        count = jnp.sum(match, axis=1)
        target = match / jnp.maximum(count, 1)[:, None]
        entropy = jnp.sum(target * jnp.log(jnp.maximum(target, 1e-9)), axis=1)
        return jnp.sum((entropy - jnp.sum(target * jax.nn.log_softmax(logits), axis=1)) * (count > 0)) / len(logits)

    return one_way(logits, match) + one_way(logits.T, match.T)


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
        name: float(np.mean(scores[true[:, i], i][:, None] > scores[~true[:, i], i][None]))
        for i, name in enumerate(ATTRIBUTES)
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
    trainee = Trainee(clip, nnx.Rngs(1))
    clip = fit(trainee, training_loss, _batches(pool, tokenizer, 5), _STEPS.value, 1.5e-3, "clip").clip
    weights.save(folder / "clip.safetensors", clip, np.float16)
    logging.info("separation %s", {k: round(v, 3) for k, v in attribute_separation(clip, tokenizer, pool).items()})


if __name__ == "__main__":
    app.run(main)
