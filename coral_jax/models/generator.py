"""What every generator is to CORAL, the latent editors and the figures.

A generator draws w_plus [B, n_latent, w_dim] layer by layer (paper section 3.1).  `Generator` has all that follows from a
few methods of a network's own; `coral_jax.models.stylegan2` is the first network, `docs/extending.md` shows how to add one.
"""

import abc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from coral_jax.models import ops

Styles = tuple[jax.Array, ...]  # of the rows of w_plus that layers read, in order: [B, C_in], or [C_in] for every face


@dataclass(frozen=True)
class Layer:
    """One layer of a generator, whose features a mask can blend.  `index` counts from 1, as in the paper.

    `rows` are the rows of w_plus that it reads, one for each operation that a style modulates; `rgb_row` is the row that
    its ToRGB reads, None where it has no ToRGB.  Rows count up through the layers: the first layers read the first rows.
    """

    index: int
    resolution: int
    channels: int
    rows: tuple[int, ...]
    rgb_row: int | None = None

    def codes(self, w_plus: jax.Array) -> tuple[jax.Array, ...]:
        """The codes [B, w_dim] of w_plus [B, n_latent, w_dim] that the layer reads."""
        return tuple(w_plus[:, row] for row in self.rows)


class Generator(nnx.Module):
    """A network that draws w_plus as a picture.

    A subclass has `config` (with `z_dim` and `w_dim`), a network `mapping` (z [B, z_dim] -> w [B, w_dim]), a variable
    `w_avg` [w_dim], and the abstract methods below.  `content_rows` (static): (first, end) of the image's rows that are the
    picture, where the rest are bars; whatever is drawn comes without bars.  `edited_resolution` (static): px of the last
    layers that CORAL edits, where it is not the paper's 256; `uncut` (static): number of layers before the generator was cut
    for losses that see a lower image.
    """

    content_rows: tuple[int, int] | None = None
    edited_resolution: int | None = None
    uncut: int | None = None

    # ---- what a network says of itself -------------------------------------------------------------------------------

    @property
    @abc.abstractmethod
    def layers(self) -> tuple[Layer, ...]:
        """The layers, in order."""

    @abc.abstractmethod
    def constant(self, batch: int) -> jax.Array:
        """Input of the first layer, [batch, h, w, C]."""

    @abc.abstractmethod
    def style(self, row: int, w: jax.Array) -> jax.Array:
        """Style [B, C_in] that the code w [B, w_dim] gives to what row `row` of w_plus modulates: its part of StyleSpace."""

    @abc.abstractmethod
    def styled_layer(self, index: int, x: jax.Array, styles: Sequence[jax.Array]) -> jax.Array:
        """Features [B, h, w, C] of layer `index`, from the features x before it and its styles [B, C_in], one for each row."""

    @abc.abstractmethod
    def add_rgb(self, index: int, x: jax.Array, w: jax.Array, image: jax.Array | None) -> jax.Array:
        """The image so far (None: nothing yet), up-sampled to layer `index`, plus the layer's ToRGB of x under the code w.

        Called for layers with an `rgb_row` only; what the last of them gives is the image [B, size, size, 3].
        """

    @abc.abstractmethod
    def lower(self, resolution: int) -> "Generator":
        """The same network up to `resolution` px, one of `sizes`; ValueError for another."""

    @staticmethod
    def stays_float32(path: tuple) -> bool:
        """Whether the parameter at `path` stays float32 when the network computes in another type (`models.precision`).

        All do but what the features' type follows: the input, and kernels outside the mapping and the styles.
        """
        return "mapping" in path or "modulation" in path or path[-1] not in ("input", "kernel")

    # ---- what follows ------------------------------------------------------------------------------------------------

    @property
    def z_dim(self) -> int:
        """Width of z."""
        return self.config.z_dim

    @property
    def w_dim(self) -> int:
        """Width of one code."""
        return self.config.w_dim

    @property
    def n_latent(self) -> int:
        """Number of codes in w_plus."""
        return 1 + max(max(*layer.rows, layer.rgb_row or 0) for layer in self.layers)

    @property
    def size(self) -> int:
        """Pixels a side of the image, bars included: the last layer's, unless the read-out up-samples."""
        return self.layers[-1].resolution

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes that `lower` draws at, in order."""
        return tuple(dict.fromkeys(layer.resolution for layer in self.layers if layer.resolution >= 8))

    def rows_at(self, size: int) -> tuple[int, int] | None:
        """`content_rows` of the image at another size."""
        return self.content_rows and tuple(row * size // self.size for row in self.content_rows)

    def codes_read(self, layers: Sequence[int]) -> int:
        """How many codes, from the first, the layers of these numbers read; those of ToRGB do not count."""
        return 1 + max(row for number in layers for row in self.layers[number - 1].rows)

    def layers_reading(self, codes: int) -> tuple[Layer, ...]:
        """The layers, from the first, that together read the first `codes` codes; ValueError where there are none such."""
        found = tuple(layer for layer in self.layers if max(layer.rows) < codes)
        if not found or self.codes_read([layer.index for layer in found]) != codes:
            ends = [self.codes_read([layer.index]) for layer in self.layers]
            raise ValueError(f"delta edits {codes} codes; give as many as the first layers of the generator read: {ends}")
        return found

    def truncate(self, w: jax.Array, psi: float) -> jax.Array:
        """Move w [B, ..., w_dim] towards w_avg: w_avg + psi (w - w_avg)."""
        w_avg = ops.of_channels(self.w_avg[...], w)
        return w_avg + psi * (w - w_avg)

    def broadcast(self, w: jax.Array) -> jax.Array:
        """Repeat w [B, w_dim] to w_plus [B, n_latent, w_dim]."""
        return jnp.broadcast_to(w[:, None, :], (w.shape[0], self.n_latent, w.shape[1]))

    def styles(self, w_plus: jax.Array) -> Styles:
        """Style of every row that a layer reads, in order, under w_plus [B, n_latent, w_dim]; those of ToRGB are left out."""
        return tuple(style for layer in self.layers for style in self.layer_styles(layer, layer.codes(w_plus)))

    def layer_styles(self, layer: Layer, codes: Sequence[jax.Array]) -> tuple[jax.Array, ...]:
        """Styles [B, C_in] of a layer under its codes [B, w_dim], one for each row that it reads."""
        return tuple(self.style(row, code) for row, code in zip(layer.rows, codes, strict=True))

    def layer(self, layer: Layer, x: jax.Array, codes: Sequence[jax.Array]) -> jax.Array:
        """Features [B, h, w, C] of a layer, from those before it and its codes [B, w_dim], one for each row that it reads."""
        return self.styled_layer(layer.index, x, self.layer_styles(layer, codes))

    def rgb(self, layer: Layer, x: jax.Array, w: jax.Array | None, image: jax.Array | None) -> jax.Array | None:
        """The image so far with the ToRGB of a layer's features x added; unchanged where the layer has none.

        w [B, w_dim] is the code of the layer's `rgb_row`.  What the last layer gives is the image, [B, size, size, 3] or,
        with `content_rows`, [B, rows, size, 3].
        """
        if layer.rgb_row is None:
            return image
        image = self.add_rgb(layer.index, x, w, image)
        whole = self.content_rows is None or layer.index < len(self.layers)
        return image if whole else image[:, slice(*self.content_rows)]

    def walk(
        self,
        w_plus: jax.Array,
        *,
        start: tuple[int, jax.Array, jax.Array | None] | None = None,
        styles: Mapping[int, Sequence[jax.Array]] | None = None,
    ) -> Iterator[tuple[Layer, jax.Array, jax.Array | None]]:
        """Draw w_plus [B, n_latent, w_dim] layer by layer: (layer, its features, the image so far) after each.

        `start`: a layer's number, the features before it and the image so far, to draw from there on.  `styles`: by a
        layer's number, styles [B, C_in] that take the place of those that w_plus gives it.
        """
        first, x, image = start or (1, self.constant(w_plus.shape[0]), None)
        for layer in self.layers[first - 1 :]:
            if styles and layer.index in styles:
                x = self.styled_layer(layer.index, x, styles[layer.index])
            else:
                x = self.layer(layer, x, layer.codes(w_plus))
            image = self.rgb(layer, x, None if layer.rgb_row is None else w_plus[:, layer.rgb_row], image)
            yield layer, x, image

    def synthesis(self, w_plus: jax.Array, styles: Mapping[int, Sequence[jax.Array]] | None = None) -> jax.Array:
        """Draw w_plus as images [B, size, size, 3] (or as `rgb` says), nominally in [-1, 1], not clipped; see `walk`."""
        for _, _, image in self.walk(w_plus, styles=styles):  # noqa: B007
            pass
        return image
