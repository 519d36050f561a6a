"""Tiny networks with random weights, shared by the tests."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from coral_jax.config import Settings
from coral_jax.models.clip import CLIP, CLIPConfig
from coral_jax.models.identity import Identity, IdentityConfig
from coral_jax.models.segmenter import MixtureSegmenter, MixtureSegmenterConfig
from coral_jax.models.stylegan2 import StyleGAN2, StyleGAN2Config
from coral_jax.step import Frozen, TrainState, draw_z, train_step

GENERATOR = StyleGAN2Config(size=16, z_dim=6, w_dim=5, mapping_layers=2, channels=((4, 8), (8, 6), (16, 4)))
CLIP_SIZES = CLIPConfig(
    image_size=16,
    patch_size=8,
    vision_width=8,
    vision_layers=1,
    vision_heads=1,
    text_width=8,
    text_layers=1,
    text_heads=1,
    embed_dim=8,
    context=8,
    vocab_size=20,
)
IDENTITY_SIZES = IdentityConfig(units=(1, 1), widths=(4, 4), input_size=16, embed_dim=8)
SEGMENTS = 3
MIXTURE_SIZES = MixtureSegmenterConfig(layers=((2, 6), (4, 4)), resolution=8, segments=SEGMENTS, components=4)


def build(make: Callable[[], nnx.Module], seed: int = 0) -> nnx.Module:
    """A network with every weight drawn by numpy: compiling its own initialisation would take most of a test run."""
    network = nnx.eval_shape(make)
    rng = np.random.default_rng(seed)
    for path, variable in nnx.to_flat_state(nnx.state(network)):
        value = rng.standard_normal(variable.shape)
        if path[-1] in ("scale", "var") or path[-2:] == ("modulation", "bias"):
            value = 1.0 + 0.1 * np.abs(value)
        elif value.ndim < 2:
            value = 0.2 * value
        elif not isinstance(network, StyleGAN2):  # whose weights are scaled when used
            value = value / np.sqrt(np.prod(value.shape[:-1]))
        elif path[0] == "mapping":
            value = 100.0 * value
        variable.set_value(jnp.asarray(value, jnp.float32))
    return network


def generator(config: StyleGAN2Config = GENERATOR, seed: int = 0) -> StyleGAN2:
    """A generator whose noise, biases and w_avg all show."""
    return build(lambda: StyleGAN2(config, nnx.Rngs(0)), seed)


def frozen(identity: bool = True, segmenter: bool = True) -> Frozen:
    """A domain's networks, and a random prompt."""
    return Frozen(
        generator(),
        build(lambda: CLIP(CLIP_SIZES, nnx.Rngs(0)), 1),
        build(lambda: Identity(IDENTITY_SIZES, nnx.Rngs(0)), 2) if identity else None,
        build(lambda: MixtureSegmenter(MIXTURE_SIZES, nnx.Rngs(0)), 3) if segmenter else None,
        jnp.asarray(np.random.default_rng(4).standard_normal(CLIP_SIZES.embed_dim), jnp.float32),
    )


@functools.partial(jax.jit, donate_argnums=0)
def step_alone(
    state: TrainState, frozen: Frozen, key: jax.Array, settings: Settings
) -> tuple[TrainState, dict[str, jax.Array]]:
    """`train_step` of one prompt: state, text and channels have no axis of prompts, and neither has what comes back.

    The state is donated, as it is in training; `copied` keeps one.
    """

    def stacked(tree):
        return jax.tree.map(lambda leaf: leaf[None], tree)

    one = frozen._replace(text=stacked(frozen.text), channels=stacked(frozen.channels))
    begun = TrainState(state.step, stacked(state.trainables), stacked(state.opt_state))
    after, metrics = train_step(begun, one, draw_z(frozen, key, state.step, settings), settings)
    trainables, opt_state, metrics = jax.tree.map(lambda leaf: leaf[0], (after.trainables, after.opt_state, metrics))
    return TrainState(after.step, trainables, opt_state), metrics


def copied(state: TrainState) -> TrainState:
    """A state to give away to `step_alone`."""
    return jax.tree.map(jnp.copy, state)


def w_plus(batch: int = 2, seed: int = 0, config: StyleGAN2Config = GENERATOR) -> jax.Array:
    """Codes that differ from row to row."""
    shape = (batch, 2 * len(config.channels), config.w_dim)
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def largest(a: jax.Array, b: jax.Array | float = 0.0) -> float:
    """Largest absolute difference."""
    return float(np.max(np.abs(np.asarray(a) - np.asarray(b))))
