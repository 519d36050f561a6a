"""Operations networks are made of: equalised linear maps, modulated and depthwise convolution, FIR up-sampling, resizing.

All NHWC / HWIO.  Some have a form for each platform, measured or estimated in docs/performance.md.  No up-sampling
convolution runs depth-wise, and on a CPU none dilates its input: both are slow there.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from coral_jax.models import blocks
from coral_jax.runtime.target import platform

FIR = (0.25, 0.75, 0.75, 0.25)  # [1, 3, 3, 1] normalised to sum 2: one axis of an up-sampling by 2 keeps the mean
DEMODULATION_EPS = 1e-8
LEAKY_SLOPE = 0.2
_NHWC = ("NHWC", "HWIO", "NHWC")

Padding = tuple[tuple[int, int], tuple[int, int]]


def leaky_relu(x: jax.Array) -> jax.Array:
    """Leaky ReLU (slope 0.2) times sqrt(2), which keeps the variance of a normal input near one."""
    return _times_slope(x, x)


def _times_slope(x: jax.Array, like: jax.Array) -> jax.Array:
    """x times the leaky ReLU's slope at `like`, in the type of x."""
    if platform() == "cpu":
        # XLA takes a division for expensive, so that it keeps the result.  After a multiplication it keeps what x was
        # computed from instead, the inputs of a FIR, and filters anew for each use: more memory, more time.
        return x / _inverse_slope(like)
    return x * jnp.where(like >= 0, math.sqrt(2.0), math.sqrt(2.0) * LEAKY_SLOPE).astype(x.dtype)


def _inverse_slope(x: jax.Array) -> jax.Array:
    return jnp.where(x >= 0, math.sqrt(0.5), math.sqrt(0.5) / LEAKY_SLOPE).astype(x.dtype)


def pixel_norm(x: jax.Array, eps: float = 1e-8) -> jax.Array:
    """Scale x [..., C] to unit root mean square over its channels."""
    return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + eps)


def of_channels(vector: jax.Array, x: jax.Array) -> jax.Array:
    """vector [C], with as many axes as x [..., C]."""
    return jnp.expand_dims(vector, tuple(range(x.ndim - 1)))


class EqualLinear(nnx.Module):
    """Linear map with equalised learning rate: kernel [I, O] stored N(0, 1) / lr_mul, used times lr_mul / sqrt(I)."""

    def __init__(self, features_in: int, features_out: int, rngs: nnx.Rngs, *, lr_mul: float = 1.0, bias: float = 0.0):
        self.kernel = nnx.Param(jax.random.normal(rngs.params(), (features_in, features_out)) / lr_mul)
        self.bias = nnx.Param(jnp.full((features_out,), bias / lr_mul, jnp.float32))
        self.lr_mul = lr_mul

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map x [..., I] to [..., O]."""
        gain = self.lr_mul / math.sqrt(self.kernel.shape[0])
        return x @ self.kernel[...] * gain + of_channels(self.bias[...] * self.lr_mul, x)


def conv2d(x: jax.Array, kernel: jax.Array, padding: tuple[tuple[int, int], ...] | str = "SAME") -> jax.Array:
    """Stride-1 cross-correlation of x [B, H, W, I] with kernel [h, w, I, O]."""
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=_NHWC)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def depthwise(x: jax.Array, kernel: jax.Array, stride: int = 1, padding: Padding | None = None) -> jax.Array:
    """Convolve each channel of x [B, H, W, C] with its own kernel [k, k, C].

    padding: zeros before and after rows and columns; TensorFlow's SAME where it is not given.
    """
    padding = padding or _same(x.shape[1:3], kernel.shape[0], stride)

    def shifted(x: jax.Array, kernel: jax.Array) -> jax.Array:
        # XLA's CPU backend is slow at grouped convolutions.  One sum over columns for each row of the kernel reads x k times,
        # where a sum of k^2 products reads it k^2 times.
        parts, height = _columns(x, kernel.shape[0], stride, padding)
        rows = [sum(part * kernel[r, c][None, None, None] for c, part in enumerate(parts)) for r in range(len(parts))]
        return sum(row[:, r : r + height : stride] for r, row in enumerate(rows))

    def grouped(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(
            x, kernel[:, :, None], (stride, stride), padding, dimension_numbers=_NHWC, feature_group_count=x.shape[-1]
        )

    return jax.lax.platform_dependent(x, kernel, cpu=shifted, default=grouped)


def _same(shape: tuple[int, ...], size: int, stride: int) -> Padding:
    short = [max((-(-n // stride) - 1) * stride + size - n, 0) for n in shape]
    return tuple((pad // 2, pad - pad // 2) for pad in short)


def _columns(x: jax.Array, size: int, stride: int, padding: Padding) -> tuple[list[jax.Array], int]:
    """x [B, H, W, C] in its padding, as each column of a kernel sees it, and how many rows each of its rows sees."""
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *((*pads, 0) for pads in padding), (0, 0, 0)))  # may be negative
    height, width = x.shape[1] - size + 1, x.shape[2] - size + 1
    return [x[:, :, c : c + width : stride] for c in range(size)], height


def _depthwise_forward(
    x: jax.Array, kernel: jax.Array, stride: int, padding: Padding | None
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return depthwise(x, kernel, stride, padding), (x, kernel)


def _depthwise_backward(
    stride: int, padding: Padding | None, kept: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    # Derived automatically, that of x is a sum of k^2 padded arrays: half as fast, and slower to compile.
    x, kernel = kept
    size = kernel.shape[0]
    padding = padding or _same(x.shape[1:3], size, stride)
    parts, height = _columns(x, size, stride, padding)
    of_kernel = [
        jnp.stack([jnp.sum(part[:, r : r + height : stride] * gradient, axis=(0, 1, 2)) for part in parts])
        for r in range(size)
    ]
    if stride > 1:
        gaps = (0, 0, stride - 1)
        gradient = jax.lax.pad(gradient, jnp.zeros((), gradient.dtype), ((0, 0, 0), gaps, gaps, (0, 0, 0)))
    around = tuple(
        (size - 1 - before, n + before - have)
        for n, have, (before, _) in zip(x.shape[1:3], gradient.shape[1:3], padding, strict=True)
    )
    return depthwise(gradient, kernel[::-1, ::-1], 1, around), jnp.stack(of_kernel)


depthwise.defvjp(_depthwise_forward, _depthwise_backward)


def modulated_conv(x: jax.Array, kernel: jax.Array, style: jax.Array, *, up: bool = False, fused: bool = False) -> jax.Array:
    """Convolution of x [B, H, W, I], scaled by style [B, I], with one kernel [h, w, I, O] shared by all samples.

    Times its `demodulation` it equals StyleGAN2's per-sample kernels (`modulated_conv2d` of stylegan2-ada-pytorch,
    unfused path).  `up` doubles the resolution; `fused` picks how: `upsample_conv`.  Computes in the type of x.
    """
    kernel = kernel.astype(x.dtype)
    if up:
        return upsample_conv(scale(x, style), kernel, fused=fused)
    if blocks.used_for(x):
        scaled = scale(blocks.space_to_depth(x), blocks.repeated(style))
        return blocks.depth_to_space(conv2d(scaled, blocks.kernel_of(kernel)))
    if platform() == "gpu" and kernel.shape[:2] == (1, 1):
        # As a sum, which XLA fuses with what reads it: no scaled copy of the features is written to memory.
        own = style[:, None, :] * kernel[0, 0].T[None].astype(jnp.float32)
        return jnp.sum(x[..., None, :].astype(jnp.float32) * own[:, None, None], axis=-1).astype(x.dtype)
    return conv2d(scale(x, style), kernel)


@jax.custom_vjp
def scale(x: jax.Array, factor: jax.Array) -> jax.Array:
    """x [B, H, W, C] times factor [B, C], in the type of x."""
    return x * _of_pixels(factor, x)


def _of_pixels(factor: jax.Array, x: jax.Array) -> jax.Array:
    """factor [B, C] as it multiplies x [B, H, W, C], in its type."""
    return factor[:, None, None, :].astype(x.dtype)


def _scale_forward(x: jax.Array, factor: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return scale(x, factor), (x, factor)


def _scale_backward(kept: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, factor = kept
    return scale(gradient, factor), _sum_of_pixels(x * gradient).astype(factor.dtype)


scale.defvjp(_scale_forward, _scale_backward)


@jax.custom_batching.custom_vmap
def _sum_of_pixels(x: jax.Array) -> jax.Array:
    """Sum of x [B, H, W, C] over H and W, float32 [B, C]."""

    def product(x: jax.Array) -> jax.Array:
        # XLA's CPU backend fuses a sum with what computes x, and then walks through x in strides, channel by channel.
        rows = x.reshape(x.shape[0], -1, x.shape[-1])
        ones = jnp.ones((x.shape[0], 1, rows.shape[1]), x.dtype)
        return jnp.matmul(ones, rows, preferred_element_type=jnp.float32)[:, 0]

    return jax.lax.platform_dependent(x, cpu=product, default=lambda x: jnp.sum(x, axis=(1, 2), dtype=jnp.float32))


@_sum_of_pixels.def_vmap
def _sums_of_pixels(axis_size: int, _: object, x: jax.Array) -> tuple[jax.Array, bool]:
    # As one larger batch: the ones have no axis to vmap over, and the product would be computed transposed.
    return _sum_of_pixels(x.reshape(-1, *x.shape[2:])).reshape(axis_size, x.shape[1], x.shape[-1]), True


def demodulation(kernel: jax.Array, style: jax.Array) -> jax.Array:
    """Factor [B, O], float32, that gives the outputs of `modulated_conv` unit variance."""
    energy = jnp.square(style) @ jnp.sum(jnp.square(kernel.astype(jnp.float32)), axis=(0, 1))
    return jax.lax.rsqrt(energy + DEMODULATION_EPS)


def activate(x: jax.Array, factor: jax.Array, noise: jax.Array, bias: jax.Array) -> jax.Array:
    """leaky_relu(factor x + noise + bias) of x [B, H, W, C], factor [B, C], noise [H, W] and bias [C], in the type of x.

    Its derivative finds x in the output again, which the next layer keeps anyway.
    """
    if blocks.used_for(x):
        noise = blocks.space_to_depth(noise[None, ..., None])[0]
        shift = (noise[..., None] + bias[None, None, None]).reshape(*noise.shape[:2], -1)
        return blocks.depth_to_space(_activate(blocks.space_to_depth(x), blocks.repeated(factor), shift))
    return _activate(x, factor, noise[..., None] + bias[None, None])


@jax.custom_vjp
def _activate(x: jax.Array, factor: jax.Array, shift: jax.Array) -> jax.Array:
    """leaky_relu(factor x + shift) of x [B, H, W, C], factor [B, C] and shift [H, W, C]."""
    return leaky_relu(x * _of_pixels(factor, x) + shift.astype(x.dtype)[None])


def _activate_forward(x: jax.Array, factor: jax.Array, shift: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    out = _activate(x, factor, shift)
    return out, (out, factor, shift)


def _activate_backward(kept: tuple[jax.Array, ...], gradient: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    out, factor, shift = kept
    gradient = _times_slope(gradient, out)  # the output has the sign of the input
    scaled = out * _inverse_slope(out) - shift.astype(out.dtype)[None]  # factor x
    of_factor = _sum_of_pixels(gradient * scaled) / factor
    of_shift = jnp.sum(gradient, axis=0, dtype=jnp.float32).astype(shift.dtype)
    return gradient * _of_pixels(factor, gradient), of_factor, of_shift


_activate.defvjp(_activate_forward, _activate_backward)


def upsample_conv(x: jax.Array, kernel: jax.Array, *, fused: bool = False) -> jax.Array:
    """Transposed 3x3 convolution of stride 2, then the [1, 3, 3, 1] FIR: [B, H, W, I] -> [B, 2H, 2W, O].

    For frozen kernels (`fused=False`) a CPU computes the four phases of the transposed convolution with four small
    convolutions, a GPU with one that dilates its input, and both filter after: fewest multiplications.  A TPU, and a CPU
    that trains the kernel (`fused=True`, several times faster there), folds the FIR into the kernel and computes all output
    phases as one 3x3 convolution with 4 O outputs: four times the multiplications, nothing else.  All agree to rounding.
    """
    assert kernel.shape[:2] == (3, 3)
    if fused or platform() == "tpu":
        return blocks.depth_to_space(conv2d(x, _fir_phase_kernel(kernel)))
    if platform() == "gpu":
        flipped, margins = kernel[::-1, ::-1], ((2, 3), (2, 3))  # a row and a column of zeros at the end, as `_fir` has it
        return _fir(jax.lax.conv_general_dilated(x, flipped, (1, 1), margins, lhs_dilation=(2, 2), dimension_numbers=_NHWC))
    # Rows (and columns alike) of the transposed convolution: y[2i] = x[i] k0 + x[i-1] k2,  y[2i+1] = x[i] k1.
    even_even = conv2d(x, kernel[2::-2, 2::-2], ((1, 1), (1, 1)))
    even_odd = conv2d(x, kernel[2::-2, 1:2], ((1, 1), (0, 1)))
    odd_even = conv2d(x, kernel[1:2, 2::-2], ((0, 1), (1, 1)))
    odd_odd = conv2d(x, kernel[1:2, 1:2], ((0, 1), (0, 1)))
    return _fir(_interleave(_interleave(even_even, odd_even, 1), _interleave(even_odd, odd_odd, 1), 2))


def _fir_phase_kernel(kernel: jax.Array) -> jax.Array:
    """Fold the FIR into a [3, 3, I, O] kernel: [3, 3, I, 4 O], one group of O per (row, column) parity of the output.

    Along one axis the transposed convolution and the FIR make a six-tap kernel t = k * fir, and
    out[2m + r] = sum_q t[2q + r] x[m + 1 - q].
    """
    fold = np.zeros((6, 3), np.float32)
    for tap in range(3):
        fold[tap : tap + 4, tap] = FIR
    six = jnp.einsum("pa,qb,abio->pqio", fold, fold, kernel.astype(jnp.float32), precision="highest").astype(kernel.dtype)
    return jnp.concatenate([six[row::2, column::2][::-1, ::-1] for row in (0, 1) for column in (0, 1)], axis=-1)


@jax.custom_vjp
def _fir(y: jax.Array) -> jax.Array:
    """[1, 3, 3, 1] FIR along both axes of y [B, H, W, C], whose last row and column are zero: [B, H - 2, W - 2, C]."""
    return _filtered(y, (1, 0))


def _fir_forward(y: jax.Array) -> tuple[jax.Array, None]:
    return _fir(y), None


def _fir_backward(_: None, gradient: jax.Array) -> tuple[jax.Array]:
    # The filter is symmetric, so its transpose is the filter with other margins; derived automatically it is a sum of
    # padded arrays, twice as slow to run and to compile.
    return (_filtered(gradient, (2, 3)),)


_fir.defvjp(_fir_forward, _fir_backward)


def _filtered(y: jax.Array, margins: tuple[int, int]) -> jax.Array:
    """Weighted sum of shifts of y [B, H, W, C] along rows and columns, after padding both with zeros."""
    if platform() != "gpu":
        return _taps(_taps(y, 1, margins), 2, margins)
    # All shifts at once: otherwise what the rows give is written to memory and read again.
    y = jnp.pad(y, ((0, 0), margins, margins, (0, 0)))
    height, width = y.shape[1] - 3, y.shape[2] - 3
    return sum(
        FIR[a] * FIR[b] * jax.lax.slice(y, (0, a, b, 0), (y.shape[0], a + height, b + width, y.shape[3]))
        for a in range(4) for b in range(4)
    )  # fmt: skip


def _taps(y: jax.Array, axis: int, margins: tuple[int, int]) -> jax.Array:
    """Weighted sum of four shifts of y along `axis`, after padding it with zeros."""
    pad = [(0, 0)] * y.ndim
    pad[axis] = margins
    y = jnp.pad(y, pad)
    n = y.shape[axis] - 3
    return sum(tap * jax.lax.slice_in_dim(y, k, k + n, axis=axis) for k, tap in enumerate(FIR))


def _interleave(even: jax.Array, odd: jax.Array, axis: int) -> jax.Array:
    stacked = jnp.stack([even, odd], axis=axis + 1)
    shape = list(even.shape)
    shape[axis] *= 2
    return stacked.reshape(shape)


def upsample(x: jax.Array) -> jax.Array:
    """Double the resolution of x [B, H, W, C] with the [1, 3, 3, 1] FIR (`upsample2d` of stylegan2-ada-pytorch)."""
    for axis in (1, 2):
        pad = [(0, 0)] * 4
        pad[axis] = (1, 1)
        padded = jnp.pad(x, pad)
        n = x.shape[axis]
        before, here, after = (jax.lax.slice_in_dim(padded, k, k + n, axis=axis) for k in range(3))
        x = _interleave(FIR[3] * before + FIR[1] * here, FIR[2] * here + FIR[0] * after, axis)
    return x


def resized(images: jax.Array, size: int) -> jax.Array:
    """images [B, H, W, C] at size x size: means of pixels where they are larger, else linear."""
    batch, height, width, channels = images.shape
    if height % size == 0 and width % size == 0:
        return images.reshape(batch, size, height // size, size, width // size, channels).mean((2, 4))
    method = "area" if min(height, width) > size else "linear"
    return jax.image.resize(images, (batch, size, size, channels), method)
