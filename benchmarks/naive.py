"""The paper's formulas written literally, as PyTorch programs write them: what `coral_jax.step` is measured against.

The original, I* and the image with masks of one are three passes of their own, each from the constant on; I* computes both
branches of equation 1 one after the other; every convolution has a kernel per sample (a grouped convolution);
up-sampling convolutions are dilated and followed by a depth-wise FIR; CLIP and the identity network run once an image.
"""

import math

import jax
import jax.numpy as jnp

from coral_jax.config import Settings
from coral_jax.losses import Edited, weighted_sum
from coral_jax.methods import get_method
from coral_jax.models import ops
from coral_jax.models.stylegan2 import StyledConv, StyleGAN2, ToRGB
from coral_jax.optimisers import Rates, Trainables
from coral_jax.step import Frozen, TrainState, draw_z, ramped, w_plus_of

_NUMBERS = ("NHWC", "HWIO", "NHWC")


def naive_train_step(
    state: TrainState, frozen: Frozen, key: jax.Array, settings: Settings
) -> tuple[TrainState, dict[str, jax.Array]]:
    """What `coral_jax.step.train_step` computes for a prompt, but for the exact original where all masks are zero."""
    method, settings = get_method(settings.method), ramped(settings, state.step)
    w_plus = w_plus_of(frozen, draw_z(frozen, key, state.step, settings), settings)
    original, features = jax.lax.stop_gradient(_synthesis(frozen.generator, w_plus))
    segments = frozen.segmenter.segment(features) if state.trainables.selector.needs_segments else None

    def loss(trainables: Trainables) -> tuple[jax.Array, dict[str, jax.Array]]:
        delta = trainables.editor(w_plus)
        masks = trainables.selector(features, segments)
        image = _blended(frozen.generator, w_plus, delta, masks)
        full = _blended(frozen.generator, w_plus, delta, [jnp.ones_like(mask) for mask in masks])
        encode = frozen.clip.encode_image
        edited = Edited(
            original, image, full, encode(image), encode(full), frozen.text, delta, masks,
            trainables.selector.confidence, frozen.clip, frozen.identity, settings.area_power, settings.area_exponent,
        )  # fmt: skip
        total, terms = weighted_sum(method.terms, edited, settings)
        return total, {f"loss/{name}": value for name, value in terms.items()} | {"loss/total": total}

    gradients, metrics = jax.grad(loss, has_aux=True)(state.trainables)
    rates = Rates(settings.learning_rate, settings.region_learning_rate, settings.steps)
    stepped = method.optimiser.step(state.trainables, state.opt_state, gradients, rates, None)
    return TrainState(state.step + 1, *stepped), metrics


def _synthesis(generator: StyleGAN2, w_plus: jax.Array) -> tuple[jax.Array, dict[int, jax.Array]]:
    x, image, features = generator.constant(w_plus.shape[0]), None, {}
    for layer in generator.layers:
        x = features[layer.index] = _layer(generator.convs[layer.index - 1], x, w_plus[:, layer.index - 1])
        if layer.rgb_row is not None:
            image = _rgb(generator.to_rgbs[layer.index // 2], x, w_plus[:, layer.rgb_row], image)
    return image, features


def _blended(generator: StyleGAN2, w_plus: jax.Array, delta: jax.Array, masks: list[jax.Array]) -> jax.Array:
    """Equation 1, from the constant to the image."""
    x, image = generator.constant(w_plus.shape[0]), None
    for layer in generator.layers:
        conv, w = generator.convs[layer.index - 1], w_plus[:, layer.index - 1]
        if layer.index <= delta.shape[1]:
            mask = masks[layer.index - 1][..., None].astype(x.dtype)
            edited = _layer(conv, x, w + delta[:, layer.index - 1])
            x = mask * edited + (1.0 - mask) * _layer(conv, x, w)
        else:
            x = _layer(conv, x, w)
        if layer.rgb_row is not None:
            image = _rgb(generator.to_rgbs[layer.index // 2], x, w_plus[:, layer.rgb_row], image)
    return image


def _layer(conv: StyledConv, x: jax.Array, w: jax.Array) -> jax.Array:
    kernels = _kernels(conv.kernel[...], conv.modulation(w), demodulate=True)
    x = _blur(_conv(x, kernels, dilation=2), (1, 1)) if conv.up else _conv(x, kernels)
    x = x + (conv.noise_strength[...] * conv.noise[..., None] + conv.bias[None, None]).astype(x.dtype)[None]
    return ops.leaky_relu(x)


def _rgb(to_rgb: ToRGB, x: jax.Array, w: jax.Array, image: jax.Array | None) -> jax.Array:
    x = x.astype(jnp.float32)
    rgb = _conv(x, _kernels(to_rgb.kernel[...], to_rgb.modulation(w), demodulate=False)) + to_rgb.bias[None, None, None]
    return rgb if image is None else _blur(image, (2, 2), dilation=2) + rgb


def _kernels(kernel: jax.Array, style: jax.Array, *, demodulate: bool) -> jax.Array:
    """Kernels [B, h, w, I, O] of styles [B, I]."""
    kernel = kernel.astype(jnp.float32) / math.sqrt(math.prod(kernel.shape[:-1]))
    kernels = kernel[None] * style[:, None, None, :, None]
    if demodulate:
        energy = jnp.sum(jnp.square(kernels), axis=(1, 2, 3), keepdims=True)
        kernels = kernels * jax.lax.rsqrt(energy + ops.DEMODULATION_EPS)
    return kernels


def _conv(x: jax.Array, kernels: jax.Array, dilation: int = 1) -> jax.Array:
    """Each sample of x [B, H, W, I] with its own kernel of [B, h, w, I, O]; dilation 2: transposed, 2 H + 1 rows."""
    batch, height, width, channels = x.shape
    size, features = kernels.shape[1], kernels.shape[-1]
    x = x.transpose(1, 2, 0, 3).reshape(1, height, width, batch * channels)
    grouped = kernels.transpose(1, 2, 3, 0, 4).reshape(size, size, channels, batch * features).astype(x.dtype)
    margin = size - 1 if dilation > 1 else size // 2
    grouped = grouped[::-1, ::-1] if dilation > 1 else grouped
    out = jax.lax.conv_general_dilated(
        x, grouped, (1, 1), [(margin, margin)] * 2, lhs_dilation=(dilation, dilation), dimension_numbers=_NUMBERS,
        feature_group_count=batch,
    )  # fmt: skip
    return out.reshape(*out.shape[1:3], batch, features).transpose(2, 0, 1, 3)


def _blur(x: jax.Array, margins: tuple[int, int], dilation: int = 1) -> jax.Array:
    """[1, 3, 3, 1] FIR of x [B, H, W, C], of gain 4, depth-wise."""
    fir = jnp.asarray(ops.FIR, x.dtype)
    kernel = jnp.broadcast_to(jnp.outer(fir, fir)[..., None, None], (4, 4, 1, x.shape[-1]))
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), [margins] * 2, lhs_dilation=(dilation, dilation), dimension_numbers=_NUMBERS,
        feature_group_count=x.shape[-1],
    )  # fmt: skip
