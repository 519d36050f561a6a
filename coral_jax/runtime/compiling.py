"""Compiling: with the options that a CPU needs, and without keeping the memory that it took."""

import functools
from collections.abc import Callable

import jax

from coral_jax.runtime import memory

# XLA's own convolutions are 1.5 times as fast as those of YNNPACK, which jax 0.10 takes instead (benchmarks/README.md).
CPU_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": ""}

# Temporaries of a program for a CPU that its process keeps for the next run.  Kept memory can be taken twice, where
# something small has come to lie in it: the step at 256 px then held 5.8 GB, not 3.8.
KEPT_BYTES = 512 << 20


@functools.cache
def options() -> dict[str, str]:
    """Compiler options for this process's devices; none where XLA, of another version or device, knows no such option."""
    if jax.default_backend() != "cpu":
        return {}
    try:
        jax.jit(lambda x: x).lower(0.0).compile(compiler_options=CPU_OPTIONS)
    except jax.errors.JaxRuntimeError:
        return {}
    return CPU_OPTIONS


def compile_ahead(program: jax.stages.Wrapped, *arguments: object) -> jax.stages.Compiled:
    """program.lower(*arguments).compile() with `options`, for a program that now runs many times.

    On a CPU it then runs in memory that lies together and, if it has few temporaries, that the process keeps.

    What the compiler freed goes back to the system: glibc keeps it otherwise, most of a gigabyte after a large program,
    beside all that the program then allocates.
    """
    memory.put_back()
    compiled = program.lower(*arguments).compile(compiler_options=options())
    memory.give_back()
    if jax.default_backend() == "cpu":
        memory.keep_freed(compiled.memory_analysis().temp_size_in_bytes <= KEPT_BYTES)
        memory.put_aside()
    return compiled


def jit(function: Callable, **settings: object) -> Callable:
    """jax.jit(function, **settings) with `options`, which are asked for when it is first called: they depend on devices."""
    made = functools.cache(lambda: jax.jit(function, compiler_options=options(), **settings))

    @functools.wraps(function)
    def call(*arguments: object) -> object:
        return made()(*arguments)

    call.lower = lambda *arguments: made().lower(*arguments)
    return call
