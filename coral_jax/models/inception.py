"""The Inception-v3 of FID: the TensorFlow graph of 2015-12-05 (Szegedy et al. 2015), whose pooled features FID compares.

It differs from later Inception-v3's: average pooling counts no padding, the last block pools by maximum, and batch
norms add 1e-3.  Only what leads to the features is here; the 1008 class scores are not.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

SIZE = 299  # of the images
FEATURES = 2048


class Kernel(NamedTuple):
    """Output channels and extent of one convolution; strided ones are not padded, the others keep the size."""

    channels: int
    rows: int
    columns: int
    stride: int = 1


# A block is a list of branches side by side, a branch a list of steps: kernels, the pooling that some begin with, and a
# tuple of kernels side by side that some end with.
_Step = str | Kernel | tuple[Kernel, ...]
_Block = tuple[tuple[_Step, ...], ...]

_FORK = (Kernel(384, 1, 3), Kernel(384, 3, 1))


def _block_35(pooled: int) -> _Block:
    return (
        (Kernel(64, 1, 1),),
        (Kernel(48, 1, 1), Kernel(64, 5, 5)),
        (Kernel(64, 1, 1), Kernel(96, 3, 3), Kernel(96, 3, 3)),
        ("average", Kernel(pooled, 1, 1)),
    )


def _block_17(width: int) -> _Block:
    return (
        (Kernel(192, 1, 1),),
        (Kernel(width, 1, 1), Kernel(width, 1, 7), Kernel(192, 7, 1)),
        (Kernel(width, 1, 1), Kernel(width, 7, 1), Kernel(width, 1, 7), Kernel(width, 7, 1), Kernel(192, 1, 7)),
        ("average", Kernel(192, 1, 1)),
    )


def _block_8(pooling: str) -> _Block:
    return (
        (Kernel(320, 1, 1),),
        (Kernel(384, 1, 1), _FORK),
        (Kernel(448, 1, 1), Kernel(384, 3, 3), _FORK),
        (pooling, Kernel(192, 1, 1)),
    )


BLOCKS: tuple[_Block, ...] = (
    _block_35(32),
    _block_35(64),
    _block_35(64),
    # From 35 to 17 pixels.
    ((Kernel(384, 3, 3, 2),), (Kernel(64, 1, 1), Kernel(96, 3, 3), Kernel(96, 3, 3, 2)), ("halve",)),
    _block_17(128),
    _block_17(160),
    _block_17(160),
    _block_17(192),
    # From 17 to 8 pixels.
    (
        (Kernel(192, 1, 1), Kernel(320, 3, 3, 2)),
        (Kernel(192, 1, 1), Kernel(192, 1, 7), Kernel(192, 7, 1), Kernel(192, 3, 3, 2)),
        ("halve",),
    ),
    _block_8("average"),
    _block_8("maximum"),
)

_STEM = ((Kernel(32, 3, 3, 2), "VALID"), (Kernel(32, 3, 3), "VALID"), (Kernel(64, 3, 3), "SAME"),
         (Kernel(80, 1, 1), "VALID"), (Kernel(192, 3, 3), "VALID"))  # fmt: skip
_STEM_POOLED = (2, 4)  # convolutions that a halving follows


@dataclass(frozen=True)
class InceptionConfig:
    """Nothing can be chosen: FID is defined by this one network."""


class NormedConv(nnx.Module):
    """Convolution, batch norm by its running statistics, ReLU."""

    def __init__(self, inputs: int, kernel: Kernel, padding: str, rngs: nnx.Rngs):
        """`padding` is "SAME" or "VALID"."""
        self.conv = nnx.Conv(
            inputs, kernel.channels, (kernel.rows, kernel.columns), strides=kernel.stride, padding=padding,
            use_bias=False, kernel_init=nnx.initializers.zeros_init(), rngs=rngs,
        )  # fmt: skip
        self.norm = nnx.BatchNorm(kernel.channels, use_running_average=True, epsilon=1e-3, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """x [B, H, W, inputs] -> [B, H', W', channels]."""
        return jax.nn.relu(self.norm(self.conv(x)))


class Branch(nnx.Module):
    """One branch of a block: pooling, convolutions in a row, convolutions side by side; any of them may be absent."""

    def __init__(self, inputs: int, steps: tuple[_Step, ...], rngs: nnx.Rngs):
        """`channels` is then the number of output channels."""
        self.pooling, convs, forks = None, [], []
        self.channels = inputs
        for step in steps:
            if isinstance(step, str):
                self.pooling = step
            elif isinstance(step, Kernel):
                convs.append(NormedConv(self.channels, step, "SAME" if step.stride == 1 else "VALID", rngs))
                self.channels = step.channels
            else:
                forks = [NormedConv(self.channels, kernel, "SAME", rngs) for kernel in step]
                self.channels = sum(kernel.channels for kernel in step)
        self.convs, self.forks = nnx.List(convs), nnx.List(forks)

    def __call__(self, x: jax.Array) -> jax.Array:
        """x [B, H, W, inputs] -> [B, H', W', self.channels]."""
        if self.pooling is not None:
            x = _POOLINGS[self.pooling](x)
        for conv in self.convs:
            x = conv(x)
        return jnp.concatenate([fork(x) for fork in self.forks], axis=-1) if self.forks else x


def _halve(x: jax.Array) -> jax.Array:
    return nnx.max_pool(x, (3, 3), (2, 2), "VALID")


_POOLINGS = {
    "average": lambda x: nnx.avg_pool(x, (3, 3), (1, 1), "SAME", count_include_pad=False),
    "maximum": lambda x: nnx.max_pool(x, (3, 3), (1, 1), "SAME"),
    "halve": _halve,
}


class Inception(nnx.Module):
    """Images to the 2048 features that FID and KID compare.  For inference: its batch norms never learn."""

    def __init__(self, config: InceptionConfig, rngs: nnx.Rngs):
        """Makes the network with kernels of zeros: its weights are the published ones (`converters.inception`) or none."""
        self.config = config
        inputs = (3, *(kernel.channels for kernel, _ in _STEM))
        self.stem = nnx.List(
            [NormedConv(i, kernel, padding, rngs) for i, (kernel, padding) in zip(inputs, _STEM, strict=False)]
        )
        channels, blocks = inputs[-1], []
        for block in BLOCKS:
            branches = [Branch(channels, steps, rngs) for steps in block]
            blocks.append(nnx.List(branches))
            channels = sum(branch.channels for branch in branches)
        self.blocks = nnx.List(blocks)

    def features(self, images: jax.Array) -> jax.Array:
        """Images [B, 299, 299, 3] in [-1, 1] -> features [B, 2048], averaged over the last 8x8 grid.

        Values 0..255 become the input by (x - 128) / 128 (clean-fid, NVIDIA) or x / 127.5 - 1 (pytorch-fid); FID's
        numbers depend on that and on how images were resized.  Raises ValueError for another size.
        """
        if images.ndim != 4 or images.shape[1:] != (SIZE, SIZE, 3):
            raise ValueError(f"Inception.features: got {images.shape}, expected [B, {SIZE}, {SIZE}, 3]; resize them first")
        x = images
        for index, conv in enumerate(self.stem):
            x = conv(x)
            if index in _STEM_POOLED:
                x = _halve(x)
        for block in self.blocks:
            x = jnp.concatenate([branch(x) for branch in block], axis=-1)
        return x.mean(axis=(1, 2))
