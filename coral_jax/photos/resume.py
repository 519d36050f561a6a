"""What an inversion or a tuning was at when it was stopped, kept in the photo's folder."""

from pathlib import Path
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from coral_jax import weights

State = TypeVar("State")


def save_state(path: Path, state: State, about: dict[str, str]) -> None:
    """Write a pytree of arrays; `about` says what it belongs to."""
    weights.save_tensors(path, {f"{index:05}": np.asarray(leaf) for index, leaf in enumerate(jax.tree.leaves(state))}, about)


def load_state(path: Path, like: State, about: dict[str, str]) -> State:
    """The pytree in a file, of the form of `like`; `like` itself where there is no such file, or one of something else."""
    if not path.is_file():
        return like
    tensors, said = weights.load_tensors(path)
    leaves, form = jax.tree.flatten(like)
    found = [tensors[name] for name in sorted(tensors)]
    if said != about or [leaf.shape for leaf in found] != [leaf.shape for leaf in leaves]:
        return like
    return jax.tree.unflatten(form, [jnp.asarray(leaf) for leaf in found])
