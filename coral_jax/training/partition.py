"""Several devices and several hosts: one mesh with the axes `prompt` and `data`, and the train step over it.

Each device trains some of the prompts on some of the faces.  Devices meet once a step, in one sum of the gradients and
metrics over the axis `data`; prompts never need each other.  Faces are drawn from one stream, of which each device makes
its share, so that the edit is the same on any number of devices, to rounding.  Files are the first process's alone.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.flatten_util import ravel_pytree
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from coral_jax.config import OF_PROMPT, Settings
from coral_jax.step import Frozen, TrainState, draw_z, of_each, train_step

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


def make_mesh(prompts: int, faces: int, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The devices, this process's unless given, that share the prompts and the faces of a step.

    The fewest that give each the least work; faces may be divided unevenly (`shares`).  On several hosts all must have work:
    ValueError where some would not.
    """
    devices = jax.devices() if devices is None else devices
    count = len(devices)
    meshes = _meshes(prompts, faces, count)
    if len({device.process_index for device in devices}) > 1:
        whole = _whole(prompts, faces, count)
        if not whole:
            more = next(n for n in range(faces, faces + count) if _whole(prompts, n, count))
            raise ValueError(
                f"{prompts} prompt(s) and {faces} faces a step use {max(map(math.prod, meshes))} of the {count} devices of all "
                f"hosts; give --config.batch_size={more}, or other prompts"
            )
        meshes = whole

    def cost(mesh: tuple[int, int]) -> tuple[int, int, int]:
        """Work of a device, in faces of a prompt; number of devices; then faces are divided before prompts."""
        prompt, data = mesh
        return prompts // prompt * max(shares(faces, data)), prompt * data, prompt

    prompt, data = min(meshes, key=cost)
    used = devices[: prompt * data]
    return jax.make_mesh((prompt, data), (PROMPT, DATA), axis_types=(AxisType.Auto,) * 2, devices=used)


def _meshes(prompts: int, faces: int, devices: int) -> list[tuple[int, int]]:
    """All (prompt, data) that at most so many devices can share a step by."""
    sides = [prompt for prompt in range(1, min(prompts, devices) + 1) if prompts % prompt == 0]
    return [(prompt, data) for prompt in sides for data in range(1, min(faces, devices // prompt) + 1) if shares(faces, data)]


def _whole(prompts: int, faces: int, devices: int) -> list[tuple[int, int]]:
    """Those of `_meshes` that leave no device out."""
    sides = [prompt for prompt in range(1, min(prompts, devices) + 1) if prompts % prompt == devices % prompt == 0]
    return [(prompt, devices // prompt) for prompt in sides if shares(faces, devices // prompt)]


def shares(faces: int, devices: int) -> tuple[int, ...]:
    """How many of `faces` faces each of `devices` devices draws; none where they cannot be divided.

    Every device draws equally many pictures, so that one with fewer faces draws each of its own several times: its mean
    stays theirs.  5 faces on 3 devices are 2, 2 and 1 (drawn twice).
    """
    if faces < devices:
        return ()
    most = -(-faces // devices)
    found: list[int] = []
    left = faces
    for others in reversed(range(devices)):  # each takes as many as leave one for each of the others
        take = max((n for n in range(1, most + 1) if most % n == 0 and n <= left - others), default=0)
        found.append(take)
        left -= take
    return () if left or 0 in found else tuple(found)


def make_step(mesh: Mesh) -> jax.stages.Wrapped:
    """`step.train_step` over a mesh, jitted: (state, frozen, key, settings) -> (state, metrics); donates the state.

    What prompts may have of their own of the settings (`config.OF_PROMPT`) is one number for all, or [P].
    """

    def step(state: TrainState, frozen: Frozen, key: jax.Array, settings: Settings) -> tuple[TrainState, dict]:
        settings = of_each(settings, len(frozen.text))
        of_prompts = dataclasses.replace(jax.tree.map(lambda _: P(), settings), **dict.fromkeys(OF_PROMPT, P(PROMPT)))
        each = shares(settings.batch_size, mesh.shape[DATA])
        alone = len(each) == 1  # no device holds other faces
        shard = jax.shard_map(
            train_step if alone else lambda *arguments: train_step(*arguments, mean=lambda tree: _mean(tree, each)),
            mesh=mesh,
            in_specs=(STATE, FROZEN, P(DATA), of_prompts),
            out_specs=(STATE, P(PROMPT)),
            check_vma=False,  # else each gradient of a replicated weight is summed on its own: `_mean` is the only sum
        )
        z = draw_z(frozen, key, state.step, settings)  # each device draws its share: threefry needs no communication
        if not _even(each):
            z = jax.lax.with_sharding_constraint(z, NamedSharding(mesh, P()))[_rows(each)]  # or all, to choose its own
        return shard(state, frozen, jax.lax.with_sharding_constraint(z, NamedSharding(mesh, P(DATA))), settings)

    return jax.jit(step, donate_argnums=0)


def _even(each: tuple[int, ...]) -> bool:
    return len(set(each)) == 1


def _rows(each: tuple[int, ...]) -> np.ndarray:
    """The face of every row that the devices draw: 0 1 2 2 for two faces and one."""
    ends = np.cumsum(each)
    return np.concatenate([np.repeat(np.arange(end - n, end), max(each) // n) for n, end in zip(each, ends, strict=True)])


def _mean(tree: Tree, each: tuple[int, ...]) -> Tree:
    """Mean over all faces of means over a device's own, of which there are `each`, as one vector: one all-reduce."""
    vector, unravel = ravel_pytree(tree)
    if _even(each):
        return unravel(jax.lax.pmean(vector, DATA))
    share = jnp.asarray(each, vector.dtype)[jax.lax.axis_index(DATA)] / sum(each)
    return unravel(jax.lax.psum(share * vector, DATA))


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
