"""Face-identity weights, IR-SE50 as `model_ir_se50.pth`, -> this program's.

    python -m converters.identity --checkpoint=model_ir_se50.pth --out=weights/identity.safetensors

Networks with other numbers of units and other widths convert too: both are read from the weights.
"""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from flax import nnx

from converters import command, engine, reading, wrappings
from coral_jax import weights
from coral_jax.models.identity import Identity, IdentityConfig, Unit

IGNORED = (r".*\.num_batches_tracked",)
# Theirs: 1x1 convolutions on the pooled features; ours: linear maps.
_POINTWISE = engine.Layout(lambda theirs: theirs[:, :, 0, 0].T, lambda ours: ours.T[:, :, None, None])


def convert(checkpoint: Path, out: Path) -> str:
    """Convert a file; the line says what was made. ValueError for another network's weights."""
    identity = load(tensors_of(reading.read(checkpoint), str(checkpoint)), str(checkpoint))
    weights.save(out, identity, metadata=command.origin(checkpoint))
    config = identity.config
    return (
        f"{out}: identity network of {sum(config.units)} units, widths {', '.join(map(str, config.widths))}, "
        f"{config.input_size} px to {config.embed_dim} numbers"
    )


def tensors_of(content: object, origin: str) -> dict[str, np.ndarray]:
    """The state dict in what a .pth holds; ValueError where it has no face network."""
    missing = "and no IR-SE face network; give model_ir_se50.pth"
    return wrappings.find(content, ("input_layer.0.weight",), origin, missing).arrays


def load(source: Mapping[str, np.ndarray], origin: str) -> Identity:
    """The network with IR-SE weights `source`; ValueError lists all that does not fit."""
    config = config_of(source)
    identity = nnx.eval_shape(lambda: Identity(config, nnx.Rngs(0)))
    engine.fill(identity, table(config), source, origin, IGNORED, keep_half=True)
    return identity


def config_of(source: Mapping[str, np.ndarray]) -> IdentityConfig:
    """Units and widths from the weights; ValueError where a name that tells them is missing."""
    widths, units = stages(source)
    needed = ("input_layer.0.weight", "body.0.res_layer.3.weight", "output_layer.3.weight")
    if absent := [name for name in needed if name not in source]:
        raise ValueError(f"this is not an IR-SE face network: no {', '.join(absent)}; give model_ir_se50.pth")
    if "body.0.res_layer.5.fc1.weight" not in source:
        raise ValueError("this is an IR network without squeeze-and-excitation; give an IR-SE one, model_ir_se50.pth")
    embed_dim, flat = source["output_layer.3.weight"].shape
    grid = math.isqrt(flat // widths[-1])
    return IdentityConfig(units, widths, grid * 2 ** len(units), embed_dim)


def stages(source: Mapping[str, np.ndarray]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(widths, units) of each stage of an IR-SE body: a stage begins where the channels change or, the first, at unit 0."""
    widths = []
    while (name := f"body.{len(widths)}.res_layer.3.weight") in source:
        widths.append(source[name].shape[0])
    starts = [i for i, width in enumerate(widths) if i == 0 or width != widths[i - 1]]
    units = tuple(stop - start for start, stop in zip(starts, [*starts[1:], len(widths)], strict=True)) if starts else ()
    return tuple(widths[start] for start in starts), units


def table(config: IdentityConfig) -> engine.Table:
    """Our state paths -> IR-SE's names (`input_layer`, `body`, `output_layer`) and layouts."""
    found = body(nnx.eval_shape(lambda: Identity(config, nnx.Rngs(0))).units)
    found |= engine.batch_norm("norm", "output_layer.0") | engine.batch_norm("linear_norm", "output_layer.4")
    found["linear.kernel"] = ("output_layer.3.weight", _flattened(config.widths[-1]))
    found["linear.bias"] = ("output_layer.3.bias", engine.SAME)
    return found


def body(units: Iterable[Unit]) -> engine.Table:
    """Our state paths -> IR-SE's names and layouts, of the stem and these units: what encoders have, too."""
    found = {"stem.kernel": ("input_layer.0.weight", engine.CONV), "stem_prelu.slope": ("input_layer.2.weight", engine.SAME)}
    found |= engine.batch_norm("stem_norm", "input_layer.1")
    for index, unit in enumerate(units):
        ours, theirs = f"units.{index}", f"body.{index}"
        found |= engine.batch_norm(f"{ours}.norm_in", f"{theirs}.res_layer.0")
        found[f"{ours}.conv_in.kernel"] = (f"{theirs}.res_layer.1.weight", engine.CONV)
        found[f"{ours}.prelu.slope"] = (f"{theirs}.res_layer.2.weight", engine.SAME)
        found[f"{ours}.conv_out.kernel"] = (f"{theirs}.res_layer.3.weight", engine.CONV)
        found |= engine.batch_norm(f"{ours}.norm_out", f"{theirs}.res_layer.4")
        found[f"{ours}.squeeze.kernel"] = (f"{theirs}.res_layer.5.fc1.weight", _POINTWISE)
        found[f"{ours}.excite.kernel"] = (f"{theirs}.res_layer.5.fc2.weight", _POINTWISE)
        if unit.has_shortcut:
            found[f"{ours}.shortcut.kernel"] = (f"{theirs}.shortcut_layer.0.weight", engine.CONV)
            found |= engine.batch_norm(f"{ours}.shortcut_norm", f"{theirs}.shortcut_layer.1")
    return found


def _flattened(channels: int) -> engine.Layout:
    """Theirs flattens channels, rows, columns; ours rows, columns, channels."""

    def read(theirs: np.ndarray) -> np.ndarray:
        grid = math.isqrt(theirs.shape[1] // channels)
        return theirs.reshape(-1, channels, grid, grid).transpose(2, 3, 1, 0).reshape(-1, theirs.shape[0])

    def write(ours: np.ndarray) -> np.ndarray:
        grid = math.isqrt(ours.shape[0] // channels)
        return ours.reshape(grid, grid, channels, -1).transpose(3, 2, 0, 1).reshape(-1, ours.shape[0])

    return engine.Layout(read, write)


if __name__ == "__main__":
    command.run(convert)
