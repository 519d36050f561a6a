"""Checkpoints: exact, the last two, and damaged ones passed over."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from absl import logging

from coral_jax.methods import get_method, make_trainables
from coral_jax.step import TrainState
from coral_jax.training.checkpoints import Checkpoints, bad_weights

# Orbax stops reading a damaged checkpoint at the first error; what its threads still read then finds nobody to tell.
pytestmark = pytest.mark.filterwarnings("default::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def state():
    """A state of 7 steps whose arrays all differ."""
    trainables = make_trainables(get_method("segment_mapper"), tiny.generator(), 5, jax.random.key(0))
    adam = jax.tree.map(lambda x: x + 0.5 if x.dtype == jnp.float32 else x + 7, optax.scale_by_adam().init(trainables))
    return TrainState(jnp.int32(7), trainables, adam)


def plus(state, amount):
    return jax.tree.map(lambda x: x + amount if x.dtype == jnp.float32 else x, state)


def assert_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)
        assert x.dtype == y.dtype


def steps(folder):
    return sorted(int(entry.name) for entry in folder.iterdir())


def test_the_newest_state_comes_back_exactly_and_two_are_kept(state, tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore(state) is None
        for step in (2, 4, 6):
            checkpoints.save(step, plus(state, step / 3))
    assert steps(tmp_path) == [4, 6]
    with Checkpoints(tmp_path) as checkpoints:
        assert_equal(checkpoints.restore(plus(state, -1.0)), plus(state, 2.0))


@pytest.mark.parametrize("damage", ["cut", "lost", "empty"])
def test_a_damaged_checkpoint_is_passed_over_with_a_warning_and_written_again(state, tmp_path, damage, monkeypatch):
    warnings = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: warnings.append(text % values))
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(2, plus(state, 2.0))
        checkpoints.save(4, plus(state, 4.0))
    for path in sorted((tmp_path / "4" / "state").rglob("*")):
        if path.is_file() and (damage != "cut" or path.name == "manifest.ocdbt"):
            path.write_bytes(b"") if damage == "empty" else path.write_bytes(path.read_bytes()[:20])
            if damage == "lost":
                path.unlink()
    with Checkpoints(tmp_path) as checkpoints:
        assert_equal(checkpoints.restore(state), plus(state, 2.0))
        assert len(warnings) == 1 and f"skipping checkpoint {tmp_path / '4'}, which cannot be read" in warnings[0]
        checkpoints.save(4, plus(state, 4.5))
    with Checkpoints(tmp_path) as checkpoints:
        assert_equal(checkpoints.restore(state), plus(state, 4.5))
    assert len(warnings) == 1


def test_a_checkpoint_of_other_trainables_is_passed_over(state, tmp_path, monkeypatch):
    warnings = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: warnings.append(text % values))
    other = make_trainables(get_method("segment_global"), tiny.generator(), 5, jax.random.key(0))
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(2, TrainState(jnp.int32(2), other, optax.scale_by_adam().init(other)))
        assert checkpoints.restore(state) is None
    assert len(warnings) == 1


def test_what_a_killed_save_left_is_removed(state, tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(2, state)
    (tmp_path / "4.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
    with Checkpoints(tmp_path) as checkpoints:
        assert_equal(checkpoints.restore(state), state)
    assert steps(tmp_path) == [2]


def test_bad_weights_are_named(state):
    assert bad_weights(state) == []
    state.trainables.selector.logits[...] = state.trainables.selector.logits[...].at[1, 2].set(jnp.nan)
    assert bad_weights(state) == ["trainables.selector.logits"] or "selector" in bad_weights(state)[0]
