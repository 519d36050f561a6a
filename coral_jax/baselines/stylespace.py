"""StyleSpace: edits of what modulates a generator's convolutions, one number a channel (Wu et al., arXiv 2011.12799).

The styles of ToRGB are left alone, as StyleMC and StyleCLIP's global directions leave them.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from coral_jax.blend import Blend, Masks, Original
from coral_jax.editors import Editor
from coral_jax.latents import truncated_w_plus
from coral_jax.models.generator import Generator, Styles
from coral_jax.optimisers import Channels, Optimiser, Rates, Trainables

PUBLISHED_CHANNELS = 6048  # of the 1024-px generator that StyleCLIP's rule for beta was made for
_BETAS = tuple(round(0.10 + 0.01 * step, 2) for step in range(20))
_BATCH = 1000


def style_widths(generator: Generator) -> tuple[int, ...]:
    """Number of channels of every style, in order."""
    w_plus = jax.ShapeDtypeStruct((1, generator.n_latent, generator.w_dim), jnp.float32)
    return tuple(style.shape[1] for style in jax.eval_shape(lambda g, codes: g.styles(codes), generator, w_plus))


def statistics(generator: Generator, count: int, seed: int, truncation: float) -> tuple[Styles, Styles]:
    """Mean and standard deviation [C_in] of every style, over `count` codes; count is rounded up to 1000s."""
    random = np.random.RandomState(seed)  # the generator of StyleCLIP's authors: their seed gives their codes
    parts = []
    for _ in range(-(-count // _BATCH)):
        z = random.standard_normal((_BATCH, generator.z_dim)).astype(np.float32)
        parts.append(jax.device_get(_moments(generator, z, truncation)))
    # Batches of one size: the variance is the mean of theirs and the variance of their means.
    means, variances = (list(zip(*moment, strict=True)) for moment in zip(*parts, strict=True))
    mean = tuple(np.mean(layer, axis=0) for layer in means)
    std = tuple(np.sqrt(np.mean(v, axis=0) + np.var(m, axis=0)) for m, v in zip(means, variances, strict=True))
    return mean, std


@jax.jit
def _moments(generator: Generator, z: jax.Array, truncation: float) -> tuple[Styles, Styles]:
    styles = generator.styles(truncated_w_plus(generator, z, truncation))
    return tuple(style.mean(axis=0) for style in styles), tuple(style.var(axis=0) for style in styles)


def draw_styled(generator: Generator, original: Original, delta: Styles, masks: Masks, *, full: bool = False) -> Blend:
    """Draw styles + delta [C_in], with ToRGB under the original codes: there are no masks, and so nothing `full`.

    A delta that was found on a lower generator has rows for the first styles only; the others stay as they are.
    """
    styles = list(generator.styles(original.w_plus))
    for place, row in enumerate(delta):
        styles[place] = styles[place] + row[None]
    left = iter(styles)
    by_layer = {layer.index: tuple(next(left) for _ in layer.rows) for layer in generator.layers}
    return Blend(generator.synthesis(original.w_plus, by_layer), None, original.image, ())


class StyleDirection(Editor):
    """One delta of the styles for every image: a row [C_in] for each style of an edited layer, zero at first."""

    def __init__(self, generator: Generator, layers: Sequence[int], rngs: nnx.Rngs, *, faces: int = 1):
        del rngs, faces  # nothing random, and one delta for all
        self.widths = style_widths(generator)
        rows = [row for layer in generator.layers for row in layer.rows]  # the row that each style is of
        edited = {row for number in layers for row in generator.layers[number - 1].rows}
        self.edited = tuple(place for place, row in enumerate(rows) if row in edited)
        self.rows = nnx.List([_zeros(self.widths[place]) for place in self.edited])

    def __call__(self, w_plus: jax.Array, tau: jax.Array | float = 0.0) -> Styles:
        """Delta [C_in] of every style, zero where it is not edited; neither w_plus nor tau changes it."""
        delta = [jnp.zeros(width) for width in self.widths]
        for place, row in zip(self.edited, self.rows, strict=True):
            delta[place] = row[...]
        return tuple(delta)


class ChannelSelection(Editor):
    """StyleCLIP's global direction: how much each channel has to do with the prompt, R, and its sigma, [C_in] a style."""

    from_text = True

    def __init__(self, generator: Generator, layers: Sequence[int], rngs: nnx.Rngs, *, faces: int = 1):
        del layers, rngs, faces  # all styles, nothing random, one delta for all
        widths = style_widths(generator)
        self.relevance = nnx.List([_zeros(width) for width in widths])
        self.sigma = nnx.List([_zeros(width) for width in widths])

    def __call__(self, w_plus: jax.Array, tau: jax.Array | float = 0.0) -> Styles:
        """Delta [C_in] of every style: R / max|R| sigma, zero where |R| < tau; w_plus does not change it.

        tau is StyleCLIP's beta; 0 stands for the one that its authors' rule finds (`automatic_beta`).
        """
        relevance = jnp.concatenate([row[...] for row in self.relevance])
        beta = jnp.where(tau > 0, tau, automatic_beta(relevance))
        kept = jnp.where(jnp.abs(relevance) >= beta, relevance, 0.0)
        scaled = kept / jnp.maximum(jnp.max(jnp.abs(relevance)), 1e-12)
        ends = np.cumsum([row.shape[0] for row in self.sigma])[:-1]
        return tuple(part * row[...] for part, row in zip(jnp.split(scaled, ends), self.sigma, strict=True))


def automatic_beta(relevance: jax.Array) -> jax.Array:
    """The largest of .10, .11, ... .29 that keeps more than 20 of 6,048 channels, or as large a share of [channels]; else .10.

    StyleCLIP's rule for faces; its authors keep more than 100 elsewhere.
    """
    betas = jnp.asarray(_BETAS)
    kept = jnp.sum(jnp.abs(relevance)[None, :] >= betas[:, None], axis=1)
    enough = kept * PUBLISHED_CHANNELS > 20 * relevance.shape[0]
    return jnp.max(jnp.where(enough, betas, _BETAS[0]))


def with_relevance(selection: ChannelSelection, relevance: Sequence[jax.Array], sigma: Sequence[jax.Array]) -> ChannelSelection:
    """A copy of the selection that holds these, [C_in] a convolution."""
    selection = jax.tree.map(lambda leaf: leaf, selection)
    for rows, values in ((selection.relevance, relevance), (selection.sigma, sigma)):
        for row, value in zip(rows, values, strict=True):
            row.set_value(value)
    return selection


def _zeros(width: int) -> nnx.Param:
    return nnx.Param(jnp.zeros((width,)))


def _from_text_step(
    trainables: Trainables, state: tuple, gradients: Trainables, rates: Rates, channels: Channels
) -> tuple[Trainables, tuple]:
    """No descent: the edit follows from what is known of the channels."""
    return Trainables(with_relevance(trainables.editor, channels.relevance, channels.sigma), None), state


FROM_TEXT = Optimiser(lambda trainables: (), _from_text_step)
