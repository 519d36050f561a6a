"""Encoders: e4e's and pSp's converted and run as published, and the small ones that are trained here."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from e4e import COMPARED, SMALL, checkpoint, golden_tensor
from flax import nnx

from converters import encoder
from coral_jax import weights
from coral_jax.faces import train_encoder as faces_encoder
from coral_jax.models.encoder import FlatEncoder, FlatEncoderConfig, PyramidEncoderConfig
from coral_jax.models.prior import Prior, prior_of
from coral_jax.worlds.encoding import explained, train_encoder, varied

DATA = Path(__file__).parent / "data"



def test_e4e_and_psp_convert_and_encode_as_published():
    shapes = json.loads((DATA / "e4e_keys.json").read_text())
    state = {name: golden_tensor(name, tuple(shape)) for name, shape in shapes.items()}
    content = {"state_dict": state, "latent_avg": np.zeros((10, 512), np.float32)}
    image = np.random.default_rng(8).uniform(-1, 1, (1, 3, 256, 256)).astype(np.float32).transpose(0, 2, 3, 1)
    golden, _ = weights.load_tensors(DATA / "e4e_rule.safetensors")
    network = encoder.load(content, "e4e.pt", "psp")
    assert network.config == PyramidEncoderConfig(10, False)
    with jax.default_matmul_precision("highest"):
        levels = network._pyramid(jnp.asarray(image))
        codes = {code: np.asarray(network.heads[code](levels[network.config.level(code)])) for code in COMPARED}
    for code in COMPARED:
        offset = codes[code] + (code > 0) * codes[0]  # e4e's rule
        for found, expected in ((codes[code], golden["psp_codes"][:, code]), (offset, golden["e4e_codes"][:, code])):
            assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < 1e-5


def test_sizes_and_kind_come_from_the_checkpoint(tmp_path):
    content = checkpoint(SMALL, encoder_type="Encoder4Editing")
    network = encoder.load(content, "small.pt")
    assert network.config == SMALL
    weights.save(tmp_path / "encoder.safetensors", network)
    again = weights.load(tmp_path / "encoder.safetensors")
    images = np.random.default_rng(0).uniform(-1, 1, (2, 128, 128, 3)).astype(np.float32)
    codes = np.asarray(again(jnp.asarray(images)))
    assert codes.shape == (2, 5, 8)
    plain = encoder.load(checkpoint(SMALL, encoder_type="GradualStyleEncoder"), "psp.pt")(jnp.asarray(images))
    offsets = np.asarray(plain) - content["latent_avg"]
    np.testing.assert_allclose(codes[:, 1:], content["latent_avg"][1:] + offsets[:, 1:] + offsets[:, :1], atol=1e-5)
    np.testing.assert_allclose(codes[:, 0], plain[:, 0], atol=1e-6)


def test_other_checkpoints_are_refused():
    content = checkpoint(SMALL)
    with pytest.raises(ValueError, match="does not say whether it is e4e's or pSp's; add --kind=e4e or --kind=psp"):
        encoder.load(content, "x.pt")
    assert not encoder.load(content, "x.pt", "psp").config.offsets
    with pytest.raises(ValueError, match="--kind is 'both'; give one of e4e, psp"):
        encoder.load(content, "x.pt", "both")
    with pytest.raises(ValueError, match="says that it is of the kind e4e, and --kind says psp"):
        encoder.load(checkpoint(SMALL, encoder_type="Encoder4Editing"), "x.pt", "psp")
    with pytest.raises(ValueError, match="no latent_avg"):
        encoder.load({"state_dict": content["state_dict"]}, "x.pt", "e4e")
    with pytest.raises(ValueError, match="holds state_dict.*no encoder of e4e or pSp"):
        encoder.load({"state_dict": {"a": np.zeros(1)}}, "x.pt")
    with pytest.raises(ValueError, match="as many units as widths"):
        PyramidEncoderConfig(5, True, (1, 1), (4, 4), 64)


def test_a_prior_has_the_codes_of_its_generator():
    generator = tiny.generator()
    prior = prior_of(generator)
    w = generator.mapping(jnp.asarray(np.random.default_rng(0).standard_normal((4000, generator.z_dim)), jnp.float32))
    v = np.asarray(prior.coordinates(w))
    np.testing.assert_allclose(prior.w(jnp.asarray(v)), w, atol=1e-4)
    np.testing.assert_allclose(v.mean(axis=0), 0, atol=0.1)
    np.testing.assert_allclose(np.cov(v, rowvar=False)[:2, :2], np.eye(2), atol=0.15)


def test_an_encoder_learns_from_pictures_whose_codes_are_known():
    """A picture's upper half tells one number of w, the lower one another."""
    rng = np.random.default_rng(0)
    v = rng.standard_normal((256, 3)).astype(np.float32)
    images = np.zeros((256, 8, 8, 3), np.float32)
    images[:, :4] = v[:, None, None, :1] * 0.3
    images[:, 4:] = v[:, None, None, 1:2] * 0.3
    images = np.uint8(np.clip((images + 1) * 127.5, 0, 255))
    prior = Prior(jnp.asarray([1.0, 0, 0]), jnp.asarray([[0, 2.0, 0], [1.0, 0, 0], [0, 0, 0.01]]))
    w = np.asarray(prior.w(jnp.asarray(v)))
    found = train_encoder(FlatEncoderConfig(8, (8,), 16, 4, 3), prior, images, w, 32, 80, 2e-2)
    assert explained(prior, found, images, w) > 0.8
    assert found(jnp.asarray(images[:2], jnp.float32)).shape == (2, 4, 3)
    assert abs(explained(prior, FlatEncoder(found.config, nnx.Rngs(0)), images, w)) < explained(prior, found, images, w)


def test_faces_of_another_generator_are_drawn_anew(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        faces_encoder.draw, "random_codes", lambda generator, count, *_: np.full((count, 2), generator, np.float32)
    )
    monkeypatch.setattr(
        faces_encoder, "_draw", lambda generator, w: drawn.append(generator) or np.zeros((1, 128, 128, 3), np.uint8)
    )
    for generator, fingerprint in ((1, "a" * 64), (2, "b" * 64), (1, "a" * 64)):
        images, w = faces_encoder.drawn(tmp_path, generator, fingerprint, 3)
        assert images.shape == (3, 64, 64, 3) and (w == generator).all()
    assert drawn == [1] * faces_encoder.PART + [2] * faces_encoder.PART


def test_pictures_are_varied_and_stay_pictures():
    images = np.random.default_rng(0).uniform(-1, 1, (4, 32, 32, 3)).astype(np.float32)
    other = varied(images, np.random.default_rng(1))
    assert other.shape == images.shape and np.isfinite(other).all() and np.abs(other).max() < 1.6
    assert np.abs(other - images).mean() > 0.05
    smooth = np.broadcast_to(np.linspace(-0.5, 0.5, 32, dtype=np.float32)[:, None, None], (64, 32, 32, 3))
    assert np.abs(varied(smooth, np.random.default_rng(2)) - smooth).mean() < 0.15  # the same picture, still
