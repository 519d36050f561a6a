"""StyleCLIP's latent optimisation and latent mapper (Patashnik et al., arXiv 2103.17249), which edit the whole image."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from coral_jax.blend import Blend, Masks, Original
from coral_jax.editors import MAPPER_SCALE, Editor, LatentMapper
from coral_jax.models import ops
from coral_jax.models.generator import Generator
from coral_jax.optimisers import Optimiser, Rates, Trainables, adam_init, adam_step


def all_layers(generator: Generator) -> tuple[int, ...]:
    """Numbers of all layers."""
    return tuple(layer.index for layer in generator.layers)


def draw_whole(generator: Generator, original: Original, delta: jax.Array, masks: Masks, *, full: bool = False) -> Blend:
    """Draw w_plus + delta [B, n_latent, w_dim] as it is, ToRGB included: there are no masks, and so nothing `full`."""
    return Blend(generator.synthesis(original.w_plus + delta), None, original.image, ())


class LevelsMapper(LatentMapper):
    """StyleCLIP's own mapper: as `LatentMapper`, of all codes, with the two things that CORAL's leaves out.

    Pixel norm runs over the layers of a group (its `dim=1` of [B, layers, w_dim]), so that of codes drawn from one w,
    which are the same in every layer, only the signs are left; and the last linear layer, too, ends in a leaky ReLU.
    """

    all_codes = True

    def __call__(self, w_plus: jax.Array, tau: jax.Array | float = 0.0) -> jax.Array:
        """Delta [B, n_latent, w_dim] of w_plus [B, n_latent, w_dim]."""
        deltas = []
        for name, start, stop in self.groups:
            x = jnp.swapaxes(ops.pixel_norm(jnp.swapaxes(w_plus[:, start:stop], 1, 2)), 1, 2)
            for layer in getattr(self, name).layers:
                x = ops.leaky_relu(layer(x))
            deltas.append(x)
        return MAPPER_SCALE * jnp.concatenate(deltas, axis=1)


class FaceDeltas(Editor):
    """A delta for each of `faces` faces, [faces, n_latent, w_dim], found for it alone; zero at first."""

    per_face = True

    def __init__(self, generator: Generator, layers: Sequence[int], rngs: nnx.Rngs, *, faces: int = 1):
        del layers, rngs  # all codes, and nothing random
        self.delta = nnx.Param(jnp.zeros((faces, generator.n_latent, generator.w_dim)))

    def __call__(self, w_plus: jax.Array, tau: jax.Array | float = 0.0) -> jax.Array:
        """Delta [B, n_latent, w_dim] of the faces w_plus [B, n_latent, w_dim], which must be those that it was found for."""
        faces = self.delta.shape[0]
        if w_plus.shape[0] != faces:
            raise ValueError(f"{w_plus.shape[0]} faces for the deltas of {faces}; find those of the others first")
        return self.delta[...]


def ramp(done: jax.Array | float) -> jax.Array:
    """StyleCLIP's factor of the learning rate when a share `done` in [0, 1) of the steps is done.

    Linear over the first twentieth, so that the first step does nothing; half a cosine over the last quarter.
    """
    down = 0.5 - 0.5 * jnp.cos(jnp.pi * jnp.minimum(1.0, (1.0 - done) / 0.25))
    return down * jnp.minimum(1.0, done / 0.05)


def _ramped_adam_step(
    trainables: Trainables, state: object, gradients: Trainables, rates: Rates, _: object
) -> tuple[Trainables, object]:
    """Adam under StyleCLIP's schedule.

    Adam takes no notice of a gradient's scale, so a loss that is a mean over faces moves each face's delta as its own would.
    """
    factor = ramp(state.count / rates.steps)
    return adam_step(trainables, state, gradients, rates._replace(editor=factor * rates.editor))


RAMPED_ADAM = Optimiser(adam_init, _ramped_adam_step)
