"""toons/renderer.py: drawings have the parts they should have, where they should be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coral_jax.toons.faces import Z_DIM, faces_from_z, has, with_attribute
from coral_jax.toons.renderer import PARTS, SIZE, render

FACES = faces_from_z(jax.random.normal(jax.random.key(0), (24, Z_DIM)))


@pytest.fixture(scope="module")
def drawn():
    return render(FACES)


def _share(parts, name):
    return np.asarray(parts[..., PARTS.index(name)].mean((1, 2)))


def test_images_and_parts(drawn):
    images, parts = drawn
    assert images.shape == (24, SIZE, SIZE, 3)
    assert jnp.abs(images).max() <= 1
    np.testing.assert_allclose(parts.sum(-1), 1, atol=1e-4)
    assert parts.min() >= 0


@pytest.mark.parametrize("part", ["beard", "mustache", "glasses"])
def test_a_part_is_drawn_where_the_face_has_it_and_only_there(drawn, part):
    share, true = _share(drawn[1], part), np.asarray(has(FACES, part))
    assert share[true].min() > 0.004
    assert share[~true].max() == 0


def test_hair_is_drawn_on_all_but_bald_heads(drawn):
    share, bald = _share(drawn[1], "hair"), np.asarray(has(FACES, "bald"))
    assert share[~bald].min() > 0.02 and share[bald].max() < 1e-6


def test_blue_eyes_change_the_irises_alone(drawn):
    images, parts = drawn
    after = render(with_attribute(FACES, "blue_eyes"))[0]
    change = np.asarray(jnp.abs(after - images).max(-1))
    iris = np.asarray(parts[..., PARTS.index("iris")])
    assert change[iris == 0].max() < 1e-5
    assert change.max() > 0.3


def test_drawing_is_the_same_at_twice_the_size(drawn):
    large = render(FACES, 2 * SIZE)[0].reshape(24, SIZE, 2, SIZE, 2, 3).mean((2, 4))
    assert float(jnp.abs(large - drawn[0]).mean()) < 0.02
