"""Editing in StyleSpace: statistics, drawing, and the two editors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny import generator, quick_compilation, w_plus  # noqa: F401

from coral_jax.baselines.stylespace import (
    ChannelSelection,
    StyleDirection,
    automatic_beta,
    statistics,
    style_widths,
    styled_synthesis,
    with_relevance,
)

RNGS = nnx.Rngs(0)


def test_widths_are_of_what_each_convolution_reads():
    assert style_widths(generator()) == (8, 8, 6, 6, 4)


def test_styles_of_w_plus_draw_what_w_plus_draws():
    network, codes = generator(), w_plus()
    drawn = jax.jit(lambda g, w: (styled_synthesis(g, g.styles(w), w), g.synthesis(w)))(network, codes)
    np.testing.assert_allclose(*drawn, rtol=1e-6, atol=1e-6)


def test_statistics_are_those_of_the_styles():
    """Of codes in batches: as numpy has them of all at once."""
    network = generator()
    mean, std = statistics(network, 1500, seed=3, truncation=0.6)  # two batches of 1,000
    z = np.random.RandomState(3).standard_normal((2000, 6)).astype(np.float32)
    styles = network.style(3, network.truncate(network.mapping(z), 0.6))
    np.testing.assert_allclose(mean[2], np.mean(styles, axis=0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(std[2], np.std(styles, axis=0), rtol=1e-3)


def test_a_direction_is_zero_at_first_and_has_rows_for_what_it_edits():
    direction = StyleDirection((3, 2, 4), RNGS, edited=(False, True, False))
    assert [row.shape for row in direction.rows] == [(2,)]
    direction.rows[0].set_value(jnp.array([1.0, -1.0]))
    delta = direction([jnp.zeros((5, width)) for width in (3, 2, 4)])
    assert [row.shape for row in delta] == [(3,), (2,), (4,)]
    np.testing.assert_array_equal(jnp.concatenate(delta), [0, 0, 0, 1, -1, 0, 0, 0, 0])
    fresh = StyleDirection((3, 2), RNGS)
    np.testing.assert_array_equal(jnp.concatenate(fresh([jnp.zeros((1, 3)), jnp.zeros((1, 2))])), np.zeros(5))
    assert [row.shape for row in direction([jnp.zeros(width) for width in (3, 2, 4, 6)])] == [(3,), (2,), (4,), (6,)]


def test_a_selection_keeps_channels_of_enough_relevance():
    empty = ChannelSelection((2, 3), RNGS)
    np.testing.assert_array_equal(jnp.concatenate(empty((), 0.1)), np.zeros(5))  # before anything is known
    selection = with_relevance(
        empty, [jnp.array([0.4, -0.1]), jnp.array([0.0, -0.2, 0.3])], [jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0, 5.0])]
    )
    np.testing.assert_allclose(jnp.concatenate(selection((), 0.15)), [1, 0, 0, -0.5 * 4, 0.75 * 5], rtol=1e-6)
    np.testing.assert_array_equal(jnp.concatenate(selection((), 0.5)), np.zeros(5))
    np.testing.assert_array_equal(jnp.concatenate(empty((), 0.1)), np.zeros(5))  # a copy was filled


@pytest.mark.parametrize(("strong", "beta"), [(21, 0.25), (20, 0.12)])
def test_automatic_beta_keeps_more_than_twenty_published_channels(strong, beta):
    relevance = np.full(6048, 0.05, np.float32)
    relevance[:500] = -0.125
    relevance[:strong] = 0.255
    assert float(automatic_beta(jnp.asarray(relevance))) == pytest.approx(beta)


def test_automatic_beta_of_few_channels():
    assert float(automatic_beta(jnp.array([0.2, 0.05]))) == pytest.approx(0.2)
    assert float(automatic_beta(jnp.array([0.02, 0.05]))) == pytest.approx(0.1)
