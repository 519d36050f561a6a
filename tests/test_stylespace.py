"""Editing in StyleSpace: statistics, drawing, and the two editors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny import generator, largest, w_plus

from coral_jax.baselines.stylespace import (
    ChannelSelection,
    StyleDirection,
    automatic_beta,
    draw_styled,
    statistics,
    style_widths,
    with_relevance,
)
from coral_jax.blend import original_synthesis
from coral_jax.models.stylegan2 import StyleGAN2, StyleGAN2Config

RNGS = nnx.Rngs(0)


def narrow(*channels):
    """A generator of these (resolution, channels), without weights."""
    return nnx.eval_shape(lambda: StyleGAN2(StyleGAN2Config(channels[-1][0], 6, 5, 1, channels), nnx.Rngs(0)))


def test_widths_are_of_what_each_convolution_reads():
    assert style_widths(generator()) == (8, 8, 6, 6, 4)


def zeros(network, dtype=jnp.float32):
    """A delta of every style that changes nothing."""
    return tuple(jnp.zeros(width, dtype) for width in style_widths(network))


def test_styles_of_w_plus_draw_what_w_plus_draws():
    network, codes = generator(), w_plus()

    @jax.jit
    def drawn(network, codes):
        by_layer = {layer.index: (style,) for layer, style in zip(network.layers, network.styles(codes), strict=True)}
        styled = draw_styled(network, original_synthesis(network, codes), zeros(network), ())
        return network.synthesis(codes), network.synthesis(codes, by_layer), styled.image

    plain, by_styles, styled = drawn(network, codes)
    np.testing.assert_allclose(by_styles, plain, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(styled, plain, rtol=1e-6, atol=1e-6)


def test_a_delta_of_styles_moves_what_convolutions_read_and_not_to_rgb():
    """Against the network written out."""
    network, codes = generator(), w_plus()
    delta = tuple(jnp.float32(np.random.default_rng(i).standard_normal(row.shape)) for i, row in enumerate(zeros(network)))

    @jax.jit
    def written_out(network, codes, delta):
        x, image = network.constant(len(codes)), None
        for layer, row in zip(network.layers, delta, strict=True):
            x = network.styled_layer(layer.index, x, (network.style(layer.index - 1, codes[:, layer.index - 1]) + row[None],))
            if layer.rgb_row is not None:
                image = network.rgb(layer, x, codes[:, layer.rgb_row], image)
        return image

    original = jax.jit(original_synthesis)(network, codes)
    drawn = jax.jit(draw_styled)(network, original, delta, ())
    expected = written_out(network, codes, delta)
    np.testing.assert_allclose(drawn.image, expected, rtol=1e-5, atol=1e-5 * largest(expected))
    assert drawn.full is None and drawn.masks == () and largest(drawn.image, drawn.original) > 0.01
    np.testing.assert_array_equal(drawn.original, original.image)


def test_statistics_are_those_of_the_styles():
    """Of codes in batches: as numpy has them of all at once."""
    network = generator()
    mean, std = statistics(network, 1500, seed=3, truncation=0.6)  # two batches of 1,000
    z = np.random.RandomState(3).standard_normal((2000, 6)).astype(np.float32)
    styles = network.style(2, network.truncate(network.mapping(z), 0.6))
    np.testing.assert_allclose(mean[2], np.mean(styles, axis=0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(std[2], np.std(styles, axis=0), rtol=1e-3)


def test_a_direction_is_zero_at_first_and_has_rows_for_what_it_edits():
    network, codes = narrow((4, 3), (8, 2)), w_plus(5)
    assert style_widths(network) == (3, 3, 2)
    direction = StyleDirection(network, (3,), RNGS)
    assert [row.shape for row in direction.rows] == [(2,)]
    direction.rows[0].set_value(jnp.array([1.0, -1.0]))
    delta = direction(codes)
    assert [row.shape for row in delta] == [(3,), (3,), (2,)]
    np.testing.assert_array_equal(jnp.concatenate(delta), [0, 0, 0, 0, 0, 0, 1, -1])
    np.testing.assert_array_equal(jnp.concatenate(direction(codes, 0.9)), jnp.concatenate(delta))  # no threshold of its own
    fresh = StyleDirection(network, (1, 2, 3), RNGS)
    assert [row.shape for row in fresh.rows] == [(3,), (3,), (2,)]
    np.testing.assert_array_equal(jnp.concatenate(fresh(codes)), np.zeros(8))


def test_a_direction_found_on_a_lower_generator_moves_the_whole_ones_first_styles():
    """As training with loss_resolution leaves it."""
    network, codes = generator(), w_plus()
    lower, whole = (StyleDirection(each, (2, 3), RNGS) for each in (network.lower(8), network))
    for direction in (lower, whole):
        for row in direction.rows:
            row.set_value(jnp.linspace(-1.0, 1.0, row.shape[0]))
    original = jax.jit(original_synthesis)(network, codes)
    draw = jax.jit(lambda network, original, direction: draw_styled(network, original, direction(original.w_plus), ()).image)
    np.testing.assert_array_equal(draw(network, original, lower), draw(network, original, whole))
    assert largest(draw(network, original, lower), original.image) > 0.01


def test_a_selection_keeps_channels_of_enough_relevance():
    network, codes = narrow((4, 2), (8, 3)), w_plus()
    empty = ChannelSelection(network, (1, 2, 3), RNGS)
    np.testing.assert_array_equal(jnp.concatenate(empty(codes, 0.1)), np.zeros(7))  # before anything is known
    relevance, sigma = [[0.4, -0.1], [0.0, -0.2], [0.3, 0.1, -0.05]], [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0, 7.0]]
    selection = with_relevance(empty, list(map(jnp.array, relevance)), list(map(jnp.array, sigma)))
    delta = selection(codes, 0.15)
    assert [row.shape for row in delta] == [(2,), (2,), (3,)]
    np.testing.assert_allclose(jnp.concatenate(delta), [1, 0, 0, -0.5 * 4, 0.75 * 5, 0, 0], rtol=1e-6)
    np.testing.assert_array_equal(jnp.concatenate(selection(codes, 0.5)), np.zeros(7))
    # A threshold of 0 is that of the authors' rule, here 0.29: one of seven channels is more than 20 of 6,048.
    np.testing.assert_array_equal(jnp.concatenate(selection(codes)), jnp.concatenate(selection(codes, 0.29)))
    np.testing.assert_allclose(jnp.concatenate(selection(codes)), [1, 0, 0, 0, 0.75 * 5, 0, 0], rtol=1e-6)
    np.testing.assert_array_equal(jnp.concatenate(empty(codes, 0.1)), np.zeros(7))  # a copy was filled


@pytest.mark.parametrize(("strong", "beta"), [(21, 0.25), (20, 0.12)])
def test_automatic_beta_keeps_more_than_twenty_published_channels(strong, beta):
    relevance = np.full(6048, 0.05, np.float32)
    relevance[:500] = -0.125
    relevance[:strong] = 0.255
    assert float(automatic_beta(jnp.asarray(relevance))) == pytest.approx(beta)


def test_automatic_beta_of_few_channels():
    assert float(automatic_beta(jnp.array([0.2, 0.05]))) == pytest.approx(0.2)
    assert float(automatic_beta(jnp.array([0.02, 0.05]))) == pytest.approx(0.1)
