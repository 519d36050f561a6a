"""Whether a generator can draw hair of a colour: one change of all faces' codes, found from the colour itself, without CLIP.

    python -m benchmarks.reach --colours=130,50,170 --colours=210,175,110

Where hair gets the colour only if everything else changes, too, the generator fails, and no CLIP, mask or rate can help.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags
from jax import Array

from coral_jax import commands
from coral_jax.domains import load_domain
from coral_jax.faces.labels import mask
from coral_jax.figures import to_pixels
from coral_jax.models.generator import Generator
from coral_jax.models.ops import resized
from coral_jax.runtime.compiling import jit

_COLOURS = flags.DEFINE_multi_string("colours", ["130,50,170", "210,175,110"], "red, green and blue from 0 to 255")
_FACES = flags.DEFINE_integer("faces", 4, "number of faces that share the change")
_STEPS = flags.DEFINE_integer("steps", 60, "optimiser steps")
_DOMAIN = flags.DEFINE_string("domain", "faces", "domain to draw in")
_KEPT = 2.0  # weight of what is not hair
_RATE = 0.1


def loss(delta: Array, generator: Generator, w_plus: Array, hair: Array, original: Array, colour: Array) -> tuple:
    """How far the mean colour of the hair is from `colour`, and the rest from what it was; with both [B, 3] and the second.

    delta [n_latent, w_dim]; w_plus [B, n_latent, w_dim]; hair [B, h, w, 1] is its share; original [B, h, w, 3].
    """
    images = generator.synthesis(w_plus + delta[None])
    mean = jnp.sum(images * hair, axis=(1, 2)) / jnp.sum(hair, axis=(1, 2))
    kept = jnp.mean(jnp.square((images - original) * (1 - hair)))
    return jnp.mean(jnp.square(mean - colour[None])) + _KEPT * kept, (mean, kept)


def main() -> None:
    """Print, for each colour, the colour that hair reaches and how far the rest of the image has moved, in levels of 255."""
    domain = load_domain(_DOMAIN.value)
    generator = domain.generator.lower(domain.loss_resolution)
    faces = domain.truth.held_out(domain, "purple hair", _FACES.value, domain.truth.SELECTION_SEED)
    w_plus = faces.w_plus[:, : generator.n_latent]
    original = jit(Generator.synthesis)(generator, w_plus)
    size = original.shape[1]
    hair = resized(mask(faces.seen.labels, "hair").astype(np.float32)[..., None], size)
    optimiser = optax.adam(_RATE)

    @jit
    def step(delta: Array, state: optax.OptState, colour: Array) -> tuple:
        gradient, found = jax.grad(loss, has_aux=True)(delta, generator, w_plus, hair, original, colour)
        updates, state = optimiser.update(gradient, state)
        return optax.apply_updates(delta, updates), state, found

    for text in _COLOURS.value:
        colour = np.array(text.split(","), np.float32) / 127.5 - 1
        delta = jnp.zeros(w_plus.shape[1:])
        state = optimiser.init(delta)
        for _ in range(_STEPS.value):
            delta, state, (mean, kept) = step(delta, state, colour)
        rest = 127.5 * np.sqrt(kept)
        print(f"{text}: hair {to_pixels(np.asarray(mean)).tolist()}, the rest moved by {rest:.0f} levels", flush=True)


if __name__ == "__main__":
    commands.run(main)
