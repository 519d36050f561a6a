"""Latent editors: what moves w_plus (paper section 3.4).

A new editor is made as (generator, layers, rngs, faces=...), for the layers of these numbers, and maps
w_plus [B, n_latent, w_dim] to delta [B, n, w_dim] of the first n codes: those that the layers read.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from coral_jax.models import ops
from coral_jax.models.generator import Generator

MAPPER_LAYERS = 4
MAPPER_LR_MUL = 0.01
MAPPER_SCALE = 0.1
UNDOING = 8  # rounds in which `Undoing` looks for the face before an edit; on toons each leaves a fifth of the error
MEDIUM, FINE = 16, 64  # px of the features from which a group of the mapper starts: 5th and 9th code of a StyleGAN2


class Editor(nnx.Module):
    """What all editors have in common: what they need besides the networks of a domain."""

    per_face = False  # has a delta for each face, found for it alone
    from_text = False  # follows from the prompt and the domain's style channels
    reads_face = False  # delta depends on the face that it moves

    def __call__(self, w_plus: jax.Array, tau: jax.Array | float = 0.0) -> jax.Array:
        """Delta [B, n, w_dim] of w_plus [B, n_latent, w_dim]; tau is for editors that have a threshold of their own."""
        raise NotImplementedError


class GlobalDirection(Editor):
    """One delta for every image, [n, w_dim]; zero at first, so that training starts from the original image.

    Zero is no stationary point: the CLIP term has a gradient in delta there (the masks have none until delta moves).
    """

    def __init__(self, generator: Generator, layers: Sequence[int], rngs: nnx.Rngs, *, faces: int = 1):
        del rngs, faces  # nothing random, and one delta for all
        self.delta = nnx.Param(jnp.zeros((generator.codes_read(layers), generator.w_dim)))

    def __call__(self, w_plus: jax.Array, tau: jax.Array | float = 0.0) -> jax.Array:
        """Delta [B, n, w_dim], the same for each w_plus [B, n_latent, w_dim]."""
        return jnp.broadcast_to(self.delta[...], (w_plus.shape[0], *self.delta.shape))


class MapperMLP(nnx.Module):
    """Pixel norm, then four equalised linear layers with leaky ReLU between them and none after the last."""

    def __init__(self, w_dim: int, rngs: nnx.Rngs):
        layers = [ops.EqualLinear(w_dim, w_dim, rngs, lr_mul=MAPPER_LR_MUL) for _ in range(MAPPER_LAYERS)]
        self.layers = nnx.List(layers)

    def __call__(self, w: jax.Array) -> jax.Array:
        """Map codes w [..., w_dim] one by one to [..., w_dim]."""
        x = self.layers[0](ops.pixel_norm(w))
        for layer in list(self.layers)[1:]:
            x = layer(ops.leaky_relu(x))
        return x


class LatentMapper(Editor):
    """A delta for each image: StyleCLIP's mapper, one MLP each for coarse, medium and fine layers.

    Differs from StyleCLIP's own (`baselines.styleclip`) as the paper says: no activation after the last layer, and pixel
    norm over channels.  Groups past the edited layers are left out.
    """

    reads_face = True
    all_codes = False  # moves the codes that the edited layers read, or all

    def __init__(self, generator: Generator, layers: Sequence[int], rngs: nnx.Rngs, *, faces: int = 1):
        del faces  # one mapper for all
        self.groups = groups(generator, generator.n_latent if self.all_codes else generator.codes_read(layers))
        for name, _, _ in self.groups:
            setattr(self, name, MapperMLP(generator.w_dim, rngs))

    def __call__(self, w_plus: jax.Array, tau: jax.Array | float = 0.0) -> jax.Array:
        """Delta [B, n, w_dim] of w_plus [B, n_latent, w_dim]."""
        deltas = [getattr(self, name)(w_plus[:, start:stop]) for name, start, stop in self.groups]
        return MAPPER_SCALE * jnp.concatenate(deltas, axis=1)


class Undoing(Editor):
    """The delta that an editor's edit has added to a face w, so that alpha -1 takes it back.

    An editor reads the face before the edit, u, and -delta(w) is not the way back to it.  u + delta(u) = w is solved by
    u <- w - delta(u), which converges where delta moves less than the face does.
    """

    reads_face = True

    def __init__(self, editor: Editor):
        self.editor = editor

    def __call__(self, w_plus: jax.Array, tau: jax.Array | float = 0.0) -> jax.Array:
        """Delta [B, n, w_dim] of u, for the edited faces w_plus [B, n_latent, w_dim]."""
        delta = self.editor(w_plus, tau)
        for _ in range(UNDOING):
            delta = self.editor(w_plus.at[:, : delta.shape[1]].add(-delta), tau)
        return delta


def groups(generator: Generator, codes: int) -> tuple[tuple[str, int, int], ...]:
    """(name, first row, row after the last) of coarse, medium and fine among the first `codes` rows; empty ones left out.

    A row belongs where the features are that its layer reads: below 16 px coarse, below 64 px medium, else fine; one that
    only ToRGB reads goes with the row before it.  These are StyleCLIP's rows 0 to 3, 4 to 7, and 8 and up, of any StyleGAN2.
    """
    read = [generator.layers[0].resolution] + [layer.resolution for layer in generator.layers[:-1]]
    sizes = {row: size for layer, size in zip(generator.layers, read, strict=True) for row in layer.rows}
    medium, fine = (
        next((row for row in range(codes) if sizes.get(row, 0) >= size), codes) for size in (MEDIUM, FINE)
    )
    bounds = (("coarse", 0, medium), ("medium", medium, fine), ("fine", fine, codes))
    return tuple(bound for bound in bounds if bound[1] < bound[2])
