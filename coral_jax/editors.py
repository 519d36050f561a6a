"""Latent editors: what moves w_plus (paper section 3.4, and StyleCLIP's).

Each maps w_plus [B, n_latent, w_dim] to delta [B, n, w_dim] of the n edited layers.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from coral_jax.models import ops

MAPPER_LAYERS = 4
MAPPER_LR_MUL = 0.01
MAPPER_SCALE = 0.1
GROUPS = {"coarse": (0, 4), "medium": (4, 8), "fine": (8, None)}  # rows of w_plus: layers 1-4, 5-8, 9 and up


@dataclass(frozen=True)
class EditorConfig:
    """Sizes of a latent editor: the layers it edits, counted from the first, and the width of a code.

    `faces` is how many faces it is for, which only an editor with a delta for each face reads.
    """

    edit_layers: int
    w_dim: int
    faces: int = 1


class GlobalDirection(nnx.Module):
    """One delta for every image, [n, w_dim]; zero at first, so that training starts from the original image.

    Zero is no stationary point: the CLIP term has a gradient in delta there (the masks have none until delta moves).
    """

    def __init__(self, config: EditorConfig, rngs: nnx.Rngs):
        del rngs  # nothing random
        self.config = config
        self.delta = nnx.Param(jnp.zeros((config.edit_layers, config.w_dim)))

    def __call__(self, w_plus: jax.Array) -> jax.Array:
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


class LatentMapper(nnx.Module):
    """A delta for each image: StyleCLIP's mapper, one MLP each for coarse, medium and fine layers.

    Differs from StyleCLIP's `LevelsMapper` as the paper says (no activation after the last layer), and in normalising
    over channels, where StyleCLIP's normalises over the layers of a group.  Groups past the edited layers are left out.
    """

    def __init__(self, config: EditorConfig, rngs: nnx.Rngs):
        self.config = config
        for name, (start, _) in GROUPS.items():
            if start < config.edit_layers:
                setattr(self, name, MapperMLP(config.w_dim, rngs))

    def __call__(self, w_plus: jax.Array) -> jax.Array:
        """Delta [B, n, w_dim] of w_plus [B, n_latent, w_dim]."""
        codes = w_plus[:, : self.config.edit_layers]
        deltas = [getattr(self, name)(codes[:, start:stop]) for name, (start, stop) in GROUPS.items() if hasattr(self, name)]
        return MAPPER_SCALE * jnp.concatenate(deltas, axis=1)


class LevelsMapper(LatentMapper):
    """StyleCLIP's own mapper: as `LatentMapper`, with the two things that CORAL's leaves out.

    Pixel norm runs over the layers of a group (its `dim=1` of [B, layers, w_dim]), so that of codes drawn from one w,
    which are the same in every layer, only the signs are left; and the last linear layer, too, ends in a leaky ReLU.
    """

    def __call__(self, w_plus: jax.Array) -> jax.Array:
        """Delta [B, n, w_dim] of w_plus [B, n_latent, w_dim]."""
        codes = w_plus[:, : self.config.edit_layers]
        deltas = []
        for name, (start, stop) in GROUPS.items():
            if hasattr(self, name):
                x = jnp.swapaxes(ops.pixel_norm(jnp.swapaxes(codes[:, start:stop], 1, 2)), 1, 2)
                for layer in getattr(self, name).layers:
                    x = ops.leaky_relu(layer(x))
                deltas.append(x)
        return MAPPER_SCALE * jnp.concatenate(deltas, axis=1)


class FaceDeltas(nnx.Module):
    """A delta for each of `faces` faces, [faces, n, w_dim], found for it alone; zero at first."""

    def __init__(self, config: EditorConfig, rngs: nnx.Rngs):
        del rngs  # nothing random
        self.config = config
        self.delta = nnx.Param(jnp.zeros((config.faces, config.edit_layers, config.w_dim)))

    def __call__(self, w_plus: jax.Array) -> jax.Array:
        """Delta [B, n, w_dim] of the faces w_plus [B, n_latent, w_dim], which must be those that it was found for."""
        if w_plus.shape[0] != self.config.faces:
            raise ValueError(f"{w_plus.shape[0]} faces for the deltas of {self.config.faces}; find those of the others first")
        return self.delta[...]
