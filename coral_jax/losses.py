"""The loss terms, equations 2 to 7 of the paper, and which of them each method sums.

Every term is a mean over the batch, so that batch size changes no lambda.  To add one: a function of `Edited`, a `Term` of
it, and its place in the equations below; `docs/extending.md` shows it.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from coral_jax.models.clip import CLIP
from coral_jax.models.identity import Identity


class Edited(NamedTuple):
    """A batch of faces under an edit: what a loss term may read.  Images are [B, size, size, 3]."""

    original: jax.Array  # I
    image: jax.Array  # I*
    full: jax.Array | None  # I tilde, masks of one everywhere; None unless a term of the method reads it
    clip_image: jax.Array  # CLIP's features of I* [B, E]
    clip_full: jax.Array | None  # and of I tilde
    text: jax.Array  # the prompt's CLIP features [E]
    delta: jax.Array | tuple[jax.Array, ...]  # [B, n, w_dim], or [C_in] of every style
    masks: Sequence[jax.Array]  # one [B, h, w] per masked layer
    confidence: jax.Array | None  # sigmoid(e) [P, n], where masks are of segments
    clip: CLIP
    identity: Identity | None  # None where the domain has none
    area_power: jax.Array | float  # of a layer's size in n_l of equation 4
    area_exponent: jax.Array | float  # of each layer's summand there


class Term(NamedTuple):
    """One summand of a loss.

    `value` computes it, or gives None where the domain lacks a network that it needs.  `weight` names the config's field
    that it is multiplied by; None is 1.  `reads_full`: whether it reads the image with masks of one.
    """

    name: str
    value: Callable[[Edited], jax.Array | None]
    weight: str | None
    reads_full: bool = False


def weighted_sum(terms: Sequence[Term], edited: Edited, weights: object) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The loss of a batch, and each term's value by name; `weights` has the weights as attributes (`config.Settings`)."""
    values = [(term, term.value(edited)) for term in terms]
    values = [(term, value) for term, value in values if value is not None]
    total = sum(value if term.weight is None else getattr(weights, term.weight) * value for term, value in values)
    return total, {term.name: value for term, value in values}


def cosine(a: jax.Array, b: jax.Array) -> jax.Array:
    """Cosine of the vectors a and b [..., E] (axes of one are broadcast): [...]."""
    eps = 1e-12  # keeps the gradient of a zero vector finite
    dot = jnp.sum(a * b, axis=-1)
    norms = jnp.sum(jnp.square(a), axis=-1) * jnp.sum(jnp.square(b), axis=-1)
    return dot * jax.lax.rsqrt(norms + eps)


def clip_distance(image_features: jax.Array, text_features: jax.Array) -> jax.Array:
    """D_CLIP = 1 - cosine, of image features [B, E] and the prompt's features [E]: [B]."""
    return 1.0 - cosine(image_features, text_features[None])


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


def area_loss_masks(
    masks: Sequence[jax.Array], power: jax.Array | float = 1.0, exponent: jax.Array | float = 1.0
) -> jax.Array:
    """Equation 4: sum over layers of n_l times the sum of the mask [B, h, w], n_l = h^-power (section 4.1: 1 / h).

    With an exponent other than 1, each face's summand is raised to it; eps keeps the gradient of a closed mask finite.
    """
    eps = 1e-4

    def of_one(mask: jax.Array) -> jax.Array:
        area, n_l = jnp.sum(mask, axis=(1, 2)), jnp.float32(mask.shape[1]) ** -power
        return jnp.where(exponent == 1.0, jnp.mean(area) * n_l, jnp.mean((area * n_l + eps) ** exponent))

    return sum(of_one(mask) for mask in masks)


def tv_loss(masks: Sequence[jax.Array]) -> jax.Array:
    """Equation 5: squared differences between neighbouring pixels of the masks [B, h, w], summed over layers."""

    def of_one(mask: jax.Array) -> jax.Array:
        down, right = mask[:, 1:] - mask[:, :-1], mask[:, :, 1:] - mask[:, :, :-1]
        return jnp.mean(jnp.sum(jnp.square(down), axis=(1, 2)) + jnp.sum(jnp.square(right), axis=(1, 2)))

    return sum(of_one(mask) for mask in masks)


def _identity(edited: Edited) -> jax.Array | None:
    if edited.identity is None:
        return None
    original = edited.identity.embed(edited.original)
    return identity_loss(edited.identity.embed(edited.image), original)


CLIP_OF_BOTH = Term("clip", lambda e: clip_loss(e.clip_image, e.clip_full, e.text), None, reads_full=True)
CLIP_OF_ONE = Term("clip", lambda e: clip_loss_of_one(e.clip_image, e.text), None)
L2 = Term("l2", lambda e: l2_loss(e.delta), "lambda_l2")
L2_MEAN = Term("l2", lambda e: l2_loss_mean(e.delta), "lambda_l2")
IDENTITY = Term("identity", _identity, "lambda_id")
SEGMENT_AREA = Term("area", lambda e: area_loss_segments(e.confidence), "lambda_area")
AREA = Term("area", lambda e: area_loss_masks(e.masks, e.area_power, e.area_exponent), "lambda_area")
TV = Term("tv", lambda e: tv_loss(e.masks), "lambda_tv")

# What methods sum, in this order.
EQUATION_6 = (CLIP_OF_BOTH, L2, IDENTITY, SEGMENT_AREA)  # with segments
EQUATION_7 = (CLIP_OF_BOTH, L2, IDENTITY, AREA, TV)  # with an attention network
WITHOUT_FULL = (CLIP_OF_ONE, L2, IDENTITY, AREA, TV)
OPTIMIZATION = (CLIP_OF_ONE, L2, IDENTITY)
MAPPER = (CLIP_OF_ONE, L2_MEAN, IDENTITY)
STYLE_SPACE = (CLIP_OF_ONE, IDENTITY)
