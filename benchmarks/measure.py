"""How a compiled program is measured: time, compile time, memory, operations, and the device's own rate beside them."""

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jax.experimental.compilation_cache import compilation_cache

from coral_jax.models import ops
from coral_jax.runtime import memory
from coral_jax.runtime.compiling import compile_ahead

GROUP_SECONDS = 0.5  # runs shorter than this are timed in groups of about so long: dispatch overlaps, as in training


def measure(program: jax.stages.Wrapped, arguments: tuple, feed: Callable, repeats: int, profile: str | None) -> dict:
    """Compile program(*arguments) and time it `repeats` times, after one run to warm up; arguments may be donated.

    `feed(result, arguments)` gives the next run's arguments.  Writes a jax.profiler trace of one more run into the
    folder `profile`.  seconds_compile is from tracing on, without any cache; peak_bytes: `peak_bytes()` afterwards;
    program_bytes: what XLA allocates for arguments, results and temporaries of the program.
    """
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # a program that was compiled before this line has opened it
    begun = time.monotonic()
    compiled = compile_ahead(program, *arguments)
    seconds_compile = time.monotonic() - begun

    def run(count: int) -> float:
        nonlocal arguments
        begun = time.monotonic()
        for _ in range(count):
            result = compiled(*arguments)
            arguments = feed(result, arguments)
        jax.block_until_ready(result)
        return (time.monotonic() - begun) / count

    with memory.tuned_for(compiled):
        run(1)
        first = run(1)
        group = max(1, round(GROUP_SECONDS / first))
        times = [first] if group == 1 else []  # long runs count from the first
        times += [run(group) for _ in range(repeats - len(times))]
        if profile:
            with jax.profiler.trace(profile):
                run(1)
    taken = compiled.memory_analysis()
    return {
        "seconds": statistics.median(times),
        "seconds_min": min(times),
        "seconds_compile": seconds_compile,
        "flops": flops(compiled),
        "peak_bytes": peak_bytes(),
        "program_bytes": taken.argument_size_in_bytes
        + taken.output_size_in_bytes
        + taken.temp_size_in_bytes
        - taken.alias_size_in_bytes,
    }


def flops(compiled: jax.stages.Compiled) -> float:
    """Floating-point operations of a compiled program, by XLA's cost analysis."""
    return compiled.cost_analysis()["flops"]


def peak_bytes() -> int:
    """Most memory so far: of the device where it says so, else of this process, Python, weights and compiler included."""
    statistics_ = jax.local_devices()[0].memory_stats()
    if statistics_ and "peak_bytes_in_use" in statistics_:
        return statistics_["peak_bytes_in_use"]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def convolution_rate(dtype: str) -> float:
    """Operations a second of a 3x3 convolution of 512 to 512 channels at 64x64: what this device reaches on large ones."""
    # A seventh of a second on two cores; on a GPU, ten at a time of a few milliseconds each.
    batch, count = (1, 1) if jax.default_backend() == "cpu" else (64, 10)
    x, kernel = jnp.ones((batch, 64, 64, 512), dtype), jnp.ones((3, 3, 512, 512), dtype)
    conv = compile_ahead(jax.jit(ops.conv2d), x, kernel)
    times = []
    for _ in range(4):  # the first is to warm up
        begun = time.monotonic()
        jax.block_until_ready([conv(x, kernel) for _ in range(count)])
        times.append((time.monotonic() - begun) / count)
    return flops(conv) / statistics.median(times[1:])


def in_own_process(
    module: str, arguments: list[str], environment: Mapping[str, str] | None = None, folder: str | None = None
) -> dict:
    """Run `python -m MODULE ARGUMENTS`, whose last line of output is JSON, in a process whose memory is its own.

    `environment`: variables that it has besides ours; `folder`: where it runs, if not here.
    """
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=folder, env=os.environ | dict(environment or {}))
    if done.returncode:
        raise ValueError(f"python -m {module} {' '.join(arguments)} failed; its message is above")
    return json.loads(done.stdout.strip().splitlines()[-1])
