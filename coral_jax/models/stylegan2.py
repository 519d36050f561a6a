"""StyleGAN2 (skip generator, config F and its smaller forms), so laid out that published weights load one to one.

Weights are stored before the equalised learning-rate scaling, as in rosinality/stylegan2-pytorch and
stylegan2-ada-pytorch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import jax
import jax.numpy as jnp
from flax import nnx

from coral_jax.models import ops
from coral_jax.models.generator import Generator, Layer

MAPPING_LR_MUL = 0.01


@dataclass(frozen=True)
class StyleGAN2Config:
    """Sizes of a StyleGAN2; `channels` lists (resolution, channels) for every resolution from 4 to `size`."""

    size: int
    z_dim: int
    w_dim: int
    mapping_layers: int
    channels: tuple[tuple[int, int], ...]

    def __post_init__(self):
        """Reject sizes that no StyleGAN2 has."""
        if self.size < 8 or self.size & (self.size - 1):
            raise ValueError(f"size is {self.size}; give a power of two of at least 8")
        needed = [2**k for k in range(2, self.size.bit_length())]
        if [resolution for resolution, _ in self.channels] != needed:
            raise ValueError(f"channels is {self.channels}; give (resolution, channels) for each of {needed}, in order")


@cache
def _layers(config: StyleGAN2Config) -> tuple[Layer, ...]:
    layers = []
    for block, (resolution, channels) in enumerate(config.channels):
        if block:  # the up-sampling convolution that opens a block has no ToRGB; the first block lacks it
            layers.append(Layer(len(layers) + 1, resolution, channels, (len(layers),)))
        # ToRGB shares its code with the first convolution of the next block (18 codes for 17 convolutions at 1024 px).
        layers.append(Layer(len(layers) + 1, resolution, channels, (len(layers),), len(layers) + 1))
    return tuple(layers)


class Mapping(nnx.Module):
    """The mapping network: z [B, z_dim] -> w [B, w_dim]."""

    def __init__(self, config: StyleGAN2Config, rngs: nnx.Rngs):
        widths = [config.z_dim] + [config.w_dim] * config.mapping_layers
        self.layers = nnx.List(
            [ops.EqualLinear(i, o, rngs, lr_mul=MAPPING_LR_MUL) for i, o in zip(widths, widths[1:], strict=False)]
        )

    def __call__(self, z: jax.Array) -> jax.Array:
        """Map z [B, z_dim] to w [B, w_dim]."""
        x = ops.pixel_norm(z)
        for layer in self.layers:
            x = ops.leaky_relu(layer(x))
        return x


class StyledConv(nnx.Module):
    """Modulated 3x3 convolution, stored noise, bias, leaky ReLU; doubles the resolution first where `up`."""

    def __init__(self, channels_in: int, channels: int, resolution: int, w_dim: int, up: bool, rngs: nnx.Rngs):
        self.kernel = nnx.Param(jax.random.normal(rngs.params(), (3, 3, channels_in, channels)))
        self.modulation = ops.EqualLinear(w_dim, channels_in, rngs, bias=1.0)
        self.bias = nnx.Param(jnp.zeros((channels,)))
        self.noise_strength = nnx.Param(jnp.zeros(()))
        self.noise = nnx.Variable(jax.random.normal(rngs.params(), (resolution, resolution)))
        self.up = up

    def __call__(self, x: jax.Array, style: jax.Array, *, fused: bool) -> jax.Array:
        """Features [B, h, w, C] from x and the style [B, C_in], which `modulation` reads from w."""
        style = style / math.sqrt(9 * x.shape[-1])  # the kernel's equalised scale, on the smaller factor
        x = ops.modulated_conv(x, self.kernel[...], style, up=self.up, fused=fused)
        noise = self.noise_strength[...] * self.noise[...]
        return ops.activate(x, ops.demodulation(self.kernel[...], style), noise, self.bias[...])


class ToRGB(nnx.Module):
    """Modulated 1x1 convolution to three channels, without demodulation."""

    def __init__(self, channels: int, w_dim: int, rngs: nnx.Rngs):
        self.kernel = nnx.Param(jax.random.normal(rngs.params(), (1, 1, channels, 3)))
        self.modulation = ops.EqualLinear(w_dim, channels, rngs, bias=1.0)
        self.bias = nnx.Param(jnp.zeros((3,)))

    def __call__(self, x: jax.Array, w: jax.Array) -> jax.Array:
        """RGB [B, h, w, 3], always float32, of the features x under the code w [B, w_dim]."""
        style = self.modulation(w) / math.sqrt(x.shape[-1])
        rgb = ops.modulated_conv(x, self.kernel[...], style)
        return rgb.astype(jnp.float32) + ops.of_channels(self.bias[...], rgb)


class StyleGAN2(Generator):
    """A StyleGAN2 generator: `Generator` says what its methods promise.

    `fused_upsampling` (static, False at first) picks the form of up-sampling convolutions: set it to True to train the
    generator itself, where it makes the kernels' gradients several times faster; the outputs agree to rounding.
    """

    def __init__(self, config: StyleGAN2Config, rngs: nnx.Rngs):
        self.config = config
        self.fused_upsampling = False
        first = config.channels[0][1]
        self.mapping = Mapping(config, rngs)
        self.w_avg = nnx.Variable(jnp.zeros((config.w_dim,)))
        self.input = nnx.Param(jax.random.normal(rngs.params(), (4, 4, first)))
        convs, to_rgbs, channels_in, resolution = [], [], first, 4
        for layer in _layers(config):
            up = layer.resolution > resolution
            convs.append(StyledConv(channels_in, layer.channels, layer.resolution, config.w_dim, up, rngs))
            if layer.rgb_row is not None:
                to_rgbs.append(ToRGB(layer.channels, config.w_dim, rngs))
            channels_in, resolution = layer.channels, layer.resolution
        self.convs = nnx.List(convs)
        self.to_rgbs = nnx.List(to_rgbs)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The convolutions: 2 log2(size) - 3 of them, 17 at 1024 px."""
        return _layers(self.config)

    def constant(self, batch: int) -> jax.Array:
        """The learned 4x4 input, repeated: [batch, 4, 4, C]."""
        return jnp.broadcast_to(self.input[...], (batch, *self.input.shape))

    def style(self, row: int, w: jax.Array) -> jax.Array:
        """Style [B, C_in] of convolution row + 1 under its code w [B, w_dim]: what its affine map gives.

        StyleSpace as its authors have it (arXiv 2011.12799): about 1, before the equalised scale of the kernel.
        """
        return self.convs[row].modulation(w)

    def styled_layer(self, index: int, x: jax.Array, styles: Sequence[jax.Array]) -> jax.Array:
        """Features [B, h, w, C] of convolution `index` from those before it and its style ([B, C_in],)."""
        (style,) = styles
        return self.convs[index - 1](x, style, fused=self.fused_upsampling)

    def add_rgb(self, index: int, x: jax.Array, w: jax.Array, image: jax.Array | None) -> jax.Array:
        """Up-sample the image so far and add ToRGB of x, the features of convolution `index`, which ends its block."""
        rgb = self.to_rgbs[index // 2](x, w)
        return rgb if image is None else ops.upsample(image) + rgb

    def lower(self, resolution: int) -> "StyleGAN2":
        """The same generator up to `resolution` px, with the same arrays: draws what its ToRGBs have added up to by then.

        ValueError where this generator has no layers of that resolution.
        """
        channels = tuple(pair for pair in self.config.channels if pair[0] <= resolution)
        if resolution < 8 or channels[-1][0] != resolution:
            raise ValueError(f"resolution is {resolution}; give a power of two from 8 to {self.config.size}")
        graph, state = nnx.split(self)
        short = nnx.merge(graph, state)
        short.config = replace(self.config, size=resolution, channels=channels)
        short.convs = nnx.List(list(short.convs)[: len(short.layers)])
        short.to_rgbs = nnx.List(list(short.to_rgbs)[: len(channels)])
        short.content_rows = self.rows_at(resolution)
        return short
