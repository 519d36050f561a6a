"""Compiling with the options that the target's platform needs (`runtime.target`)."""

import functools
from collections.abc import Callable

import jax

from coral_jax.runtime.target import platform

# XLA's own convolutions are 1.5 times as fast as those of YNNPACK, which jax 0.10 takes instead (docs/performance.md).
CPU_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": ""}


# A batch of fewer than eight samples is cut into strips, with margins, copies and padding between all layers; one
# convolution takes 2.5 times as many cycles, by the compiler's estimate.  Either option alone changes nothing.
TPU_OPTIONS = {"xla_tpu_run_space_to_batch": "false", "xla_tpu_run_space_to_batch_on_new_platforms": "false"}


def options() -> dict[str, str]:
    """Compiler options for the platform that programs are made for; none where this process's XLA knows no such option."""
    return _known(platform())


@functools.cache
def _known(platform: str) -> dict[str, str]:
    chosen = {"cpu": CPU_OPTIONS, "tpu": TPU_OPTIONS}.get(platform, {})
    if chosen and platform == jax.default_backend():  # else there is no device to try it on
        try:
            jax.jit(lambda x: x).lower(0.0).compile(compiler_options=chosen)
        except jax.errors.JaxRuntimeError:
            return {}
    return chosen


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
