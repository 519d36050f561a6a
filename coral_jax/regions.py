"""Region selectors: where, and in which layers, an edit applies (CORAL, paper section 3.2).

Each makes one soft mask [B, h, w] for each of its `layers` (numbers, from 1) from the *original* image, so that the masks
do not follow the edit.  A new selector is made as (generator, layers, rngs, segments=...).
"""

import math
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from coral_jax.models.generator import Generator
from coral_jax.models.ops import of_channels

ATTENTION_FILTERS = 32


class SegmentSelection(nnx.Module):
    """The matrix e: how much of each of `segments` segments each layer edits.

    `logits` [P, n] are zero at first: every segment is chosen by half in every layer, where the sigmoid learns fastest.
    """

    needs_segments = True  # reads a segment map

    def __init__(self, generator: Generator, layers: Sequence[int], rngs: nnx.Rngs, *, segments: int):
        del rngs  # nothing random
        self.layers = tuple(layers)
        self.segments = segments
        self.resolutions = tuple(generator.layers[number - 1].resolution for number in layers)
        self.logits = nnx.Param(jnp.zeros((segments, len(self.layers))))

    @property
    def confidence(self) -> jax.Array:
        """Sigmoid(e), [P, n]."""
        return jax.nn.sigmoid(self.logits[...])

    def __call__(
        self, features: Mapping[int, jax.Array], segments: jax.Array, tau: jax.Array | float = 0.0
    ) -> tuple[jax.Array, ...]:
        """Masks from the segment map [B, H, W, P]; `features` are not read.

        tau drops segments of lower confidence (section 3.2: the threshold is on the sigmoid), before the map is
        resized: pixels on a segment's border stay soft.
        """
        if segments.shape[-1] != self.segments:
            raise ValueError(
                f"the segment map has {segments.shape[-1]} segments but e was made for {self.segments}; "
                "use the segmenter the edit was made with"
            )
        confidence = threshold(self.confidence, tau)
        sizes = {resolution: resize_map(segments, resolution) for resolution in set(self.resolutions)}
        return tuple(sizes[resolution] @ confidence[:, i] for i, resolution in enumerate(self.resolutions))


class MaskHead(nnx.Module):
    """1x1 convolution to 32 filters, ReLU, 1x1 convolution, sigmoid (section 4.1), on features taken as they are.

    The last kernel starts small and its bias at zero: masks start near one half everywhere, where the sigmoid learns
    fastest, yet unequal enough for the filters to part.  The first kernel keeps the variance of features (He).
    """

    def __init__(self, channels: int, rngs: nnx.Rngs):
        first = jax.random.normal(rngs.params(), (channels, ATTENTION_FILTERS)) * math.sqrt(2.0 / channels)
        self.first_kernel = nnx.Param(first)
        self.first_bias = nnx.Param(jnp.zeros((ATTENTION_FILTERS,)))
        last = jax.random.normal(rngs.params(), (ATTENTION_FILTERS,)) * (0.1 / math.sqrt(ATTENTION_FILTERS))
        self.last_kernel = nnx.Param(last)
        self.last_bias = nnx.Param(jnp.zeros(()))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Mask [B, h, w] of the features x [B, h, w, C]."""
        hidden = x @ self.first_kernel[...]
        hidden = jax.nn.relu(hidden + of_channels(self.first_bias[...], hidden))
        return jax.nn.sigmoid(hidden @ self.last_kernel[...] + self.last_bias[...])


class AttentionNetwork(nnx.Module):
    """One `MaskHead` per masked layer; the mask of layer l reads the features of layer l and nothing else."""

    needs_segments = False

    def __init__(self, generator: Generator, layers: Sequence[int], rngs: nnx.Rngs, *, segments: int | None = None):
        del segments  # reads none
        self.layers = tuple(layers)
        self.heads = nnx.List([MaskHead(generator.layers[number - 1].channels, rngs) for number in layers])

    @property
    def confidence(self) -> None:
        """There are no segments to be confident of."""

    def __call__(
        self, features: Mapping[int, jax.Array], segments: jax.Array | None = None, tau: jax.Array | float = 0.0
    ) -> tuple[jax.Array, ...]:
        """Masks from the original image's features (layer index from 1), zero below tau; `segments` are not read."""
        return tuple(threshold(head(features[i]), tau) for i, head in zip(self.layers, self.heads, strict=True))


def threshold(m: jax.Array, tau: jax.Array | float) -> jax.Array:
    """m 1{m >= tau} (section 4.1)."""
    return jnp.where(m >= tau, m, 0.0)


def resize_map(segments: jax.Array, resolution: int) -> jax.Array:
    """Resize a segment map [B, H, W, P] to [B, resolution, resolution, P]: area means if smaller, else linear."""
    batch, height, width, count = segments.shape
    method = "area" if resolution < height else "linear"
    if (height, width) == (resolution, resolution):
        return segments
    return jax.image.resize(segments, (batch, resolution, resolution, count), method, antialias=False)
