"""A generator of another shape than StyleGAN2's: layers that read two codes, and one read-out at the end."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from flax import nnx

from coral_jax.models import ops
from coral_jax.models.generator import Generator, Layer


@dataclass(frozen=True)
class MadeUpConfig:
    """`blocks` up-sampling blocks after the 4-px layer, `channels` everywhere."""

    z_dim: int = 6
    w_dim: int = 5
    channels: int = 4
    blocks: int = 2


class MadeUp(Generator):
    """A 4-px layer of one code; in each block an up-sampling layer of two and a layer of one; a read-out of twice the size."""

    def __init__(self, config: MadeUpConfig, rngs: nnx.Rngs):
        self.config = config
        self.mapping = ops.EqualLinear(config.z_dim, config.w_dim, rngs)
        self.w_avg = nnx.Variable(jnp.zeros((config.w_dim,)))
        self.input = nnx.Param(jax.random.normal(rngs.params(), (4, 4, config.channels)))
        self.modulations = nnx.List(
            [ops.EqualLinear(config.w_dim, config.channels, rngs, bias=1.0) for _ in range(3 * config.blocks + 2)]
        )
        self.convs = nnx.List([ops.EqualLinear(config.channels, config.channels, rngs) for _ in self.layers])
        self.head = ops.EqualLinear(config.channels, 3, rngs)

    @property
    def layers(self) -> tuple[Layer, ...]:
        layers = [Layer(1, 4, self.config.channels, (0,))]
        for block in range(self.config.blocks):
            size, row = 8 * 2**block, 3 * block + 1
            layers.append(Layer(len(layers) + 1, size, self.config.channels, (row, row + 1)))
            layers.append(Layer(len(layers) + 1, size, self.config.channels, (row + 2,)))
        return (*layers[:-1], replace(layers[-1], rgb_row=3 * self.config.blocks + 1))

    @staticmethod
    def stays_float32(path: tuple) -> bool:
        return path[0] in ("mapping", "modulations") or path[-1] not in ("input", "kernel")

    @property
    def size(self) -> int:
        return 2 * self.layers[-1].resolution

    def constant(self, batch: int) -> jax.Array:
        return jnp.broadcast_to(self.input[...], (batch, *self.input.shape))

    def style(self, row: int, w: jax.Array) -> jax.Array:
        return self.modulations[row](w)

    def styled_layer(self, index: int, x: jax.Array, styles: list[jax.Array]) -> jax.Array:
        first, *rest = styles
        x = x * first[:, None, None]
        for style in rest:  # of an up-sampling layer
            x = ops.leaky_relu(ops.upsample(x)) * style[:, None, None]
        return ops.leaky_relu(self.convs[index - 1](x))

    def add_rgb(self, index: int, x: jax.Array, w: jax.Array, image: jax.Array | None) -> jax.Array:
        assert image is None and index == len(self.layers)
        return ops.upsample(self.head(x * self.modulations[-1](w)[:, None, None]))

    def lower(self, resolution: int) -> "MadeUp":
        if resolution not in [layer.resolution for layer in self.layers[1:]]:
            raise ValueError(f"no layers of {resolution} px")
        short = nnx.merge(*nnx.split(self))
        short.config = replace(self.config, blocks=resolution.bit_length() - 3)
        short.convs = nnx.List(list(self.convs)[: len(short.layers)])
        short.modulations = nnx.List([*list(self.modulations)[: 3 * short.config.blocks + 1], self.modulations[-1]])
        return short
