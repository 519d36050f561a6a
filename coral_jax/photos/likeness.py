"""How unlike two pictures of a face are, to networks that know faces and to the eye: what an inversion makes small."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from coral_jax.domains import Domain
from coral_jax.models.clip import CLIP
from coral_jax.models.identity import Identity
from coral_jax.models.ops import resized

_SCALES = (256, 64, 16)  # px at which pixels are compared; larger than the picture: left out
_PIXELS, _PATCHES, _IDENTITY = 1.0, 2.0, 0.5  # weights of the terms
_ROUND = 1e-3  # below this, differences of pixels count less


class Networks(NamedTuple):
    """What looks at pictures: a CLIP's image tower, and an identity network where the domain has one."""

    clip: CLIP
    identity: Identity | None


class Seen(NamedTuple):
    """Pictures as they are compared: pixels [B, s, s, 3] at each scale, patches of unit length [B, n, c], identity [B, E]."""

    pixels: tuple[jax.Array, ...]
    patches: tuple[jax.Array, ...]
    identity: jax.Array | None


def networks_of(domain: Domain) -> Networks:
    """A domain's own: what judges an inversion should be others."""
    return Networks(domain.clip, domain.identity)


def look(networks: Networks, images: jax.Array) -> Seen:
    """What is compared of images [B, S, S, 3] in [-1, 1]."""
    pixels = tuple(resized(images, scale) for scale in _SCALES if scale <= images.shape[1])
    patches = [patch.astype(jnp.float32) for patch in networks.clip.patches(images)]
    norms = [jnp.sqrt(jnp.sum(jnp.square(patch), axis=-1, keepdims=True) + 1e-8) for patch in patches]
    units = tuple(patch / norm for patch, norm in zip(patches, norms, strict=True))
    return Seen(pixels, units, None if networks.identity is None else networks.identity.embed(images))


def unlikeness(a: Seen, b: Seen) -> jax.Array:
    """How unlike pictures a and b are, [B]: 0 for equal ones.  Scales that only one of them has are left out."""
    total = 0.0
    for one, other in zip(a.pixels[::-1], b.pixels[::-1], strict=False):
        difference = jnp.sqrt(jnp.square(one - other) + _ROUND**2) - _ROUND
        total += _PIXELS * jnp.mean(difference, axis=(1, 2, 3))
    for one, other in zip(a.patches, b.patches, strict=True):
        total += _PATCHES / len(a.patches) * jnp.mean(jnp.sum(jnp.square(one - other), axis=-1), axis=1)
    if a.identity is not None:
        total += _IDENTITY * (1 - jnp.sum(a.identity * b.identity, axis=-1))
    return total
