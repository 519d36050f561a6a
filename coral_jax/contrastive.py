"""Losses of a small CLIP trained from scratch, whose captions are known to be true of some images and false of others."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

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


def ceiling_loss(cosines: Array) -> Array:
    """Mean square of what exceeds MATCH: the contrastive loss only ranks, so that a redder lip always is a better match."""
    return jnp.mean(jnp.square(jnp.maximum(cosines - MATCH, 0)))
