"""Segmenters on features whose segments are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from coral_jax.models import segmenter
from coral_jax.models.segmenter import MixtureSegmenterConfig, PixelClassifierConfig

LAYERS = ((2, 6), (4, 4))
PARTS = 3


def world(count: int, seed: int) -> tuple[dict[int, jax.Array], np.ndarray]:
    """Features of two layers (8 and 16 px) that say, noisily and oddly scaled, which of 3 stripes a pixel is in."""
    rng = np.random.default_rng(seed)
    shifts = rng.integers(0, 16, count)
    rows = (np.arange(16)[None] + shifts[:, None]) % 16 // 6  # 6, 6 and 4 rows
    labels = np.repeat(rows[:, :, None], 16, axis=2)
    centres = np.random.default_rng(9).standard_normal((PARTS, 10)) * 2
    fine = centres[labels] + rng.standard_normal((count, 16, 16, 10)) * 0.3
    fine = fine * np.geomspace(0.01, 100, 10) + 5.0
    coarse = fine.reshape(count, 8, 2, 8, 2, 10).mean(axis=(2, 4))
    features = {1: jnp.zeros((count, 4, 4, 3)), 2: jnp.float32(coarse[..., :6]), 4: jnp.float32(fine[..., 6:])}
    return features, labels


def pixels_of(features: dict[int, jax.Array]) -> np.ndarray:
    return np.asarray(segmenter.pixel_features(features, LAYERS, 16)).reshape(-1, 10)


@pytest.fixture(scope="module")
def mixture():
    config = MixtureSegmenterConfig(LAYERS, resolution=16, segments=PARTS, components=5)
    return segmenter.fit_mixture(config, pixels_of(world(8, seed=0)[0]), iterations=40)


@pytest.mark.parametrize("resolution", [4, 16, 32])
def test_project_is_resize_concatenate_and_multiply(resolution):
    features, _ = world(2, seed=1)
    kernel = jnp.float32(np.random.default_rng(0).standard_normal((10, 3)))
    expected = segmenter.pixel_features(features, LAYERS, resolution) @ kernel
    assert expected.shape == (2, resolution, resolution, 3)
    ours = segmenter.project(features, LAYERS, kernel, resolution)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-2)


def test_mixture_finds_the_parts_of_unseen_images(mixture):
    features, labels = world(4, seed=2)
    soft = mixture.segment(features)
    assert soft.shape == (4, 16, 16, PARTS)
    np.testing.assert_allclose(soft.sum(axis=-1), 1.0, rtol=1e-4)
    found = np.asarray(soft.argmax(axis=-1))
    table = np.array([[np.mean(labels[found == p] == q) for q in range(PARTS)] for p in range(PARTS)])
    assert sorted(table.argmax(axis=1)) == [0, 1, 2]  # one segment for each part, whatever their order
    assert table.max(axis=1).min() > 0.9


def test_mixture_density_is_that_of_its_gaussians(mixture):
    x = np.random.default_rng(0).standard_normal((7, 5)).astype(np.float32)
    means, variances = np.asarray(mixture.means[...]), np.exp(np.asarray(mixture.log_variances[...]))
    weights = np.exp(np.asarray(mixture.log_weights[...]))
    density = [
        np.log(w) - 0.5 * np.sum((x - m) ** 2 / v + np.log(v), axis=-1)
        for w, m, v in zip(weights, means, variances, strict=True)
    ]
    arrays = mixture.means[...], mixture.log_variances[...], mixture.log_weights[...]
    ours = segmenter._log_joint(jnp.asarray(x), *arrays)
    np.testing.assert_allclose(ours, np.stack(density, axis=-1), rtol=1e-3, atol=1e-2)
    np.testing.assert_allclose(weights.sum(), 1.0, rtol=1e-4)


def test_same_seed_same_mixture(mixture):
    again = segmenter.fit_mixture(mixture.config, pixels_of(world(8, seed=0)[0]), iterations=40)
    for ours, theirs in zip(jax.tree.leaves(mixture), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_classifier_learns_from_one_labelled_image():
    features, labels = world(1, seed=3)
    config = PixelClassifierConfig(LAYERS, resolution=16, segments=PARTS, hidden=(16,))
    classifier = segmenter.fit_pixel_classifier(
        config, pixels_of(features), labels.reshape(-1), steps=150, batch=128, learning_rate=1e-2
    )
    features, labels = world(4, seed=4)
    soft = classifier.segment(features)
    np.testing.assert_allclose(soft.sum(axis=-1), 1.0, rtol=1e-4)
    assert np.mean(np.asarray(soft.argmax(axis=-1)) == labels) > 0.9


def test_refusals(mixture):
    features, labels = world(1, seed=0)
    with pytest.raises(ValueError, match="use the segmenter made with this generator"):
        mixture.segment({2: features[2], 4: features[2]})
    with pytest.raises(ValueError, match="use the segmenter made with this generator"):
        mixture.segment({2: features[2]})
    with pytest.raises(ValueError, match="draw at least 100"):
        segmenter.fit_mixture(mixture.config, pixels_of(features)[:9])
    config = PixelClassifierConfig(LAYERS, resolution=16, segments=2)
    with pytest.raises(ValueError, match="256 integers from 0 to 1"):
        segmenter.fit_pixel_classifier(config, pixels_of(features), labels.reshape(-1))


def test_fresh_networks_have_the_shapes_their_config_says():
    """So that weights can be read into them."""
    fresh = segmenter.MixtureSegmenter(MixtureSegmenterConfig(LAYERS, 16, PARTS, 5), nnx.Rngs(0))
    assert fresh.kernel.shape == (10, 5)
    assert fresh.means.shape == (PARTS, 5)
    classifier = segmenter.PixelClassifier(PixelClassifierConfig(LAYERS, 16, PARTS, (8, 4)), nnx.Rngs(0))
    assert [linear.kernel.shape for linear in classifier.linears] == [(10, 8), (8, 4), (4, PARTS)]
