"""Compiling a program before it runs, without keeping the memory that compiling took."""

import ctypes
import sys

import jax


def compile_ahead(program: jax.stages.Wrapped, *arguments: object) -> jax.stages.Compiled:
    """program.lower(*arguments).compile(); afterwards what the compiler freed goes back to the system.

    glibc keeps it otherwise, most of a gigabyte after a large program, beside all that the program then allocates.
    """
    compiled = program.lower(*arguments).compile()
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "malloc_trim"):
        library.malloc_trim(0)
    return compiled
