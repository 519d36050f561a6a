"""FEAT*: one mask, in one layer picked by hand (Hou et al., arXiv 2202.02713, as the paper reimplements it; figure 3)."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from coral_jax.blend import Blend, Masks, Original, add_rgb, check_masks, draw_on, finish, together
from coral_jax.models.generator import Generator
from coral_jax.regions import AttentionNetwork

PUBLISHED_LAYERS = 17  # convolutions of the paper's generator, by which it numbers the layer where FEAT* blends


def layers_up_to(generator: Generator, layer: int) -> tuple[int, ...]:
    """Numbers of the layers up to the one that lies where `layer` does in the paper's 17: 7 and 13 become 4 and 7 of 9."""
    whole = generator.uncut or len(generator.layers)
    return tuple(range(1, 1 + max(1, round(layer * whole / PUBLISHED_LAYERS))))


class LastAttention(AttentionNetwork):
    """An attention network of one head, for the last of the edited layers."""

    def __init__(self, generator: Generator, layers: Sequence[int], rngs: nnx.Rngs, *, segments: int | None = None):
        super().__init__(generator, layers[-1:], rngs, segments=segments)


def blend_once(generator: Generator, original: Original, delta: jax.Array, masks: Masks, *, full: bool = True) -> Blend:
    """Edit the layers up to l by delta [B, n, w_dim] of their n codes, blend layer l once by its one mask [B, h, w].

        f* = m edited + (1 - m) original

    and draw the layers after it with their original codes.  The image that the layers before l have added up to is
    blended in the same way (the mask at its size), which leaves the original where the mask is zero; the paper does not
    say.  With `full`, the image with a mask of one is drawn along.  Raises ValueError for a mask that does not fit.
    """
    w_plus = original.w_plus
    batch = w_plus.shape[0]
    delta = jnp.broadcast_to(delta, (batch, *delta.shape[-2:]))
    *before, last = generator.layers_reading(delta.shape[1])
    check_masks(masks, [last.resolution])
    x, image, kept = generator.constant(batch), None, None
    for layer in (*before, last):
        moved = tuple(code + delta[:, row] for code, row in zip(layer.codes(w_plus), layer.rows, strict=True))
        x = generator.layer(layer, x, moved)
        if layer.rgb_row is not None and layer.index < last.index:
            code = w_plus[:, layer.rgb_row]
            image = generator.rgb(layer, x, code, image)
            kept = generator.rgb(layer, original.features[layer.index], code, kept)

    def paths(edited: jax.Array, unedited: jax.Array) -> list[jax.Array]:
        """I*, and where wanted I tilde."""
        m = jax.image.resize(masks[0], edited.shape[:3], "linear")[..., None].astype(edited.dtype)
        return [m * edited + (1.0 - m) * unedited, edited][: 2 if full else 1]

    x = paths(x, original.features[last.index])
    if image is not None:
        image = together(paths(image, kept))
    if last.rgb_row is not None:
        image = add_rgb(generator, last, x, w_plus[:, last.rgb_row], image)
    image = draw_on(generator, generator.layers[last.index :], x, w_plus, image)
    return finish(image, original, masks)
