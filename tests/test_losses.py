"""Every loss term against plain loops in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coral_jax import losses

RNG = np.random.default_rng(0)
MASKS = [RNG.uniform(size=(3, size, size)) for size in (4, 8, 8)]


def cosine(a, b):
    return float(np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b))


def test_clip_loss_is_half_the_sum_of_both_distances():
    edited, full, text = RNG.standard_normal((3, 7)), RNG.standard_normal((3, 7)), RNG.standard_normal(7)
    distances = [[0.5 * (1 - cosine(image, text)) for image in images] for images in (edited, full)]
    expected = np.mean(np.sum(distances, axis=0))
    ours = losses.clip_loss(jnp.asarray(edited), jnp.asarray(full), jnp.asarray(text))
    np.testing.assert_allclose(ours, expected, rtol=1e-5)
    np.testing.assert_allclose(losses.clip_distance(jnp.asarray(5 * text)[None], jnp.asarray(text)), 0.0, atol=1e-6)


def test_l2_loss_sums_layers_and_channels_and_averages_the_batch():
    delta = RNG.standard_normal((3, 5, 4))
    np.testing.assert_allclose(losses.l2_loss(jnp.asarray(delta)), np.sum(delta**2) / 3, rtol=1e-5)


def test_identity_loss_and_its_gradient():
    edited, original = RNG.standard_normal((2, 6)), RNG.standard_normal((2, 6))
    expected = np.mean([1 - cosine(a, b) for a, b in zip(edited, original, strict=True)])
    np.testing.assert_allclose(losses.identity_loss(jnp.asarray(edited), jnp.asarray(original)), expected, rtol=1e-5)
    by_edited, by_original = jax.grad(losses.identity_loss, argnums=(0, 1))(jnp.asarray(edited), jnp.asarray(original))
    assert float(jnp.abs(by_edited).max()) > 0
    assert float(jnp.abs(by_original).max()) == 0


def test_area_losses():
    confidence = RNG.uniform(size=(5, 13))
    np.testing.assert_allclose(losses.area_loss_segments(jnp.asarray(confidence)), confidence.sum(), rtol=1e-5)
    expected = np.mean([sum(mask[b].sum() / mask.shape[1] for mask in MASKS) for b in range(3)])
    np.testing.assert_allclose(losses.area_loss_masks([jnp.asarray(m) for m in MASKS]), expected, rtol=1e-5)


def test_tv_loss():
    expected = 0.0
    for mask in MASKS:
        size = mask.shape[1]
        for b in range(3):
            for i in range(size):
                for j in range(size):
                    expected += (mask[b, i, j] - mask[b, i + 1, j]) ** 2 if i + 1 < size else 0.0
                    expected += (mask[b, i, j] - mask[b, i, j + 1]) ** 2 if j + 1 < size else 0.0
    np.testing.assert_allclose(losses.tv_loss([jnp.asarray(m) for m in MASKS]), expected / 3, rtol=1e-5)


@pytest.mark.parametrize("loss", [losses.area_loss_masks, losses.tv_loss])
def test_batch_size_changes_no_lambda(loss):
    once, twice = [jnp.asarray(m) for m in MASKS], [jnp.asarray(np.concatenate([m, m])) for m in MASKS]
    np.testing.assert_allclose(loss(once), loss(twice), rtol=1e-5)


def test_cosine_of_zero_vector_has_a_finite_gradient():
    assert bool(jnp.all(jnp.isfinite(jax.grad(lambda a: losses.cosine(a, jnp.ones(3)))(jnp.zeros(3)))))


def test_the_baselines_forms_of_the_clip_and_l2_terms():
    edited, text, delta = RNG.standard_normal((3, 7)), RNG.standard_normal(7), RNG.standard_normal((3, 5, 4))
    expected = np.mean([1 - cosine(image, text) for image in edited])
    np.testing.assert_allclose(losses.clip_loss_of_one(jnp.asarray(edited), jnp.asarray(text)), expected, rtol=1e-5)
    np.testing.assert_allclose(losses.l2_loss_mean(jnp.asarray(delta)), np.mean(delta**2), rtol=1e-5)
