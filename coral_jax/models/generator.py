"""What every generator offers to CORAL, the latent editors and the figures."""

from dataclasses import dataclass
from typing import Protocol

import jax


@dataclass(frozen=True)
class Layer:
    """One convolution of a generator.  `index` counts from 1, as in the paper.

    `w_index` is the row of w_plus that it reads; `rgb_w_index` the row its ToRGB reads, None where it has no ToRGB.
    """

    index: int
    resolution: int
    channels: int
    w_index: int
    rgb_w_index: int | None


class Generator(Protocol):
    """A network that draws w_plus [B, n_latent, w_dim] as a sum of ToRGB images over its layers (paper section 3.1)."""

    @property
    def n_latent(self) -> int:
        """Number of codes in w_plus."""

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The convolutions, in order."""

    @property
    def z_dim(self) -> int:
        """Width of z."""

    @property
    def w_dim(self) -> int:
        """Width of one code."""

    w_avg: jax.Array
    content_rows: tuple[int, int] | None
    """(first, end) of the image's rows that are the picture, where the rest are bars; `rgb` and `synthesis` leave bars out."""

    def mapping(self, z: jax.Array) -> jax.Array:
        """Map z [B, z_dim] to w [B, w_dim]."""

    def truncate(self, w: jax.Array, psi: float) -> jax.Array:
        """Move w [B, ..., w_dim] towards w_avg; psi 1 changes nothing."""

    def broadcast(self, w: jax.Array) -> jax.Array:
        """Repeat w [B, w_dim] to w_plus [B, n_latent, w_dim]."""

    def constant(self, batch: int) -> jax.Array:
        """Input of the first layer, [batch, h, w, C]."""

    def layer(self, index: int, x: jax.Array, w: jax.Array) -> jax.Array:
        """Features of layer `index` (from 1) for the features x before it and its code w [B, w_dim].

        It is `styled_layer(index, x, style(index, w))`.
        """

    def style(self, index: int, w: jax.Array) -> jax.Array:
        """Style [B, C_in] of layer `index` under its code w [B, w_dim]: its part of StyleSpace."""

    def styled_layer(self, index: int, x: jax.Array, style: jax.Array) -> jax.Array:
        """Features of layer `index` for the features x before it and its style [B, C_in]."""

    def styles(self, w_plus: jax.Array) -> tuple[jax.Array, ...]:
        """Style of every layer, in order, under w_plus [B, n_latent, w_dim]; those of ToRGB are left out."""

    def rgb(self, index: int, x: jax.Array, w: jax.Array, image: jax.Array | None) -> jax.Array | None:
        """Add layer `index`'s ToRGB of its features x to the image so far; unchanged where the layer has none.

        What the last one gives is the image, [B, size, size, 3] or, with `content_rows`, [B, rows, size, 3].
        """

    def synthesis(self, w_plus: jax.Array) -> jax.Array:
        """Draw w_plus as images [B, size, size, 3] (or as `rgb` says), nominally in [-1, 1], not clipped."""

    def lower(self, resolution: int) -> "Generator":
        """The same network up to `resolution` px; ValueError where it has no such layers."""
