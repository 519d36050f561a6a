"""Compute types: a frozen network computes in the type of its weights, and `cast` gives them another one, once.

What decides accuracy stays float32 whatever the type: z -> w, styles, demodulation, the image as a sum of ToRGBs, the
statistics of norms, embeddings.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from coral_jax.models.generator import Generator

COMPUTE_DTYPES = ("float32", "bfloat16")


def cast(network: nnx.Module, dtype: str) -> nnx.Module:
    """A copy of a network that computes in `dtype`, one of COMPUTE_DTYPES; ValueError for another."""
    if dtype not in COMPUTE_DTYPES:
        raise ValueError(f"dtype is {dtype!r}; give one of {', '.join(COMPUTE_DTYPES)}")
    if dtype == "float32":
        return network
    keep = network.stays_float32 if isinstance(network, Generator) else _nothing
    graph, state = nnx.split(network)
    flat = {
        path: variable.replace(variable[...].astype(dtype)) if _is_weight(variable) and not keep(path) else variable
        for path, variable in nnx.to_flat_state(state)
    }
    return nnx.merge(graph, nnx.from_flat_state(flat))


def _is_weight(variable: nnx.Variable) -> bool:
    """Parameters, and not the running statistics of batch norms."""
    return isinstance(variable, nnx.Param) and jnp.issubdtype(variable.dtype, jnp.floating)


def _nothing(path: tuple) -> bool:
    return False


def cast_all(networks: object, dtype: str) -> object:
    """`cast` of every network in a container; None and arrays are left alone."""
    return jax.tree.map(
        lambda part: cast(part, dtype) if isinstance(part, nnx.Module) else part,
        networks,
        is_leaf=lambda part: isinstance(part, nnx.Module),
    )
