"""Region selectors: where, and in which layers, an edit applies (CORAL, paper section 3.2).

Each makes one soft mask [B, h, w] per edited layer from the *original* image, so that the masks do not follow the edit.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from coral_jax.models.generator import Generator

ATTENTION_FILTERS = 32


@dataclass(frozen=True)
class SegmentSelectionConfig:
    """Number of segments, and the resolution of each edited layer."""

    segments: int
    resolutions: tuple[int, ...]


class SegmentSelection(nnx.Module):
    """The matrix e: how much of each segment each layer edits.

    `logits` [P, n] are zero at first: every segment is chosen by half in every layer, where the sigmoid learns fastest.
    """

    needs_segments = True

    def __init__(self, config: SegmentSelectionConfig, rngs: nnx.Rngs):
        del rngs  # nothing random
        self.config = config
        self.logits = nnx.Param(jnp.zeros((config.segments, len(config.resolutions))))

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
        if segments.shape[-1] != self.config.segments:
            raise ValueError(
                f"the segment map has {segments.shape[-1]} segments but e was made for {self.config.segments}; "
                "use the segmenter the edit was made with"
            )
        confidence = threshold(self.confidence, tau)
        sizes = {resolution: resize_map(segments, resolution) for resolution in set(self.config.resolutions)}
        return tuple(sizes[resolution] @ confidence[:, i] for i, resolution in enumerate(self.config.resolutions))


@dataclass(frozen=True)
class AttentionConfig:
    """Channels of each masked layer's features, and the number of the first of these layers."""

    channels: tuple[int, ...]
    first: int = 1


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
        hidden = jax.nn.relu(x @ self.first_kernel[...] + self.first_bias[...])
        return jax.nn.sigmoid(hidden @ self.last_kernel[...] + self.last_bias[...])


class AttentionNetwork(nnx.Module):
    """One `MaskHead` per masked layer; the mask of layer l reads the features of layer l and nothing else."""

    needs_segments = False

    def __init__(self, config: AttentionConfig, rngs: nnx.Rngs):
        self.config = config
        self.heads = nnx.List([MaskHead(channels, rngs) for channels in config.channels])

    def __call__(
        self, features: Mapping[int, jax.Array], segments: jax.Array | None = None, tau: jax.Array | float = 0.0
    ) -> tuple[jax.Array, ...]:
        """Masks from the original image's features (layer index from 1), zero below tau; `segments` are not read."""
        return tuple(threshold(head(features[i]), tau) for i, head in enumerate(self.heads, start=self.config.first))


def segment_selection(generator: Generator, edit_layers: int, segments: int, rngs: nnx.Rngs) -> SegmentSelection:
    """A segment selection for the first `edit_layers` layers of a generator."""
    resolutions = tuple(layer.resolution for layer in generator.layers[:edit_layers])
    return SegmentSelection(SegmentSelectionConfig(segments, resolutions), rngs)


def attention_network(generator: Generator, edit_layers: int, rngs: nnx.Rngs) -> AttentionNetwork:
    """An attention network for the first `edit_layers` layers of a generator."""
    return AttentionNetwork(AttentionConfig(tuple(layer.channels for layer in generator.layers[:edit_layers])), rngs)


def single_attention(generator: Generator, layer: int, rngs: nnx.Rngs) -> AttentionNetwork:
    """An attention network of one head, for one layer of a generator (FEAT's)."""
    return AttentionNetwork(AttentionConfig((generator.layers[layer - 1].channels,), layer), rngs)


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
