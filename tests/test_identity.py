"""The identity network against IR-SE50 as StyleCLIP runs it, and its training mode."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from rule import rule_tensor

from converters import identity as converter
from coral_jax import weights
from coral_jax.models.identity import Identity, IdentityConfig

RNG_KEY = jax.random.key(0, impl="unsafe_rbg")  # compiles ten times faster than the default
DATA = Path(__file__).parent / "data"
SMALL = IdentityConfig(units=(1, 1), widths=(8, 16), input_size=16, embed_dim=8)


@pytest.fixture(scope="module")
def irse50():
    """IR-SE50, converted from the golden's weights under its published names."""
    shapes = json.loads((DATA / "irse50_keys.json").read_text())
    network = converter.load({name: rule_tensor(name, tuple(shape)) for name, shape in shapes.items()}, "the rule's weights")
    assert network.config == IdentityConfig()
    return network


@pytest.fixture(scope="module")
def identity():
    """An identity network small enough to train in a test."""
    return jax.jit(lambda: Identity(SMALL, nnx.Rngs(RNG_KEY)))()


def relative_error(got, expected):
    """Largest absolute error over the largest expected magnitude."""
    return float(np.abs(np.asarray(got) - expected).max() / np.abs(expected).max())


def test_embeddings_and_identity_loss_are_the_published(irse50):
    expected, _ = weights.load_tensors(DATA / "irse50_rule.safetensors")
    crops = np.random.default_rng(7).uniform(-1, 1, (2, 3, 112, 112)).astype(np.float32).transpose(0, 2, 3, 1)
    small = jnp.asarray(expected["image_64_for_512"].transpose(0, 2, 3, 1))
    large = jax.image.resize(small, (2, 512, 512, 3), jax.image.ResizeMethod.CUBIC_PYTORCH, antialias=False)
    large = jnp.clip(large, -1, 1)
    np.testing.assert_allclose(large[:, :4].transpose(0, 3, 1, 2), expected["image_512_first_rows"], atol=1e-5)
    with jax.default_matmul_precision("highest"):
        both = jnp.concatenate([crops, irse50.crop(large)])
        embeddings = np.asarray(irse50.embed_crop(both))  # unit by unit: as one program it compiles for long
    assert np.linalg.norm(embeddings[:2] - expected["embedding"]) / np.linalg.norm(expected["embedding"]) < 1e-5
    assert relative_error(embeddings[2:], expected["embedding_512"]) < 1e-4
    assert relative_error(1 - embeddings[2] @ embeddings[3], expected["id_loss_pair"]) < 1e-4


@pytest.mark.parametrize("size", [256, 128, 1024])
def test_crop_keeps_the_same_fractions_of_any_size(size):
    config = IdentityConfig(units=(1,), widths=(4,), input_size=94, embed_dim=4)
    identity = nnx.eval_shape(lambda: Identity(config, nnx.Rngs(0)))  # cropping uses no weights
    rows, columns = np.indices((256, 256)) / 255
    base = np.stack([rows, columns, rows * columns], axis=-1).astype(np.float32)[None]
    if size < 256:
        image = base[:, ::2, ::2]
        at_256 = image.repeat(2, axis=1).repeat(2, axis=2)
    else:
        image = base.repeat(size // 256, axis=1).repeat(size // 256, axis=2)
        at_256 = base
    expected = at_256[:, 35:223, 32:220].reshape(1, 94, 2, 94, 2, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(identity.crop(jnp.asarray(image)), expected, atol=1e-5)


def test_embeddings_have_unit_length_and_do_not_depend_on_the_batch(identity):
    images = np.random.default_rng(0).uniform(-1, 1, (3, 40, 40, 3)).astype(np.float32)
    embed = jax.jit(Identity.embed)
    embeddings = embed(identity, images)
    np.testing.assert_allclose(jnp.linalg.norm(embeddings, axis=-1), 1, rtol=1e-5)
    np.testing.assert_allclose(embed(identity, images[:1]), embeddings[:1], atol=1e-5)


def test_training_updates_running_statistics_and_every_weight_gets_a_gradient(identity):
    crops = np.random.default_rng(0).uniform(-0.5, 1.5, (6, 16, 16, 3)).astype(np.float32)
    target = np.random.default_rng(1).standard_normal((6, 8))

    @jax.jit
    def gradient_and_network(identity):
        def loss(identity):
            return (identity.embed_crop(crops, train=True) * target).sum(), identity

        return jax.grad(loss, has_aux=True)(identity)

    gradient, updated = gradient_and_network(identity)
    before, after, gradients = (
        {name: np.asarray(variable[...]) for name, variable in weights.named_variables(network).items()}
        for network in (identity, updated, gradient)
    )
    for name in before:
        changed = (before[name] != after[name]).any()
        statistic = name.endswith((".mean", ".var"))
        assert changed == statistic, name
        # A constant added before a batch norm has no effect, so the bias there has no gradient.
        if not statistic and name != "linear.bias":
            assert (gradients[name] != 0).any(), name
    stem = np.asarray(jax.lax.conv_general_dilated(
        crops, identity.stem.kernel[...], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    ))  # fmt: skip
    np.testing.assert_allclose(after["stem_norm.mean"], 0.1 * stem.mean(axis=(0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(after["stem_norm.var"], 0.9 + 0.1 * stem.var(axis=(0, 1, 2)), rtol=1e-4)


def test_mistakes_are_explained(identity):
    with pytest.raises(ValueError, match="give one a stage"):
        IdentityConfig(units=(1, 1), widths=(8,))
    with pytest.raises(ValueError, match="choose a multiple of 16"):
        IdentityConfig(input_size=100)
    with pytest.raises(ValueError, match="use embed"):
        identity.embed_crop(jnp.zeros((1, 32, 32, 3)))
