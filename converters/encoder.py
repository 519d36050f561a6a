"""The encoder in e4e's and pSp's checkpoints -> this program's.

    python -m converters.encoder --checkpoint=e4e_ffhq_encode.pt --out=weights/encoder.safetensors
    python -m converters.stylegan2 --checkpoint=e4e_ffhq_encode.pt --out=weights/generator.safetensors

The file holds an encoder, the generator that it was trained for and that one's mean code, and the two commands take all three.
`python -m converters.domain --encoder=weights/encoder.safetensors` makes it a part of the domain.  Codes, units and widths are
read from the weights; which of the two rules makes codes of its heads' outputs, from the checkpoint's `opts`, else from --kind.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from flax import nnx

from converters import command, engine, identity, reading, wrappings
from coral_jax import weights
from coral_jax.models.encoder import PyramidEncoder, PyramidEncoderConfig

KINDS = {"e4e": True, "psp": False}  # whether codes are offsets to the first one
_TYPES = {"Encoder4Editing": "e4e", "GradualStyleEncoder": "psp"}  # opts["encoder_type"] -> kind
_PREFIX, _MARKER = "encoder.", "encoder.styles.0.convs.0.weight"


def convert(checkpoint: Path, out: Path, kind: str | None = None) -> str:
    """Convert a file; the line says what was made. ValueError for another network's weights."""
    encoder = load(reading.read(checkpoint), str(checkpoint), kind)
    weights.save(out, encoder, metadata=command.origin(checkpoint))
    config = encoder.config
    name = next(name for name, offsets in KINDS.items() if offsets == config.offsets)
    return f"{out}: encoder of {name}'s rule, {config.image_size} px to {config.n_latent} codes of {config.w_dim}"


def load(content: object, origin: str, kind: str | None = None) -> PyramidEncoder:
    """The encoder in what `reading.read` gave; ValueError for what does not fit, and where nothing says the kind."""
    missing = "and no encoder of e4e or pSp; give a file such as e4e_ffhq_encode.pt"
    found = wrappings.find(content, (_MARKER,), origin, missing)
    source = {name.removeprefix(_PREFIX): array for name, array in found.arrays.items() if name.startswith(_PREFIX)}
    average = next((m["latent_avg"] for m in found.around if isinstance(m.get("latent_avg"), np.ndarray)), None)
    if average is None:
        raise ValueError(f"{origin} has no latent_avg, to which its codes are added; give the whole checkpoint")
    config = config_of(source, _offsets(found.around, origin, kind), origin)
    encoder = nnx.eval_shape(lambda: PyramidEncoder(config, nnx.Rngs(0)))
    source["latent_avg"] = np.broadcast_to(average, (config.n_latent, config.w_dim)) if average.ndim == 1 else average
    engine.fill(encoder, table(config), source, origin, identity.IGNORED, keep_half=True)
    return encoder


def _offsets(around: tuple[Mapping, ...], origin: str, kind: str | None) -> bool:
    """Whether codes are offsets to the first one."""
    if kind is not None and kind not in KINDS:
        raise ValueError(f"--kind is {kind!r}; give one of {', '.join(KINDS)}")
    opts = next((m["opts"] for m in around if isinstance(m.get("opts"), Mapping)), {})
    said = _TYPES.get(opts.get("encoder_type"))
    if said is None and kind is None:
        raise ValueError(f"{origin} does not say whether it is e4e's or pSp's; add --kind=e4e or --kind=psp")
    if said is not None and kind not in (None, said):
        raise ValueError(f"{origin} says that it is of the kind {said}, and --kind says {kind}; leave --kind out")
    return KINDS[kind or said]


def config_of(source: Mapping[str, np.ndarray], offsets: bool, origin: str) -> PyramidEncoderConfig:
    """Codes, units and widths from the weights; the picture's size from how often the first head halves the coarsest level."""
    widths, units = identity.stages(source)
    n_latent = sum(f"styles.{i}.linear.weight" in source for i in range(len(source)))
    convs = sum(f"styles.0.convs.{2 * i}.weight" in source for i in range(16))
    if not widths or "body.0.res_layer.5.fc1.weight" not in source:
        raise ValueError(f"{origin}: its encoder has no IR-SE body; give e4e's or pSp's encoder of W+ codes")
    return PyramidEncoderConfig(n_latent, offsets, units, widths, 2 ** (convs + len(units)))


def table(config: PyramidEncoderConfig) -> engine.Table:
    """Our state paths -> e4e's names (without `encoder.`) and layouts."""
    shapes = nnx.eval_shape(lambda: PyramidEncoder(config, nnx.Rngs(0)))
    found = identity.body(shapes.units) | {"mean": ("latent_avg", engine.SAME)}
    for code in range(config.n_latent):
        ours, theirs = f"heads.{code}", f"styles.{code}"
        for index in range(config.head_convs(code)):
            found |= _layer(f"{ours}.convs.{index}", f"{theirs}.convs.{2 * index}", engine.CONV)
        found |= _layer(f"{ours}.linear", f"{theirs}.linear", engine.LINEAR)
    return found | _layer("lateral_middle", "latlayer1", engine.CONV) | _layer("lateral_fine", "latlayer2", engine.CONV)


def _layer(ours: str, theirs: str, layout: engine.Layout) -> engine.Table:
    return {f"{ours}.kernel": (f"{theirs}.weight", layout), f"{ours}.bias": (f"{theirs}.bias", engine.SAME)}


if __name__ == "__main__":
    command.run(convert, kind="e4e or psp, where the checkpoint does not say it.")
