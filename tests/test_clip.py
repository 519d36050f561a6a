"""CLIP against OpenAI's own outputs, its preprocessing, and its training."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from converters import clip as converter
from converters import engine
from coral_jax import weights
from coral_jax.models.clip import CLIP, PIXEL_MEAN, PIXEL_STD, CLIPConfig

RNG_KEY = jax.random.key(0, impl="unsafe_rbg")  # compiles ten times faster than the default
DATA = Path(__file__).parent / "data"
GOLDEN = CLIPConfig(
    image_size=64, patch_size=16, vision_width=128, vision_layers=3, vision_heads=2,
    text_width=64, text_layers=3, text_heads=1, embed_dim=48, context=77, vocab_size=40,
)  # fmt: skip
SMALL = CLIPConfig(
    image_size=16, patch_size=8, vision_width=16, vision_layers=1, vision_heads=2,
    text_width=16, text_layers=1, text_heads=2, embed_dim=8, context=6, vocab_size=10,
)  # fmt: skip


@pytest.fixture(scope="module")
def golden():
    """The tiny CLIP with OpenAI's weights, and what OpenAI's code computes with them."""
    published, _ = weights.load_tensors(DATA / "clip_openai_tiny_weights.safetensors")
    clip = nnx.eval_shape(lambda: CLIP(GOLDEN, nnx.Rngs(0)))
    engine.fill(clip, converter.table(GOLDEN), published, "OpenAI's weights")
    return clip, weights.load_tensors(DATA / "clip_openai_tiny.safetensors")[0]


@pytest.fixture(scope="module")
def clip():
    """A CLIP small enough to train in a test."""
    return jax.jit(lambda: CLIP(SMALL, nnx.Rngs(RNG_KEY)))()


def random_images(batch, height, width):
    """Images [batch, height, width, 3] in [-1, 1]."""
    return np.random.default_rng(0).uniform(-1, 1, (batch, height, width, 3)).astype(np.float32)


def relative_error(got, expected):
    """Largest absolute error over the largest expected magnitude."""
    return float(np.abs(np.asarray(got) - expected).max() / np.abs(expected).max())


@jax.jit
def features(clip, pixels, ids):
    """Both towers' features and the logits of all pairs."""
    image, text = clip.encode_pixels(pixels), clip.encode_text(ids)
    unit_image = image / jnp.linalg.norm(image, axis=-1, keepdims=True)
    unit_text = text / jnp.linalg.norm(text, axis=-1, keepdims=True)
    return image, text, jnp.exp(clip.logit_scale[...]) * unit_image @ unit_text.T


def test_features_and_logits_are_openais(golden):
    clip, expected = golden
    with jax.default_matmul_precision("highest"):
        image, text, logits = features(clip, expected["pixels"].transpose(0, 2, 3, 1), expected["ids"])
    assert relative_error(image, expected["image_features"]) < 1e-5
    assert relative_error(text, expected["text_features"]) < 1e-5
    assert relative_error(logits, expected["logits_per_image"]) < 1e-5


def test_padding_and_context_do_not_change_text_features(golden):
    clip, expected = golden
    ids = expected["ids"]
    short = ids[:, : int(ids.argmax(axis=1).max()) + 1]
    assert short.shape[1] < ids.shape[1]
    encode = jax.jit(CLIP.encode_text)
    np.testing.assert_allclose(encode(clip, short), encode(clip, ids), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [16, 64, 24])
def test_preprocessing_averages_areas_then_normalises(clip, size):
    images = random_images(2, size, size)
    # Enlarging each pixel 16 times and averaging blocks of `size` is the area average, for any size (StyleCLIP's way).
    unit = (images.astype(np.float64) + 1) / 2
    large = unit.repeat(16, axis=1).repeat(16, axis=2)
    area = large.reshape(2, 16, size, 16, size, 3).mean(axis=(2, 4))
    expected = (area - np.array(PIXEL_MEAN)) / np.array(PIXEL_STD)
    np.testing.assert_allclose(clip.preprocess(jnp.asarray(images)), expected, atol=2e-6)


def test_images_are_preprocessed_before_the_tower(clip):
    images = random_images(2, 40, 24)
    once = jax.jit(CLIP.encode_image)(clip, images)
    np.testing.assert_allclose(once, jax.jit(CLIP.encode_pixels)(clip, clip.preprocess(images)), atol=1e-5)


def test_contrastive_training_pairs_images_with_texts(clip):
    images = random_images(4, 16, 16)
    ids = jnp.array([[8, 1, 9, 0], [8, 2, 9, 0], [8, 3, 4, 9], [8, 4, 3, 9]])
    optimizer = optax.adam(3e-3)

    def loss(clip):
        logits = features(clip, clip.preprocess(images), ids)[2]
        return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.arange(4)).mean()

    @jax.jit
    def step(clip, state):
        value, gradient = jax.value_and_grad(loss)(clip)
        updates, state = optimizer.update(gradient, state, clip)
        return optax.apply_updates(clip, updates), state, value

    state, values = jax.jit(optimizer.init)(clip), []
    for _ in range(60):
        clip, state, value = step(clip, state)
        values.append(float(value))
    assert values[0] > 1.0 and values[-1] < 0.1


def test_every_weight_gets_a_gradient(clip):
    images = random_images(2, 16, 16)
    ids = jnp.array([[8, 1, 9, 0, 0, 0], [8, 2, 3, 4, 5, 9]])
    target = np.array([[1.0, -0.5], [0.3, -2.0]])
    gradient = jax.jit(jax.grad(lambda c: (features(c, c.preprocess(images), ids)[2] * target).sum()))(clip)
    for name, variable in weights.named_variables(gradient).items():
        values = np.asarray(variable[...])
        assert np.isfinite(values).all() and (values != 0).any(), name


def test_computes_in_the_dtype_of_its_weights(golden):
    clip, expected = golden
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), clip)
    pixels = jnp.asarray(expected["pixels"].transpose(0, 2, 3, 1))
    image = jax.jit(CLIP.encode_pixels)(half, pixels)
    assert image.dtype == jnp.float32
    assert 1e-4 < relative_error(image, expected["image_features"]) < 0.05
    assert "f32[128,384]" not in str(jax.make_jaxpr(lambda c, x: c.encode_pixels(x))(half, pixels))


def test_mistakes_are_explained(clip):
    with pytest.raises(ValueError, match="use encode_image"):
        clip.encode_pixels(jnp.zeros((1, 32, 32, 3)))
    with pytest.raises(ValueError, match="N <= 6"):
        clip.encode_text(jnp.zeros((1, 7), jnp.int32))
    with pytest.raises(ValueError, match="image_size / patch_size = 16 / 7"):
        dataclasses.replace(SMALL, patch_size=7)
