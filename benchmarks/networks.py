"""Networks of published sizes with random weights: speed and memory need no others."""

from collections.abc import Callable

import jax
import numpy as np
from flax import nnx

from coral_jax.baselines.stylespace import style_widths
from coral_jax.methods import Method
from coral_jax.models.clip import CLIP, CLIPConfig
from coral_jax.models.identity import Identity, IdentityConfig
from coral_jax.models.segmenter import MixtureSegmenter, MixtureSegmenterConfig
from coral_jax.models.stylegan2 import StyleGAN2, StyleGAN2Config
from coral_jax.optimisers import Channels
from coral_jax.step import Frozen

SIZES = (64, 128, 256, 512, 1024)


def ffhq_config(size: int) -> StyleGAN2Config:
    """StyleGAN2 config F: 512 channels through 64 px, halved at each resolution after."""
    resolutions = [2**i for i in range(2, size.bit_length())]
    return StyleGAN2Config(size, 512, 512, 8, tuple((r, min(512, 2**15 // r)) for r in resolutions))


def random_network(network: type[nnx.Module], config: object) -> nnx.Module:
    """A network at its initial values, drawn by numpy: compiling the initialisation of large ones takes longer."""
    module = nnx.eval_shape(lambda: network(config, nnx.Rngs(0)))
    rng = np.random.default_rng(0)
    for path, variable in nnx.to_flat_state(nnx.state(module)):
        value = rng.standard_normal(variable.shape, np.float32)
        if path[-1] in ("scale", "var") or path[-2:] == ("modulation", "bias"):
            value = np.ones_like(value)
        elif value.ndim < 2:
            value = 0.1 * value
        elif network is not StyleGAN2:  # whose weights are scaled when used
            value /= np.sqrt(np.prod(value.shape[:-1]))
        elif path[0] == "mapping":
            value *= 100
        variable.set_value(jax.numpy.asarray(value))
    return module


def shapes_of_network(network: type[nnx.Module], config: object) -> nnx.Module:
    """A network that was never drawn, for `jax.eval_shape` alone."""
    return network(config, nnx.Rngs(0))


def random_domain(size: int, segments: bool, make: Callable[[type[nnx.Module], object], nnx.Module] = random_network) -> Frozen:
    """FFHQ's generator of `size` px, ViT-B/32, IR-SE50, a mixture of 5 segments where `segments`, and a random prompt."""
    config = ffhq_config(size)
    generator, clip = make(StyleGAN2, config), CLIPConfig()
    text = np.random.default_rng(1).standard_normal(clip.embed_dim, np.float32)
    segmenter = make(MixtureSegmenter, _mixture(generator)) if segments else None
    faces = make(Identity, IdentityConfig())
    return Frozen(generator, make(CLIP, clip), faces, segmenter, jax.numpy.asarray(text))


def with_inputs(frozen: Frozen, method: Method, batch: int) -> Frozen:
    """The networks with what a method reads besides them, at random: codes of `batch` faces, or channels of the prompt."""
    rng, generator = np.random.default_rng(2), frozen.generator
    if method.per_face:
        shape = (batch, generator.n_latent, generator.w_dim)
        return frozen._replace(faces=jax.numpy.asarray(rng.standard_normal(shape, np.float32)))
    if method.editor.from_text:
        rows = tuple(jax.numpy.asarray(rng.standard_normal(width, np.float32)) for width in style_widths(generator))
        return frozen._replace(channels=Channels(rows, rows))
    return frozen


def _mixture(generator: StyleGAN2) -> MixtureSegmenterConfig:
    """What `converters.domain --segmenter_fit` reads: the last convolution of each resolution from 16 to 256 px."""
    last = {layer.resolution: layer for layer in generator.layers}
    read = [layer for size, layer in last.items() if 16 <= size <= 256]
    return MixtureSegmenterConfig(tuple((layer.index, layer.channels) for layer in read), read[-1].resolution)
