"""The loss terms, equations 2 to 7 of the paper.

Every term is a mean over the batch, so that batch size changes no lambda.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp


def cosine(a: jax.Array, b: jax.Array) -> jax.Array:
    """Cosine of the vectors a and b [..., E] (broadcast against each other): [...]."""
    eps = 1e-12  # keeps the gradient of a zero vector finite
    dot = jnp.sum(a * b, axis=-1)
    norms = jnp.sum(jnp.square(a), axis=-1) * jnp.sum(jnp.square(b), axis=-1)
    return dot * jax.lax.rsqrt(norms + eps)


def clip_distance(image_features: jax.Array, text_features: jax.Array) -> jax.Array:
    """D_CLIP = 1 - cosine, of image features [B, E] and the prompt's features [E]: [B]."""
    return 1.0 - cosine(image_features, text_features)


def clip_loss(edited: jax.Array, full: jax.Array, text_features: jax.Array) -> jax.Array:
    """Equation 2: mean of D_CLIP of I* and of the image with masks of one; image features [B, E], text features [E]."""
    return 0.5 * jnp.mean(clip_distance(edited, text_features) + clip_distance(full, text_features))


def clip_loss_of_one(edited: jax.Array, text_features: jax.Array) -> jax.Array:
    """Mean of D_CLIP of the edited image alone; image features [B, E], text features [E]."""
    return jnp.mean(clip_distance(edited, text_features))


def l2_loss(delta: jax.Array) -> jax.Array:
    """Squared Euclidean norm of delta [B, n, w_dim], summed over layers and channels."""
    return jnp.mean(jnp.sum(jnp.square(delta), axis=(1, 2)))


def l2_loss_mean(delta: jax.Array) -> jax.Array:
    """Mean square of delta [B, n, w_dim]: StyleCLIP's mapper has this where others have the sum."""
    return jnp.mean(jnp.square(delta))


def identity_loss(edited: jax.Array, original: jax.Array) -> jax.Array:
    """1 - cosine of the identity embeddings [B, E]; the edited image's carries the gradient."""
    return jnp.mean(1.0 - cosine(edited, jax.lax.stop_gradient(original)))


def area_loss_segments(confidence: jax.Array) -> jax.Array:
    """Equation 3: sum of the segment confidences sigmoid(e) [P, n]."""
    return jnp.sum(confidence)


def area_loss_masks(masks: Sequence[jax.Array]) -> jax.Array:
    """Equation 4: sum over layers of the sum of the mask [B, h, w], divided by the layer's size h (section 4.1)."""
    return sum(jnp.mean(jnp.sum(mask, axis=(1, 2))) / mask.shape[1] for mask in masks)


def tv_loss(masks: Sequence[jax.Array]) -> jax.Array:
    """Equation 5: squared differences between neighbouring pixels of the masks [B, h, w], summed over layers."""

    def of_one(mask: jax.Array) -> jax.Array:
        down, right = mask[:, 1:] - mask[:, :-1], mask[:, :, 1:] - mask[:, :, :-1]
        return jnp.mean(jnp.sum(jnp.square(down), axis=(1, 2)) + jnp.sum(jnp.square(right), axis=(1, 2)))

    return sum(of_one(mask) for mask in masks)
