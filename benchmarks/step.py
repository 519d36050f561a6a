"""Time, memory and operations of a training step, at published sizes with random weights or of a domain.

    python -m benchmarks.step --size=256 --batch=2 --method=attention_mapper --compare=naive --json=runs/step.json
    python -m benchmarks.step --domain=toons --prompts=8
    python -m benchmarks.step --target=v5e:4x4 --size=1024 --batch=16 --dtype=bfloat16 --compare=cpu

Every form is measured in a process of its own, without the cache of compiled programs; nothing is downloaded.
`rate_share` is the step's rate as a share of what a large convolution reaches in the same process.  peak_bytes is the
device's (weights and the compiler's trials included), or where it keeps no count (CPU) the whole process's, Python, weights
and compiler included.  program_bytes is what XLA allocates for arguments, results and temporaries; it and flops are of one
device of those that share the step.

With --target nothing is run: the step is compiled for chips that are not here (`benchmarks.ahead`).
"""

import functools
import json
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
from absl import flags

from benchmarks import ahead, measure, targets
from benchmarks.naive import naive_train_step
from benchmarks.networks import SIZES, random_domain, random_network, shapes_of_network, with_inputs
from coral_jax import commands
from coral_jax.blend import blend
from coral_jax.config import Settings
from coral_jax.domains import load_domain
from coral_jax.methods import METHODS, get_method
from coral_jax.models.precision import COMPUTE_DTYPES, cast_all
from coral_jax.runtime.files import write_json
from coral_jax.runtime.numerics import key_of
from coral_jax.step import Frozen, init_state
from coral_jax.training import partition
from coral_jax.training.loop import proxy

_SIZE = flags.DEFINE_enum("size", "256", [str(size) for size in SIZES], "resolution of the random FFHQ-sized generator")
_LOSS_RESOLUTION = flags.DEFINE_integer("loss_resolution", None, "the losses see the image at this resolution")
_DOMAIN = flags.DEFINE_string("domain", None, "measure this domain's networks instead of random ones")
_BATCH = flags.DEFINE_integer("batch", 3, "faces per step", lower_bound=1)
_MICROBATCH = flags.DEFINE_integer("microbatch", 0, "of these, how many a device differentiates at once; 0: all", lower_bound=0)
_METHOD = flags.DEFINE_enum("method", "attention_mapper", list(METHODS), "method to measure")
_DTYPE = flags.DEFINE_enum("dtype", "float32", COMPUTE_DTYPES, "type that the frozen networks compute in")
_TARGET = flags.DEFINE_string("target", None, f"compile for chips that are not here instead: {targets.USAGE}")
_COMPARE = flags.DEFINE_string(
    "compare", None, "naive: measure the paper's literal formulas too, and give the ratio; with --target: cpu, gpu or tpu, "
    "the form of another platform, or a revision of this repository, compiled for the target too",
)  # fmt: skip
_PROMPTS = flags.DEFINE_integer("prompts", 1, "measure also so many prompts in one program", lower_bound=1)
_REPEATS = flags.DEFINE_integer("repeats", 5, "timed runs; the median counts", lower_bound=1)
_JSON = flags.DEFINE_string("json", None, "file to write the result to")
_PROFILE = flags.DEFINE_string("profile", None, "folder for a jax.profiler trace of one step (view with xprof)")
_FORM = flags.DEFINE_enum("form", None, ["step", "naive", "together", "ahead"], "measure this form alone, in this process")


def networks(make: Callable = random_network) -> Frozen:
    """What the step reads, with a prompt; `make` makes a random domain's networks."""
    method = get_method(_METHOD.value)
    if _DOMAIN.value:
        frozen = load_domain(_DOMAIN.value).frozen("surprised")
    else:
        frozen = random_domain(int(_SIZE.value), method.needs_segments, make)
    if _LOSS_RESOLUTION.value is not None:
        frozen = frozen._replace(generator=proxy(frozen.generator, method, _LOSS_RESOLUTION.value))
    return with_inputs(cast_all(frozen, _DTYPE.value), method, _BATCH.value)


def _settings() -> Settings:
    return Settings(_METHOD.value, _BATCH.value, _MICROBATCH.value)


def measured(form: str) -> dict[str, float]:
    """One form of the step, in this process; all but the literal one as `coral_jax.training` runs them, on all devices."""
    frozen, settings, key = networks(), _settings(), key_of(0)
    state = jax.jit(init_state)(settings, frozen, key)
    if form == "naive":
        program, devices = jax.jit(naive_train_step, donate_argnums=0), 1
    else:
        prompts = _PROMPTS.value if form == "together" else 1
        mesh = partition.make_mesh(prompts, 1 if get_method(_METHOD.value).per_face else _BATCH.value)
        program, devices = partition.make_step(mesh), mesh.size
        state = partition.place(partition.stack([jax.device_get(state)] * prompts), mesh, partition.STATE)
        text, channels = jax.tree.map(lambda leaf: jnp.stack([leaf] * prompts), (frozen.text, frozen.channels))
        frozen = frozen._replace(text=text, channels=channels)
        frozen, key = partition.place(frozen, mesh, partition.FROZEN), partition.place_key(key, mesh)
    found = measure.measure(
        program, (state, frozen, key, settings), lambda result, old: (result[0], *old[1:]), _REPEATS.value, _PROFILE.value
    )
    rate = measure.convolution_rate(_DTYPE.value)
    seconds = found.pop("seconds")
    share = found["flops"] / seconds / rate
    found |= {"devices": devices, "convolution_flops_per_second": rate, "rate_share": share}
    return {"seconds_per_step": seconds, **found}


def rows(result: dict) -> str:
    """The result as a table."""
    lines = [
        "| form | s/step | compile s | peak GB | program GB | GFLOP | of the convolution's rate |", "|" + "---|" * 7
    ]  # fmt: skip
    for form in ("step", "naive", "together"):
        row = result if form == "step" else result.get(form)
        if row:
            lines.append(
                f"| {form} | {row['seconds_per_step']:.4g} | {row['seconds_compile']:.1f} | {row['peak_bytes'] / 1e9:.2f} | "
                f"{row['program_bytes'] / 1e9:.2f} | {row['flops'] / 1e9:.4g} | {row['rate_share']:.2f} |"
            )
    if "naive" in result:
        lines.append(f"\nnaive / step: {result['naive']['ratio']:.2f}")
    if "together" in result:
        lines.append(f"\n{result['together']['prompts']} prompts together / alone: {result['together']['ratio']:.2f}")
    return "\n".join(lines)


def check_compare() -> None:
    """ValueError for a --compare that this measurement does not have."""
    if _TARGET.value or _COMPARE.value is None:
        return
    if _COMPARE.value != "naive":
        raise ValueError(f"--compare={_COMPARE.value} goes with --target; without it, give --compare=naive")
    if METHODS[_METHOD.value].drawing is not blend:
        ours = ", ".join(name for name, method in METHODS.items() if method.drawing is blend)
        raise ValueError(f"--compare=naive has no literal form of {_METHOD.value}; give --method, one of {ours}")


def one_form() -> dict:
    """What --form asks for, in this process."""
    if _FORM.value != "ahead":
        return measured(_FORM.value) | {"device": jax.devices()[0].device_kind}
    make = functools.partial(networks, shapes_of_network)
    return ahead.compiled(_TARGET.value, _COMPARE.value, make, _settings(), _PROMPTS.value, _DTYPE.value)


def main() -> None:
    """Measure or compile each form in a process of its own; print the table, write the JSON."""
    if _FORM.value:
        print(json.dumps(one_form()))
        return
    check_compare()
    described = ("domain", "size", "batch", "microbatch", "method", "dtype", "loss_resolution")
    values = {name: flags.FLAGS[name].value for name in (*described, "prompts", "repeats")}
    chosen = [f"--{name}={value}" for name, value in values.items() if value is not None]

    def measure_form(form: str) -> dict:
        trace = [f"--profile={Path(_PROFILE.value) / form}"] if _PROFILE.value else []
        return measure.in_own_process("benchmarks.step", [*chosen, *trace, f"--form={form}"])

    result = {name: values[name] for name in described}
    result |= {"size": None if _DOMAIN.value else int(_SIZE.value)}
    if _TARGET.value:
        result = ahead.compare(_TARGET.value, _COMPARE.value, chosen, result | {"prompts": _PROMPTS.value})
        shown = ahead.rows(result["forms"])
    else:
        result |= measure_form("step")
        if _COMPARE.value:
            naive = measure_form("naive")
            result["naive"] = naive | {"ratio": naive["seconds_per_step"] / result["seconds_per_step"]}
        if _PROMPTS.value > 1:
            together = measure_form("together")
            alone = _PROMPTS.value * result["seconds_per_step"]
            result["together"] = together | {"prompts": _PROMPTS.value, "ratio": together["seconds_per_step"] / alone}
        shown = rows(result)
    if _JSON.value:
        write_json(_JSON.value, result)
    print(shown)


if __name__ == "__main__":
    commands.run(main)
