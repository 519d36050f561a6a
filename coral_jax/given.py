"""What a method is given besides the networks of its domain."""

import jax
import jax.numpy as jnp

from coral_jax.domains import Domain
from coral_jax.latents import w_plus_of_seeds
from coral_jax.methods import get_method
from coral_jax.step import Settings


def given(settings: Settings, domain: Domain, seeds: list[int]) -> jax.Array | None:
    """`Frozen.given` of a run whose sheet shows the faces of `seeds`: their codes, if the method edits each on its own."""
    if get_method(settings.method).per_face:
        return jnp.asarray(w_plus_of_seeds(domain.generator, seeds, settings.truncation))
    return None
