"""Inversion and tuning on a tiny generator: they find the picture, each for itself, and go on where they were stopped."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coral_jax.latents import w_plus_of_seeds
from coral_jax.models.prior import prior_of
from coral_jax.photos import invert, tune
from coral_jax.photos.likeness import Networks, look, networks_of, unlikeness
from coral_jax.photos.photo import with_differences
from coral_jax.photos.resume import load_state, save_state

PLAN = invert.Plan(0, 40, 0.1, 0.001, 0.001)
TUNING = tune.Tuning(12, 0.02, 1.0)



@pytest.fixture(scope="module")
def scene(domain):
    generator = domain.generator
    w_plus = w_plus_of_seeds(generator, [3, 4], 1.0)
    images = np.asarray(jax.jit(lambda g, w: g.synthesis(w))(generator, w_plus))
    return SimpleNamespace(
        generator=generator, prior=prior_of(generator), networks=networks_of(domain), w_plus=w_plus, images=images
    )


def inverted(scene, rows, plan=PLAN, state=None, after=lambda *_: None):
    images = scene.images[rows]
    state = state or invert.start(scene.generator, scene.prior, None, images)
    return invert.invert(scene.generator, scene.prior, scene.networks, images, state, plan, after)


@pytest.fixture(scope="module")
def done(scene):
    values = []
    state = inverted(scene, slice(None), after=lambda step, state, value: values.append(np.asarray(value)))
    return state, np.stack(values)


def test_equal_pictures_are_not_unlike(scene):
    seen = look(scene.networks, jnp.asarray(scene.images))
    other = jax.tree.map(lambda x: x[::-1], seen)
    np.testing.assert_allclose(unlikeness(seen, seen), 0, atol=1e-4)
    assert (np.asarray(unlikeness(seen, other)) > 0.1).all()
    plain = Networks(scene.networks.clip, None)  # a domain without an identity network
    assert look(plain, jnp.asarray(scene.images)).identity is None


def test_inversion_finds_the_picture(scene, done):
    state, values = done
    assert (values[-1] < 0.5 * values[0]).all()
    codes = np.asarray(invert.codes(state, scene.prior))
    assert codes.shape == scene.w_plus.shape
    start = np.abs(np.asarray(scene.generator.w_avg[...]) - scene.w_plus).mean()
    assert np.abs(codes - scene.w_plus).mean() < start


def test_each_picture_is_inverted_for_itself(scene, done):
    alone = inverted(scene, slice(1, 2))
    np.testing.assert_allclose(alone.v[0], done[0].v[1], atol=2e-3)


def test_layers_differ_only_after_the_first_steps(scene):
    offsets = {}
    inverted(scene, slice(1), after=lambda step, state, value: offsets.update({step: float(jnp.abs(state.offsets).max())}))
    assert offsets[5] == 0 < offsets[40]


def test_a_stronger_pull_stays_nearer_to_the_generators_codes(scene, done):
    pulled = inverted(scene, slice(None), PLAN._replace(pull=3.0, pull_offsets=30.0))
    for name in ("v", "offsets"):
        near, far = (float(jnp.mean(jnp.square(getattr(state, name)))) for state in (pulled, done[0]))
        assert near < 0.7 * far


def test_a_stopped_inversion_goes_on_as_if_it_had_not_been(scene, done, tmp_path):
    path, about = tmp_path / "state.safetensors", {"effort": "x"}

    class Stopped(Exception):
        pass

    def after(step, state, value):
        if step == 15:
            save_state(path, state, about)
            raise Stopped

    with pytest.raises(Stopped):
        inverted(scene, slice(None), after=after)
    fresh = invert.start(scene.generator, scene.prior, None, scene.images)
    state = load_state(path, fresh, about)
    assert int(state.step[0]) == 15
    np.testing.assert_array_equal(inverted(scene, slice(None), state=state).v, done[0].v)
    assert load_state(path, fresh, {"effort": "another"}) is fresh
    assert load_state(tmp_path / "none.safetensors", fresh, about) is fresh


def test_it_starts_from_the_encoders_codes(scene):
    state = invert.start(scene.generator, scene.prior, lambda images: jnp.asarray(scene.w_plus), scene.images)
    np.testing.assert_allclose(invert.codes(state, scene.prior), scene.w_plus, atol=1e-4)


def test_tuning_draws_the_picture_and_keeps_others(scene):
    """The picture is that of other codes: what the generator does not draw of the first ones."""
    before = [np.array(leaf) for leaf in jax.tree.leaves(scene.generator)]

    def tuned(keep):
        fresh = tune.start(scene.generator)
        return tune.tune(
            scene.generator, scene.prior, scene.networks, scene.images[0], scene.w_plus[1], fresh, TUNING._replace(keep=keep)
        )

    def draw(differences, w_plus):
        return np.asarray(with_differences(scene.generator, differences).synthesis(w_plus))

    differences, free = tuned(5.0), tuned(0.0)
    assert {value.dtype for value in differences.values()} == {np.dtype(np.float16)}
    assert not any("modulation" in name or "mapping" in name for name in differences)
    codes = scene.w_plus[1:]
    missed = np.abs(draw({}, codes) - scene.images[:1]).mean()
    assert np.abs(draw(free, codes) - scene.images[:1]).mean() < 0.7 * missed
    nearby = codes + 0.3 * np.asarray(scene.prior.axes)[0]
    moved = [np.abs(draw(found, nearby) - draw({}, nearby)).mean() for found in (differences, free)]
    assert moved[0] < 0.8 * moved[1]
    jax.tree.map(np.testing.assert_array_equal, before, jax.tree.leaves(scene.generator))  # the domain's own stays


def test_a_tuning_that_goes_wrong_changes_nothing(scene):
    fresh = tune.start(scene.generator)
    wild = TUNING._replace(steps=3, rate=50.0)
    found = tune.tune(scene.generator, scene.prior, scene.networks, scene.images[0], scene.w_plus[0], fresh, wild)
    assert not any(value.any() for value in found.values())


def test_the_small_picture_is_the_least_of_128_px_or_the_whole_one(scene):
    assert invert.small_generator(scene.generator).size == scene.generator.size
