"""CLIP (Radford et al. 2021): an image tower and a causal text transformer that share one embedding space.

The architecture is OpenAI's, so published weights map one to one; the sizes are in `CLIPConfig`.  The image tower is a
vision transformer, one of OpenAI's ResNets (`models.clip_resnet`), or convolutions for aligned pictures (`models.clip_conv`).
"""

import functools
import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
from flax import nnx

from coral_jax.models.clip_conv import ConvTower
from coral_jax.models.clip_resnet import REDUCTION, ResNetTower
from coral_jax.models.ops import resized

# Channel statistics that OpenAI's CLIPs and most others were trained with, for pixels in [0, 1] (OpenAI's `_transform`).
PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)

ACTIVATIONS = {
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),  # OpenAI's weights, and most others'
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),  # open_clip's LAION weights
}


@dataclass(frozen=True)
class CLIPConfig:
    """Sizes of both towers, the activation of their MLPs, and the pixels they expect; the defaults are OpenAI's ViT-B/32.

    A ResNet has the bottlenecks of each stage for vision_layers, (3, 4, 6, 3) in RN50; patch_size is then 32, vision_width
    the channels after the stem, and vision_heads the heads of the attention pool.  A tower for aligned pictures has the
    channels of each of its convolutions in vision_convs; vision_width is then the width of its flat layer.
    """

    image_size: int = 224
    patch_size: int = 32
    vision_width: int = 768
    vision_layers: int | tuple[int, ...] = 12
    vision_heads: int = 12
    text_width: int = 512
    text_layers: int = 12
    text_heads: int = 8
    embed_dim: int = 512
    context: int = 77
    vocab_size: int = 49408
    activation: str = "quick_gelu"  # of ACTIVATIONS
    vision_hidden: int | None = None  # width inside the vision tower's MLPs; None: 4 times vision_width
    pixel_mean: tuple[float, ...] = PIXEL_MEAN  # of pixels in [0, 1], a channel
    pixel_std: tuple[float, ...] = PIXEL_STD
    vision_convs: tuple[int, ...] = ()  # of `models.clip_conv`

    @property
    def is_resnet(self) -> bool:
        """Whether the image tower is a ResNet, not a vision transformer."""
        return isinstance(self.vision_layers, tuple)

    def __post_init__(self):
        """Rejects an unknown activation, sizes that do not divide, and statistics that are not of three channels."""
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"CLIPConfig: activation is {self.activation!r}; give one of {', '.join(ACTIVATIONS)}")
        if len(self.pixel_mean) != 3 or len(self.pixel_std) != 3 or min(self.pixel_std) <= 0:
            raise ValueError(
                f"CLIPConfig: pixel_mean {self.pixel_mean} and pixel_std {self.pixel_std}; give three numbers each, std above 0"
            )
        if self.is_resnet and self.patch_size != REDUCTION:
            raise ValueError(f"CLIPConfig: patch_size is {self.patch_size}; give {REDUCTION}, which every ResNet of CLIP has")
        if self.vision_convs and self.patch_size != 2 ** len(self.vision_convs):
            made = f"{2 ** len(self.vision_convs)}, which {len(self.vision_convs)} convolutions make"
            raise ValueError(f"CLIPConfig: patch_size is {self.patch_size}; give {made}")
        widest = self.vision_width * 32 if self.is_resnet else self.vision_width
        for name, whole, part in (
            ("image_size / patch_size", self.image_size, self.patch_size),
            ("vision_width / vision_heads", widest, self.vision_heads),
            ("text_width / text_heads", self.text_width, self.text_heads),
        ):
            if part < 1 or whole % part:
                raise ValueError(f"CLIPConfig: {name} = {whole} / {part} is not whole; choose sizes that divide")


def preprocess(image: PIL.Image.Image, config: CLIPConfig) -> np.ndarray:
    """A picture from a file -> its CLIP's pixels [S, S, 3], as OpenAI's `_transform`: bicubic resize, centre, normalise.

    For pictures beside those that the program draws, which `CLIP.encode_image` takes: OpenAI's ends in 8 bits on the
    way, so it has no gradient.  Stack the results for `CLIP.encode_pixels`.
    """
    size, (width, height) = config.image_size, image.size
    short = min(width, height)
    # torchvision's rounding: the longer side down, the crop's corner to the nearest even.
    width, height = (size if side == short else int(size * side / short) for side in (width, height))
    left, top = round((width - size) / 2), round((height - size) / 2)
    image = image.resize((width, height), PIL.Image.Resampling.BICUBIC).crop((left, top, left + size, top + size))
    unit = np.asarray(image.convert("RGB"), np.float32) / 255
    return (unit - np.asarray(config.pixel_mean, np.float32)) / np.asarray(config.pixel_std, np.float32)


def _normal(std: float) -> nnx.Initializer:
    return nnx.initializers.normal(std)


def _layer_norm(width: int, rngs: nnx.Rngs) -> nnx.LayerNorm:
    # Two-pass variance: real CLIP weights have channels with outliers, where mean(x^2) - mean(x)^2 loses digits.
    return nnx.LayerNorm(width, epsilon=1e-5, use_fast_variance=False, rngs=rngs)


class Block(nnx.Module):
    """Pre-norm residual attention block: x + attention(ln_1(x)), then x + mlp(ln_2(x))."""

    def __init__(self, width: int, hidden: int, heads: int, layers: int, activation: str, rngs: nnx.Rngs):
        """Initialises as OpenAI's `initialize_parameters` does; `layers` is the depth of the tower."""
        self.heads = heads
        self.activation = activation
        residual_std = (2 * width * layers) ** -0.5
        self.ln_1 = _layer_norm(width, rngs)
        self.qkv = nnx.Linear(width, 3 * width, kernel_init=_normal(width**-0.5), rngs=rngs)
        self.out = nnx.Linear(width, width, kernel_init=_normal(residual_std), rngs=rngs)
        self.ln_2 = _layer_norm(width, rngs)
        self.fc = nnx.Linear(width, hidden, kernel_init=_normal((2 * width) ** -0.5), rngs=rngs)
        self.proj = nnx.Linear(hidden, width, kernel_init=_normal(residual_std), rngs=rngs)

    def __call__(self, x: jax.Array, causal: bool) -> jax.Array:
        """x [B, N, width] -> [B, N, width]; `causal` hides later positions."""
        x = x + self.out(self._attend(self.ln_1(x), causal))
        return x + self.proj(ACTIVATIONS[self.activation](self.fc(self.ln_2(x))))

    def _attend(self, x: jax.Array, causal: bool) -> jax.Array:
        batch, length, width = x.shape
        qkv = self.qkv(x).reshape(batch, length, 3, self.heads, width // self.heads)
        query, key, value = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
        query = query * (width // self.heads) ** -0.5
        scores = jnp.einsum("bnhd,bmhd->bhnm", query, key, preferred_element_type=jnp.float32)
        if causal:
            visible = np.tril(np.ones((length, length), bool))
            scores = jnp.where(visible, scores, jnp.finfo(scores.dtype).min)
        mixed = jnp.einsum("bhnm,bmhd->bnhd", jax.nn.softmax(scores).astype(value.dtype), value)
        return mixed.reshape(batch, length, width)


@functools.partial(jax.jit, static_argnums=2)
def _run(block: Block, x: jax.Array, causal: bool) -> jax.Array:
    # Blocks of one shape are traced once.
    return block(x, causal)


class VisionTower(nnx.Module):
    """Vision transformer with a class token, norms before and after the blocks, and a projection."""

    def __init__(self, config: CLIPConfig, rngs: nnx.Rngs):
        """The class token, positions and projection start at std width^-0.5, as OpenAI's."""
        width, patch = config.vision_width, config.patch_size
        std = _normal(width**-0.5)
        self.patch_size = patch
        # A convolution whose stride is its size is one matrix product over flattened patches.
        fan_in = 3 * patch * patch
        self.patch = nnx.Linear(fan_in, width, use_bias=False, kernel_init=_normal((3 * fan_in) ** -0.5), rngs=rngs)
        self.class_embedding = nnx.Param(std(rngs.params(), (width,)))
        positions = 1 + (config.image_size // patch) ** 2
        self.positional_embedding = nnx.Param(std(rngs.params(), (positions, width)))
        self.ln_pre = _layer_norm(width, rngs)
        hidden = config.vision_hidden or 4 * width
        self.blocks = nnx.List(
            [
                Block(width, hidden, config.vision_heads, config.vision_layers, config.activation, rngs)
                for _ in range(config.vision_layers)
            ]
        )
        self.ln_post = _layer_norm(width, rngs)
        self.proj = nnx.Linear(width, config.embed_dim, use_bias=False, kernel_init=std, rngs=rngs)

    @property
    def dtype(self) -> jnp.dtype:
        """The type of the weights, in which the tower computes."""
        return self.patch.kernel.dtype

    def __call__(self, pixels: jax.Array) -> jax.Array:
        """pixels [B, S, S, 3], normalised -> features [B, embed_dim]."""
        return self.proj(self.ln_post(self.tokens(pixels)[-1][:, 0]))

    def patches(self, pixels: jax.Array) -> list[jax.Array]:
        """pixels [B, S, S, 3], normalised -> after each block, the patches [B, patches, width] without the class token."""
        return [tokens[:, 1:] for tokens in self.tokens(pixels)]

    def tokens(self, pixels: jax.Array) -> list[jax.Array]:
        """pixels [B, S, S, 3], normalised -> after each block, the class token and the patches [B, 1 + patches, width]."""
        batch, size, _, _ = pixels.shape
        patch, grid = self.patch_size, size // self.patch_size
        x = pixels.reshape(batch, grid, patch, grid, patch, 3).transpose(0, 1, 3, 2, 4, 5)
        x = self.patch(x.reshape(batch, grid * grid, 3 * patch * patch))
        token = jnp.broadcast_to(self.class_embedding[...], (batch, 1, x.shape[-1]))
        x = self.ln_pre(jnp.concatenate([token, x], axis=1) + self.positional_embedding[...][None])
        found = []
        for block in self.blocks:
            x = _run(block, x, False)
            found.append(x)
        return found


class TextTower(nnx.Module):
    """Causal transformer over token ids, read at the end-of-text token and projected."""

    def __init__(self, config: CLIPConfig, rngs: nnx.Rngs):
        """Initialises as OpenAI's `initialize_parameters` does."""
        width = config.text_width
        self.token_embedding = nnx.Param(_normal(0.02)(rngs.params(), (config.vocab_size, width)))
        self.positional_embedding = nnx.Param(_normal(0.01)(rngs.params(), (config.context, width)))
        self.blocks = nnx.List(
            [
                Block(width, 4 * width, config.text_heads, config.text_layers, config.activation, rngs)
                for _ in range(config.text_layers)
            ]
        )
        self.ln_final = _layer_norm(width, rngs)
        self.proj = nnx.Linear(width, config.embed_dim, use_bias=False, kernel_init=_normal(width**-0.5), rngs=rngs)

    def __call__(self, ids: jax.Array) -> jax.Array:
        """ids [B, N] with N <= context -> features [B, embed_dim]."""
        length = ids.shape[1]
        x = self.token_embedding[...][ids] + self.positional_embedding[...][None, :length]
        for block in self.blocks:
            x = _run(block, x, True)
        end = jnp.argmax(ids, axis=1)  # <|endoftext|> has the highest id, and padding after it is never attended to
        x = jnp.take_along_axis(x, end[:, None, None], axis=1)[:, 0]
        return self.proj(self.ln_final(x))


class CLIP(nnx.Module):
    """OpenAI's CLIP: images [-1, 1] and token ids to features whose cosine says how well they fit.

    Computes in the dtype of its weights and returns float32: cast the weights to bfloat16 to compute in bfloat16.
    """

    def __init__(self, config: CLIPConfig, rngs: nnx.Rngs):
        """Makes both towers, initialised for training from scratch."""
        self.config = config
        if config.is_resnet:
            sizes = config.image_size, config.vision_width, config.vision_layers, config.vision_heads, config.embed_dim
            self.vision = ResNetTower(*sizes, rngs)
        elif config.vision_convs:
            self.vision = ConvTower(config.image_size, config.vision_convs, config.vision_width, config.embed_dim, rngs)
        else:
            self.vision = VisionTower(config, rngs)
        self.text = TextTower(config, rngs)
        self.logit_scale = nnx.Param(jnp.array(math.log(1 / 0.07), jnp.float32))

    def encode_image(self, images: jax.Array) -> jax.Array:
        """images [B, H, W, 3] in [-1, 1], any size -> features [B, embed_dim], not normalised."""
        return self.encode_pixels(self.preprocess(images))

    def preprocess(self, images: jax.Array) -> jax.Array:
        """images [B, H, W, 3] in [-1, 1] -> CLIP's pixels [B, S, S, 3]: area-resize, then mean and std."""
        size = self.config.image_size
        if min(images.shape[1:3]) > size:
            images = resized(images, size)  # the same, and quick where a pixel is a mean of whole ones
        elif images.shape[1:3] != (size, size):
            shape = (images.shape[0], size, size, images.shape[3])
            images = jax.image.resize(images, shape, jax.image.ResizeMethod.AREA)
        # [-1, 1] -> [0, 1] and the normalisation are one affine map, taken after the resize, which is linear.
        mean, std = (np.asarray(x, np.float32) for x in (self.config.pixel_mean, self.config.pixel_std))
        return images * (0.5 / std)[None, None, None] + ((0.5 - mean) / std)[None, None, None]

    def encode_pixels(self, pixels: jax.Array) -> jax.Array:
        """pixels [B, S, S, 3], already preprocessed -> features [B, embed_dim], not normalised."""
        return self.vision(self._checked(pixels)).astype(jnp.float32)

    def patches(self, images: jax.Array) -> list[jax.Array]:
        """images [B, H, W, 3] in [-1, 1], any size -> what the image tower makes of each patch, [B, patches, channels] a block.

        A ResNet's blocks are its four stages, and their patches the positions of the feature maps.
        """
        return self.vision.patches(self._checked(self.preprocess(images)))

    def _checked(self, pixels: jax.Array) -> jax.Array:
        size = self.config.image_size
        if pixels.shape[1:] != (size, size, 3):
            raise ValueError(
                f"CLIP.encode_pixels: got {pixels.shape}, expected [B, {size}, {size}, 3]; "
                "use encode_image, which resizes"
            )
        return pixels.astype(self.vision.dtype)

    def encode_text(self, ids: jax.Array) -> jax.Array:
        """ids [B, N], N <= context, zeros after <|endoftext|> -> features [B, embed_dim], not normalised."""
        if ids.ndim != 2 or ids.shape[1] > self.config.context:
            raise ValueError(
                f"CLIP.encode_text: ids of shape {ids.shape}, expected [B, N] with N <= {self.config.context}; "
                "make them with this CLIP's Tokenizer"
            )
        return self.text(ids).astype(jnp.float32)
