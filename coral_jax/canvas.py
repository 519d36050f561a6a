"""One face under edits that are being adjusted: what does not depend on a slider is computed once.

`Edit.apply` draws many faces and forgets them.  A canvas keeps the original pass of one face, and the delta and masks of
each edit under its tau; another alpha, a layer switched off or a stroke of the brush costs one blended pass.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from coral_jax.artifact import Edit
from coral_jax.blend import Blend, Masks, Original, blend_together, original_synthesis
from coral_jax.composition import compose
from coral_jax.domains import Domain
from coral_jax.metrics import LayerShare
from coral_jax.models.generator import Generator
from coral_jax.models.segmenter import MixtureSegmenter, PixelClassifier
from coral_jax.runtime.compiling import jit
from coral_jax.runtime.numerics import pinned
from coral_jax.step import found_edit

PREVIEW = 256  # px a side that a canvas of larger pictures draws while something moves
BRUSH = 256  # px a side of a brush at most: no mask that an edit has is larger
ERASED, LEARNED, PAINTED = 1, 128, 255  # values of a brush: no edit here, as the mask says, as strong as the mask anywhere


@dataclass(frozen=True)
class Adjusted:
    """An edit as it is put on a face.

    `off` are numbers of layers that do not edit; `brush` is uint8 [b, b] with b = `brush_size`, over the whole square that
    masks cover: from ERASED over LEARNED to PAINTED.  None: nothing was painted.
    """

    edit: Edit
    alpha: float = 1.0
    tau: float | None = None
    off: frozenset[int] = frozenset()
    brush: np.ndarray | None = None

    @property
    def threshold(self) -> float:
        """Tau: the one that the edit was trained with, where none is given."""
        return self.edit.tau if self.tau is None else self.tau


class Drawn(NamedTuple):
    """A face [H, W, 3] in [-1, 1] and, of each edit, the masks [h, w] of its layers after switches and brush."""

    image: np.ndarray
    masks: list[list[np.ndarray]]


class _Found(NamedTuple):
    """What an edit does to the canvas's face at alpha 1."""

    delta: jax.Array | tuple[jax.Array, ...]
    masks: Masks


class _Given(NamedTuple):
    """What a program draws of an edit: also alpha [], and of each layer a switch [] and the brush [1, h, w] at its size."""

    found: _Found
    alpha: jax.Array
    switches: tuple[np.float32, ...]
    brushes: tuple[np.ndarray, ...]


class Canvas:
    """A face of a domain, w_plus [n_latent, w_dim], drawn at the generator's own size or, with `preview`, at 256 px at most.

    A preview is drawn by `Generator.lower`; edits that need layers beyond it are refused with ValueError (`previews`).
    """

    @pinned()
    def __init__(self, domain: Domain, w_plus: np.ndarray, *, preview: bool = False):
        self.domain = domain
        self._generator = lowered(domain.generator) if preview else domain.generator
        codes = np.asarray(w_plus)[None, : self._generator.n_latent]
        self._original = _jit_original(self._generator, codes)
        self._segments: dict[str | None, jax.Array] = {}
        self._found: dict[tuple[int, float], tuple[Edit, _Found]] = {}

    @property
    def original(self) -> np.ndarray:
        """The face before any edit, [H, W, 3] in [-1, 1]."""
        return np.asarray(self._original.image[0])

    @pinned()
    def draw(self, edits: Sequence[Adjusted]) -> Drawn:
        """The face under the edits, in one pass.

        ValueError for a layer or a brush that does not fit, for an edit that a preview cannot show, and as `compose`.
        """
        self._forget_all_but(edits)
        if not edits:
            return Drawn(self.original, [])
        compose([one.edit for one in edits])  # those that cannot be drawn together: a line
        if self._generator is not self.domain.generator:
            for one in edits:
                if not previews(one.edit):
                    raise ValueError(
                        f"the edit {one.edit.prompt!r} needs layers that a preview of {self._generator.size} px lacks; "
                        "draw it on a canvas without preview"
                    )
        given = [
            _Given(self._find(one), jnp.float32(one.alpha * one.edit.settings.strength), *self._changes(one)) for one in edits
        ]
        image, masks = _jit_draw(edits[0].edit.method.drawing, self._generator, self._original, given)
        return Drawn(np.asarray(image[0]), [[np.asarray(mask[0]) for mask in of_one] for of_one in masks])

    def shares(self, one: Adjusted, masks: Sequence[np.ndarray]) -> list[LayerShare]:
        """What each masked layer of an edit does to this face, whose masks of `draw` these are."""
        return one.edit.shares(self._original.w_plus, [float(mask.mean()) for mask in masks])

    def _find(self, one: Adjusted) -> _Found:
        key = (id(one.edit), one.threshold)
        if key not in self._found:
            drawn_by = self.domain.generator  # a photo's own, which deltas of this face alone are found with
            edit = one.edit if drawn_by is one.edit.domain.generator else one.edit.drawn_by(drawn_by)
            trainables = edit.trainables_of(self._original.w_plus)
            original = self._original._replace(segments=self._segments_of(one.edit))
            self._found[key] = (one.edit, _Found(*_jit_find(trainables, original, one.threshold)))
        return self._found[key][1]

    def _segments_of(self, edit: Edit) -> jax.Array | None:
        if not edit.method.needs_segments:
            return None
        if edit.segmenter not in self._segments:
            segmenter = self.domain.segmenter(edit.segmenter)
            self._segments[edit.segmenter] = _jit_segment(segmenter, self._original.features)
        return self._segments[edit.segmenter]

    def _forget_all_but(self, edits: Sequence[Adjusted]) -> None:
        """Sliding tau leaves a delta and masks behind at every stop."""
        kept = {(id(one.edit), one.threshold) for one in edits}
        self._found = {key: found for key, found in self._found.items() if key in kept}

    def _changes(self, one: Adjusted) -> tuple[tuple[np.float32, ...], tuple[np.ndarray, ...]]:
        """A switch, 0 or 1, of each masked layer, and the brush [1, h, w] in [-1, 1] at its resolution."""
        layers = one.edit.masked_layers
        if unknown := sorted(one.off - set(layers)):
            raise ValueError(f"the edit {one.edit.prompt!r} has no mask in layer {unknown[0]}; it has them in {list(layers)}")
        resolutions = [self.domain.generator.layers[number - 1].resolution for number in layers]
        brush = one.brush
        if brush is None:
            brush = np.full((1, 1), LEARNED, np.uint8)
        elif brush.shape != (size := brush_size(self.domain.generator), size) or brush.dtype != np.uint8:
            raise ValueError(f"the brush is {brush.dtype} {list(brush.shape)}; give uint8 [{size}, {size}]")
        switches = tuple(np.float32(number not in one.off) for number in layers)
        return switches, tuple(brush_at(brush, resolution)[None] for resolution in resolutions)


def brush_size(generator: Generator) -> int:
    """Pixels a side of a brush on the pictures of a generator."""
    return min(BRUSH, generator.size)


def brush_at(brush: np.ndarray, resolution: int) -> np.ndarray:
    """A brush uint8 [b, b] at a mask's resolution: float32 in [-1, 1], -1 erases, 0 leaves the mask as it is; area means."""
    signed = np.maximum(brush.astype(np.int32) - LEARNED, ERASED - LEARNED)
    size = len(brush)
    if size <= resolution:
        whole = signed.repeat(resolution // size, axis=0).repeat(resolution // size, axis=1)
        return (whole / (PAINTED - LEARNED)).astype(np.float32)
    step = size // resolution
    sums = signed.reshape(resolution, step, resolution, step).sum(axis=(1, 3))  # whole numbers: the same on any computer
    return (sums / (step * step * (PAINTED - LEARNED))).astype(np.float32)


def lowered(generator: Generator) -> Generator:
    """The generator that previews are drawn by: the largest of `sizes` up to 256 px, or itself where it is no larger."""
    size = max((size for size in generator.sizes if size <= PREVIEW), default=generator.size)
    return generator.lower(size) if generator.size > PREVIEW else generator


def previews(edit: Edit) -> bool:
    """Whether a preview shows what the edit does: all layers that it edits, and masks, are of the lower generator too.

    Of an edit that is yet to be learned as well.
    """
    generator = edit.domain.generator
    low = lowered(generator)
    return low is generator or (edit.method.region is not None and edit.method.layers(low) == edit.method.layers(generator))


def changed_mask(mask: jax.Array, switch: jax.Array, brush: jax.Array) -> jax.Array:
    """A mask [B, h, w] under a switch [] (0 or 1) and a brush [1, h, w] in [-1, 1].

    Painting raises a mask towards its largest value on this face, so that a layer that takes no part stays out; erasing
    takes it to zero.
    """
    most = jnp.max(mask, axis=(1, 2), keepdims=True)
    painted = mask + jnp.maximum(brush, 0.0) * (most - mask)
    return switch * painted * (1.0 + jnp.minimum(brush, 0.0))


def _draw(
    drawing: Callable[..., Blend], generator: Generator, original: Original, edits: list[_Given]
) -> tuple[jax.Array, list[Masks]]:
    deltas = [jax.tree.map(lambda part, alpha=one.alpha: alpha * part, one.found.delta) for one in edits]
    masks = [
        tuple(changed_mask(*of_layer) for of_layer in zip(one.found.masks, one.switches, one.brushes, strict=True))
        for one in edits
    ]
    if len(edits) > 1:
        return blend_together(generator, original, deltas, masks).image, masks
    return drawing(generator, original, deltas[0], masks[0], full=False).image, masks


def _segment(segmenter: MixtureSegmenter | PixelClassifier, features: dict[int, jax.Array]) -> jax.Array:
    return segmenter.segment(features)


_jit_original = jit(original_synthesis)
_jit_segment = jit(_segment)
_jit_find = jit(found_edit)
_jit_draw = jit(_draw, static_argnums=0)
