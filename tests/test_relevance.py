"""What a style channel does in CLIP's eyes: against the formula written out, and known answers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny import CLIP_SIZES, build, generator, w_plus

from coral_jax.baselines.stylespace import styled_synthesis
from coral_jax.global_directions import relevance
from coral_jax.global_directions.templates import TEMPLATES, wordings
from coral_jax.models.clip import CLIP
from coral_jax.toons.captions import parse

pytestmark = pytest.mark.usefixtures("quick")
INDEX = 3  # the convolution looked at
FACES = 3


class Colour(nnx.Module):
    """A linear CLIP: the mean colour of a picture, and a constant."""

    def encode_image(self, images):
        return jnp.concatenate([images.mean(axis=(1, 2)), jnp.ones((len(images), 1))], axis=1)


def before(network, index):
    """What convolution `index` reads of some faces."""
    scene = relevance.Scene(network.constant(FACES), None, w_plus(FACES))
    for earlier in range(1, index):
        scene = relevance._through(network, scene, earlier)
    return scene


@pytest.fixture
def scene():
    return before(generator(), INDEX)


def values(channels=6):
    """Low and high values of each channel."""
    return np.stack([np.linspace(-3, -1, channels), np.linspace(2, 4, channels)]).astype(np.float32)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_is_the_formula_written_out(scene):
    network, clip = generator(), build(lambda: CLIP(CLIP_SIZES, nnx.Rngs(0)), 1)
    ours = list(relevance.channel_vectors(network, clip, INDEX, scene, values()))

    @jax.jit
    def embed(network, clip, style, codes):
        styles = list(network.styles(codes))
        styles[INDEX - 1] = style
        return clip.encode_image(jnp.clip(styled_synthesis(network, tuple(styles), codes), -1, 1))

    for channel in (0, 5):
        style = network.styles(scene.w_plus)[INDEX - 1]
        low, high = (
            unit(np.asarray(embed(network, clip, style.at[:, channel].set(value), scene.w_plus)))
            for value in values()[:, channel]
        )
        expected = unit(np.mean(unit(high - low), axis=0))
        np.testing.assert_allclose(ours[channel], expected, atol=1e-4)


def test_faces_drawn_in_parts_give_the_same(scene, monkeypatch):
    network = generator()
    at_once = np.stack(list(relevance.channel_vectors(network, Colour(), INDEX, scene, values())))
    monkeypatch.setattr(relevance, "_PIXELS", 2 * 16 * 16)  # a face
    in_parts = np.stack(list(relevance.channel_vectors(network, Colour(), INDEX, scene, values())))
    np.testing.assert_allclose(in_parts, at_once, atol=1e-5)


def test_a_channel_that_cannot_matter_has_no_relevance(scene):
    network = generator()
    kernel = network.convs[INDEX - 1].kernel
    kernel.set_value(kernel[...].at[:, :, 2].set(0.0))
    found = np.stack(list(relevance.channel_vectors(network, Colour(), INDEX, scene, values())))
    np.testing.assert_array_equal(found[2], 0)
    np.testing.assert_allclose(np.linalg.norm(np.delete(found, 2, axis=0), axis=1), 1, rtol=1e-5)


def test_a_channel_that_adds_red_points_to_red():
    """The last convolution's channel 0 reaches the one output that ToRGB reads, as red; channel 1 reaches another."""
    network, last = generator(), 5
    kernel, to_rgb = network.convs[last - 1].kernel, network.to_rgbs[-1].kernel
    kernel.set_value(jnp.zeros_like(kernel[...]).at[1, 1, 0, 0].set(1.0).at[1, 1, 1, 1].set(1.0))
    to_rgb.set_value(jnp.zeros_like(to_rgb[...]).at[0, 0, 0, 0].set(1.0))

    class Red(nnx.Module):
        def encode_image(self, images):
            return jnp.stack([images[..., 0].mean(axis=(1, 2)), jnp.ones(len(images))], axis=1)

    found = np.stack(list(relevance.channel_vectors(network, Red(), last, before(network, last), values(4))))
    assert np.linalg.norm(found[0]) == pytest.approx(1, abs=1e-5)
    np.testing.assert_array_equal(found[1:], 0)


def test_a_domain_is_prepared_once_and_goes_on_where_it_was(domain, monkeypatch, capsys):
    monkeypatch.setattr(relevance, "COUNT", 1000)
    monkeypatch.setattr(relevance, "FACES", {"tiny": 2})
    monkeypatch.setattr(relevance, "MAX_RESOLUTION", 8)  # three convolutions
    monkeypatch.setattr(relevance, "wordings", lambda domain, prompt: (["blue eyes"], ["a face"]))
    asked, stops = [], [2]

    def found(generator, clip, index, scene, values):
        """Vectors that say which channel they are of; stops once, in the middle of the second convolution."""
        asked.append(index)
        assert scene.x.shape[0] == 2
        for channel in range(values.shape[1]):
            if channel == 4 and index in stops:
                stops.clear()
                raise KeyboardInterrupt
            yield np.full(8, 100 * index + channel, np.float32)

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
    given = relevance.given(domain, "blue eyes")
    assert len(asked) == 4  # from the cache
    towards = relevance.text_direction(domain, "blue eyes")
    np.testing.assert_allclose(given.relevance[2], relevances.vectors[2] @ np.asarray(towards), rtol=1e-4, atol=1e-3)
    assert float(jnp.linalg.norm(towards)) == pytest.approx(1, abs=1e-5)


def test_wordings():
    assert len(set(TEMPLATES)) == 79
    asked, neutral = wordings("ffhq", "surprised")
    assert "a photo of the surprised face." in asked and "a photo of the face." in neutral
    assert "a photo of a sports car." in wordings("cars", "sports car")[0]
    asked, neutral = wordings("toons", "happy and blue eyes")
    assert len(asked) == len(neutral) and "a photo of a face" in neutral
    assert all(parse(text) == ["happy", "blue_eyes"] for text in asked)
