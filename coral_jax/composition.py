"""Several edits in one pass: each with its own delta and its own masks, layer by layer."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from coral_jax.artifact import Edit, in_batches
from coral_jax.blend import blend, blend_together, original_synthesis
from coral_jax.domains import Domain
from coral_jax.methods import METHODS, Method
from coral_jax.metrics import LayerShare, layer_shares
from coral_jax.models.generator import Generator
from coral_jax.models.segmenter import MixtureSegmenter, PixelClassifier
from coral_jax.optimisers import Trainables
from coral_jax.runtime.compiling import jit
from coral_jax.runtime.numerics import pinned
from coral_jax.step import masks_of

Strength = tuple[float, ...]  # alpha of each edit


@dataclass(frozen=True)
class Composition:
    """Edits of one domain, applied together; it draws as an `Edit` does, with an alpha for each."""

    edits: tuple[Edit, ...]

    @property
    def prompt(self) -> str:
        """All prompts."""
        return " + ".join(edit.prompt for edit in self.edits)

    @property
    def about(self) -> str:
        """What learned them, for a sheet."""
        return f"{', '.join(dict.fromkeys(edit.settings.method for edit in self.edits))} on {self.domain.name}"

    @property
    def domain(self) -> Domain:
        """The domain that they share."""
        return self.edits[0].domain

    @property
    def truncation(self) -> float:
        """At which the faces of seeds are drawn: the first edit's."""
        return self.edits[0].truncation

    @property
    def tau(self) -> None:
        """Each has its own."""

    @property
    def masked_layers(self) -> tuple[int, ...]:
        """Numbers of the layers that have masks."""
        return self.edits[0].masked_layers

    def drawn_by(self, generator: Generator) -> "Composition":
        """The same edits of another generator."""
        return Composition(tuple(edit.drawn_by(generator) for edit in self.edits))

    @pinned()
    def draw(self, w_plus: jax.Array, alphas: Strength, tau: float | None = None) -> tuple[jax.Array, jax.Array, tuple]:
        """Original and edited images [B, size, size, 3] and, of each masked layer, the largest mask [B, h, w] of any edit."""
        taus = [edit.tau if tau is None else tau for edit in self.edits]
        alphas = [alpha * edit.settings.strength for alpha, edit in zip(alphas, self.edits, strict=True)]
        segmenters = [self.domain.segmenter(edit.segmenter) if edit.method.needs_segments else None for edit in self.edits]
        trainables = [edit.trainables for edit in self.edits]
        return _jit_apply(self.domain.generator, segmenters, trainables, w_plus, alphas, taus)

    @pinned()
    def apply_each(
        self, w_plus: jax.Array, strengths: Sequence[Strength], tau: float | None = None
    ) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
        """Originals, edited faces of each strength, and masks, of any number of faces w_plus [N, n_latent, w_dim]."""
        return in_batches(w_plus, lambda batch: [self.draw(batch, strength, tau) for strength in strengths])

    def shares(self, w_plus: jax.Array, areas: Sequence[float]) -> list[LayerShare]:
        """What each masked layer does to the faces, by all edits together, whose largest masks have these mean areas."""
        layers = [self.domain.generator.layers[number - 1] for number in self.masked_layers]
        norms = np.hypot.reduce([edit.delta_norms(w_plus) for edit in self.edits])
        return layer_shares([layer.resolution for layer in layers], areas, norms, self.masked_layers)


def compose(edits: Sequence[Edit]) -> Edit | Composition:
    """Edits as one; a single one as it is.  ValueError for edits of several domains and for methods that cannot share."""
    if len(edits) == 1:
        return edits[0]
    domains = {(edit.domain.name, edit.domain.fingerprint): edit.domain.name for edit in edits}
    if len(domains) > 1:
        raise ValueError(
            f"edits of several domains ({', '.join(domains.values())}) cannot be applied together; give edits of one"
        )
    if others := sorted({edit.settings.method for edit in edits if not _layer_by_layer(edit.method)}):
        able = ", ".join(name for name, method in METHODS.items() if _layer_by_layer(method))
        raise ValueError(f"edits of {', '.join(others)} cannot be applied with others; train them with one of {able}")
    if len({edit.masked_layers for edit in edits}) > 1:
        raise ValueError("edits of other layers cannot be applied together; train them with the same domain.json")
    return Composition(tuple(edits))


def _layer_by_layer(method: Method) -> bool:
    """Whether an edit of the method is blended in every layer that it edits, so that others can be, too."""
    return method.drawing is blend


def _apply(
    generator: Generator,
    segmenters: list[MixtureSegmenter | PixelClassifier | None],
    trainables: list[Trainables],
    w_plus: jax.Array,
    alphas: list[float],
    taus: list[float],
) -> tuple[jax.Array, jax.Array, tuple[jax.Array, ...]]:
    original, deltas, masks = original_synthesis(generator, w_plus), [], []
    for segmenter, edit, alpha, tau in zip(segmenters, trainables, alphas, taus, strict=True):
        segments = None if segmenter is None else segmenter.segment(original.features)
        deltas.append(alpha * edit.editor(w_plus, tau))
        masks.append(masks_of(edit, original._replace(segments=segments), tau))
    drawn = blend_together(generator, original, deltas, masks)
    largest = tuple(jnp.max(jnp.stack(of_layer), axis=0) for of_layer in zip(*masks, strict=True))
    return drawn.original, drawn.image, largest


_jit_apply = jit(_apply)
