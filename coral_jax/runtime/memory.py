"""What glibc does with the memory that XLA has done with; nothing elsewhere."""

import ctypes
import sys

# Of mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -3, -4, -8
_NEVER = -1
# What glibc comes to by itself in a process that has freed blocks of 32 MB; setting anything here ends that adaptation.
_ADAPTED = {_M_MMAP_MAX: 65536, _M_MMAP_THRESHOLD: 32 << 20, _M_TRIM_THRESHOLD: 64 << 20}

_LEAST, _MOST = 2 << 10, 256 << 20  # bytes of the pieces that `put_aside` takes
_aside: list[int] = []


def use_one_arena() -> None:
    """Take all memory from one arena, also for threads that are yet to start: `keep_freed` keeps no large blocks of others."""
    if library := _glibc():
        library.mallopt(_M_ARENA_MAX, 1)


def keep_freed(keep: bool) -> None:
    """Whether the process keeps what is freed from now on (`give_back` returns what is free at the time), or glibc unmaps it.

    XLA's CPU backend takes a step's temporaries, hundreds of megabytes, anew at every step.  glibc maps such blocks one by
    one and unmaps them, so that the kernel clears every page of every step: a tenth of the time on toons.
    """
    if library := _glibc():
        for parameter, value in ({_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: _NEVER} if keep else _ADAPTED).items():
            library.mallopt(parameter, value)


def give_back() -> None:
    """Return to the system what is free."""
    if library := _glibc():
        library.malloc_trim(0)


def put_aside() -> None:
    """Leave unused what is free between what is in use, until `put_back`: what is taken from now on lies together, behind it.

    A compiler leaves tens of thousands of such pieces.  To search them at every allocation, and to work on memory that lies
    far apart, makes a step on toons half as long again.  What was given back to the system costs nothing while it lies aside.
    """
    library = _glibc()
    if library is None:
        return
    end, size = library.sbrk(0), _MOST
    while size >= _LEAST:
        while (piece := library.malloc(size)) and piece + size <= end:
            _aside.append(piece)
        library.free(piece)
        size = size * 3 // 4


def put_back() -> None:
    """Let what `put_aside` took be used again."""
    library = _glibc()
    while _aside:
        library.free(_aside.pop())


def _glibc() -> ctypes.CDLL | None:
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not hasattr(library, "malloc_trim"):
        return None
    library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    library.sbrk.restype, library.sbrk.argtypes = ctypes.c_void_p, [ctypes.c_ssize_t]
    library.free.argtypes = [ctypes.c_void_p]
    return library
