"""EfficientNet-Lite (Tan and Le 2019, without squeeze-and-excitation and swish): features of pictures, learned on ImageNet.

Its maps say how alike two pictures are to an eye that knows more than faces.  Only what leads to these maps is here; the
later stages and the class scores are not.
"""

from dataclasses import dataclass

import jax
from flax import nnx

from coral_jax.models import ops


@dataclass(frozen=True)
class EfficientNetConfig:
    """Sizes: channels of the stem, and of each stage (blocks, kernel, stride, expansion, channels).

    The default is EfficientNet-Lite0 up to a sixteenth of its picture.  mapped: the stages whose maps are compared.
    """

    image_size: int = 224
    stem: int = 32
    stages: tuple[tuple[int, int, int, int, int], ...] = (
        (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112),
    )  # fmt: skip
    mapped: tuple[int, ...] = (1, 2, 3, 4)


class Block(nnx.Module):
    """Inverted residual: 1x1 convolution to more channels, depthwise convolution, 1x1 convolution back; batch norms, ReLU6."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int, expansion: int, rngs: nnx.Rngs):
        """Without an expansion there is no first convolution; x is added where its shape is kept."""
        self.stride, width = stride, inputs * expansion
        self.is_residual = stride == 1 and inputs == outputs
        self.expand = _pointwise(inputs, width, rngs) if expansion > 1 else None
        self.expand_norm = _norm(width, rngs) if expansion > 1 else None
        self.depthwise = nnx.Param(jax.random.normal(rngs.params(), (size, size, width)) / size)
        self.depthwise_norm = _norm(width, rngs)
        self.project = _pointwise(width, outputs, rngs)
        self.project_norm = _norm(outputs, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """x [B, H, W, inputs] -> [B, H / stride, W / stride, outputs]."""
        y = x if self.expand is None else jax.nn.relu6(self.expand_norm(self.expand(x)))
        y = jax.nn.relu6(self.depthwise_norm(ops.depthwise(y, self.depthwise[...], self.stride)))
        y = self.project_norm(self.project(y))
        return x + y if self.is_residual else y


class EfficientNet(nnx.Module):
    """Pictures to maps of features.  For inference: its batch norms never learn."""

    def __init__(self, config: EfficientNetConfig, rngs: nnx.Rngs):
        """Makes the network with random weights; the published ones come from `converters.efficientnet`."""
        self.config = config
        self.stem = nnx.Conv(3, config.stem, (3, 3), strides=2, use_bias=False, rngs=rngs)
        self.stem_norm = _norm(config.stem, rngs)
        stages, channels = [], config.stem
        for count, size, stride, expansion, width in config.stages:
            inputs = [channels] + [width] * (count - 1)
            strides = [stride] + [1] * (count - 1)
            stages.append(
                nnx.List([Block(i, width, size, s, expansion, rngs) for i, s in zip(inputs, strides, strict=True)])
            )
            channels = width
        self.stages = nnx.List(stages)

    def patches(self, images: jax.Array) -> list[jax.Array]:
        """images [B, H, W, 3] in [-1, 1], any size -> of each mapped stage, its positions [B, H' W', channels]."""
        x = (ops.resized(images, self.config.image_size) * 127.5 + 0.5) / 128  # of 0..255: (x - 127) / 128
        x, found = jax.nn.relu6(self.stem_norm(self.stem(x))), []
        for index, stage in enumerate(self.stages):
            for block in stage:
                x = block(x)
            if index in self.config.mapped:
                found.append(x.reshape(len(x), -1, x.shape[-1]))
        return found


def _pointwise(inputs: int, outputs: int, rngs: nnx.Rngs) -> nnx.Conv:
    return nnx.Conv(inputs, outputs, (1, 1), use_bias=False, rngs=rngs)


def _norm(channels: int, rngs: nnx.Rngs) -> nnx.BatchNorm:
    return nnx.BatchNorm(channels, use_running_average=True, epsilon=1e-3, rngs=rngs)
