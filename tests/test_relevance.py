"""What a style channel does in CLIP's eyes: against the formula written out, and known answers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny import CLIP_SIZES, build, generator, w_plus

from coral_jax.domains import load_domain
from coral_jax.global_directions import relevance
from coral_jax.global_directions.templates import TEMPLATES, wordings
from coral_jax.models.clip import CLIP
from coral_jax.toons.captions import parse

LAYER = generator().layers[2]  # the convolution looked at
FACES = 3


class Colour(nnx.Module):
    """A linear CLIP: the mean colour of a picture, and a constant."""

    def encode_image(self, images):
        return jnp.concatenate([images.mean(axis=(1, 2)), jnp.ones((len(images), 1))], axis=1)


def before(network, layer):
    """What a layer reads of some faces."""
    faces = relevance.Halfway(network.constant(FACES), None, w_plus(FACES))
    for earlier in network.layers[: layer.index - 1]:
        faces = relevance._through(network, faces, earlier)
    return faces


@pytest.fixture
def faces():
    return before(generator(), LAYER)


def values(channels=6):
    """Low and high values of each channel."""
    return np.stack([np.linspace(-3, -1, channels), np.linspace(2, 4, channels)]).astype(np.float32)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_is_the_formula_written_out(faces):
    network, clip = generator(), build(lambda: CLIP(CLIP_SIZES, nnx.Rngs(0)), 1)
    ours = list(relevance.channel_vectors(network, clip, LAYER, 0, faces, values()))

    @jax.jit
    def embed(network, clip, style, codes):
        return clip.encode_image(jnp.clip(network.synthesis(codes, {LAYER.index: (style,)}), -1, 1))

    for channel in (0, 5):
        style = network.styles(faces.w_plus)[LAYER.index - 1]
        low, high = (
            unit(np.asarray(embed(network, clip, style.at[:, channel].set(value), faces.w_plus)))
            for value in values()[:, channel]
        )
        expected = unit(np.mean(unit(high - low), axis=0))
        np.testing.assert_allclose(ours[channel], expected, atol=1e-4)


def test_faces_drawn_in_parts_give_the_same(faces, monkeypatch):
    network = generator()
    at_once = np.stack(list(relevance.channel_vectors(network, Colour(), LAYER, 0, faces, values())))
    monkeypatch.setattr(relevance, "_PIXELS", 2 * 16 * 16)  # a face
    in_parts = np.stack(list(relevance.channel_vectors(network, Colour(), LAYER, 0, faces, values())))
    np.testing.assert_allclose(in_parts, at_once, atol=1e-5)


def test_a_channel_that_cannot_matter_has_no_relevance(faces):
    network = generator()
    kernel = network.convs[LAYER.index - 1].kernel
    kernel.set_value(kernel[...].at[:, :, 2].set(0.0))
    found = np.stack(list(relevance.channel_vectors(network, Colour(), LAYER, 0, faces, values())))
    np.testing.assert_array_equal(found[2], 0)
    np.testing.assert_allclose(np.linalg.norm(np.delete(found, 2, axis=0), axis=1), 1, rtol=1e-5)


def test_a_channel_that_adds_red_points_to_red():
    """The last convolution's channel 0 reaches the one output that ToRGB reads, as red; channel 1 reaches another."""
    network = generator()
    last = network.layers[-1]
    kernel, to_rgb = network.convs[-1].kernel, network.to_rgbs[-1].kernel
    kernel.set_value(jnp.zeros_like(kernel[...]).at[1, 1, 0, 0].set(1.0).at[1, 1, 1, 1].set(1.0))
    to_rgb.set_value(jnp.zeros_like(to_rgb[...]).at[0, 0, 0, 0].set(1.0))

    class Red(nnx.Module):
        def encode_image(self, images):
            return jnp.stack([images[..., 0].mean(axis=(1, 2)), jnp.ones(len(images))], axis=1)

    found = np.stack(list(relevance.channel_vectors(network, Red(), last, 0, before(network, last), values(4))))
    assert np.linalg.norm(found[0]) == pytest.approx(1, abs=1e-5)
    np.testing.assert_array_equal(found[1:], 0)


def test_a_domain_is_prepared_once_and_goes_on_where_it_was(domain, monkeypatch, capsys):
    monkeypatch.setattr(relevance, "COUNT", 1000)
    domain = dataclasses.replace(domain, direction_faces=2)
    monkeypatch.setattr(relevance, "MAX_RESOLUTION", 8)  # three convolutions
    monkeypatch.setattr(relevance, "wordings", lambda domain, prompt: (["blue eyes"], ["a face"]))
    asked, stops = [], [2]

    def found(generator, clip, layer, place, faces, values):
        """Vectors that say which channel they are of; stops once, in the middle of the second convolution."""
        asked.append(layer.index)
        assert faces.x.shape[0] == 2 and place == 0
        for channel in range(values.shape[1]):
            if channel == 4 and layer.index in stops:
                stops.clear()
                raise KeyboardInterrupt
            yield np.full(8, 100 * layer.index + channel, np.float32)

    monkeypatch.setattr(relevance, "channel_vectors", found)
    with pytest.raises(KeyboardInterrupt):
        relevance.relevances(domain)
    relevances = relevance.relevances(domain)
    assert asked == [1, 2, 2, 3]
    assert [rows.shape for rows in relevances.vectors] == [(8, 8), (8, 8), (6, 8), (6, 8), (4, 8)]
    assert [row.shape for row in relevances.sigma] == [(8,), (8,), (6,), (6,), (4,)]
    assert relevances.vectors[1][5, 0] == 205
    assert not relevances.vectors[3].any()  # at 16 px
    assert "22/22" in capsys.readouterr().err
    channels = relevance.channels_of(domain, "blue eyes")
    assert len(asked) == 4  # from the cache
    towards = relevance.text_direction(domain, "blue eyes")
    np.testing.assert_allclose(channels.relevance[2], relevances.vectors[2] @ np.asarray(towards), rtol=1e-4, atol=1e-3)
    assert float(jnp.linalg.norm(towards)) == pytest.approx(1, abs=1e-5)
    for ours, expected in zip(channels.sigma, relevances.sigma, strict=True):
        np.testing.assert_array_equal(ours, expected)


def test_the_number_of_faces_is_the_domains_own_else_the_authors(domain):
    """And the cache keeps what was found on so many."""
    assert domain.direction_faces is None and relevance._count(domain) == relevance.FACES == 100
    fewer = dataclasses.replace(domain, direction_faces=24)
    assert relevance._count(fewer) == 24
    assert relevance.cache_folder(fewer) != relevance.cache_folder(domain)
    assert relevance.cache_folder(dataclasses.replace(domain, direction_faces=100)) == relevance.cache_folder(domain)
    assert load_domain("toons").direction_faces == 24


def test_clip_sees_what_the_losses_see(domain, monkeypatch):
    """Layers that only a larger picture has are left out, and their channels have no relevance."""
    monkeypatch.setattr(relevance, "COUNT", 1000)
    monkeypatch.setattr(relevance, "MAX_RESOLUTION", 8)
    seen = []

    def found(generator, clip, layer, place, faces, values):
        seen.append(generator.size)
        yield from np.ones((values.shape[1], 8), np.float32)

    monkeypatch.setattr(relevance, "channel_vectors", found)
    lower = dataclasses.replace(domain, direction_faces=2, loss_resolution=4)  # the convolutions of 8 px count, too
    relevances = relevance.relevances(lower)
    assert seen == [8, 8, 8] and domain.generator.size == 16
    assert [rows.any() for rows in relevances.vectors] == [True, True, True, False, False]
    assert relevance.cache_folder(lower) != relevance.cache_folder(dataclasses.replace(lower, loss_resolution=None))


def test_wordings(domain):
    assert len(set(TEMPLATES)) == 79
    asked, neutral = wordings(domain, "surprised")
    assert "a photo of the surprised face." in asked and "a photo of the face." in neutral
    cars = dataclasses.replace(domain, subject="car")
    asked, neutral = wordings(cars, "sports car")
    assert "a photo of a sports car." in asked and "a photo of my car." in neutral
    assert "a photo of a red car." in wordings(cars, "red")[0] and len(asked) == len(neutral) == 79
    asked, neutral = wordings(load_domain("toons"), "happy and blue eyes")
    assert len(asked) == len(neutral) and "a photo of a face" in neutral
    assert all(parse(text) == ["happy", "blue_eyes"] for text in asked)
