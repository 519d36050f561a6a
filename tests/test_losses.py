"""Every loss term against plain loops in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coral_jax import losses
from coral_jax.config import Settings
from coral_jax.losses import Edited, Term, weighted_sum

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
    masks = [jnp.asarray(m) for m in MASKS]
    expected = np.mean([sum(mask[b].sum() / mask.shape[1] for mask in MASKS) for b in range(3)])
    np.testing.assert_allclose(losses.area_loss_masks(masks), expected, rtol=1e-5)
    np.testing.assert_allclose(losses.area_loss_masks(masks, 2.0), sum(mask.mean() for mask in MASKS), rtol=1e-5)
    roots = sum(np.mean(np.sqrt(mask.mean(axis=(1, 2)))) for mask in MASKS)
    np.testing.assert_allclose(losses.area_loss_masks(masks, 2.0, 0.5), roots, rtol=1e-3)
    closed = [jnp.zeros((1, 4, 4))]
    assert np.isfinite(jax.grad(lambda masks: losses.area_loss_masks(masks, 2.0, 0.5))(closed)[0]).all()


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


class Mean:
    """An identity network that sees the mean of each channel."""

    def embed(self, images):
        return jnp.mean(images, axis=(1, 2))


@pytest.fixture(scope="module")
def edited():
    """An edit of which everything is known, with random values."""
    image, features = (3, 8, 8, 3), (3, 7)
    shapes = [image, image, image, features, features, (7,), (3, 5, 4)]
    arrays = [jnp.asarray(RNG.standard_normal(shape)) for shape in shapes]
    return Edited(*arrays, [jnp.asarray(m) for m in MASKS], jnp.asarray(RNG.uniform(size=(5, 3))), None, Mean(), 1.5, 0.7)


EQUATIONS = {
    "EQUATION_6": {"clip": None, "l2": "lambda_l2", "identity": "lambda_id", "area": "lambda_area"},
    "EQUATION_7": {"clip": None, "l2": "lambda_l2", "identity": "lambda_id", "area": "lambda_area", "tv": "lambda_tv"},
    "WITHOUT_FULL": {"clip": None, "l2": "lambda_l2", "identity": "lambda_id", "area": "lambda_area", "tv": "lambda_tv"},
    "OPTIMIZATION": {"clip": None, "l2": "lambda_l2", "identity": "lambda_id"},
    "MAPPER": {"clip": None, "l2": "lambda_l2", "identity": "lambda_id"},
    "STYLE_SPACE": {"clip": None, "identity": "lambda_id"},
}
SETTINGS = Settings(lambda_l2=0.3, lambda_id=0.7, lambda_area=0.011, lambda_tv=0.013)


@pytest.mark.parametrize("name", EQUATIONS)
def test_equations_sum_their_terms_under_the_weights_of_the_settings(edited, name):
    terms = getattr(losses, name)
    assert {term.name: term.weight for term in terms} == EQUATIONS[name]
    total, values = weighted_sum(terms, edited, SETTINGS)
    assert list(values) == [term.name for term in terms]
    weights = {"clip": 1.0, "l2": 0.3, "identity": 0.7, "area": 0.011, "tv": 0.013}
    np.testing.assert_allclose(total, sum(weights[term] * float(value) for term, value in values.items()), rtol=1e-6)


def test_terms_are_the_formulas_of_what_they_read(edited):
    """Which form of each term an equation has, and which of them reads the image with masks of one."""
    both = losses.clip_loss(edited.clip_image, edited.clip_full, edited.text)
    one = losses.clip_loss_of_one(edited.clip_image, edited.text)
    identity = losses.identity_loss(Mean().embed(edited.image), Mean().embed(edited.original))
    expected = {
        "EQUATION_6": (both, losses.l2_loss(edited.delta), identity, losses.area_loss_segments(edited.confidence)),
        "EQUATION_7": (both, losses.l2_loss(edited.delta), identity, losses.area_loss_masks(edited.masks, 1.5, 0.7),
                       losses.tv_loss(edited.masks)),
        "WITHOUT_FULL": (one, losses.l2_loss(edited.delta), identity, losses.area_loss_masks(edited.masks, 1.5, 0.7),
                         losses.tv_loss(edited.masks)),
        "OPTIMIZATION": (one, losses.l2_loss(edited.delta), identity),
        "MAPPER": (one, losses.l2_loss_mean(edited.delta), identity),
        "STYLE_SPACE": (one, identity),
    }  # fmt: skip
    for name, values in expected.items():
        terms = getattr(losses, name)
        np.testing.assert_array_equal([term.value(edited) for term in terms], values, err_msg=name)
        assert [term.reads_full for term in terms] == [values[0] is both] + [False] * (len(terms) - 1)


def test_a_term_without_its_network_is_left_out(edited):
    total, values = weighted_sum(losses.STYLE_SPACE, edited._replace(identity=None), SETTINGS)
    assert list(values) == ["clip"] and float(total) == float(values["clip"])


def test_a_new_term_takes_its_weight_from_the_settings(edited):
    """What docs say of adding one: a function of `Edited`, the name of a weight, a place in an equation."""
    brightness = Term("brightness", lambda e: jnp.mean(e.image), "lambda_tv")
    total, values = weighted_sum((*losses.STYLE_SPACE, brightness), edited, SETTINGS)
    without, _ = weighted_sum(losses.STYLE_SPACE, edited, SETTINGS)
    np.testing.assert_allclose(values["brightness"], np.mean(edited.image), rtol=1e-5)
    np.testing.assert_allclose(total - without, 0.013 * np.mean(edited.image), rtol=1e-3)
