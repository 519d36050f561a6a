"""Multi-layer feature blending, equation 1 of the paper.

At each edited layer l, with the blended features f* of the layer before, the original code w and the edited w + delta,

    edited = layer(f*, w + delta)      unedited = layer(f*, w)      f* <- m edited + (1 - m) unedited

so that a mask of zero passes earlier edits on and adds none.  ToRGB reads the original code in every path: an edited ToRGB
would colour pixels outside the masks.  Several edits at once each have a delta and masks of their own:

    f* <- m_1 edited_1 + m_2 edited_2 + ... + (1 - m_1 - m_2 - ...) unedited

Every way of drawing an edit, here and in `baselines`, is called as `blend` is: (generator, original, delta, masks, full=...).
"""

import functools
import itertools
import operator
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from coral_jax.models import blocks
from coral_jax.models.generator import Generator, Layer
from coral_jax.runtime.target import platform

EDITED_RESOLUTION = 256  # of the last edited layers where a generator says nothing else: 13 of the paper's generator

Features = Mapping[int, jax.Array]  # layer index (from 1) -> [B, h, w, C]
Masks = Sequence[jax.Array]  # one [B, h, w] per masked layer, in [0, 1], at the layer's resolution


class Original(NamedTuple):
    """A batch of faces before any edit: codes [B, n_latent, w_dim], image, features of every layer, and segments if wanted."""

    w_plus: jax.Array
    image: jax.Array
    features: Features
    segments: jax.Array | None = None  # [B, H, W, P]


class Blend(NamedTuple):
    """What a drawing gives; images are [B, size, size, 3]."""

    image: jax.Array  # I*: edited where the masks say
    full: jax.Array | None  # the same with masks of one everywhere (the paper's I tilde, equation 2)
    original: jax.Array  # I: no edit
    masks: tuple[jax.Array, ...]


def edited_layers(generator: Generator) -> tuple[int, ...]:
    """Numbers of the layers that CORAL edits: those of up to 256 px, the first 13 of the paper's 17, or fewer."""
    last = generator.edited_resolution or EDITED_RESOLUTION
    return tuple(layer.index for layer in generator.layers if layer.resolution <= last)


def original_synthesis(generator: Generator, w_plus: jax.Array) -> Original:
    """Draw w_plus [B, n_latent, w_dim] unedited, without gradient."""
    w_plus = jax.lax.stop_gradient(w_plus)
    features, image = {}, None
    for layer, x, image in generator.walk(w_plus):  # noqa: B007  (the last image is the whole one)
        features[layer.index] = x
    return Original(w_plus, *jax.lax.stop_gradient((image, features)))


def blend(
    generator: Generator,
    original: Original,
    delta: jax.Array,
    masks: Masks,
    *,
    full: bool = True,
    original_features: bool = False,
    edit_rgb: bool = False,
) -> Blend:
    """Draw the edit of a batch by delta [B, n, w_dim] (or [n, w_dim]) of the first n codes, inside a mask per edited layer.

    A sample whose masks are all zero gets exactly the original image back.  With `full`, the image with masks of one is
    drawn along in the same batches.  Two ablations: with `original_features`, those of the original pass take the place of
    the unedited branch (section 3.3); `edit_rgb` edits ToRGB too, inside the mask of its layer.  Raises ValueError for
    masks that do not fit.
    """
    return _blend(
        generator, original, [delta], [masks], full=full, original_features=original_features, edit_rgb=edit_rgb
    )  # fmt: skip


def blend_together(
    generator: Generator, original: Original, deltas: Sequence[jax.Array], masks: Sequence[Masks], *, full: bool = False
) -> Blend:
    """Draw several edits of a batch at once, each as `blend` takes it; the masks it gives are those of the first.

    What each adds to a layer is added up: where masks do not meet, each edit is what it is alone.  All edit as many codes.
    ValueError for masks or deltas that do not fit, and for `full`, which is of one edit.
    """
    if full or len({delta.shape[-2] for delta in deltas}) != 1:
        raise ValueError("edits are drawn together without the image of masks of one, and edit as many codes; give such ones")
    return _blend(generator, original, deltas, masks, full=False, original_features=False, edit_rgb=False)


def _blend(
    generator: Generator,
    original: Original,
    deltas: Sequence[jax.Array],
    masks: Sequence[Masks],
    *,
    full: bool,
    original_features: bool,
    edit_rgb: bool,
) -> Blend:
    w_plus = original.w_plus
    batch = w_plus.shape[0]
    deltas = [jnp.broadcast_to(delta, (batch, *delta.shape[-2:])) for delta in deltas]
    blended = generator.layers_reading(deltas[0].shape[1])
    for of_one in masks:
        check_masks(of_one, [layer.resolution for layer in blended])
    paths = 2 if full else 1
    x, image = [generator.constant(batch)] * paths, None  # I*, and I tilde
    for layer in blended:
        codes = layer.codes(w_plus)
        inside = [of_one[layer.index - 1][..., None].astype(x[0].dtype) for of_one in masks]
        moved = [tuple(code + delta[:, row] for code, row in zip(codes, layer.rows, strict=True)) for delta in deltas]
        # One batch: unedited branch of I*, its edited branches, and edited branch of I tilde (whose mask is one).
        starts, of_paths = [x[0]] * (1 + len(deltas)) + x[1:], [codes, *moved] + moved * (paths - 1)
        unedited, *edited = apply_layer(generator, layer, starts, of_paths)
        if original_features:
            unedited = original.features[layer.index]
        parts = [mask * part for mask, part in zip(inside, edited, strict=False)]
        outside = 1.0 - functools.reduce(operator.add, inside)
        x = [functools.reduce(operator.add, parts) + outside * unedited, *edited[len(deltas) :]]
        if layer.rgb_row is not None:
            before, image = image, add_rgb(generator, layer, x, w_plus[:, layer.rgb_row], image)
            if edit_rgb and layer.rgb_row < deltas[0].shape[1]:
                code = w_plus[:, layer.rgb_row] + deltas[0][:, layer.rgb_row]
                mask = together([inside[0], jnp.ones_like(inside[0])][:paths])
                image = mask * add_rgb(generator, layer, x, code, before) + (1.0 - mask) * image
    image = draw_on(generator, generator.layers[len(blended) :], x, w_plus, image)  # the branches of equation 1 are one there
    return finish(image, original, masks[0], masks[1:])


def blended_synthesis(
    generator: Generator, w_plus: jax.Array, delta: jax.Array, masks: Sequence[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """Equation 1 in one call: (image_star, image_tilde), [B, size, size, 3] each.

    w_plus [B, n_latent, w_dim] is moved by delta [B, n, w_dim] (or [n, w_dim]) inside `masks`, one [B, h, w, 1] in
    [0, 1] per edited layer; image_tilde is the same with masks of one.  ValueError for masks that do not fit.
    """
    drawn = blend(generator, original_synthesis(generator, w_plus), delta, [mask[..., 0] for mask in masks])
    return drawn.image, drawn.full


# ---- several paths through a generator at once -----------------------------------------------------------------------


def apply_layer(
    generator: Generator, layer: Layer, paths: Sequence[jax.Array], codes: Sequence[tuple[jax.Array, ...]]
) -> list[jax.Array]:
    """A layer on several paths [B, h, w, C] under the codes [B, w_dim] of each path, as one batch."""
    out = generator.layer(layer, together(paths), [together(of_row) for of_row in zip(*codes, strict=True)])
    return apart(out, len(paths))


def add_rgb(generator: Generator, layer: Layer, paths: Sequence[jax.Array], w: jax.Array, image: jax.Array | None) -> jax.Array:
    """Add the ToRGB of paths [B, h, w, C] under the codes w [B, w_dim] to the image [B paths, h, w, 3] so far."""
    return generator.rgb(layer, together(paths), together([w] * len(paths)), image)


def draw_on(
    generator: Generator, layers: Sequence[Layer], paths: Sequence[jax.Array], w_plus: jax.Array, image: jax.Array | None
) -> jax.Array | None:
    """Draw paths [B, h, w, C] through layers that no edit reads: the image [B paths, h, w, 3] so far, and theirs added."""

    def drawn(layers: Sequence[Layer], x: jax.Array, image: jax.Array | None) -> tuple[jax.Array, jax.Array | None]:
        for layer in layers:
            x = generator.layer(layer, x, [together([code] * len(paths)) for code in layer.codes(w_plus)])
            if layer.rgb_row is not None:
                image = generator.rgb(layer, x, together([w_plus[:, layer.rgb_row]] * len(paths)), image)
        return x, image

    x = together(paths)  # once: they never meet again
    for resolution, of_resolution in itertools.groupby(layers, operator.attrgetter("resolution")):
        draw = functools.partial(drawn, tuple(of_resolution))
        if platform() == "tpu" and blocks.LARGE <= resolution < layers[-1].resolution:
            draw = jax.checkpoint(draw)  # not kept while the derivative of larger layers, which comes first, needs the memory
        x, image = draw(x, image)
    return image


def together(paths: Sequence[jax.Array]) -> jax.Array:
    """Paths [B, ...] as one batch [B paths, ...], which `apart` takes apart."""
    if platform() == "tpu":  # which would write each path out, as often as there are paths, to select from
        return jnp.stack(paths, axis=1).reshape(-1, *paths[0].shape[1:])
    # By selecting, not stacking: a concatenation would be kept for the derivative beside what it was made of.
    place = jnp.arange(len(paths)).reshape(1, -1, *[1] * (paths[0].ndim - 1))
    joined = paths[-1][:, None]
    for index, path in reversed(list(enumerate(paths[:-1]))):
        if path is not paths[index + 1]:
            joined = jnp.where(place <= index, path[:, None], joined)
    joined = jnp.broadcast_to(joined, (len(paths[0]), len(paths), *paths[0].shape[1:]))
    return joined.reshape(-1, *joined.shape[2:])


def apart(batch: jax.Array, count: int) -> list[jax.Array]:
    """The inverse of `together`: `count` paths [B, ...]."""
    batch = batch.reshape(-1, count, *batch.shape[1:])
    # Not by indexing, whose derivatives pad each path to all of them before they are added.
    return [path[:, 0] for path in jnp.split(batch, count, axis=1)]


def finish(image: jax.Array, original: Original, masks: Masks, others: Sequence[Masks] = ()) -> Blend:
    """Images [B paths, size, size, 3] of I* and, where drawn, I tilde: the original where all masks, and others, are 0."""
    image, *full = apart(image, len(image) // len(original.image))
    # In exact arithmetic masks of zero give the original; a convolution over another batch may round otherwise.
    touched = jnp.stack([jnp.any(mask != 0, axis=(1, 2)) for of_one in (masks, *others) for mask in of_one]).any(axis=0)
    edited = jnp.where(touched[:, None, None, None], image, original.image)
    return Blend(edited, full[0] if full else None, original.image, tuple(masks))


def check_masks(masks: Masks, resolutions: Sequence[int]) -> None:
    """ValueError unless there is one mask [B, h, w] for each of the resolutions."""
    given = [mask.shape[1:] for mask in masks]
    if given != [(resolution, resolution) for resolution in resolutions]:
        wanted = f"one [batch, h, w] per blended layer, of resolutions {list(resolutions)}"
        raise ValueError(f"masks have the sizes {given}; give {wanted}")
