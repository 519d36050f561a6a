"""faces/train_readouts.py: read-outs learn what the whole generator draws, from faces that are drawn once."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny import build

from coral_jax import weights
from coral_jax.faces import train_readouts
from coral_jax.faces.train_readouts import Pixels, averaged, drawn, fit, principal, psnr, ridge, train
from coral_jax.models.mobile_stylegan import MobileStyleGAN, MobileStyleGANConfig, ReadOut

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def generator():
    config = MobileStyleGANConfig(6, 5, 2, ((4, 8), (8, 8), (16, 4)))
    return build(lambda: MobileStyleGAN(config, nnx.Rngs(0)))


@pytest.fixture(autouse=True)
def small(monkeypatch):
    for name, value in {"RESOLUTIONS": (8, 16), "_CHUNK": 4, "_PIXELS": 30, "_COMPONENTS": 4, "_CODES": 500}.items():
        monkeypatch.setattr(train_readouts, name, value)


def made_up(faces=40, pixels=50):
    """Pixels of a read-out with modulation, and that read-out."""
    readout = ReadOut(6, 4, nnx.Rngs(0))
    for variable, size in ((readout.gain, 0.5), (readout.shift, 0.1), (readout.kernel, 0.1)):
        variable.set_value(jnp.asarray(size * RNG.standard_normal(variable.shape), jnp.float32))
    codes = 0.3 * RNG.standard_normal((faces, 4)).astype(np.float32)
    features = RNG.standard_normal((faces, pixels, 6)).astype(np.float32)
    return Pixels(codes, features, np.asarray(readout(features[:, None], codes))[:, 0]), readout


def test_a_fit_finds_the_modulation_that_a_linear_map_lacks():
    pixels, _ = made_up()
    plain = ReadOut(6, 4, nnx.Rngs(0))
    for variable, value in zip((plain.kernel, plain.bias), ridge(pixels), strict=True):
        variable.set_value(jnp.asarray(value))
    assert psnr(fit(pixels, 1500), pixels).mean() > psnr(plain, pixels).mean() + 10


def test_the_linear_map_is_that_of_least_squares():
    pixels, readout = made_up()
    still = pixels._replace(colours=pixels.features @ np.asarray(readout.kernel[...]) + np.float32([0.1, 0.2, 0.3]))
    kernel, bias = ridge(still)
    np.testing.assert_allclose(kernel, readout.kernel[...], atol=1e-3)
    np.testing.assert_allclose(bias, [0.1, 0.2, 0.3], atol=1e-3)


def test_decibels_are_of_clipped_images_between_minus_one_and_one():
    readout = ReadOut(2, 1, nnx.Rngs(0))
    readout.kernel.set_value(jnp.zeros((2, 3)))
    readout.bias.set_value(jnp.array([0.2, 0.2, 5.0]))
    pixels = Pixels(np.zeros((1, 1), np.float32), np.zeros((1, 7, 2), np.float32), np.full((1, 7, 3), [0.0, 0.0, 3.0]))
    np.testing.assert_allclose(psnr(readout, pixels), [10 * np.log10(4 / (0.04 * 2 / 3))], rtol=1e-4)


def test_components_have_one_deviation_and_no_correlation(generator):
    z = RNG.standard_normal((4000, 6)).astype(np.float32)
    codes = np.asarray(generator.mapping(z) - generator.w_avg[...][None]) @ principal(generator)
    np.testing.assert_allclose(codes.T @ codes / len(codes), 0.09 * np.eye(4), atol=0.015)


def test_faces_are_drawn_once_and_are_of_one_generator(generator, tmp_path, monkeypatch):
    first = drawn(generator, "a", tmp_path, 6)
    assert first["w"].shape == (6, 5) and first["features_8"].shape == (6, 30, 8) and first["colours_16"].shape == (6, 30, 3)
    monkeypatch.setattr(train_readouts, "_chunk", None)
    again = drawn(generator, "a", tmp_path, 6)
    for name, value in first.items():
        np.testing.assert_array_equal(again[name], value)
    with pytest.raises(ValueError, match=r"readouts_000.safetensors holds faces of another generator; give another --folder"):
        drawn(generator, "b", tmp_path, 6)


def test_colours_are_those_of_the_image_at_the_features_pixels(generator, tmp_path, monkeypatch):
    monkeypatch.setattr(train_readouts, "_PIXELS", 64)  # all of 8 px
    arrays = drawn(generator, "a", tmp_path, 1)
    codes = generator.broadcast(jnp.asarray(arrays["w"]))
    features, images = zip(*[(x, image) for _, x, image in generator.walk(codes)], strict=True)
    rows = np.asarray(features[2][0]).reshape(64, 8)
    place = [int(np.argmin(np.abs(rows - row).sum(axis=1))) for row in arrays["features_8"][0]]
    assert sorted(place) == list(range(64))
    small = averaged(np.asarray(images[-1][0]), 8)
    np.testing.assert_allclose(small[0, 1], np.asarray(images[-1][0, :4, 4:8]).mean(axis=(0, 1)), rtol=1e-5)
    np.testing.assert_allclose(arrays["colours_8"][0], small.reshape(64, 3)[place], atol=1e-5)


def test_trained_readouts_fit_the_generator_and_are_the_same_each_time(generator, tmp_path):
    found, again = (train(generator, "a", tmp_path, 20, 30) for _ in range(2))
    expected = {f"readouts.{size}.{name}" for size in (8, 16) for name in ("kernel", "bias", "gain", "shift")}
    assert found.keys() == expected and {value.dtype for value in found.values()} == {np.dtype(np.float16)}
    for name, value in found.items():
        np.testing.assert_array_equal(value, again[name])
    config = MobileStyleGANConfig(6, 5, 2, generator.config.channels, readouts=(8, 16))
    whole = nnx.eval_shape(lambda: MobileStyleGAN(config, nnx.Rngs(0)))
    arrays = {name: np.asarray(variable[...]) for name, variable in weights.named_variables(generator).items()}
    weights.fill(whole, arrays | found, "test")
    z = RNG.standard_normal((8, 6)).astype(np.float32)
    codes = generator.mapping(z)
    image = generator.synthesis(generator.broadcast(codes))
    lower = whole.lower(16)
    error = np.asarray(lower.synthesis(lower.broadcast(codes))) - np.stack([averaged(np.asarray(one), 16) for one in image])
    assert np.mean(error**2) < 0.5 * np.var([averaged(np.asarray(one), 16) for one in image])
