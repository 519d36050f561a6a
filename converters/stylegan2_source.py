"""What a checkpoint with a StyleGAN2 holds: the generator's arrays, and which other networks are refused by name."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from converters import wrappings
from converters.engine import Table
from converters.pickles import Record
from coral_jax.models.ops import FIR
from coral_jax.models.stylegan2 import MAPPING_LR_MUL, StyleGAN2Config

READ = (
    "read are rosinality's .pt (g_ema, latent_avg), e4e's and pSp's .pt, StyleGAN2 .pkl of stylegan2-ada-pytorch, stylegan3's "
    "repository and TensorFlow, and the .safetensors of converters.export"
)
# Names of the constant input: of rosinality, of NVIDIA's programs in PyTorch, of those in TensorFlow.
CONSTANTS = ("input.input", "synthesis.b4.const", "synthesis/4x4/Const/const")
_TENSORFLOW = ("dnnlib.tflib.network.Network", "tfutils.Network")  # kinds of Records; the second of progressive GANs
FILTER = np.outer(FIR, FIR).astype(np.float32) / 4  # [1, 3, 3, 1] squared, of sum 1: what our up-sampling uses
_CLASSES = "is a conditional generator, which draws classes; give an unconditional StyleGAN2"
_NO_SKIPS = "has no ToRGB in every block (configs a to d, architecture 'resnet' or 'orig'); give a generator of config e or f"
_RELATIVES = (  # by patterns of names
    (r"(^|\.)mapping\.embed_proj\.", "is a StyleGAN-XL, which draws classes; give an unconditional StyleGAN2"),
    (
        r"(^|\.)synthesis\.(input\.|L\d)",
        "is a StyleGAN3; give a StyleGAN2 (stylegan3's repository lists some: stylegan2-*.pkl)",
    ),
    (r"(^|\.)mapping\.embed\.|^mapping/Label(Embed|Concat)/", _CLASSES),
    (r"(^|\.)progression\.|/StyleMod/|^g_(mapping|synthesis)\.", "is a StyleGAN or a progressive GAN; give a StyleGAN2"),
    (r"(^|\.)stylegan_decoder\.", "is a GFPGAN, which restores photographs; give a StyleGAN2, which draws faces from codes"),
    (r"(^|\.)style_mlp\.\d", "is a StyleGAN2 in BasicSR's form, which is not read; give the file that it was made from"),
    (r"\.skip\.weight$|/Skip/|ToRGB_lod", _NO_SKIPS),
)


def arrays_of(content: object, origin: str) -> tuple[dict[str, np.ndarray], list[str]]:
    """The generator's arrays under the names of their implementation, from the containers that they come in, and notes."""
    if isinstance(content, tuple | list) and len(content) == 3 and isinstance(content[2], Record):
        content = content[2]  # of TensorFlow: generator, discriminator, and the generator's moving average
    elif isinstance(content, Mapping) and not isinstance(content, Record):
        content = content.get("Gs", content)
    if isinstance(content, Record) and content.kind in _TENSORFLOW:
        _check_tensorflow(content, origin)
        content = _tensorflow_arrays(content)
    _refuse_others([name for state in wrappings.state_dicts(content) for name in state.arrays], origin)
    arrays, around = wrappings.find(content, CONSTANTS, origin, f"and no generator; {READ}")
    for rate in _mapping_rates(around):
        _check_rate(rate, origin)
    _check_filters(arrays, origin)
    notes, average = [], next((m["latent_avg"] for m in (arrays, *around) if isinstance(m.get("latent_avg"), np.ndarray)), None)
    arrays.pop("latent_avg", None)
    if average is not None:
        rows = np.atleast_2d(average)  # encoders write the mean once for each code
        if np.array_equal(rows, np.broadcast_to(rows[:1], rows.shape), equal_nan=True):
            arrays["latent_avg"] = rows[0]
        else:
            notes.append(f"{origin}: latent_avg differs from code to code, and is no mean w")
    if any(str(name).startswith("encoder.") for name in around[0]):
        notes.append(f"{origin} holds an encoder as well, which is not converted")
    return arrays, notes


def check_picture(source: Mapping[str, np.ndarray], table: Table, config: StyleGAN2Config, origin: str) -> None:
    """ValueError for pictures that are not square or not of three colours, and for blocks without a ToRGB."""
    constant = source[table["input"][0]]
    if constant.shape[-2:] != (4, 4):
        raise ValueError(
            f"{origin} starts from {' x '.join(map(str, constant.shape[-2:]))} values and not from 4 x 4, for pictures that "
            "are not square or of another size; this program's StyleGAN2 draws squares of 8, 16, 32, ... px"
        )
    biases = [table[f"to_rgbs.{block}.bias"][0] for block in range(len(config.channels))]
    if biases[-1] in source and not any(bias in source for bias in biases[:-1]):
        raise ValueError(f"{origin} {_NO_SKIPS}")
    if biases[-1] in source and (colours := source[biases[-1]].size) != 3:
        raise ValueError(f"{origin} draws pictures of {colours} colour channel(s); give a generator of RGB pictures")


def _tensorflow_arrays(network: Mapping, prefix: str = "") -> dict[str, np.ndarray]:
    arrays = {
        prefix + name: value if isinstance(value, Record) else np.asarray(value)
        for name, value in network.get("variables", [])
    }
    for name, component in network.get("components", {}).items():
        arrays |= _tensorflow_arrays(component, f"{prefix}{name}/")
    return arrays


def _check_tensorflow(network: Mapping, origin: str) -> None:
    settings = network.get("static_kwargs", {})
    if network.get("version", 0) < 4 or any("StyleMod" in name for name in _tensorflow_arrays(network)):
        raise ValueError(f"{origin} is older than StyleGAN2 (a StyleGAN or a progressive GAN); give a StyleGAN2")
    kernel = settings.get("resample_kernel") or [1, 3, 3, 1]
    if list(kernel) != [1, 3, 3, 1]:
        raise ValueError(f"{origin} resamples with the filter {list(kernel)}; this program draws with [1, 3, 3, 1] alone")
    _check_rate(settings.get("mapping_lrmul", MAPPING_LR_MUL), origin)


def _mapping_rates(modules: Iterable[Mapping]) -> Iterator[float]:
    """The factors by which a mapping network's weights are scaled. Its layers carry them beside: the weights do not tell."""
    for module in modules:
        children = module.get("_modules", {}) if isinstance(module, Record) else {}
        for name, child in children.items():
            layers = child.get("_modules", {}).values() if isinstance(child, Record) and name in ("mapping", "style") else ()
            yield from (layer[key] for layer in layers for key in ("bias_gain", "lr_mul") if key in layer)
        yield from _mapping_rates(children.values())


def _check_rate(rate: float, origin: str) -> None:
    if not np.isclose(rate, MAPPING_LR_MUL):
        raise ValueError(f"{origin} scales its mapping network by {rate}; this program's StyleGAN2 has {MAPPING_LR_MUL}")


def _refuse_others(names: Sequence[str], origin: str) -> None:
    """ValueError that names the network where the names are those of a relative of StyleGAN2."""
    for pattern, text in _RELATIVES:
        if any(re.search(pattern, name) for name in names):
            raise ValueError(f"{origin} {text}")


def _check_filters(source: Mapping[str, np.ndarray], origin: str) -> None:
    for name, value in source.items():
        if name.endswith((".blur.kernel", ".upsample.kernel", ".resample_filter")) and (
            value.shape != FILTER.shape or not np.allclose(value / value.sum(), FILTER, atol=1e-6)
        ):
            raise ValueError(f"{origin} resamples with another filter ({name}); this program draws with [1, 3, 3, 1] alone")
