"""models/precision.py: bfloat16 networks agree with float32 ones to its rounding, and keep their styles exact."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import frozen, largest, quick_compilation, w_plus  # noqa: F401

from coral_jax.models.precision import cast, cast_all
from coral_jax.step import Settings, init_state, train_step


@pytest.fixture(scope="module")
def networks():
    return frozen()


def test_float32_is_left_alone(networks):
    assert cast(networks.clip, "float32") is networks.clip


def test_another_type_is_refused(networks):
    with pytest.raises(ValueError, match="give one of float32, bfloat16"):
        cast(networks.clip, "float8")


def test_features_follow_the_type_and_images_stay_float32(networks):
    half = cast(networks.generator, "bfloat16")
    assert half.layer(1, half.constant(2), w_plus()[:, 0]).dtype == jnp.bfloat16
    image, expected = jax.jit(half.synthesis)(w_plus()), jax.jit(networks.generator.synthesis)(w_plus())
    assert image.dtype == jnp.float32
    assert 0 < largest(image, expected) < 0.03 * largest(expected)
    np.testing.assert_array_equal(half.convs[0].modulation.kernel[...], networks.generator.convs[0].modulation.kernel[...])


def test_embeddings_stay_float32(networks):
    images = jnp.tanh(jax.random.normal(jax.random.key(0), (2, 16, 16, 3)))
    half = cast_all(networks, "bfloat16")
    embed = jax.jit(lambda networks, images: (networks.clip.encode_image(images), networks.identity.embed(images)))
    for got, expected in zip(embed(half, images), embed(networks, images), strict=True):
        assert got.dtype == jnp.float32
        assert 0 < largest(got, expected) < 0.1 * largest(expected)


@pytest.mark.parametrize("method", ["attention_mapper", "segment_global"])
def test_a_step_in_bfloat16_is_near_that_in_float32(networks, method):
    settings = Settings(method=method, batch_size=2)
    state = init_state(settings, networks, jax.random.key(0))
    key = jax.random.key(1)
    _, expected = jax.jit(train_step)(state, networks, key, settings)
    after, metrics = jax.jit(train_step)(state, cast_all(networks, "bfloat16"), key, settings)
    assert {leaf.dtype for leaf in jax.tree.leaves(after.trainables)} == {jnp.dtype("float32")}
    assert float(metrics["loss/total"]) == pytest.approx(float(expected["loss/total"]), rel=0.05)
