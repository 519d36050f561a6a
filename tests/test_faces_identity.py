"""faces/train_identity.py: who is the same person."""

import jax.numpy as jnp
import numpy as np
import pytest

from coral_jax.faces import train_identity
from coral_jax.models.generator import Layer
from coral_jax.worlds.contrastive import partner_loss


class Brightness:
    """An identity network whose embedding is the mean colour, of length 1."""

    def embed(self, images):
        mean = jnp.mean(images, axis=(1, 2))
        return mean / jnp.linalg.norm(mean, axis=-1, keepdims=True)


def test_persons_are_told_apart_by_their_embeddings(monkeypatch):
    monkeypatch.setattr(train_identity.jax, "jit", lambda function: function)
    pairs = np.zeros((2, 3, 4, 4, 3), np.uint8)
    for person in range(3):
        pairs[:, person, ..., person] = 255
    auc, same, different = train_identity.told_apart(Brightness(), pairs)
    assert auc == 1 and same == pytest.approx(1, abs=1e-5) and different < 0
    assert train_identity.told_apart(Brightness(), np.stack([pairs[0], pairs[0][[1, 2, 0]]]))[0] < 0.5


def test_partners_that_embed_alike_cost_less():
    embedding = jnp.asarray([[1.0, 0], [0, 1], [1, 0], [0, 1]])
    low = partner_loss(embedding, 0.5)
    assert float(low) == pytest.approx(np.log(1 + 2 * np.exp(-2)), abs=1e-5)
    assert float(partner_loss(embedding[jnp.asarray([0, 1, 3, 2])], 0.5)) > float(low)


class Codes:
    """What `codes` asks of a generator: eight layers of 4 to 32 px, then 64 px, with a row each."""

    n_latent, z_dim = 10, 4
    w_avg = np.zeros((4,), np.float32)

    layers = tuple(Layer(row + 1, 64 if row >= 8 else 32, 1, (row,)) for row in range(10))


def test_second_pictures_differ_in_expression_and_half_of_them_in_late_codes(monkeypatch):
    faces = np.arange(2 * 50 * 4, dtype=np.float32).reshape(100, 4)
    monkeypatch.setattr(train_identity.draw, "random_codes", lambda *_: faces)
    table = {name: np.array([1, 0, 0, 0], np.float32) for name in train_identity._EXPRESSIONS}
    one, other = train_identity.codes(Codes(), 50, table)
    np.testing.assert_array_equal(one, np.repeat(faces[:50, None], 10, 1))
    moved = other[:, :8] - one[:, :8]
    assert (moved[..., 1:] == 0).all() and (moved[..., 0] >= 2).all() and (moved[..., 0] <= 6).all()
    from_another = (other[:, 8:] == faces[50:, None]).all(axis=(1, 2))
    assert 10 < from_another.sum() < 40
    np.testing.assert_array_equal(other[~from_another][:, 8:], other[~from_another][:, :2])
