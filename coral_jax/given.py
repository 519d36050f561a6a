"""What a method is given besides the networks of its domain."""

import jax.numpy as jnp

from coral_jax.domains import Domain
from coral_jax.global_directions import relevance
from coral_jax.latents import w_plus_of_seeds
from coral_jax.methods import get_method
from coral_jax.step import Settings


def given(settings: Settings, domain: Domain, prompt: str, seeds: list[int]) -> object:
    """`Frozen.given` of a run on a prompt whose sheet shows the faces of `seeds`; None for most methods.

    The faces' codes [N, n_latent, w_dim], if the method edits each on its own; the relevance of every style channel, if it
    is computed from that.
    """
    method = get_method(settings.method)
    if method.per_face:
        return jnp.asarray(w_plus_of_seeds(domain.generator, seeds, settings.truncation))
    if method.optimiser == "from_text":
        return relevance.given(domain, prompt)
    return None
