"""Compiling with the options that the process's devices need."""

import functools
from collections.abc import Callable

import jax

# XLA's own convolutions are 1.5 times as fast as those of YNNPACK, which jax 0.10 takes instead (docs/performance.md).
CPU_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": ""}


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
    """program.lower(*arguments).compile() with `options`; run it many times inside `memory.tuned_for`."""
    return program.lower(*arguments).compile(compiler_options=options())


def jit(function: Callable, **settings: object) -> Callable:
    """jax.jit(function, **settings) with `options`, which are asked for when it is first called: they depend on devices."""
    made = functools.cache(lambda: jax.jit(function, compiler_options=options(), **settings))

    @functools.wraps(function)
    def call(*arguments: object) -> object:
        return made()(*arguments)

    call.lower = lambda *arguments: made().lower(*arguments)
    return call
