"""What each style channel of a domain does in CLIP's eyes: the preprocessing of StyleCLIP's global directions.

For every channel of the convolutions up to 128 px: on each of some faces, the channel at mean + 5 sigma less the channel at
mean - 5 sigma, as a unit vector of CLIP's space; the mean of these over the faces, as a unit vector.  CLIP sees what the
losses see.  A domain's are kept in the user's cache folder, a file a layer: work that was stopped continues where it was.
"""

import functools
import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from coral_jax import weights
from coral_jax.baselines.stylespace import statistics
from coral_jax.config import Settings
from coral_jax.domains import Domain
from coral_jax.global_directions.templates import wordings
from coral_jax.latents import truncated_w_plus
from coral_jax.models.clip import CLIP
from coral_jax.models.generator import Generator, Layer
from coral_jax.optimisers import Channels
from coral_jax.runtime.compiling import jit
from coral_jax.runtime.files import user_cache
from coral_jax.runtime.numerics import pinned
from coral_jax.runtime.progress import Progress

FORMAT = 1  # of the files in the cache
MAX_RESOLUTION = 128  # of the convolutions whose channels are looked at
SPREAD = 5.0  # sigmas to either side of the mean
COUNT, SEED = 100_000, 5  # codes that mean and sigma are of, and the seed of z
FACES = 100  # StyleCLIP's, where domain.json has no direction_faces
_PIXELS = 2**20  # drawn at once: 256 images of 64 px, one pair of 1024 px
_NOISE = 1e-5  # unit vectors nearer to each other differ by rounding, which points nowhere


class Relevances(NamedTuple):
    """Of a domain: a unit vector of CLIP's space a channel, and the channels' sigma; one array a style, in order."""

    vectors: tuple[np.ndarray, ...]  # [C_in, E]; zero for channels without effect and for later layers
    sigma: tuple[np.ndarray, ...]  # [C_in]


class Halfway(NamedTuple):
    """Faces on their way through the generator: what a layer is about to read."""

    x: jax.Array  # [N, h, w, C]
    image: jax.Array | None  # the sum of ToRGBs so far
    w_plus: jax.Array  # [N, n_latent, w_dim]


def channels_of(domain: Domain, prompt: str) -> Channels:
    """R and sigma of a prompt; finds the domain's relevances first where they are not in the cache.

    ValueError for an empty or too long prompt.
    """
    towards = text_direction(domain, prompt)
    vectors, sigma = relevances(domain)
    return Channels(tuple(jnp.asarray(style) @ towards for style in vectors), tuple(map(jnp.asarray, sigma)))


def text_direction(domain: Domain, prompt: str) -> jax.Array:
    """Unit vector [E] of CLIP's space, from texts of any face of the domain to texts of such a one as the prompt asks for."""
    asked, neutral = (_text_vector(domain.clip, domain.tokenizer(texts)) for texts in wordings(domain, prompt))
    return _unit(asked - neutral)


@pinned()
def relevances(domain: Domain) -> Relevances:
    """The domain's relevances from the cache; what is not there yet is found first, with progress on stderr."""
    folder = cache_folder(domain)
    mean, sigma = _statistics(folder / "statistics.safetensors", domain)
    values = [np.stack([m - SPREAD * s, m + SPREAD * s]) for m, s in zip(mean, sigma, strict=True)]
    of_layers = _by_layer(domain.generator, values)
    _find_missing(domain, folder, of_layers)
    vectors = [_vectors(folder, layer, of_layers[layer.index], domain.clip) for layer in domain.generator.layers]
    return Relevances(tuple(itertools.chain.from_iterable(vectors)), sigma)


def _by_layer(generator: Generator, of_styles: Sequence[np.ndarray]) -> dict[int, list[np.ndarray]]:
    """What is given for each style, in order, by the index of the layer that reads it."""
    left = iter(of_styles)
    return {layer.index: [next(left) for _ in layer.rows] for layer in generator.layers}


def _find_missing(domain: Domain, folder: Path, values: dict[int, list[np.ndarray]]) -> None:
    """Write the files of the layers that have none; `values` [2, C_in] are the low and high ones of each style."""
    generator = _drawn(domain)
    looked_at = [layer for layer in generator.layers if layer.resolution <= MAX_RESOLUTION]
    missing = [layer for layer in looked_at if not _file(folder, layer).exists()]
    if not missing:
        return
    channels = {layer: sum(of_style.shape[1] for of_style in values[layer.index]) for layer in looked_at}
    done = sum(channels[layer] for layer in looked_at if layer not in missing)
    progress = Progress(f"style channels of {domain.name}", done, sum(channels.values()))
    faces = _faces(domain, generator)
    for layer in looked_at[: looked_at.index(missing[-1]) + 1]:
        if layer in missing:
            found = []
            for place, of_style in enumerate(values[layer.index]):
                for vector in channel_vectors(generator, domain.clip, layer, place, faces, of_style):
                    found.append(vector)
                    done += 1
                    progress.show(done, {})
            weights.save_tensors(_file(folder, layer), {"vectors": np.stack(found)}, {})
        faces = _through(generator, faces, layer)


def cache_folder(domain: Domain) -> Path:
    """Where the relevances of a domain are kept: a folder for all that decides them."""
    decisive = [FORMAT, domain.fingerprint, _truncation(domain), _count(domain), COUNT, SEED, SPREAD]
    if domain.loss_resolution is not None:
        decisive.append(domain.loss_resolution)
    key = hashlib.sha256(json.dumps(decisive).encode()).hexdigest()
    return user_cache() / "global_directions" / f"{domain.name}-{key[:16]}"


def channel_vectors(
    generator: Generator, clip: CLIP, layer: Layer, place: int, faces: Halfway, values: np.ndarray
) -> Iterator[np.ndarray]:
    """Unit vector [E] of each channel of a layer's style number `place` in turn, from its low and high `values` [2, C_in].

    `faces` are what the layer reads.  All that lies before it is the same for all its channels, and not drawn again.
    """
    count = len(faces.w_plus)
    most = max(1, _PIXELS // (2 * generator.size**2))
    size = max(part for part in range(1, count + 1) if count % part == 0 and part <= most)
    parts = [jax.tree.map(lambda leaf, at=start: leaf[at : at + size], faces) for start in range(0, count, size)]
    for channel in range(values.shape[1]):
        low_high = values[:, channel]
        yield np.asarray(_unit(sum(_responses(generator, clip, part, channel, low_high, layer, place) for part in parts)))


@functools.partial(jit, static_argnums=(5, 6))
def _responses(
    generator: Generator, clip: CLIP, faces: Halfway, channel: jax.Array, low_high: jax.Array, layer: Layer, place: int
) -> jax.Array:
    """Sum over the faces of the unit vectors [E] between a channel's low value and its high one."""
    styles = [jnp.concatenate([style, style]) for style in generator.layer_styles(layer, layer.codes(faces.w_plus))]
    low, high = jnp.split(styles[place], 2)
    styles[place] = jnp.concatenate([low.at[:, channel].set(low_high[0]), high.at[:, channel].set(low_high[1])])
    twice = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf]), faces)
    start = (layer.index, twice.x, twice.image)
    for _, _, image in generator.walk(twice.w_plus, start=start, styles={layer.index: styles}):  # noqa: B007
        pass
    # The authors' images are bytes: what is brighter than white is white.
    low, high = jnp.split(_unit(clip.encode_image(jnp.clip(image, -1.0, 1.0))), 2)
    return jnp.sum(_unit(high - low), axis=0)


@functools.partial(jit, static_argnums=2)
def _through(generator: Generator, faces: Halfway, layer: Layer) -> Halfway:
    """The faces after the layer that they were before."""
    _, x, image = next(generator.walk(faces.w_plus, start=(layer.index, faces.x, faces.image)))
    return Halfway(x, image, faces.w_plus)


@jax.jit
def _first(generator: Generator, z: jax.Array, truncation: float) -> Halfway:
    return Halfway(generator.constant(len(z)), None, truncated_w_plus(generator, z, truncation))


@jax.jit
def _text_vector(clip: CLIP, ids: jax.Array) -> jax.Array:
    return _unit(jnp.mean(_unit(clip.encode_text(ids)), axis=0))


def _unit(x: jax.Array) -> jax.Array:
    """x [..., E] at length 1, or zero where it is so short that rounding decides its direction."""
    norm = jnp.linalg.norm(x, axis=-1, keepdims=True)
    return jnp.where(norm > _NOISE, x / jnp.maximum(norm, _NOISE), 0.0)


def _drawn(domain: Domain) -> Generator:
    """The domain's generator at the resolution that its losses see, if it has all the layers whose channels are looked at."""
    generator = domain.generator
    if domain.loss_resolution is None:
        return generator
    return generator.lower(max(domain.loss_resolution, min(MAX_RESOLUTION, generator.size)))


def _faces(domain: Domain, generator: Generator) -> Halfway:
    z = np.random.RandomState(SEED).standard_normal((_count(domain), generator.z_dim))
    return _first(generator, z.astype(np.float32), _truncation(domain))


def _count(domain: Domain) -> int:
    return domain.direction_faces or FACES


def _truncation(domain: Domain) -> float:
    return domain.settings.get("truncation", Settings().truncation)


def _statistics(path: Path, domain: Domain) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    """Mean and sigma of the domain's styles, from the cache or found and kept there."""
    if not path.exists():
        mean, sigma = statistics(domain.generator, COUNT, SEED, _truncation(domain))
        tensors = {f"{name}_{i:02d}": row for name, rows in (("mean", mean), ("sigma", sigma)) for i, row in enumerate(rows)}
        weights.save_tensors(path, tensors, {})
    tensors, _ = weights.load_tensors(path)
    return tuple(tuple(tensors[key] for key in sorted(tensors) if key.startswith(name)) for name in ("mean", "sigma"))


def _file(folder: Path, layer: Layer) -> Path:
    return folder / f"layer_{layer.index:02d}.safetensors"


def _vectors(folder: Path, layer: Layer, values: list[np.ndarray], clip: CLIP) -> list[np.ndarray]:
    """What was found for the styles of a layer, [C_in, E] each: zero where nothing was looked for."""
    widths = [of_style.shape[1] for of_style in values]
    if layer.resolution > MAX_RESOLUTION:
        return [np.zeros((width, clip.config.embed_dim), np.float32) for width in widths]
    tensors, _ = weights.load_tensors(_file(folder, layer))
    return np.split(tensors["vectors"], np.cumsum(widths)[:-1])
