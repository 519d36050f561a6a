"""Checkpoints of a run: the last two, each whole or not there, so that a killed run goes on exactly where it was."""

import os
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from coral_jax.step import TrainState

KEPT = 2


class Checkpoints:
    """The checkpoints in a folder.  Use as a context manager."""

    def __init__(self, folder: str | os.PathLike):
        """Makes the folder if needed; what a killed save left half-written is removed.  For the first process alone."""
        folder = Path(folder).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        options = ocp.CheckpointManagerOptions(
            create=False,  # Orbax makes the folder only where all processes take part
            max_to_keep=KEPT,
            cleanup_tmp_directories=True,
            enable_async_checkpointing=False,
            # Orbax would wait for the other processes, who neither read nor write.
            multiprocessing_options=ocp.options.MultiprocessingOptions(primary_host=0, active_processes={0}),
        )
        self._manager = ocp.CheckpointManager(folder, options=options)

    def __enter__(self) -> "Checkpoints":
        """Nothing to open."""
        return self

    def __exit__(self, *_: object) -> None:
        """Ends pending writes."""
        self._manager.close()

    def save(self, step: int, state: TrainState) -> None:
        """Write the state after `step` steps; older checkpoints than the last two go."""
        if step in self._manager.all_steps():  # one that `restore` could not read
            self._manager.delete(step)
        self._manager.save(step, args=ocp.args.Composite(state=ocp.args.StandardSave(_arrays(state))), force=True)

    def restore(self, state: TrainState, newest: int | None = None) -> TrainState | None:
        """The newest checkpoint that can be read, of step `newest` at most, in the form of `state`; None if there is none.

        Arrays are numpy's, so that they fit any devices.  One that cannot be read is skipped with a warning.
        """
        wanted = ocp.args.Composite(state=ocp.args.StandardRestore(_arrays(state)))
        for step in sorted(self._manager.all_steps(), reverse=True):
            if newest is not None and step > newest:
                continue
            try:
                tensors = self._manager.restore(step, args=wanted).state
            except Exception as error:  # the libraries below raise many kinds for damaged files
                reason = str(error).strip().split("\n")[0][:200]
                path = self._manager.directory / str(step)
                logging.warning("skipping checkpoint %s, which cannot be read: %s", path, reason)
                continue
            return jax.tree.unflatten(jax.tree.structure(state), [tensors[name] for name in _named(state)])
        return None


def newest_of_all(checkpoints: list[Checkpoints], fresh: TrainState) -> list[TrainState]:
    """The newest state that all runs have a checkpoint of, one a run; all `fresh` if there is none.

    Runs that train together may be killed after some have saved.
    """
    found = [each.restore(fresh) for each in checkpoints]
    while None not in found and len({int(state.step) for state in found}) > 1:
        oldest = min(int(state.step) for state in found)
        found = [
            state if int(state.step) == oldest else each.restore(fresh, oldest)
            for state, each in zip(found, checkpoints, strict=True)
        ]
    return [fresh] * len(checkpoints) if None in found else found


def bad_weights(state: TrainState) -> list[str]:
    """Names of the state's arrays that hold NaN or infinite values."""
    return [name for name, leaf in _arrays(state).items() if not np.isfinite(leaf).all()]


def _arrays(state: TrainState) -> dict[str, np.ndarray]:
    return {name: np.asarray(leaf) for name, leaf in _named(state).items()}


def _named(state: TrainState) -> dict[str, jax.Array]:
    """The leaves by path, in order: independent of how a version of Flax or Optax spells its containers."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}
