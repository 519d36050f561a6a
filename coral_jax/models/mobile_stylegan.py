"""MobileStyleGAN (Belousov, arXiv 2104.04767): StyleGAN2 distilled into depthwise convolutions and wavelets.

23 codes for 15 layers at 1024 px: one for the 4-px layer; in each block one for the inverse wavelet transform that doubles
the resolution and one for the convolution after it, which make one layer here, and one for the second convolution; one for
the head, which is all that draws: there are no skip images.  Weights are stored as they are used: the 1x1 kernels are
demodulated, with constant coefficients, and there is no demodulation by style.

`lower` cuts the network after a block for which there is a read-out, a head of ours that draws the features there
(`coral_jax.faces.train_readouts`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import jax
import jax.numpy as jnp
from flax import nnx

from coral_jax.models import ops, stylegan2
from coral_jax.models.generator import Generator, Layer


@dataclass(frozen=True)
class MobileStyleGANConfig:
    """Sizes of a MobileStyleGAN; `channels` lists (resolution, channels) of the features, from 4 px to half the image.

    `readouts`: resolutions of the features that a read-out draws, in order.  `cut`: the last of them takes the head's place,
    and draws the image at the resolution of the last features.
    """

    z_dim: int
    w_dim: int
    mapping_layers: int
    channels: tuple[tuple[int, int], ...]
    readouts: tuple[int, ...] = ()
    cut: bool = False

    def __post_init__(self):
        """Reject sizes that no MobileStyleGAN has."""
        needed = [4 * 2**k for k in range(len(self.channels))]
        if len(needed) < 2 or [resolution for resolution, _ in self.channels] != needed:
            raise ValueError(f"channels is {self.channels}; give (resolution, channels) for 4, 8, ... px, in order")
        if sorted(set(self.readouts) & set(needed[1:])) != list(self.readouts):
            raise ValueError(f"readouts is {self.readouts}; give some of the resolutions {needed[1:]}, in order")
        if self.cut and self.readouts[-1:] != (needed[-1],):
            raise ValueError(f"a generator that is cut at {needed[-1]} px has its last read-out there, not {self.readouts}")


@cache
def _layers(config: MobileStyleGANConfig) -> tuple[Layer, ...]:
    layers = [Layer(1, *config.channels[0], (0,))]
    for block, (resolution, channels) in enumerate(config.channels[1:]):
        row = 3 * block + 1
        last = block + 2 == len(config.channels)
        layers.append(Layer(len(layers) + 1, resolution, channels, (row, row + 1)))
        layers.append(Layer(len(layers) + 1, resolution, channels, (row + 2,), row + 3 if last else None))
    return tuple(layers)


class Mapping(stylegan2.Mapping):
    """StyleGAN2's mapping network, z [B, z_dim] -> w [B, w_dim], with its weights as they are used."""

    def __init__(self, config: MobileStyleGANConfig, rngs: nnx.Rngs):
        widths = [config.z_dim] + [config.w_dim] * config.mapping_layers
        self.layers = nnx.List([nnx.Linear(i, o, rngs=rngs) for i, o in zip(widths, widths[1:], strict=False)])


class MobileConv(nnx.Module):
    """Modulation, depthwise 3x3 and 1x1 convolution (or one full 3x3), stored noise, bias, leaky ReLU without gain."""

    def __init__(self, channels_in: int, channels: int, resolution: int, full: bool, rngs: nnx.Rngs):
        size = (3, 3) if full else (1, 1)
        self.depthwise = None if full else nnx.Param(jax.random.normal(rngs.params(), (3, 3, channels_in)))
        self.kernel = nnx.Param(jax.random.normal(rngs.params(), (*size, channels_in, channels)))
        self.noise = nnx.Param(jnp.zeros((resolution, resolution)))  # its strength is in it
        self.bias = nnx.Param(jnp.zeros((channels,)))

    def __call__(self, x: jax.Array, style: jax.Array) -> jax.Array:
        """Features [B, h, w, C] of x [B, h, w, C_in] under the style [B, C_in]."""
        x = ops.scale(x, style / math.sqrt(9 * x.shape[-1]))
        if self.depthwise is not None:
            x = ops.depthwise(x, self.depthwise[...].astype(x.dtype))
        x = ops.conv2d(x, self.kernel[...].astype(x.dtype))
        return jax.nn.leaky_relu(x + (self.noise[..., None] + self.bias[None, None]).astype(x.dtype)[None], 0.2)


def inverse_haar(x: jax.Array) -> jax.Array:
    """[B, h, w, 4 C] -> [B, 2h, 2w, C]: C low bands, then the three high bands of each channel in turn."""
    batch, height, width, bands = x.shape
    channels = bands // 4
    low, high = x[..., :channels], x[..., channels:].reshape(batch, height, width, channels, 3)
    rows, columns, both = high[..., 0], high[..., 1], high[..., 2]
    even = jnp.stack([low + rows + columns + both, low + rows - columns - both], axis=3)
    odd = jnp.stack([low - rows + columns - both, low - rows - columns + both], axis=3)
    return 0.5 * jnp.stack([even, odd], axis=2).reshape(batch, 2 * height, 2 * width, channels)


class ReadOut(nnx.Module):
    """RGB of features [B, h, w, C] at their own resolution: a linear map, modulated by the code w of what is cut off.

    Colours depend on the styles of the layers after the cut, hence `gain` and `shift`.
    """

    def __init__(self, channels: int, w_dim: int, rngs: nnx.Rngs):
        self.kernel = nnx.Param(jax.random.normal(rngs.params(), (channels, 3)))
        self.bias = nnx.Param(jnp.zeros((3,)))
        self.gain = nnx.Param(jnp.zeros((w_dim, channels)))
        self.shift = nnx.Param(jnp.zeros((w_dim, 3)))

    def __call__(self, x: jax.Array, offset: jax.Array) -> jax.Array:
        """The image [B, h, w, 3], float32; offset [B, w_dim] is w - w_avg."""
        x = ops.scale(x, 1.0 + offset @ self.gain[...]).astype(jnp.float32)
        return x @ self.kernel[...] + (self.bias[...][None] + offset @ self.shift[...])[:, None, None]


class MobileStyleGAN(Generator):
    """A MobileStyleGAN generator: `Generator` says what its methods promise."""

    def __init__(self, config: MobileStyleGANConfig, rngs: nnx.Rngs):
        self.config = config
        self.mapping = Mapping(config, rngs)
        self.w_avg = nnx.Variable(jnp.zeros((config.w_dim,)))
        first = config.channels[0][1]
        self.input = nnx.Param(jax.random.normal(rngs.params(), (4, 4, first)))
        convs, widths, channels_in = [], [], first
        for layer in _layers(config):
            if len(layer.rows) == 2:  # its first style is of what the wavelet transform makes a quarter as wide
                widths.append(channels_in)
                channels_in //= 4
            widths.append(channels_in)
            convs.append(MobileConv(channels_in, layer.channels, layer.resolution, layer.index == 1, rngs))
            channels_in = layer.channels
        if not config.cut:
            widths.append(channels_in)  # of the head
        self.convs = nnx.List(convs)
        self.modulation = nnx.List([nnx.Linear(config.w_dim, width, rngs=rngs) for width in widths])
        self.head = None if config.cut else nnx.Linear(channels_in, 12, rngs=rngs)
        wide = dict(config.channels)
        self.readouts = nnx.Dict({str(size): ReadOut(wide[size], config.w_dim, rngs) for size in config.readouts})

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The 4-px layer, and two layers a block: 15 at 1024 px."""
        return _layers(self.config)

    @property
    def size(self) -> int:
        """Pixels a side of the image: the head ends in a wavelet transform, too."""
        return self.config.channels[-1][0] * (1 if self.config.cut else 2)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The read-outs' and the whole image's."""
        return self.config.readouts if self.config.cut else (*self.config.readouts, self.size)

    def constant(self, batch: int) -> jax.Array:
        """The learned 4x4 input, repeated: [batch, 4, 4, C]."""
        return jnp.broadcast_to(self.input[...], (batch, *self.input.shape))

    def style(self, row: int, w: jax.Array) -> jax.Array:
        """Style [B, C_in] of operation `row` under its code w [B, w_dim]."""
        return self.modulation[row](w)

    def styled_layer(self, index: int, x: jax.Array, styles: Sequence[jax.Array]) -> jax.Array:
        """Features [B, h, w, C] of layer `index` from those before it and its one or two styles [B, C_in]."""
        *up, style = styles
        for of_up in up:
            x = inverse_haar(ops.scale(x, of_up))
        return self.convs[index - 1](x, style)

    def add_rgb(self, index: int, x: jax.Array, w: jax.Array, image: jax.Array | None) -> jax.Array:
        """The image [B, size, size, 3], float32, of the last layer's features x; there is no image before it."""
        assert image is None and index == len(self.layers)
        if self.config.cut:
            return self.readouts[str(self.size)](x, w - self.w_avg[...][None])
        style = self.modulation[len(self.modulation) - 1](w) / math.sqrt(x.shape[-1])
        return inverse_haar(self.head(ops.scale(x, style).astype(jnp.float32)))

    def lower(self, resolution: int) -> "MobileStyleGAN":
        """The same network up to `resolution` px, with the same arrays, drawn by the read-out there.

        The read-out's code is that of the operation that reads the features in the whole network.  ValueError where there
        is no read-out.
        """
        if resolution == self.size:
            return nnx.merge(*nnx.split(self))
        if resolution not in self.sizes:
            drawn = ", ".join(map(str, self.sizes))
            hint = "" if self.config.readouts else " (read-outs are added by coral_jax.faces.train_readouts)"
            raise ValueError(f"resolution is {resolution}; this MobileStyleGAN draws at {drawn} px; give one of them{hint}")
        short = nnx.merge(*nnx.split(self))
        channels = tuple(pair for pair in self.config.channels if pair[0] <= resolution)
        readouts = tuple(size for size in self.config.readouts if size <= resolution)
        short.config = replace(self.config, channels=channels, readouts=readouts, cut=True)
        short.head = None
        short.convs = nnx.List(list(short.convs)[: len(short.layers)])
        short.modulation = nnx.List(list(short.modulation)[: 3 * len(channels) - 2])
        short.readouts = nnx.Dict({str(size): short.readouts[str(size)] for size in readouts})
        short.content_rows = self.rows_at(resolution)
        return short
