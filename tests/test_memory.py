"""runtime/memory.py: what it asks of glibc, and what that does to a process, by page faults and by where memory lies."""

import ctypes
import subprocess
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest
from conftest import REPOSITORY

from coral_jax.runtime import memory
from coral_jax.runtime.compiling import compile_ahead

pytestmark = pytest.mark.usefixtures("optimised")
needs_glibc = pytest.mark.skipif(memory._glibc() is None, reason="not glibc")
MEGABYTES = 256
PIECES = (300 << 20, 5000, 5000, 3000)  # bytes that are free between what is in use, of `Glibc`
SCRAP = 600  # and what is too small to matter


class Glibc:
    """Stands in for the library: the order of its calls, the parameters that are set, the pieces that are taken."""

    end = 1 << 40  # of the heap: what lies behind it was not there before

    def __init__(self):
        self.calls, self.parameters, self.taken = [], {}, {}
        self.unused = [SCRAP, *PIECES]
        self._next = 0

    def mallopt(self, parameter, value):
        self.calls.append("mallopt")
        self.parameters[parameter] = value

    def malloc_trim(self, _):
        self.calls.append("malloc_trim")

    def sbrk(self, _):
        return self.end

    def malloc(self, size):
        self.calls.append("malloc")
        self._next += 1 << 30
        fitting = [piece for piece in self.unused if piece >= size]
        if fitting:
            self.unused.remove(fitting[0])
            self.taken[self._next] = fitting[0]
            return self._next
        self.taken[self.end + self._next] = None  # of new memory
        return self.end + self._next

    def free(self, piece):
        self.calls.append("free")
        size = self.taken.pop(piece)  # KeyError for what was not taken, or is freed twice
        if size is not None:
            self.unused.append(size)


@pytest.fixture
def glibc(monkeypatch):
    library = Glibc()
    monkeypatch.setattr(memory, "_glibc", lambda: library)
    return library


def program(temporaries=1 << 20):
    """A compiled program, as far as memory goes."""
    return SimpleNamespace(memory_analysis=lambda: SimpleNamespace(temp_size_in_bytes=temporaries))


def assert_restored(library):
    """What glibc comes to by itself, and nothing is held any more; in the end what is free goes back to the system."""
    assert library.parameters == {-4: 65536, -3: 32 << 20, -1: 64 << 20}  # MMAP_MAX, MMAP_THRESHOLD, TRIM_THRESHOLD
    assert library.taken == {} and sorted(library.unused) == sorted([SCRAP, *PIECES])
    assert library.calls[-1] == "malloc_trim"


def test_inside_freed_memory_is_kept_and_pieces_are_aside_and_afterwards_all_is_as_it_was(glibc):
    with memory.tuned_for(program()):
        assert glibc.calls[0] == "malloc_trim"  # first of all, what the compiler has freed goes back
        assert glibc.parameters == {-4: 0, -1: -1}  # nothing is mapped one by one, nothing is trimmed
        assert sorted(glibc.taken.values()) == sorted(PIECES) and glibc.unused == [SCRAP]  # and nothing of new memory
        glibc.calls.clear()
    assert_restored(glibc)
    assert glibc.calls.index("free") < glibc.calls.index("mallopt")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_errors_inside_pass_and_all_is_restored(glibc, error):
    with pytest.raises(error), memory.tuned_for(program()):
        raise error
    assert_restored(glibc)


def test_it_can_be_entered_again(glibc):
    for _ in range(2):
        with memory.tuned_for(program()):
            assert glibc.parameters[-4] == 0 and len(glibc.taken) == len(PIECES)
        assert_restored(glibc)


@pytest.mark.parametrize("temporaries, kept", [(memory.KEPT_BYTES, True), (memory.KEPT_BYTES + 1, False)])
def test_programs_with_many_temporaries_keep_nothing(glibc, temporaries, kept):
    with memory.tuned_for(program(temporaries)):
        assert (glibc.parameters == {-4: 0, -1: -1}) == kept and bool(glibc.parameters) == kept
        assert len(glibc.taken) == len(PIECES)  # which are put aside all the same
    assert glibc.taken == {} and bool(glibc.parameters) == kept


@pytest.mark.parametrize("limit, kept", [(1 << 30, True), (0, False)])
def test_temporaries_are_those_of_the_compiled_program(glibc, monkeypatch, limit, kept):
    monkeypatch.setattr(memory, "KEPT_BYTES", limit)
    x = jnp.ones((64, 64))
    compiled = compile_ahead(jax.jit(lambda x: jnp.sort(jnp.sin(x @ x) @ x, axis=0) @ x), x)
    assert compiled.memory_analysis().temp_size_in_bytes > 0
    assert glibc.calls == []  # compiling changes nothing
    with memory.tuned_for(compiled):
        assert bool(glibc.parameters) == kept


@pytest.mark.parametrize("backend", ["gpu", "tpu"])
def test_nothing_is_done_for_programs_of_other_devices(glibc, monkeypatch, backend):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    with memory.tuned_for(program()):
        assert glibc.calls == []
    with pytest.raises(ValueError), memory.tuned_for(program()):
        raise ValueError
    assert glibc.calls == []


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_other_systems_have_nothing_to_do(monkeypatch, platform):
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(ctypes, "CDLL", None)  # not asked for
    assert memory._glibc() is None
    ran = []
    with memory.tuned_for(program()):
        ran.append(True)
    assert ran == [True]


def test_linux_with_another_library_has_nothing_to_do(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(mallopt=None))  # such as musl
    assert memory._glibc() is None
    with memory.tuned_for(program()):
        pass


START = """
import ctypes, resource, sys
from types import SimpleNamespace
from coral_jax.runtime import memory
library = ctypes.CDLL(None)
library.malloc.restype, library.malloc.argtypes, library.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
library.sbrk.restype = ctypes.c_void_p
library.prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: pages of one size, so that their faults can be counted

def tuned(temporaries=0):
    return memory.tuned_for(SimpleNamespace(memory_analysis=lambda: SimpleNamespace(temp_size_in_bytes=temporaries)))
"""

FAULTS = f"""
def faults(megabytes={MEGABYTES}):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = library.malloc(megabytes << 20)
    ctypes.memset(block, 1, megabytes << 20)
    library.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

word = sys.argv[1]
if word == "never":
    print(faults(), faults(), faults(), faults())
elif word == "error":
    try:
        with tuned():
            first, second = faults(), faults()
            raise ValueError
    except ValueError:
        print(first, second, faults(), faults())
else:
    with tuned(1 << 40 if word == "large" else 0):
        first, second = faults(), faults()
    print(first, second, faults(), faults())
print(faults(16), faults(16))
"""


def run(program, *arguments):
    done = subprocess.run([sys.executable, "-c", START + program, *arguments], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [[float(number) for number in line.split()] for line in done.stdout.splitlines()]


@needs_glibc
@pytest.mark.parametrize("word", ["tuned", "error"])
def test_what_is_freed_inside_is_kept_until_the_end(word):
    """By page faults: what lies in kept memory causes none.  Afterwards large blocks are mapped anew, as in other processes."""
    (first, second, after, later), (small, again) = run(FAULTS, word)
    assert second < first / 10
    assert after > first / 2 and later > first / 2
    assert again < small / 10 + 100  # less than glibc's own threshold is kept, which it comes to by itself


@needs_glibc
@pytest.mark.parametrize("word", ["never", "large"])
def test_a_process_that_does_not_ask_or_has_a_large_program_keeps_nothing(word):
    (first, *others), _ = run(FAULTS, word)
    assert all(count > first / 2 for count in others)


BETWEEN = """
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
try:
    with tuned(1 << 40 if "large" in sys.argv else 0):
        print(share())
        if "error" in sys.argv:
            raise ValueError
except ValueError:
    pass
print(share())
"""


@needs_glibc
@pytest.mark.parametrize("words", [[], ["large"], ["error"]])
def test_what_is_free_inside_is_put_aside_until_the_end(words):
    (before,), (aside,), (after,) = run(BETWEEN, *words)
    assert before > 0.9 and aside < 0.1 and after > 0.9
