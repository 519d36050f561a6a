"""The optimisation loop that networks of toons and faces are trained with."""

import functools
import time
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import optax
from absl import logging
from flax import nnx
from jax import Array


def fresh(network: type[nnx.Module], config: object, seed: int = 0) -> nnx.Module:
    """A newly initialised network; compiled, with the cheap generator of random bits, since start-up is waited for."""
    return jax.jit(lambda: network(config, nnx.Rngs(jax.random.key(seed, impl="unsafe_rbg"))))()


def fit(
    model: nnx.Module, loss: Callable[..., Array], batches: Iterator[tuple], steps: int, rate: float, name: str
) -> nnx.Module:
    """Adam with warm-up and cosine decay on `loss(model, *batch)`; logs the loss and the time left.

    `loss` may return (value, model) instead, the model with statistics that the pass has updated.
    """
    schedule = optax.warmup_cosine_decay_schedule(0.0, rate, max(1, steps // 20), steps, rate / 100)
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule, b1=0.9, b2=0.99))

    def with_model(model: nnx.Module, *batch: Array) -> tuple[Array, nnx.Module]:
        out = loss(model, *batch)
        return out if isinstance(out, tuple) else (out, model)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(model: nnx.Module, state: optax.OptState, batch: tuple) -> tuple:
        (value, model), gradient = jax.value_and_grad(with_model, has_aux=True)(model, *batch)
        updates, state = optimiser.update(gradient, state, model)
        return optax.apply_updates(model, updates), state, value

    state = optimiser.init(model)
    began, recent = time.monotonic(), []
    for i in range(steps):
        model, state, value = step(model, state, next(batches))
        recent.append(value)
        if i % 100 == 99 or i == steps - 1:
            spent = time.monotonic() - began
            mean = float(jnp.mean(jnp.stack(recent)))
            left = spent / (i + 1) * (steps - i - 1)
            logging.info("%s %d/%d loss %.5f, %.0f s, %.0f s left", name, i + 1, steps, mean, spent, left)
            recent = []
    return model
