"""toons/train_clip.py: what the toons CLIP is trained on, and its losses."""

import jax
import jax.numpy as jnp
import numpy as np

from coral_jax.toons import train_clip
from coral_jax.toons.faces import ATTRIBUTES
from coral_jax.toons.renderer import PARTS
from coral_jax.worlds import contrastive

NAMES = list(ATTRIBUTES)


def test_stains_stay_in_their_parts_and_make_only_their_attributes_unknown():
    images = np.zeros((40, 4, 4, 3), np.float32)
    parts = np.zeros((40, 4, 4, len(PARTS)), np.float32)
    parts[:, :2, :, PARTS.index("mouth")] = 1  # the upper half is mouth, the lower is glasses, which are never stained
    parts[:, 2:, :, PARTS.index("glasses")] = 1
    stained, known = train_clip.stain(images, parts, np.random.default_rng(0))
    changed = np.abs(stained).max(axis=(2, 3)) > 0
    assert not changed[:, 2:].any()
    lipstick = NAMES.index("lipstick")
    assert 5 < changed[:, 0].sum() < 20
    np.testing.assert_array_equal(changed[:, 0], ~known[:, lipstick])
    assert known[:, NAMES.index("happy")].all()
    assert not images.any()  # the pool's own images stay as they are


def test_a_caption_is_unsure_only_where_what_is_known_of_it_is_true():
    true, known = np.zeros((3, len(NAMES)), bool), np.ones((3, len(NAMES)), bool)
    happy, lipstick = NAMES.index("happy"), NAMES.index("lipstick")
    true[:, [happy, lipstick]] = [[True, True], [True, False], [False, True]]
    known[1:, lipstick] = False
    _, match, sure = train_clip._sample_captions(true, known, np.random.default_rng(0))
    np.testing.assert_array_equal(match[:, happy], [True, True, False])
    assert sure[:, happy].all()
    np.testing.assert_array_equal(match[:, lipstick], [True, False, False])
    np.testing.assert_array_equal(sure[:, lipstick], [True, False, False])
    assert not (match & ~sure).any()


def test_unsure_pairs_do_not_count():
    cosines, match = jnp.eye(3) * 0.3 + 0.1, jnp.eye(3)
    sure = jnp.ones((3, 3), bool)
    loss = contrastive.contrastive_loss(cosines, jnp.log(5.0), match, sure.at[0, 1].set(False))
    assert float(loss) < float(contrastive.contrastive_loss(cosines, jnp.log(5.0), match, sure))  # one wrong pair fewer
    assert np.isfinite(float(loss))


def test_only_what_exceeds_a_match_is_held_down():
    cosines = jnp.asarray([[-1.0, contrastive.MATCH], [0.0, contrastive.MATCH + 0.2]])
    np.testing.assert_allclose(jax.grad(contrastive.ceiling_loss)(cosines), [[0, 0], [0, 0.1]], atol=1e-6)


def test_adversarial_images_are_near_and_worse():
    images = jax.random.normal(jax.random.key(0), (5, 8, 8, 3))

    def loss(images: jax.Array) -> jax.Array:
        return jnp.sum(jnp.sin(images))

    moved = contrastive.adversarial(loss, images, jax.random.key(1), 2.0)
    distance = jnp.linalg.norm((moved - images).reshape(5, -1), axis=1)
    assert float(distance.min()) > 0 and float(distance.max()) <= train_clip._RADIUS * 1.001
    assert float(loss(moved)) > float(loss(images))
