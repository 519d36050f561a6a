"""StyleMC's steps: when it steps, which signs it counts, what it zeroes."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from tiny import generator

from coral_jax.baselines import stylemc
from coral_jax.models.stylegan2 import StyleGAN2, StyleGAN2Config
from coral_jax.optimisers import Rates

BATCHES = 32


def run(gradients: np.ndarray, rate: float = 5.0) -> tuple[np.ndarray, stylemc.StyleMCState]:
    """What a run of BATCHES ends in, given the gradient [batches, channels] of each."""
    step = jax.jit(stylemc.step)
    trainables = {"row": jnp.zeros(gradients.shape[1])}
    state = stylemc.init(trainables)
    for gradient in gradients:
        trainables, state = step(trainables, state, {"row": jnp.asarray(gradient)}, rate, BATCHES)
    return np.asarray(trainables["row"]), state


def authors(gradients: np.ndarray, rate: float = 5.0) -> np.ndarray:
    """Their program, written out: batch for batch, with the lists that it keeps."""
    direction, summed, flips, kept = np.zeros(gradients.shape[1]), 0.0, np.zeros(gradients.shape[1]), []
    for i, gradient in enumerate(gradients):
        summed = summed + gradient
        if i % 2 == 1:
            direction = direction - rate * summed
            kept.append(summed)
            summed = 0.0
            if i > 3:
                flips[kept[-2] * kept[-1] < 0] += 1
    direction[flips > len(gradients) / 4] = 0
    return direction


def test_steps_are_the_authors():
    gradients = np.random.default_rng(0).standard_normal((BATCHES, 40)).astype(np.float32)
    ours, state = run(gradients)
    expected = authors(gradients)
    assert 0 < np.count_nonzero(expected) < 40  # the rule decides something
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)
    assert int(state.batches) == BATCHES


def test_a_channel_may_change_its_sign_at_a_quarter_of_the_batches():
    """Signs of the sixteen sums; the change from the first to the second is not counted."""
    eight = np.array([1, -1, -1, 1, -1, 1, -1, 1, -1, 1, 1, 1, 1, 1, 1, -1], np.float32)
    nine = np.array([1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, 1, 1, 1, 1, 1], np.float32)
    assert np.sum(eight[1:-1] * eight[2:] < 0) == 8 and np.sum(nine[1:-1] * nine[2:] < 0) == 9
    gradients = np.zeros((BATCHES, 2), np.float32)
    gradients[1::2] = np.stack([eight, nine], axis=1)
    ours, state = run(gradients)
    np.testing.assert_array_equal(state.flips["row"], [8, 9])
    np.testing.assert_array_equal(ours, [-5 * eight.sum(), 0])


def test_nothing_moves_before_the_second_batch():
    ours, state = run(np.ones((1, 3), np.float32))
    np.testing.assert_array_equal(ours, 0)
    np.testing.assert_array_equal(state.gradient["row"], 1)


def test_convolutions_of_8_to_64_px_are_edited():
    assert stylemc.layers_of_8_to_64(generator()) == (2, 3, 4, 5)
    channels = tuple((2**k, 1) for k in range(2, 11))
    abstract = nnx.eval_shape(lambda: StyleGAN2(StyleGAN2Config(1024, 1, 1, 1, channels), nnx.Rngs(0)))
    assert stylemc.layers_of_8_to_64(abstract) == tuple(range(2, 10))


def test_the_optimiser_takes_these_steps_at_the_editors_rate():
    gradients = np.random.default_rng(1).standard_normal((BATCHES, 40)).astype(np.float32)
    trainables, state = {"row": jnp.zeros(40)}, stylemc.STYLEMC.init({"row": jnp.zeros(40)})
    step = jax.jit(stylemc.STYLEMC.step)
    for gradient in gradients:
        trainables, state = step(trainables, state, {"row": jnp.asarray(gradient)}, Rates(5.0, 0.1, BATCHES), None)
    np.testing.assert_array_equal(trainables["row"], run(gradients)[0])
