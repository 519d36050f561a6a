"""StyleGAN2 weights of rosinality/stylegan2-pytorch and of NVIDIA's programs -> this program's.

    python -m converters.stylegan2 --checkpoint=stylegan2-ffhq-config-f.pt --out=weights/generator.safetensors

Read: rosinality's .pt (StyleGAN-nada writes the same), the generator in e4e's and pSp's .pt, the .pkl of
stylegan2-ada-pytorch and of stylegan3's repository where it holds a StyleGAN2, the TensorFlow .pkl of stylegan2 and
stylegan2-ada, and the .safetensors of converters.export; through the keys and prefixes of converters.wrappings.
Sizes, widths and mapping depth come from the weights. Not taken over: the limit on activations (conv_clamp) with which
stylegan2-ada-pytorch guards its float16 layers.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from converters import command, reading
from converters.engine import CONV, IMAGE, LINEAR, MODULATED, ONE, SAME, Layout, Table, fill, with_leading_ones
from converters.stylegan2_source import CONSTANTS, READ, arrays_of, check_picture
from coral_jax import weights
from coral_jax.models.stylegan2 import StyleGAN2, StyleGAN2Config
from coral_jax.runtime.numerics import key_of

AVERAGED = 100_000  # number of w that w_avg is estimated from, where a checkpoint has none
FILTERS = (r".*\.blur\.kernel", r".*\.upsample\.kernel", r".*\.resample_filter")  # stored with the weights, compared

_RGB_BIAS = Layout(lambda theirs: theirs[0, :, 0, 0], lambda ours: ours[np.newaxis, :, np.newaxis, np.newaxis])
# TensorFlow's up-sampling is a true convolution, and its styles have their 1 added when they are used.
_FLIPPED = Layout(lambda theirs: theirs[::-1, ::-1], lambda ours: ours[::-1, ::-1])
_LESS_ONE = Layout(lambda theirs: theirs + np.float32(1), lambda ours: ours - np.float32(1))

_Leaves = dict[str, tuple[str, Layout]]  # a name within one of our modules -> the same in theirs
_NVIDIA_LINEAR: _Leaves = {"kernel": ("weight", LINEAR), "bias": ("bias", SAME)}
_NVIDIA_RGB: _Leaves = {
    "kernel": ("weight", CONV), "bias": ("bias", SAME),
    "modulation.kernel": ("affine.weight", LINEAR), "modulation.bias": ("affine.bias", SAME),
}  # fmt: skip
_NVIDIA_CONV = _NVIDIA_RGB | {"noise": ("noise_const", SAME), "noise_strength": ("noise_strength", SAME)}
_ROSINALITY_RGB: _Leaves = {
    "kernel": ("conv.weight", MODULATED), "bias": ("bias", _RGB_BIAS),
    "modulation.kernel": ("conv.modulation.weight", LINEAR), "modulation.bias": ("conv.modulation.bias", SAME),
}  # fmt: skip
_ROSINALITY_CONV = _ROSINALITY_RGB | {"bias": ("activate.bias", SAME), "noise_strength": ("noise.weight", ONE)}
_TENSORFLOW_LINEAR: _Leaves = {"kernel": ("weight", SAME), "bias": ("bias", SAME)}
_TENSORFLOW_RGB = _TENSORFLOW_LINEAR | {
    "modulation.kernel": ("mod_weight", SAME), "modulation.bias": ("mod_bias", _LESS_ONE),
}  # fmt: skip
_TENSORFLOW_CONV = _TENSORFLOW_RGB | {"noise_strength": ("noise_strength", SAME)}


def convert(checkpoint: Path, out: Path) -> str:
    """Convert a file; the lines say what was made and what had to be made up. ValueError for what is not a StyleGAN2."""
    generator, notes = load(reading.read(checkpoint), str(checkpoint))
    weights.save(out, generator, metadata=command.origin(checkpoint))
    return "\n".join([*notes, f"{out}: {describe(generator)}"])


def describe(generator: StyleGAN2) -> str:
    """One line with a generator's sizes."""
    config = generator.config
    widths = ", ".join(str(channels) for _, channels in config.channels)
    return (
        f"StyleGAN2 of {config.size} px, {generator.n_latent} codes of {config.w_dim}, {config.mapping_layers} mapping layers, "
        f"channels {widths} from 4 px up"
    )


def load(content: object, origin: str) -> tuple[StyleGAN2, list[str]]:
    """The generator in what `reading.read` gave, and notes on what the checkpoint lacked and how it was replaced.

    ValueError for other networks, for another resampling filter, and, all at once, for arrays that do not fit.
    """
    source, notes = arrays_of(content, origin)
    config, table = _match(source, origin)
    check_picture(source, table, config, origin)
    generator = nnx.eval_shape(lambda: StyleGAN2(config, nnx.Rngs(0)))
    shapes = weights.named_variables(generator)
    noises = [name for name in table if name.endswith(".noise")]
    if not any(table[name][0] in source for name in noises):
        notes.append(f"{origin} has no stored noise: drawn from seed 0, so details such as strands of hair are ours")
        rng = np.random.default_rng(0)
        for name in noises:
            there, layout = table[name]
            source[there] = layout.write(rng.standard_normal(shapes[name].shape, np.float32))
    averaged = table["w_avg"][0] in source
    if not averaged:
        source[table["w_avg"][0]] = np.zeros(config.w_dim, np.float32)
    fill(generator, table, source, origin, FILTERS)
    if not averaged:
        notes.append(f"{origin} has no mean w ({table['w_avg'][0]}): w_avg is estimated from {AVERAGED:,} w")
        generator.w_avg.set_value(estimated_w_avg(generator))
    return generator, notes


def estimated_w_avg(generator: StyleGAN2) -> jax.Array:
    """Mean [w_dim] of w for 100,000 z ~ N(0, I), always the same ones."""

    @jax.jit
    def mean(mapping: nnx.Module, key: jax.Array) -> jax.Array:
        return mapping(jax.random.normal(key, (AVERAGED // 10, generator.z_dim))).mean(axis=0)

    keys = jax.random.split(key_of(0), 10)
    return jnp.mean(jnp.stack([mean(generator.mapping, key) for key in keys]), axis=0)


# --- sizes, names and layouts ---------------------------------------------------------------------------------------------


def _match(source: Mapping[str, np.ndarray], origin: str) -> tuple[StyleGAN2Config, Table]:
    """The sizes of the source's generator and the table of its implementation, told by the name of its constant input."""
    forms = ((rosinality_config, rosinality_table), (nvidia_config, nvidia_table), (tensorflow_config, tensorflow_table))
    config_of, table_of = next(form for constant, form in zip(CONSTANTS, forms, strict=True) if constant in source)
    config = config_of(source, origin)
    return config, table_of(config)


def rosinality_config(source: Mapping[str, np.ndarray], origin: str) -> StyleGAN2Config:
    """Sizes of a state dict of rosinality/stylegan2-pytorch; ValueError names an array that is needed and missing."""
    biases = [_shape(source, "conv1.activate.bias", origin)]
    while (name := f"convs.{2 * len(biases) - 1}.activate.bias") in source:
        biases.append(source[name].shape)
    depth = _count(source, "style.{}.weight", 1)
    w_dim = _shape(source, "conv1.conv.modulation.weight", origin, 2)[1]
    return _config(_shape(source, "style.1.weight", origin, 2)[1], w_dim, depth, [shape[0] for shape in biases], origin)


def nvidia_config(source: Mapping[str, np.ndarray], origin: str) -> StyleGAN2Config:
    """Sizes of a generator of stylegan2-ada-pytorch; ValueError names an array that is needed and missing."""
    widths = [_shape(source, "synthesis.b4.conv1.weight", origin, 4)[0]]
    while (name := f"synthesis.b{4 * 2 ** len(widths)}.conv1.weight") in source:
        widths.append(source[name].shape[0])
    depth = _count(source, "mapping.fc{}.weight", 0)
    w_dim = _shape(source, "synthesis.b4.conv1.affine.weight", origin, 2)[1]
    return _config(_shape(source, "mapping.fc0.weight", origin, 2)[1], w_dim, depth, widths, origin)


def tensorflow_config(source: Mapping[str, np.ndarray], origin: str) -> StyleGAN2Config:
    """Sizes of a TensorFlow generator; ValueError names an array that is needed and missing."""
    widths = [_shape(source, "synthesis/4x4/Conv/weight", origin, 4)[3]]
    while (name := f"synthesis/{_times(4 * 2 ** len(widths))}/Conv1/weight") in source:
        widths.append(source[name].shape[-1])
    depth = _count(source, "mapping/Dense{}/weight", 0)
    w_dim = _shape(source, "synthesis/4x4/Conv/mod_weight", origin, 2)[0]
    return _config(_shape(source, "mapping/Dense0/weight", origin, 2)[0], w_dim, depth, widths, origin)


def rosinality_table(config: StyleGAN2Config) -> Table:
    """Our state paths -> names and layouts of rosinality/stylegan2-pytorch; w_avg is the checkpoint's latent_avg."""
    table = {"input": ("input.input", with_leading_ones(IMAGE, 1)), "w_avg": ("latent_avg", SAME)}
    for index in range(config.mapping_layers):
        table |= _renamed(f"mapping.layers.{index}", f"style.{index + 1}.", _NVIDIA_LINEAR)
    for conv, _, _ in _convs(config):
        table |= _renamed(f"convs.{conv}", f"convs.{conv - 1}." if conv else "conv1.", _ROSINALITY_CONV)
        table[f"convs.{conv}.noise"] = (f"noises.noise_{conv}", with_leading_ones(SAME, 2))
    for block in range(len(config.channels)):
        table |= _renamed(f"to_rgbs.{block}", f"to_rgbs.{block - 1}." if block else "to_rgb1.", _ROSINALITY_RGB)
    return table


def nvidia_table(config: StyleGAN2Config) -> Table:
    """Our state paths -> names and layouts of stylegan2-ada-pytorch and of stylegan3's repository."""
    table = {"input": ("synthesis.b4.const", IMAGE), "w_avg": ("mapping.w_avg", SAME)}
    for index in range(config.mapping_layers):
        table |= _renamed(f"mapping.layers.{index}", f"mapping.fc{index}.", _NVIDIA_LINEAR)
    for conv, resolution, up in _convs(config):
        table |= _renamed(f"convs.{conv}", f"synthesis.b{resolution}.conv{0 if up else 1}.", _NVIDIA_CONV)
    for block, (resolution, _) in enumerate(config.channels):
        table |= _renamed(f"to_rgbs.{block}", f"synthesis.b{resolution}.torgb.", _NVIDIA_RGB)
    return table


def tensorflow_table(config: StyleGAN2Config) -> Table:
    """Our state paths -> names and layouts of the TensorFlow programs (facts: stylegan2-ada-pytorch's legacy.py)."""
    constant = ("synthesis/4x4/Const/const", with_leading_ones(IMAGE, 1))
    table = {"input": constant, "w_avg": ("dlatent_avg", SAME)}
    for index in range(config.mapping_layers):
        table |= _renamed(f"mapping.layers.{index}", f"mapping/Dense{index}/", _TENSORFLOW_LINEAR)
    for conv, resolution, up in _convs(config):
        name = "Conv0_up" if up else "Conv1" if conv else "Conv"
        leaves = _TENSORFLOW_CONV | ({"kernel": ("weight", _FLIPPED)} if up else {})
        table |= _renamed(f"convs.{conv}", f"synthesis/{_times(resolution)}/{name}/", leaves)
        table[f"convs.{conv}.noise"] = (f"synthesis/noise{conv}", with_leading_ones(SAME, 2))
    for block, (resolution, _) in enumerate(config.channels):
        table |= _renamed(f"to_rgbs.{block}", f"synthesis/{_times(resolution)}/ToRGB/", _TENSORFLOW_RGB)
    return table


def _convs(config: StyleGAN2Config) -> Iterator[tuple[int, int, bool]]:
    """Of each convolution, in order: its index, its resolution, whether it doubles the resolution."""
    for block, (resolution, _) in enumerate(config.channels):
        if block:
            yield 2 * block - 1, resolution, True
        yield 2 * block, resolution, False


def _renamed(ours: str, theirs: str, leaves: _Leaves) -> Table:
    return {f"{ours}.{leaf}": (theirs + name, layout) for leaf, (name, layout) in leaves.items()}


def _times(resolution: int) -> str:
    return f"{resolution}x{resolution}"


def _count(source: Mapping[str, np.ndarray], pattern: str, first: int) -> int:
    count = 0
    while pattern.format(first + count) in source:
        count += 1
    return count


def _shape(source: Mapping[str, np.ndarray], name: str, origin: str, rank: int = 1) -> tuple[int, ...]:
    """The shape of an array that tells a size."""
    if name not in source:
        raise ValueError(f"{origin} is not a StyleGAN2 generator: no {name}; {READ}")
    if source[name].ndim != rank:
        raise ValueError(f"{origin} is not a StyleGAN2 generator: {name} has the shape {source[name].shape}; {READ}")
    return source[name].shape


def _config(z_dim: int, w_dim: int, depth: int, widths: list[int], origin: str) -> StyleGAN2Config:
    if len(widths) < 2:
        raise ValueError(f"{origin} is not a StyleGAN2 generator: it has no block beyond 4 px; {READ}")
    channels = tuple((4 * 2**block, width) for block, width in enumerate(widths))
    return StyleGAN2Config(channels[-1][0], z_dim, w_dim, depth, channels)


if __name__ == "__main__":
    command.run(convert)
