"""Several devices and several hosts: one mesh with the axes `prompt` and `data`, and the train step over it.

Each device trains some of the prompts on some of the faces.  Devices meet once a step, in one sum of the gradients and
metrics over the axis `data`; prompts never need each other.  Faces are drawn from one stream, of which each device makes
its share, so that the edit is the same on any number of devices, to rounding.  Files are the first process's alone.
"""

import re
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.flatten_util import ravel_pytree
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from coral_jax.config import Settings
from coral_jax.step import Frozen, TrainState, draw_z, train_step

PROMPT, DATA = "prompt", "data"
STATE = TrainState(P(), P(PROMPT), P(PROMPT))
SETTINGS = P()
FROZEN = Frozen(P(), P(), P(), P(), text=P(PROMPT), faces=P(), channels=P(PROMPT))

Tree = TypeVar("Tree")


def join(hosts: str) -> None:
    """Make this process one of several: "auto" (TPU pods, Slurm, Open MPI), or "ADDRESS:PORT,PROCESSES,INDEX".

    Before the first use of a device.  ValueError for another text, and where nothing can be found out.
    """
    match = re.fullmatch(r"([^,\s]+:\d+),(\d+),(\d+)", hosts)
    usage = "give --hosts=auto, or --hosts=ADDRESS:PORT,PROCESSES,INDEX such as 10.0.0.1:1234,4,0 (index from 0)"
    if hosts != "auto" and not (match and int(match[3]) < int(match[2])):
        raise ValueError(f"--hosts={hosts} cannot be read; {usage}")
    given = (match[1], int(match[2]), int(match[3])) if match else ()
    try:
        jax.distributed.initialize(*given)
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"the processes could not be joined ({error}); {usage}") from error


def is_first() -> bool:
    """Whether this is the process that reads and writes the run's files."""
    return jax.process_index() == 0


def make_mesh(prompts: int, faces: int) -> Mesh:
    """As many devices as can share the prompts and the faces of a step evenly; faces are divided first.

    ValueError where devices of another host would be left out.
    """
    devices = jax.devices()
    shares = [
        (prompt, data)
        for prompt in range(1, min(prompts, len(devices)) + 1)
        for data in range(1, min(faces, len(devices)) + 1)
        if prompts % prompt == 0 and faces % data == 0 and prompt * data <= len(devices)
    ]
    prompt, data = max(shares, key=lambda share: (share[0] * share[1], share[1]))
    used = prompt * data
    if used < len(devices) and jax.process_count() > 1:
        raise ValueError(
            f"{prompts} prompt(s) and {faces} faces a step use {used} of the {len(devices)} devices of all hosts; give a "
            f"multiple, such as --config.batch_size={len(devices)}"
        )
    return jax.make_mesh((prompt, data), (PROMPT, DATA), axis_types=(AxisType.Auto,) * 2, devices=devices[:used])


def make_step(mesh: Mesh) -> jax.stages.Wrapped:
    """`step.train_step` over a mesh, jitted: (state, frozen, key, settings) -> (state, metrics); donates the state."""
    alone = mesh.shape[DATA] == 1  # no device holds other faces
    shard = jax.shard_map(
        train_step if alone else lambda *arguments: train_step(*arguments, mean=_mean),
        mesh=mesh,
        in_specs=(STATE, FROZEN, P(DATA), P()),
        out_specs=(STATE, P(PROMPT)),
        check_vma=False,  # else each gradient of a replicated weight is summed on its own: `_mean` is the only sum
    )

    def step(state: TrainState, frozen: Frozen, key: jax.Array, settings: Settings) -> tuple[TrainState, dict]:
        z = draw_z(frozen, key, state.step, settings)  # each device draws its share: threefry needs no communication
        return shard(state, frozen, jax.lax.with_sharding_constraint(z, NamedSharding(mesh, P(DATA))), settings)

    return jax.jit(step, donate_argnums=0)


def _mean(tree: Tree) -> Tree:
    """Mean over the devices that hold other faces, as one vector: one all-reduce."""
    vector, unravel = ravel_pytree(tree)
    return unravel(jax.lax.pmean(vector, DATA))


def place(tree: Tree, mesh: Mesh, specs: object) -> Tree:
    """Put a tree that is the same in every process onto the mesh; `specs` is a prefix of it."""
    shardings = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs, is_leaf=lambda spec: isinstance(spec, P))
    if jax.process_count() == 1:
        return jax.device_put(tree, shardings)

    def share(leaf: jax.Array, sharding: NamedSharding) -> jax.Array:
        whole = np.asarray(leaf)
        return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

    return jax.tree.map(share, tree, jax.tree.broadcast(shardings, tree))


def place_key(key: jax.Array, mesh: Mesh) -> jax.Array:
    """Put a random key onto the mesh."""
    return jax.random.wrap_key_data(place(jax.random.key_data(key), mesh, P()), impl=jax.random.key_impl(key))


def fetch(tree: Tree) -> Tree:
    """A tree of the mesh as numpy arrays, whole, in every process; every process must call it."""
    if jax.process_count() > 1:
        mesh = jax.tree.leaves(tree)[0].sharding.mesh
        tree = jax.jit(_same, out_shardings=NamedSharding(mesh, P()))(tree)
    return jax.device_get(tree)


def _same(tree: Tree) -> Tree:
    return tree


def from_first(action: Callable[[], Tree], like: Tree) -> Tree:
    """What `action` returns in the first process, in every process: numpy arrays shaped as in `like`.

    An error there is raised there, and ends the others too.
    """
    if jax.process_count() == 1:
        return action()
    result, failure = like, None
    if is_first():
        try:
            result = action()
        except Exception as error:  # told to the others first, who would wait for ever
            failure = error
    failed, result = multihost_utils.broadcast_one_to_all((np.int32(failure is not None), result))
    if failure is not None:
        raise failure
    if failed:
        raise ValueError("the first process stopped; its message says why")
    return result


def stack(states: list[TrainState]) -> TrainState:
    """States of several prompts, at the same step, as one state of numpy arrays with a leading axis for the prompts."""
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *states)
    return stacked._replace(step=np.asarray(states[0].step))


def unstack(state: TrainState, prompts: int) -> list[TrainState]:
    """The inverse of `stack`."""

    def of(index: int) -> TrainState:
        trainables, opt_state = jax.tree.map(lambda leaf: leaf[index], (state.trainables, state.opt_state))
        return TrainState(state.step, trainables, opt_state)

    return [of(index) for index in range(prompts)]
