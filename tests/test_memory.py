"""memory.py, by the page faults of a process that takes the same memory twice."""

import subprocess
import sys

import pytest
from conftest import REPOSITORY

from coral_jax.runtime import memory

pytestmark = pytest.mark.skipif(memory._glibc() is None, reason="not glibc")
MEGABYTES = 256

PROGRAM = f"""
import ctypes, resource, sys
from coral_jax.runtime import memory
library = ctypes.CDLL(None)
library.malloc.restype, library.malloc.argtypes, library.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = library.malloc({MEGABYTES} << 20)
    ctypes.memset(block, 1, {MEGABYTES} << 20)
    library.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

for word in sys.argv[1:]:
    memory.use_one_arena()
    memory.keep_freed(word == "keep")
first, second = faults(), faults()
memory.give_back()
print(first, second, faults())
"""


def faults(*arguments):
    done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [int(count) for count in done.stdout.split()]


def test_what_is_freed_is_kept_until_it_is_given_back():
    first, second, after = faults("keep")
    assert second < first / 10 and after > first / 2


@pytest.mark.parametrize("arguments", [[], ["unmap"], ["keep", "unmap"]])
def test_a_process_that_does_not_ask_or_does_no_longer_keeps_nothing(arguments):
    first, second, _ = faults(*arguments)
    assert second > first / 2


PIECES = """
import ctypes
from coral_jax.runtime import memory
library = ctypes.CDLL(None)
library.malloc.restype, library.malloc.argtypes, library.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
library.sbrk.restype = ctypes.c_void_p
memory.use_one_arena()
pieces = [library.malloc(5000) for _ in range(20000)]
for piece in pieces[::2]:
    library.free(piece)
end = library.sbrk(0)

def share():
    taken = [library.malloc(4000) for _ in range(1000)]
    among = sum(piece < end for piece in taken)
    for piece in taken:
        library.free(piece)
    return among / len(taken)

print(share())
memory.put_aside()
print(share())
memory.put_back()
print(share())
"""


def test_what_is_put_aside_is_not_taken_until_it_is_put_back():
    done = subprocess.run([sys.executable, "-c", PIECES], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    before, aside, after = map(float, done.stdout.split())
    assert before > 0.9 and aside < 0.1 and after > 0.9


def test_other_systems_have_nothing_to_do(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(memory, "_aside", [])  # where this system is none, other tests have put pieces there
    memory.use_one_arena()
    memory.keep_freed(True)
    memory.give_back()
    memory.put_aside()
    memory.put_back()
