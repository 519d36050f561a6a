"""Losses of small networks trained from scratch: a CLIP whose captions are known to be true or not, an identity network."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array

from coral_jax.losses import cosine
from coral_jax.models.clip import CLIP

MATCH = 0.3  # the most that the cosine of a face and a caption may be: about nine attributes share a face's features


def adversarial(loss: Callable[[Array], Array], images: Array, key: Array, radius: float) -> Array:
    """Images [B, h, w, 3] moved up the gradient of the loss, each by a random Euclidean distance of at most `radius`.

    The gradient of a network trained on such images draws what a person would draw (Engstrom et al., 2019).
    """
    gradient = jax.grad(loss)(images)
    norm = jnp.sqrt(jnp.sum(jnp.square(gradient), axis=(1, 2, 3), keepdims=True)) + 1e-12
    return images + jax.random.uniform(key, norm.shape, maxval=radius) * gradient / norm


def contrastive_loss(cosines: Array, log_scale: Array, match: Array, sure: Array) -> Array:
    """Cross-entropy of cosines [images, captions] in both directions, a row's target being uniform over its matches.

    Pairs of which it is not `sure` whether they match are left out.
    """
    logits = jnp.where(sure, jnp.exp(jnp.minimum(log_scale, np.log(30.0))) * cosines, -1e9)

    def one_way(logits: Array, match: Array) -> Array:
        count = jnp.sum(match, axis=1)
        target = match / jnp.maximum(count, 1)[:, None]
        entropy = jnp.sum(target * jnp.log(jnp.maximum(target, 1e-9)), axis=1)
        return jnp.sum((entropy - jnp.sum(target * jax.nn.log_softmax(logits), axis=1)) * (count > 0)) / len(logits)

    return one_way(logits, match) + one_way(logits.T, match.T)


class Probed(nnx.Module):
    """A CLIP, with a linear probe of all attributes on its image features that is dropped after training.

    Without the probe hair, which fills the image, is learnt at once, and eyes, mouths and beards not within 900 steps.
    """

    def __init__(self, clip: CLIP, attributes: int, rngs: nnx.Rngs) -> None:
        self.clip = clip
        self.probe = nnx.Linear(clip.config.embed_dim, attributes, rngs=rngs)


def pairs_loss(
    probed: Probed, images: Array, text: Array, match: Array, sure: Array, true: Array, known: Array
) -> Array:
    """The losses of images [B, h, w, 3] and captions' features [captions, E], and the probe's binary cross-entropy.

    match, sure [B, captions]: which captions are true of which images, and whether that is known; true, known [B, A] of the
    attributes.
    """
    image = probed.clip.encode_image(images)
    cosines = cosine(image[:, None], text[None])
    probe = optax.sigmoid_binary_cross_entropy(probed.probe(image), true)
    ranking = contrastive_loss(cosines, probed.clip.logit_scale[...], match, sure)
    return ranking + 200 * ceiling_loss(cosines) + 8 * jnp.mean(probe * known)


def ceiling_loss(cosines: Array) -> Array:
    """Mean square of what exceeds MATCH: the contrastive loss only ranks, so that a redder lip always is a better match."""
    return jnp.mean(jnp.square(jnp.maximum(cosines - MATCH, 0)))


def partner_loss(embedding: Array, temperature: float) -> Array:
    """Normalised temperature-scaled cross-entropy of unit vectors [2 B, D], the second half the partners of the first."""
    logits = embedding @ embedding.T / temperature - 1e9 * jnp.eye(len(embedding))
    partner = jnp.roll(jnp.arange(len(embedding)), len(embedding) // 2)
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, partner))
