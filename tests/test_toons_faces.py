"""toons/faces.py: what a latent means, and what setting an attribute changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coral_jax.toons.faces import (
    ATTRIBUTES,
    GROUPS,
    Z_DIM,
    can_have,
    faces_from_z,
    has,
    mix,
    numbers,
    vectors,
    with_attribute,
)

FACES = jax.jit(faces_from_z)(jax.random.normal(jax.random.key(0), (2000, Z_DIM)))


def test_the_scale_of_z_means_nothing():
    z = jax.random.normal(jax.random.key(1), (64, Z_DIM))
    near, far = faces_from_z(z), faces_from_z(3 * z)
    np.testing.assert_array_equal(near.category["hair_style"], far.category["hair_style"])


@pytest.mark.parametrize("group", GROUPS)
def test_every_value_of_every_group_occurs_often(group):
    counts = np.bincount(FACES.category[group], minlength=len(GROUPS[group]))
    assert counts.min() > 0.08 * 2000


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_setting_an_attribute_gives_it_and_changes_no_other_group(attribute):
    after = with_attribute(FACES, attribute)
    possible = np.asarray(can_have(FACES, attribute))
    assert np.asarray(has(after, attribute))[possible].all()
    group = ATTRIBUTES[attribute][0]
    for other in GROUPS:
        same = np.asarray(after.category[other] == FACES.category[other])
        assert same.all() or other == group
    already = np.asarray(has(FACES, attribute))
    assert 0 < already.sum() < 2000
    np.testing.assert_array_equal(after.category[group][already], FACES.category[group][already])


def test_length_and_curliness_of_hair_combine():
    both = with_attribute(with_attribute(FACES, "curly_hair"), "long_hair")
    assert np.asarray(has(both, "curly_hair") & has(both, "long_hair")).all()
    both = with_attribute(with_attribute(FACES, "long_hair"), "curly_hair")
    assert np.asarray(has(both, "curly_hair") & has(both, "long_hair")).all()


def test_mixing_takes_shape_from_one_and_colour_from_the_other():
    a = faces_from_z(jax.random.normal(jax.random.key(2), (50, Z_DIM)))
    b = faces_from_z(jax.random.normal(jax.random.key(3), (50, Z_DIM)))
    shape, colour = vectors(mix(a, b))
    np.testing.assert_array_equal(shape, vectors(a)[0])
    np.testing.assert_array_equal(colour, vectors(b)[1])


def test_numbers_are_finite_and_colours_are_colours():
    for name, value in numbers(FACES).items():
        assert jnp.isfinite(value).all(), name
        if value.ndim == 2:
            assert value.min() >= 0 and value.max() <= 1, name
