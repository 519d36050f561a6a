"""Optimisers: the schedule, Ranger against its authors' arithmetic, and states that survive a checkpoint."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import generator, largest

from coral_jax.baselines.ranger import RANGER
from coral_jax.baselines.styleclip import RAMPED_ADAM, ramp
from coral_jax.baselines.stylemc import STYLEMC
from coral_jax.baselines.stylespace import FROM_TEXT, style_widths
from coral_jax.methods import ABLATIONS, METHODS, get_method, make_trainables
from coral_jax.optimisers import ADAM, Channels, Rates

OPTIMISERS = {"adam": ADAM, "ramped_adam": RAMPED_ADAM, "ranger": RANGER, "stylemc": STYLEMC, "from_text": FROM_TEXT}
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def trainables():
    return make_trainables(get_method("styleclip_mapper"), generator(), None, jax.random.key(0))


def noise(tree):
    return jax.tree.map(lambda leaf: jnp.float32(RNG.standard_normal(leaf.shape)), tree)


def test_the_ramp_is_styleclips():
    expected = {0.0: 0.0, 0.025: 0.5, 0.05: 1.0, 0.5: 1.0, 0.75: 1.0, 0.875: 0.5, 0.99: 0.5 - 0.5 * np.cos(0.04 * np.pi)}
    for done, factor in expected.items():
        assert float(ramp(done)) == pytest.approx(factor, abs=1e-6)


def test_ramped_adam_does_nothing_at_first_and_adam_does(trainables):
    gradients = noise(trainables)
    for optimiser, moves in ((RAMPED_ADAM, False), (ADAM, True)):
        stepped, state = optimiser.step(trainables, optimiser.init(trainables), gradients, Rates(0.1, 0.1, 40), None)
        for before, after in zip(jax.tree.leaves(trainables), jax.tree.leaves(stepped), strict=True):
            assert (largest(before, after) > 0) == moves
        stepped, _ = optimiser.step(stepped, state, gradients, Rates(0.1, 0.1, 40), None)
        assert largest(jax.tree.leaves(stepped)[0], jax.tree.leaves(trainables)[0]) > 0


def ranger(kernel, gradients, rate):
    """Ranger (lessw2020's, version 20.4) on one kernel [inputs, outputs], line by line."""
    slow, mean, square = kernel.copy(), np.zeros_like(kernel), np.zeros_like(kernel)
    b1, b2, eps = 0.95, 0.999, 1e-5
    largest_length = 2 / (1 - b2) - 1
    for step, gradient in enumerate(gradients, start=1):
        gradient = gradient - gradient.mean(axis=0, keepdims=True)
        mean, square = b1 * mean + (1 - b1) * gradient, b2 * square + (1 - b2) * gradient**2
        length = largest_length - 2 * step * b2**step / (1 - b2**step)
        if length > 5:
            variance = (length - 4) * (length - 2) * largest_length
            variance /= (largest_length - 4) * (largest_length - 2) * length
            size = np.sqrt((1 - b2**step) * variance) / (1 - b1**step)
            kernel = kernel - rate * size * mean / (np.sqrt(square) + eps)
        else:
            kernel = kernel - rate * mean / (1 - b1**step)
        if step % 6 == 0:
            slow = slow + 0.5 * (kernel - slow)
            kernel = slow.copy()
    return kernel


def test_ranger_is_its_authors(trainables):
    optimiser, rates = RANGER, Rates(0.5, 0.1, 40)
    state, stepped = optimiser.init(trainables), trainables
    step = jax.jit(optimiser.step)
    gradients = [jax.tree.map(lambda leaf: 1e-4 * leaf, noise(trainables)) for _ in range(13)]  # eps shows
    for gradient in gradients:
        stepped, state = step(stepped, state, gradient, rates, None)

    def kernel(tree):
        return np.asarray(tree.editor.coarse.layers[1].kernel[...], np.float64)

    before = kernel(trainables)
    expected = ranger(before, [kernel(gradient) for gradient in gradients], 0.5)
    # Single precision knows the first variance lengths to a hundredth.
    np.testing.assert_allclose(kernel(stepped) - before, expected - before, atol=0.02 * largest(expected, before))


@pytest.mark.parametrize("name", sorted(OPTIMISERS))
def test_a_state_holds_no_array_twice(name, trainables):
    """The step donates it."""
    init = jax.jit(lambda tree: (tree, OPTIMISERS[name].init(tree)))
    leaves = jax.tree.leaves(init(trainables))
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)


def test_every_method_learns_by_one_of_these():
    assert {id(method.optimiser) for method in (METHODS | ABLATIONS).values()} == {id(each) for each in OPTIMISERS.values()}


def test_adam_has_a_rate_for_the_editor_and_one_for_the_selector():
    """Adam's first step moves everything by its rate, whatever the gradient's size."""
    trainables = make_trainables(get_method("attention_mapper"), generator(), None, jax.random.key(0))
    gradients = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 3.0), trainables)
    stepped, _ = ADAM.step(trainables, ADAM.init(trainables), gradients, Rates(0.1, 0.003, 40), None)
    for part, rate in (("editor", 0.1), ("selector", 0.003)):
        leaves = [jax.tree.leaves(getattr(tree, part)) for tree in (trainables, stepped)]
        for before, after in zip(*leaves, strict=True):
            np.testing.assert_allclose(before - after, rate, rtol=1e-3, atol=1e-6)


def test_an_edit_from_the_text_takes_its_channels_and_no_gradient():
    network = generator()
    trainables = make_trainables(get_method("styleclip_global"), network, None, jax.random.key(0))
    relevance, sigma = (
        tuple(jnp.float32(RNG.standard_normal(width)) for width in style_widths(network)) for _ in range(2)
    )
    gradients = jax.tree.map(lambda leaf: jnp.full(leaf.shape, jnp.nan), trainables)
    stepped, state = FROM_TEXT.step(
        trainables, FROM_TEXT.init(trainables), gradients, Rates(9.0, 9.0, 2), Channels(relevance, sigma)
    )
    assert state == () and stepped.selector is None
    for row, expected in zip(stepped.editor.relevance, relevance, strict=True):
        np.testing.assert_array_equal(row[...], expected)
    for row, expected in zip(stepped.editor.sigma, sigma, strict=True):
        np.testing.assert_array_equal(row[...], expected)
    assert not any(leaf.any() for leaf in jax.tree.leaves(trainables))  # a copy was filled
