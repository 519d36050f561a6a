"""glibc tuning for memory that XLA has freed, while a program runs many times on a CPU; a no-op elsewhere."""

import contextlib
import ctypes
import sys
from collections.abc import Iterator

import jax

# Of mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
_NEVER = -1
_KEEP = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: _NEVER}
# What glibc comes to by itself in a process that has freed blocks of 32 MB; setting anything ends that adaptation.
_ADAPTED = {_M_MMAP_MAX: 65536, _M_MMAP_THRESHOLD: 32 << 20, _M_TRIM_THRESHOLD: 64 << 20}

# Temporaries of a program that its process keeps for the next run.  Kept memory can be taken twice, where something small
# has come to lie in it: the step at 256 px then held 5.8 GB, not 3.8.
KEPT_BYTES = 512 << 20
_LEAST, _MOST = 2 << 10, 256 << 20  # bytes of the pieces that are put aside


@contextlib.contextmanager
def tuned_for(program: jax.stages.Compiled) -> Iterator[None]:
    """Run a compiled program many times inside; afterwards the process is as it was.  Nothing is done unless it is for a CPU.

    - What the compiler freed goes back to the system: glibc keeps it otherwise, most of a gigabyte after a large program.
    - XLA's CPU backend takes a step's temporaries, hundreds of megabytes, anew at every step.  glibc maps such blocks one
      by one and unmaps them, so that the kernel clears every page of every step, a tenth of the time on toons: a program
      with few temporaries keeps what it frees.
    - A compiler leaves tens of thousands of free pieces between what is in use.  To search them at every allocation, and to
      work on memory that lies far apart, makes a step on toons half as long again: they are put aside.
    """
    library = _glibc()
    if library is None or jax.default_backend() != "cpu":
        yield
        return
    library.malloc_trim(0)
    keeping = program.memory_analysis().temp_size_in_bytes <= KEPT_BYTES
    if keeping:
        _set(library, _KEEP)
    aside = _put_aside(library)
    try:
        yield
    finally:
        for piece in aside:
            library.free(piece)
        if keeping:
            _set(library, _ADAPTED)
        library.malloc_trim(0)


def _set(library: ctypes.CDLL, parameters: dict[int, int]) -> None:
    for parameter, value in parameters.items():
        library.mallopt(parameter, value)


def _put_aside(library: ctypes.CDLL) -> list[int]:
    """Take what is free between what is in use: later allocations then lie together, after it.

    What was given back to the system costs nothing while it lies aside.
    """
    aside, end, size = [], library.sbrk(0), _MOST
    while size >= _LEAST:
        while (piece := library.malloc(size)) and piece + size <= end:
            aside.append(piece)
        library.free(piece)
        size = size * 3 // 4
    return aside


def _glibc() -> ctypes.CDLL | None:
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not hasattr(library, "malloc_trim"):
        return None
    library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    library.sbrk.restype, library.sbrk.argtypes = ctypes.c_void_p, [ctypes.c_ssize_t]
    library.free.argtypes = [ctypes.c_void_p]
    return library
