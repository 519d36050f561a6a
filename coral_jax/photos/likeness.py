"""How unlike two pictures of a face are, to networks that know faces and to the eye: what an inversion makes small."""

import os
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp

from coral_jax.domains import Domain, weights_folder
from coral_jax.models import load_efficientnet
from coral_jax.models.clip import CLIP
from coral_jax.models.efficientnet import EfficientNet
from coral_jax.models.identity import Identity
from coral_jax.models.ops import resized

IMAGENET = "imagenet.safetensors"  # in the weights folder: it belongs to no domain
_IMAGENET_SIZE = 224  # px of the least pictures that it is asked about
_SCALES = (256, 64, 16)  # px at which pixels are compared; larger than the picture: left out
_PIXELS, _PATCHES, _IDENTITY = 1.0, 2.0, 0.5  # weights of the terms; of patches, each network's
_ROUND = 1e-3  # below this, differences of pixels count less


class Networks(NamedTuple):
    """What looks at pictures: a CLIP's image tower, and the others where they are there."""

    clip: CLIP
    identity: Identity | None = None
    imagenet: EfficientNet | None = None


class Seen(NamedTuple):
    """Pictures as they are compared: pixels [B, s, s, 3] at each scale, each network's patches [B, n, c], identity [B, E].

    Patches and identity have unit length.
    """

    pixels: tuple[jax.Array, ...]
    patches: tuple[tuple[jax.Array, ...], ...]
    identity: jax.Array | None


def imagenet_of(domain: Domain, weights_dir: str | os.PathLike | None = None) -> Path | None:
    """The file of the ImageNet network that looks at a domain's pictures; None for small pictures."""
    return weights_folder(weights_dir) / IMAGENET if domain.generator.size >= _IMAGENET_SIZE else None


def networks_of(domain: Domain, imagenet: Path | None = None) -> Networks:
    """A domain's own, and the ImageNet network of a file where it is there: what judges an inversion should be others.

    ValueError for a file of another network.
    """
    if imagenet is None or not imagenet.is_file():
        return Networks(domain.clip, domain.identity)
    return Networks(domain.clip, domain.identity, load_efficientnet(imagenet))


def look(networks: Networks, images: jax.Array) -> Seen:
    """What is compared of images [B, S, S, 3] in [-1, 1]."""
    pixels = tuple(resized(images, scale) for scale in _SCALES if scale <= images.shape[1])
    towers = [tower for tower in (networks.clip, networks.imagenet) if tower is not None]
    patches = tuple(tuple(map(_unit, tower.patches(images))) for tower in towers)
    return Seen(pixels, patches, None if networks.identity is None else networks.identity.embed(images))


def _unit(patches: jax.Array) -> jax.Array:
    patches = patches.astype(jnp.float32)
    return patches / jnp.sqrt(jnp.sum(jnp.square(patches), axis=-1, keepdims=True) + 1e-8)


def unlikeness(a: Seen, b: Seen) -> jax.Array:
    """How unlike pictures a and b are, [B]: 0 for equal ones.  Scales that only one of them has are left out."""
    total = 0.0
    for one, other in zip(a.pixels[::-1], b.pixels[::-1], strict=False):
        difference = jnp.sqrt(jnp.square(one - other) + _ROUND**2) - _ROUND
        total += _PIXELS * jnp.mean(difference, axis=(1, 2, 3))
    for ours, others in zip(a.patches, b.patches, strict=True):
        for one, other in zip(ours, others, strict=True):
            total += _PATCHES / len(ours) * jnp.mean(jnp.sum(jnp.square(one - other), axis=-1), axis=1)
    if a.identity is not None:
        total += _IDENTITY * (1 - jnp.sum(a.identity * b.identity, axis=-1))
    return total
