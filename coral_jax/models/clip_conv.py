"""An image tower for aligned pictures: strided convolutions, and one flat layer that keeps every position apart.

What is where in an aligned face is fixed, so a small part, an iris or the lips, has weights of its own.  A vision transformer
of the same cost is slow to find such parts.
"""

import jax
import jax.numpy as jnp
from flax import nnx


class ConvTower(nnx.Module):
    """Convolutions of stride 2, each with a layer norm and GELU; a flat layer over the last map; a projection."""

    def __init__(self, image_size: int, widths: tuple[int, ...], hidden: int, embed_dim: int, rngs: nnx.Rngs):
        """widths: channels after each convolution, which halves the resolution; hidden: width of the flat layer."""
        inputs = (3, *widths[:-1])
        sizes = [5] + [3] * (len(widths) - 1)
        self.convs = nnx.List(
            [nnx.Conv(i, o, (k, k), strides=2, rngs=rngs) for i, o, k in zip(inputs, widths, sizes, strict=True)]
        )
        self.norms = nnx.List([nnx.LayerNorm(width, rngs=rngs) for width in widths])
        side = image_size // 2 ** len(widths)
        self.flat = nnx.Linear(side * side * widths[-1], hidden, rngs=rngs)
        self.flat_norm = nnx.LayerNorm(hidden, rngs=rngs)
        self.proj = nnx.Linear(hidden, embed_dim, use_bias=False, rngs=rngs)

    @property
    def dtype(self) -> jnp.dtype:
        """The type of the weights, in which the tower computes."""
        return self.proj.kernel.dtype

    def __call__(self, pixels: jax.Array) -> jax.Array:
        """pixels [B, S, S, 3], normalised -> features [B, embed_dim]."""
        x = self._maps(pixels)[-1]
        return self.proj(jax.nn.gelu(self.flat_norm(self.flat(x.reshape(len(x), -1)))))

    def patches(self, pixels: jax.Array) -> list[jax.Array]:
        """pixels [B, S, S, 3], normalised -> after each convolution, its positions [B, H W, channels]."""
        return [x.reshape(len(x), -1, x.shape[-1]) for x in self._maps(pixels)]

    def _maps(self, x: jax.Array) -> list[jax.Array]:
        found = []
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = jax.nn.gelu(norm(conv(x)))
            found.append(x)
        return found
