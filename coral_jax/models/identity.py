"""Identity network: IR-SE (ArcFace, Deng et al. 2019) face embeddings, as StyleCLIP's identity loss uses them.

The default sizes are IR-SE50's (`model_ir_se50.pth`); fewer units and narrower widths make a small one.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from coral_jax.models.ops import of_channels

# StyleCLIP's framing of an aligned FFHQ face: pool to 256 px, cut these rows and columns, pool to the network's size.
FRAME = 256
ROWS, COLUMNS = (35, 223), (32, 220)
_REDUCTION = 16  # squeeze-and-excitation


@dataclass(frozen=True)
class IdentityConfig:
    """Sizes of an IR-SE network: per stage the number of units and the channels; each stage halves the resolution."""

    units: tuple[int, ...] = (3, 4, 14, 3)
    widths: tuple[int, ...] = (64, 128, 256, 512)
    input_size: int = 112
    embed_dim: int = 512

    def __post_init__(self):
        """Rejects stages that do not pair up and sizes that cannot be halved."""
        if len(self.units) != len(self.widths):
            raise ValueError(f"IdentityConfig: {len(self.units)} units but {len(self.widths)} widths; give one a stage")
        if self.input_size % 2 ** len(self.units):
            raise ValueError(
                f"IdentityConfig: input_size {self.input_size} cannot be halved {len(self.units)} times; "
                f"choose a multiple of {2 ** len(self.units)}"
            )


def conv_of(inputs: int, outputs: int, size: int, stride: int, rngs: nnx.Rngs) -> nnx.Conv:
    """A convolution of IR-SE networks, without bias."""
    # Explicit padding: "SAME" would pad a strided convolution on one side only.
    return nnx.Conv(
        inputs, outputs, (size, size), strides=stride, padding=size // 2, use_bias=False,
        kernel_init=nnx.initializers.he_normal(), rngs=rngs,
    )  # fmt: skip


def norm_of(channels: int, rngs: nnx.Rngs) -> nnx.BatchNorm:
    """A batch norm of IR-SE networks."""
    return nnx.BatchNorm(channels, momentum=0.9, epsilon=1e-5, use_fast_variance=False, rngs=rngs)


class PReLU(nnx.Module):
    """max(x, 0) + slope * min(x, 0), one learnt slope a channel."""

    def __init__(self, channels: int):
        """Slopes start at 0.25, as torch's."""
        self.slope = nnx.Param(jnp.full((channels,), 0.25, jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        """x [..., channels] -> same shape."""
        return jnp.where(x > 0, x, x * of_channels(self.slope[...], x))


class Unit(nnx.Module):
    """Improved residual unit with squeeze-and-excitation (`bottleneck_IR_SE`)."""

    def __init__(self, inputs: int, outputs: int, stride: int, rngs: nnx.Rngs):
        """The shortcut is a strided pick where the channels are equal, else a 1x1 convolution and a norm."""
        self.stride = stride
        self.norm_in = norm_of(inputs, rngs)
        self.conv_in = conv_of(inputs, outputs, 3, 1, rngs)
        self.prelu = PReLU(outputs)
        self.conv_out = conv_of(outputs, outputs, 3, stride, rngs)
        self.norm_out = norm_of(outputs, rngs)
        squeezed = max(outputs // _REDUCTION, 1)
        self.squeeze = nnx.Linear(outputs, squeezed, use_bias=False, rngs=rngs)
        self.excite = nnx.Linear(squeezed, outputs, use_bias=False, rngs=rngs)
        self.has_shortcut = inputs != outputs
        if self.has_shortcut:
            self.shortcut = conv_of(inputs, outputs, 1, stride, rngs)
            self.shortcut_norm = norm_of(outputs, rngs)

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """x [B, H, W, inputs] -> [B, H / stride, W / stride, outputs]."""
        y = self.prelu(self.conv_in(self.norm_in(x, use_running_average=not train)))
        y = self.norm_out(self.conv_out(y), use_running_average=not train)
        gate = jax.nn.sigmoid(self.excite(jax.nn.relu(self.squeeze(y.mean(axis=(1, 2))))))
        if self.has_shortcut:
            x = self.shortcut_norm(self.shortcut(x), use_running_average=not train)
        else:
            x = x[:, :: self.stride, :: self.stride]  # max pooling with a window of one
        return x + y * gate[:, None, None, :]


def units_of(counts: tuple[int, ...], widths: tuple[int, ...], rngs: nnx.Rngs) -> nnx.List:
    """The units of an IR-SE network: of each stage its count, as wide as it says; the first one halves the resolution."""
    units, inputs = [], widths[0]
    for count, outputs in zip(counts, widths, strict=True):
        for index in range(count):
            units.append(Unit(inputs, outputs, 2 if index == 0 else 1, rngs))
            inputs = outputs
    return nnx.List(units)


@jax.jit
def run_unit(unit: Unit, x: jax.Array) -> jax.Array:
    """A unit that is not trained: those of one shape are traced once, and both images of a step alike."""
    return unit(x, False)


class Identity(nnx.Module):
    """Face -> unit embedding; the cosine of two embeddings says how alike the persons are.

    With `train=True` batch norms use the batch's statistics and update their running ones (`mean`, `var`) in place:
    under jax.jit or jax.grad return the network from the function to keep the update.
    """

    def __init__(self, config: IdentityConfig, rngs: nnx.Rngs):
        """Makes the network, initialised for training from scratch."""
        self.config = config
        width = config.widths[0]
        self.stem = conv_of(3, width, 3, 1, rngs)
        self.stem_norm = norm_of(width, rngs)
        self.stem_prelu = PReLU(width)
        self.units = units_of(config.units, config.widths, rngs)
        self.norm = norm_of(config.widths[-1], rngs)
        grid = config.input_size // 2 ** len(config.units)
        self.linear = nnx.Linear(grid * grid * config.widths[-1], config.embed_dim, rngs=rngs)
        self.linear_norm = norm_of(config.embed_dim, rngs)

    def embed(self, images: jax.Array, train: bool = False) -> jax.Array:
        """images [B, H, W, 3] in [-1, 1], FFHQ framing, any size -> unit embeddings [B, embed_dim]."""
        return self.embed_crop(self.crop(images), train)

    def crop(self, images: jax.Array) -> jax.Array:
        """images [B, H, W, 3] -> [B, S, S, 3]: StyleCLIP's pool to 256 px, crop and pool, as one linear map an axis."""
        rows = _pool_crop_pool(images.shape[1], ROWS, self.config.input_size)
        columns = _pool_crop_pool(images.shape[2], COLUMNS, self.config.input_size)
        # Highest precision: this is cheap, and rounding the pixels to TF32 would show in the embedding.
        return jnp.einsum("ih,bhwc,jw->bijc", rows, images, columns, precision="highest")

    def embed_crop(self, crops: jax.Array, train: bool = False) -> jax.Array:
        """crops [B, S, S, 3] in [-1, 1], S = config.input_size -> unit embeddings [B, embed_dim]."""
        size = self.config.input_size
        if crops.shape[1:] != (size, size, 3):
            raise ValueError(
                f"Identity.embed_crop: got {crops.shape}, expected [B, {size}, {size}, 3]; use embed, which crops"
            )
        crops = crops.astype(self.stem.kernel.dtype)  # computes in the type of its weights
        x = self.stem_prelu(self.stem_norm(self.stem(crops), use_running_average=not train))
        for unit in self.units:
            x = unit(x, train) if train else run_unit(unit, x)
        x = self.norm(x, use_running_average=not train)
        x = self.linear_norm(self.linear(x.reshape(x.shape[0], -1)), use_running_average=not train)
        x = x.astype(jnp.float32)
        return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def _pool_crop_pool(size: int, kept: tuple[int, int], output: int) -> np.ndarray:
    """Matrix [output, size] of one axis: adaptive pooling to 256, the kept range, adaptive pooling to `output`."""
    framed = _adaptive_pool(size, FRAME)[kept[0] : kept[1]]
    return (_adaptive_pool(kept[1] - kept[0], output) @ framed).astype(np.float32)


def _adaptive_pool(size: int, output: int) -> np.ndarray:
    """Matrix [output, size] of torch's AdaptiveAvgPool: window i is floor(i size/output) .. ceil((i+1) size/output)."""
    matrix = np.zeros((output, size))
    for i in range(output):
        start, stop = i * size // output, -(-(i + 1) * size // output)
        matrix[i, start:stop] = 1 / (stop - start)
    return matrix
