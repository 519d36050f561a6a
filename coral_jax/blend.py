"""Drawing an edit.  `blend` is the paper's multi-layer feature blending, equation 1; below it, what others do instead.

At each edited layer l, with the blended features f* of the layer before, the original code w and the edited w + delta,

    edited = layer(f*, w + delta)      unedited = layer(f*, w)      f* <- m edited + (1 - m) unedited

so that a mask of zero passes earlier edits on and adds none.  ToRGB reads the original code in every path: an edited ToRGB
would colour pixels outside the masks.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from coral_jax.models.generator import Generator, Layer

PAPER_EDIT_LAYERS = 13
PUBLISHED_LAYERS = 17  # convolutions of the paper's generator, by which it numbers the layer where FEAT* blends

Features = Mapping[int, jax.Array]  # layer index (from 1) -> [B, h, w, C]
Masks = Sequence[jax.Array]  # one [B, h, w] per edited layer, in [0, 1], at the layer's resolution


class Blend(NamedTuple):
    """What `blend` draws; images are [B, size, size, 3]."""

    image: jax.Array  # I*: edited where the masks say
    full: jax.Array | None  # the same with masks of one everywhere (the paper's I tilde, equation 2)
    original: jax.Array  # I: no edit
    masks: tuple[jax.Array, ...]


def edit_layers_of(generator: Generator) -> int:
    """How many layers, from the first, are edited: the paper's 13 (through 256 px), or all of a smaller generator."""
    return min(PAPER_EDIT_LAYERS, len(generator.layers))


def single_layer_of(generator: Generator, layer: int) -> int:
    """The layer of a generator that lies where `layer` does in the paper's, which has 17: 7 and 13 become 4 and 7 of 9."""
    return max(1, round(layer * len(generator.layers) / PUBLISHED_LAYERS))


def original_synthesis(generator: Generator, w_plus: jax.Array) -> tuple[jax.Array, dict[int, jax.Array]]:
    """Draw w_plus [B, n_latent, w_dim] unedited, without gradient: the image and every layer's features."""
    w_plus = jax.lax.stop_gradient(w_plus)
    x, image, features = generator.constant(w_plus.shape[0]), None, {}
    for layer in generator.layers:
        x = features[layer.index] = generator.layer(layer.index, x, w_plus[:, layer.w_index])
        if layer.rgb_w_index is not None:
            image = generator.rgb(layer.index, x, w_plus[:, layer.rgb_w_index], image)
    return jax.lax.stop_gradient((image, features))


def blend(
    generator: Generator,
    w_plus: jax.Array,
    delta: jax.Array,
    masks: Masks,
    original: jax.Array,
    *,
    full: bool = True,
    features: Features | None = None,
    edit_rgb: bool = False,
) -> Blend:
    """Draw the edit of w_plus [B, n_latent, w_dim] by delta [B, n, w_dim] (or [n, w_dim]) inside n masks [B, h, w].

    `original` is the unedited image of `original_synthesis`; a sample whose masks are all zero gets exactly that image
    back.  With `full`, the image with masks of one is drawn along in the same batches.  Two ablations: with the original
    pass's `features`, these take the place of the unedited branch (section 3.3); `edit_rgb` edits ToRGB too, inside the
    mask of its layer.  Raises ValueError for masks that do not fit.
    """
    edit_layers = delta.shape[-2]
    _check(generator, masks, [layer.resolution for layer in generator.layers[:edit_layers]], edit_layers)
    batch = w_plus.shape[0]
    delta = jnp.broadcast_to(delta, (batch, *delta.shape[-2:]))
    paths = 2 if full else 1
    x, image = [generator.constant(batch)] * paths, None  # I*, and I tilde
    for layer in generator.layers:
        w = w_plus[:, layer.w_index]
        if layer.index <= edit_layers:
            mask = masks[layer.index - 1][..., None].astype(x[0].dtype)
            edited_w = w + delta[:, layer.index - 1]
            # One batch: unedited and edited branch of I*, and edited branch of I tilde (whose mask is one).
            unedited, edited, *rest = _apply(generator, layer.index, [x[0], *x], [w] + [edited_w] * paths)
            if features is not None:
                unedited = features[layer.index]
            x = [mask * edited + (1.0 - mask) * unedited, *rest]
        else:  # the branches of equation 1 are one here: no delta
            x = _apply(generator, layer.index, x, [w] * paths)
        if layer.rgb_w_index is not None:
            before, image = image, _rgb(generator, layer, x, w_plus[:, layer.rgb_w_index], image)
            if edit_rgb and layer.rgb_w_index < edit_layers:
                codes = w_plus[:, layer.rgb_w_index] + delta[:, layer.rgb_w_index]
                inside = _together([mask, jnp.ones_like(mask)][:paths])
                image = inside * _rgb(generator, layer, x, codes, before) + (1.0 - inside) * image
    return _finish(image.reshape(batch, -1, *image.shape[1:]), original, masks)


def blend_once(
    generator: Generator,
    w_plus: jax.Array,
    delta: jax.Array,
    mask: jax.Array,
    original: jax.Array,
    features: Features,
    *,
    full: bool = True,
) -> Blend:
    """FEAT's blending (figure 3): edit the layers up to l by delta [B, l, w_dim], blend layer l once by its mask [B, h, w].

        f* = m edited + (1 - m) original      (`features`, `original`: those of `original_synthesis`)

    and draw the layers behind it with their original codes.  The image that the layers before l have added up to is
    blended alike (the mask at its size), which leaves the original where the mask is zero; the paper does not say.
    With `full`, the image with a mask of one is drawn along.  Raises ValueError for a mask that does not fit.
    """
    last, batch = delta.shape[-2], w_plus.shape[0]
    delta = jnp.broadcast_to(delta, (batch, *delta.shape[-2:]))
    _check(generator, [mask], [generator.layers[last - 1].resolution], last)
    x, image, kept = generator.constant(batch), None, None
    for layer in generator.layers[:last]:
        x = generator.layer(layer.index, x, w_plus[:, layer.w_index] + delta[:, layer.index - 1])
        if layer.rgb_w_index is not None and layer.index < last:
            code = w_plus[:, layer.rgb_w_index]
            image = generator.rgb(layer.index, x, code, image)
            kept = generator.rgb(layer.index, features[layer.index], code, kept)

    def paths(edited: jax.Array, unedited: jax.Array) -> list[jax.Array]:
        """I*, and where wanted I tilde."""
        m = jax.image.resize(mask, edited.shape[:3], "linear")[..., None].astype(edited.dtype)
        return [m * edited + (1.0 - m) * unedited, edited][: 2 if full else 1]

    x = paths(x, features[last])
    if image is not None:
        image = _together(paths(image, kept))
    for layer in generator.layers[last - 1 :]:
        if layer.index > last:
            x = _apply(generator, layer.index, x, [w_plus[:, layer.w_index]] * len(x))
        if layer.rgb_w_index is not None:
            image = _rgb(generator, layer, x, w_plus[:, layer.rgb_w_index], image)
    return _finish(image.reshape(batch, -1, *image.shape[1:]), original, [mask])


def edited_synthesis(generator: Generator, w_plus: jax.Array, delta: jax.Array, original: jax.Array) -> Blend:
    """Draw w_plus + delta [B, n_latent, w_dim] as it is, ToRGB included: no masks."""
    return Blend(generator.synthesis(w_plus + delta), None, original, ())


def blended_synthesis(
    generator: Generator, w_plus: jax.Array, delta: jax.Array, masks: Sequence[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """Equation 1 in one call: (image_star, image_tilde), [B, size, size, 3] each.

    w_plus [B, n_latent, w_dim] is moved by delta [B, n, w_dim] (or [n, w_dim]) inside `masks`, one [B, h, w, 1] in
    [0, 1] per edited layer; image_tilde is the same with masks of one.  ValueError for masks that do not fit.
    """
    original, _ = original_synthesis(generator, w_plus)
    drawn = blend(generator, w_plus, delta, [mask[..., 0] for mask in masks], original)
    return drawn.image, drawn.full


def _apply(generator: Generator, index: int, paths: Sequence[jax.Array], codes: Sequence[jax.Array]) -> list[jax.Array]:
    """Layer `index` on several paths [B, h, w, C] under their codes [B, w_dim], as one batch."""
    out = generator.layer(index, _together(paths), _together(codes))
    out = out.reshape(-1, len(paths), *out.shape[1:])
    # Not by indexing, whose derivatives pad each path to all of them before they are added.
    return [path[:, 0] for path in jnp.split(out, len(paths), axis=1)]


def _together(paths: Sequence[jax.Array]) -> jax.Array:
    """Paths [B, ...] as one batch [B paths, ...].

    They lie next to each other inside each sample, so that a batch sharded over devices stays where it is.
    """
    # By selecting, not stacking: a concatenation would be kept for the derivative beside what it was made of.
    place = jnp.arange(len(paths)).reshape(1, -1, *[1] * (paths[0].ndim - 1))
    together = paths[-1][:, None]
    for index, path in reversed(list(enumerate(paths[:-1]))):
        if path is not paths[index + 1]:
            together = jnp.where(place <= index, path[:, None], together)
    together = jnp.broadcast_to(together, (len(paths[0]), len(paths), *paths[0].shape[1:]))
    return together.reshape(-1, *together.shape[2:])


def _rgb(generator: Generator, layer: Layer, paths: Sequence[jax.Array], w: jax.Array, image: jax.Array | None) -> jax.Array:
    """Add the ToRGB of paths [B, h, w, C] under the codes w [B, w_dim] to the image [B paths, h, w, 3] so far."""
    return generator.rgb(layer.index, _together(paths), _together([w] * len(paths)), image)


def _finish(image: jax.Array, original: jax.Array, masks: Masks) -> Blend:
    """Images [B, paths, size, size, 3] of I* and, where drawn, I tilde: the original where no mask says otherwise."""
    # In exact arithmetic masks of zero give the original; a convolution over another batch may round otherwise.
    touched = jnp.stack([jnp.any(mask != 0, axis=(1, 2)) for mask in masks]).any(axis=0)
    edited = jnp.where(touched[:, None, None, None], image[:, 0], original)
    return Blend(edited, image[:, 1] if image.shape[1] > 1 else None, original, tuple(masks))


def _check(generator: Generator, masks: Masks, expected: list[int], edit_layers: int) -> None:
    if not 1 <= edit_layers <= len(generator.layers):
        raise ValueError(f"delta edits {edit_layers} layers; give between 1 and the generator's {len(generator.layers)} layers")
    given = [mask.shape[1:] for mask in masks]
    if given != [(resolution, resolution) for resolution in expected]:
        raise ValueError(f"masks have the sizes {given}; give one [batch, h, w] per blended layer, of resolutions {expected}")
