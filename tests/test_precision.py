"""models/precision.py: bfloat16 networks agree with float32 ones to its rounding, and keep their styles exact."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny import copied, frozen, largest, step_alone, w_plus

from coral_jax.config import Settings
from coral_jax.models.precision import cast, cast_all
from coral_jax.step import init_state


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
    first = half.layers[0]
    assert half.layer(first, half.constant(2), first.codes(w_plus())).dtype == jnp.bfloat16
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
    _, expected = step_alone(copied(state), networks, key, settings)
    after, metrics = step_alone(state, cast_all(networks, "bfloat16"), key, settings)
    assert {leaf.dtype for leaf in jax.tree.leaves(after.trainables)} == {jnp.dtype("float32")}
    assert float(metrics["loss/total"]) == pytest.approx(float(expected["loss/total"]), rel=0.05)


def test_what_a_generator_keeps_in_float32_follows_from_its_own_rule(networks):
    """Mapping, styles, noise and biases: of the weights, `stays_float32` names those; cast makes the others follow the type."""
    half = nnx.to_flat_state(nnx.state(cast(networks.generator, "bfloat16")))
    kinds = {path: variable.dtype for path, variable in half if isinstance(variable, nnx.Param)}
    assert {path[-1] for path, kind in kinds.items() if kind == jnp.bfloat16} == {"input", "kernel"}
    for path, kind in kinds.items():
        assert (kind == jnp.float32) == networks.generator.stays_float32(path), path
        assert kind == jnp.float32 or not {"mapping", "modulation"} & set(path)
