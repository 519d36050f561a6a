"""Random bits and types: the same whatever jax is set to in this process.

A seed stands for a face, and environment variables such as JAX_ENABLE_X64, JAX_DEFAULT_PRNG_IMPL and
JAX_THREEFRY_PARTITIONABLE would make it another one.
"""

import contextlib
from collections.abc import Iterator

import jax
import jax.numpy as jnp

GENERATOR = "threefry2x32"
SEEDS = 2**32  # a larger seed would stand for the same face as a smaller one


@contextlib.contextmanager
def pinned() -> Iterator[None]:
    """Inside, jax draws and rounds as the program needs it; also a decorator, for what draws or loads networks."""
    with (
        jax.enable_x64(False),
        jax.default_prng_impl(GENERATOR),
        jax.threefry_partitionable(True),
        jax.numpy_dtype_promotion("standard"),
        jax.softmax_custom_jvp(False),
        jax.disable_jit(False),  # one by one, operations round differently
    ):
        yield


def key_of(seed: int | jax.Array) -> jax.Array:
    """The key of a seed from 0 to 2**32 - 1 (an int, or uint32 []): every key of the program comes from here.

    It is `jax.random.key(seed)` as jax is set up by default: made of the two words of threefry's state, it depends on no
    setting of jax, not on JAX_RANDOM_SEED_OFFSET either.  ValueError for an int out of range.
    """
    if isinstance(seed, int):
        check_seed(seed, "seed")
    return jax.random.wrap_key_data(jnp.array([0, seed], jnp.uint32), impl=GENERATOR)


def check_seed(seed: int, name: str) -> int:
    """Returns a seed; ValueError for one out of range, which is called `name`."""
    if not 0 <= seed < SEEDS:
        raise ValueError(f"{name} is {seed}; give a whole number from 0 to {SEEDS - 1}")
    return seed


def facts() -> dict[str, str | None]:
    """What decides the bits of a run besides its config, as its record keeps it."""
    return {
        "random_bits": f"{GENERATOR}, partitionable",
        "matmul_precision": jax.config.jax_default_matmul_precision,  # the user's choice, on GPUs and TPUs
    }
