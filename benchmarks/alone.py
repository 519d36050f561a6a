"""Training one prompt step by step, from its state: what sweeps need, who look at an edit in between."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from coral_jax.config import Settings
from coral_jax.step import Frozen, TrainState, init_state
from coral_jax.training import partition


def begin(settings: Settings, frozen: Frozen, key: jax.Array) -> TrainState:
    """The state before step 0, as `stepper` takes it."""
    return partition.stack([jax.device_get(jax.jit(init_state)(settings, frozen, key))])


def stepper(settings: Settings, frozen: Frozen, key: jax.Array) -> Callable[[TrainState], tuple[TrainState, dict]]:
    """state -> (state, metrics) of one step on one device; the state is donated.  All steps of a form share one program."""
    mesh = partition.make_mesh(1, 1)
    text, channels = jax.tree.map(lambda leaf: jnp.stack([leaf]), (frozen.text, frozen.channels))
    placed = partition.place(frozen._replace(text=text, channels=channels), mesh, partition.FROZEN)
    return lambda state: _step()(state, placed, key, settings)


def state_of(state: TrainState) -> TrainState:
    """The state without the axis of prompts."""
    return partition.unstack(state, 1)[0]


@functools.cache
def _step() -> jax.stages.Wrapped:
    return partition.make_step(partition.make_mesh(1, 1))
