"""The image tower of CLIP's ResNets (RN50, RN101, RN50x4, RN50x16): a ResNet with attention pooling (Radford et al. 2021).

It differs from other ResNets: a stem of three convolutions, average pooling wherever the resolution halves, and one query
of attention over the last feature map in place of a mean.  Batch norms use their stored statistics.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

REDUCTION = 32  # pixels of the picture a side of one position in the last feature map
_EXPANSION = 4


class ConvNorm(nnx.Module):
    """A convolution without a bias and a batch norm."""

    def __init__(self, inputs: int, outputs: int, size: int, rngs: nnx.Rngs, *, stride: int = 1, scale: float = 1.0):
        """scale: where the norm's starts."""
        # Explicit padding: "SAME" would pad a strided convolution on one side only.
        self.conv = nnx.Conv(
            inputs, outputs, (size, size), strides=stride, padding=size // 2, use_bias=False,
            kernel_init=nnx.initializers.he_normal(), rngs=rngs,
        )  # fmt: skip
        initial = nnx.initializers.constant(scale)
        self.norm = nnx.BatchNorm(outputs, use_running_average=True, epsilon=1e-5, scale_init=initial, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """x [B, H, W, inputs] -> [B, H / stride, W / stride, outputs]."""
        return self.norm(self.conv(x)).astype(x.dtype)  # the norm's own is that of its statistics, float32


def _halve(x: jax.Array) -> jax.Array:
    """Means of 2 x 2 pixels: [B, H, W, C] -> [B, H // 2, W // 2, C]."""
    return nnx.avg_pool(x, (2, 2), (2, 2))


class Bottleneck(nnx.Module):
    """Residual unit: 1x1, 3x3 and 1x1 convolutions; the resolution is halved by means after the 3x3."""

    def __init__(self, inputs: int, width: int, halves: bool, rngs: nnx.Rngs):
        """The shortcut is a convolution where the shape changes; each unit starts as its shortcut, as OpenAI's."""
        outputs = _EXPANSION * width
        self.halves = halves
        self.reduce = ConvNorm(inputs, width, 1, rngs)
        self.middle = ConvNorm(width, width, 3, rngs)
        self.expand = ConvNorm(width, outputs, 1, rngs, scale=0.0)
        self.shortcut = ConvNorm(inputs, outputs, 1, rngs) if halves or inputs != outputs else None

    def __call__(self, x: jax.Array) -> jax.Array:
        """x [B, H, W, inputs] -> [B, H, W, 4 width], or half of H and W."""
        y = jax.nn.relu(self.middle(jax.nn.relu(self.reduce(x))))
        if self.halves:
            x, y = _halve(x), _halve(y)
        return jax.nn.relu((x if self.shortcut is None else self.shortcut(x)) + self.expand(y))


@jax.jit
def _run(unit: Bottleneck, x: jax.Array) -> jax.Array:
    # Units of one shape are traced once.
    return unit(x)


class AttentionPool(nnx.Module):
    """Attention whose one query is the mean of all positions; its output layer is the projection to CLIP's space."""

    def __init__(self, positions: int, width: int, heads: int, embed_dim: int, rngs: nnx.Rngs):
        """All weights start at std width^-0.5, as OpenAI's."""
        std = nnx.initializers.normal(width**-0.5)
        linear = functools.partial(nnx.Linear, width, kernel_init=std, rngs=rngs)
        self.heads = heads
        self.positional_embedding = nnx.Param(std(rngs.params(), (1 + positions, width)))
        self.query, self.key, self.value, self.out = linear(width), linear(width), linear(width), linear(embed_dim)

    def __call__(self, x: jax.Array) -> jax.Array:
        """x [B, H, W, width] -> [B, embed_dim]."""
        batch, width = x.shape[0], x.shape[-1]
        x = x.reshape(batch, -1, width)
        x = jnp.concatenate([x.mean(axis=1, keepdims=True), x], axis=1) + self.positional_embedding[...][None]
        query = self._split(self.query(x[:, :1])) * (width // self.heads) ** -0.5
        key, value = self._split(self.key(x)), self._split(self.value(x))
        scores = jnp.einsum("bnhd,bmhd->bhnm", query, key, preferred_element_type=jnp.float32)
        mixed = jnp.einsum("bhnm,bmhd->bnhd", jax.nn.softmax(scores).astype(value.dtype), value)
        return self.out(mixed.reshape(batch, width))

    def _split(self, x: jax.Array) -> jax.Array:
        return x.reshape(*x.shape[:2], self.heads, -1)


class ResNetTower(nnx.Module):
    """Stem, four stages of bottlenecks (the last three halve the resolution) and the attention pool."""

    def __init__(self, image_size: int, width: int, layers: tuple[int, ...], heads: int, embed_dim: int, rngs: nnx.Rngs):
        """width: channels after the stem; layers: bottlenecks in each stage; heads: of the attention pool."""
        half = width // 2
        self.stem = nnx.List(
            [ConvNorm(3, half, 3, rngs, stride=2), ConvNorm(half, half, 3, rngs), ConvNorm(half, width, 3, rngs)]
        )
        stages, inputs = [], width
        for stage, count in enumerate(layers):
            units = []
            for index in range(count):
                units.append(Bottleneck(inputs, width * 2**stage, stage > 0 and index == 0, rngs))
                inputs = _EXPANSION * width * 2**stage
            stages.append(nnx.List(units))
        self.stages = nnx.List(stages)
        self.pool = AttentionPool((image_size // REDUCTION) ** 2, inputs, heads, embed_dim, rngs)

    @property
    def dtype(self) -> jnp.dtype:
        """The type of the weights, in which the tower computes."""
        return self.stem[0].conv.kernel.dtype

    def __call__(self, pixels: jax.Array) -> jax.Array:
        """pixels [B, S, S, 3], normalised -> features [B, embed_dim]."""
        return self.pool(self._stages(pixels)[-1])

    def patches(self, pixels: jax.Array) -> list[jax.Array]:
        """pixels [B, S, S, 3], normalised -> after each stage, its positions [B, H W, channels]."""
        return [x.reshape(x.shape[0], -1, x.shape[-1]) for x in self._stages(pixels)]

    def _stages(self, x: jax.Array) -> list[jax.Array]:
        for part in self.stem:
            x = jax.nn.relu(part(x))
        x, found = _halve(x), []
        for units in self.stages:
            for unit in units:
                x = _run(unit, x)
            found.append(x)
        return found
