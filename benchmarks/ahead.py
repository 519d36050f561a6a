"""The step compiled for devices that are not here, from shapes alone: what the compiler says of it.

Nothing is run and nothing timed.  Cycles are the TPU compiler's estimate of each instruction, added up as if none overlapped:
good for comparing forms, no prediction.
"""

import io
import math
import os
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from benchmarks import hlo, measure, targets
from coral_jax.config import Settings
from coral_jax.methods import get_method
from coral_jax.runtime import target as target_
from coral_jax.runtime.compiling import compile_ahead
from coral_jax.runtime.numerics import key_of
from coral_jax.step import Frozen, init_state
from coral_jax.training import partition

STEPS = 20_000  # of the paper's runs
COSTLIEST = 10


def mesh_of(target: str, prompts: int, settings: Settings) -> Mesh:
    """The devices of a target that share a step, as training divides it; ValueError where it would."""
    faces = 1 if get_method(settings.method).per_face else settings.batch_size
    return partition.make_mesh(prompts, faces, targets.devices_of(target))


def shapes_of(mesh: Mesh, make: Callable[[], Frozen], settings: Settings, prompts: int) -> tuple:
    """Arguments of `partition.make_step` as shapes on the mesh; what `make` returns is never computed."""

    def arguments() -> tuple:
        frozen = make()
        state = init_state(settings, frozen, key_of(0))
        text, channels, *trained = jax.tree.map(
            lambda leaf: jnp.stack([leaf] * prompts), (frozen.text, frozen.channels, state.trainables, state.opt_state)
        )
        state = state._replace(trainables=trained[0], opt_state=trained[1])
        return state, frozen._replace(text=text, channels=channels), key_of(0), settings

    def placed(tree: object, specs: object) -> object:
        places = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs, is_leaf=lambda spec: isinstance(spec, P))

        def shape(leaf: jax.ShapeDtypeStruct, place: NamedSharding) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)

        return jax.tree.map(shape, tree, jax.tree.broadcast(places, tree))

    specs = (partition.STATE, partition.FROZEN, P(), partition.SETTINGS)
    return tuple(map(placed, jax.eval_shape(arguments), specs))


def flops_as_traced(make: Callable[[], Frozen], settings: Settings, prompts: int) -> float:
    """Operations of a step that one device takes alone, counted by XLA before any compiler has seen it.

    The compiled step of a TPU, 1024 px, batch 3, has 0.4 % more.
    """
    mesh = partition.make_mesh(prompts, 1, jax.devices()[:1])
    return partition.make_step(mesh).lower(*shapes_of(mesh, make, settings, prompts)).cost_analysis()["flops"]


def compiled(target: str, form: str | None, make: Callable[[], Frozen], settings: Settings, prompts: int, dtype: str) -> dict:
    """What `rows` shows of a target's step, in the form of another platform if one is given.

    ValueError where the target is unknown or nothing here compiles for it, or where the step does not fit.
    """
    chip = targets.chip_of(target)
    mesh = mesh_of(target, prompts, settings)
    arguments = shapes_of(mesh, make, settings, prompts)
    with target_.aimed_at(form or chip.platform):
        begun = time.monotonic()
        try:
            program = compile_ahead(partition.make_step(mesh), *arguments)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            reason = str(error).partition("RESOURCE_EXHAUSTED: ")[2].splitlines()[0][:200]
            raise ValueError(f"the step does not fit {target} ({reason}); give a smaller --batch") from error
        seconds = time.monotonic() - begun
        # The compiler says nothing of the work of a GPU that is not here.
        flops = flops_as_traced(make, settings, prompts) if chip.platform == "gpu" and mesh.size == 1 else None
    return {"seconds_compile": seconds, "devices": mesh.size, "of_devices": len(targets.devices_of(target))} | described(
        program, chip, settings.batch_size, mesh, dtype, flops
    )


def described(
    program: jax.stages.Compiled, chip: targets.Chip, batch: int, mesh: Mesh, dtype: str, flops: float | None = None
) -> dict:
    """Memory, work, meetings and costliest instructions of one device's program; `flops` where its compiler counts none."""
    taken, text = program.memory_analysis(), program.as_text()
    found = hlo.instructions(text)
    loops = hlo.has_loops(text)  # of microbatches, with which temporaries grow, not with the batch
    costs = {} if loops else program.cost_analysis() or {"flops": flops}
    kept, temporary = taken.argument_size_in_bytes, taken.temp_size_in_bytes
    total = kept + taken.output_size_in_bytes + temporary - taken.alias_size_in_bytes
    total += taken.generated_code_size_in_bytes
    moved = costs.get("bytes accessed") or sum(instruction.moved for instruction in found)
    cycles = sum(instruction.cycles for instruction in found) or None
    rate = chip.flops / (2 if chip.platform == "gpu" and dtype == "float32" else 1)  # TF32
    flops = costs.get("flops")
    bounds = {"flops": flops and flops / rate, "bytes": moved / chip.bandwidth}
    own = max(partition.shares(batch, mesh.shape[partition.DATA]))
    grows = temporary and not loops  # a tiny step has none
    room = max(0.0, (chip.memory - (total - temporary)) / temporary) if grows else None
    costliest = sorted(found, key=lambda one: one.cycles or one.moved / 1e9, reverse=True)[:COSTLIEST]
    return {
        "argument_bytes": kept, "temporary_bytes": temporary, "program_bytes": total, "memory_bytes": chip.memory,
        "largest_batch_by_proportion": None if room is None else math.floor(own * room) * mesh.shape[partition.DATA],
        "flops": flops, "bytes": moved, "estimated_cycles": cycles,
        "seconds_if_nothing_overlapped": cycles / chip.cycles if cycles and chip.cycles else None,
        "seconds_by_flops": bounds["flops"], "seconds_by_bytes": bounds["bytes"], "collectives": hlo.collectives(text),
        "costliest": [one._asdict() for one in costliest],
    }  # fmt: skip


def of_revision(revision: str, arguments: list[str], environment: dict[str, str]) -> dict:
    """The same command of another revision of this repository, in a process of its own; ValueError where it cannot."""
    packed = subprocess.run(["git", "archive", revision, "benchmarks", "coral_jax"], capture_output=True)
    if packed.returncode:
        forms = ", ".join(target_.PLATFORMS)
        raise ValueError(f"--compare={revision} is neither a form ({forms}) nor a revision of this repository")
    with tempfile.TemporaryDirectory() as folder, tarfile.open(fileobj=io.BytesIO(packed.stdout)) as files:
        files.extractall(folder, filter="data")
        if not os.path.exists(f"{folder}/benchmarks/ahead.py"):
            raise ValueError(f"--compare={revision} cannot compile for other devices; give a later revision")
        return measure.in_own_process("benchmarks.step", arguments, environment | {"PYTHONPATH": folder}, folder)


def rows(results: dict[str, dict]) -> str:
    """Results by form as a table of one column each, and the costliest instructions of each."""

    def line(name: str, show: Callable[[dict], str]) -> str:
        return f"| {name} | " + " | ".join(show(result) for result in results.values()) + " |"

    def number(key: str, scale: float, digits: str) -> Callable[[dict], str]:
        return lambda row: "-" if row[key] is None else format(row[key] / scale, digits)

    def fits(row: dict) -> str:
        said = "fits" if row["program_bytes"] <= row["memory_bytes"] else "does not fit"
        most = row["largest_batch_by_proportion"]
        return said if most is None else f"{said}; by proportion, batch {most} would"

    def hours(row: dict) -> str:
        bounds = sorted(row[key] * STEPS / 3600 for key in ("seconds_by_flops", "seconds_by_bytes") if row[key])
        return " to ".join(f"{bound:.2g}" for bound in bounds)

    table = [
        f"| one device's program | {' | '.join(results)} |", "|" + "---|" * (1 + len(results)),
        line("devices that share a step", lambda row: f"{row['devices']} of {row['of_devices']}"),
        line("compile s", number("seconds_compile", 1, ".0f")),
        line("arguments GB", number("argument_bytes", 1e9, ".3g")),
        line("temporaries GB", number("temporary_bytes", 1e9, ".3g")),
        line("total GB, code included", number("program_bytes", 1e9, ".3g")),
        line("of memory GB", number("memory_bytes", 1e9, ".0f")),
        line("which", fits),
        line("GFLOP", number("flops", 1e9, ".4g")),
        line("bytes moved GB", number("bytes", 1e9, ".3g")),
        line("Mcycles, the compiler's estimate", number("estimated_cycles", 1e6, ".4g")),
        line("ms if nothing overlapped, an estimate", number("seconds_if_nothing_overlapped", 1e-3, ".3g")),
        line(f"hours for {STEPS} steps, bound by flops and by bytes", hours),
        line("devices meet", lambda row: ", ".join(f"{n} {kind}" for kind, n in row["collectives"].items()) or "never"),
    ]  # fmt: skip
    for form, result in results.items():
        table += [f"\ncostliest instructions of {form}: Mcycles, GB, what, where"]
        table += [
            f"{one['cycles'] / 1e6:9.3g} {one['moved'] / 1e9:9.3g} {one['opcode']:<12} {one['source'] or one['name']}"
            for one in result["costliest"]
        ]
    return "\n".join(table)


def compare(target: str, other: str | None, arguments: list[str], result: dict) -> dict:
    """Compile for a target, and beside it in the other form or revision; results by form, each from a process of its own."""
    environment = targets.environment(target)
    own = [*arguments, f"--target={target}", "--form=ahead"]
    found = {target: measure.in_own_process("benchmarks.step", own, environment)}
    if other in target_.PLATFORMS:
        found[f"form of {other}"] = measure.in_own_process("benchmarks.step", [*own, f"--compare={other}"], environment)
    elif other:
        found[other] = of_revision(other, own, environment)
    return result | {"target": target, "forms": found}
