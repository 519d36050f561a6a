"""Checkpoints of a run: the last two, each whole or not there, so that a killed run goes on exactly where it was."""

import os
from pathlib import Path

import jax
import numpy as np
from absl import logging
from orbax.checkpoint import v1 as ocp

from coral_jax.step import TrainState

KEPT = 2


class Checkpoints:
    """The checkpoints in a folder.  Use as a context manager."""

    def __init__(self, folder: str | os.PathLike):
        """Makes the folder if needed; what a killed save left half-written is removed."""
        self._checkpointer = ocp.training.Checkpointer(
            Path(folder).absolute(),
            preservation_policy=ocp.training.preservation_policies.LatestN(KEPT),
            cleanup_tmp_directories=True,
        )

    def __enter__(self) -> "Checkpoints":
        """Nothing to open."""
        return self

    def __exit__(self, *_: object) -> None:
        """Ends pending writes."""
        self._checkpointer.close()

    def save(self, step: int, state: TrainState) -> None:
        """Write the state after `step` steps; older checkpoints than the last two go."""
        # overwrite: a checkpoint of this step can only be one that `restore` could not read.
        self._checkpointer.save(step, _named(state), force=True, overwrite=True)

    def restore(self, state: TrainState) -> TrainState | None:
        """The newest checkpoint that can be read, in the form of `state`; None if there is none.

        One that cannot be read is skipped with a warning.
        """
        abstract = {
            name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
            for name, leaf in _named(state).items()
        }
        for found in reversed(self._checkpointer.checkpoints):
            try:
                tensors = self._checkpointer.load(found.step, abstract)
            except Exception as error:  # the libraries below raise many kinds for damaged files
                reason = str(error).strip().split("\n")[0][:200]
                logging.warning("skipping checkpoint %s, which cannot be read: %s", found.path, reason)
                continue
            return jax.tree.unflatten(jax.tree.structure(state), [tensors[name] for name in _named(state)])
        return None


def bad_weights(state: TrainState) -> list[str]:
    """Names of the state's arrays that hold NaN or infinite values."""
    host = {name: np.asarray(leaf) for name, leaf in _named(state).items()}
    return [name for name, leaf in host.items() if not np.isfinite(leaf).all()]


def _named(state: TrainState) -> dict[str, jax.Array]:
    """The leaves by path, in order: independent of how a version of Flax or Optax spells its containers."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}
