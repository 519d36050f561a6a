"""MobileStyleGAN's weights -> this program's.

    python -m converters.mobilestylegan --checkpoint=random_face-2021.7.21.1-py3-none-any.whl --out=generator.safetensors

The heads that draw the wheel's network at 128 and 256 px come with the package; --readouts=FILE takes others
(`coral_jax.faces.train_readouts`).

Read: the wheel of the Python package random-face, a zip with both networks for OpenVINO, which is read as data and never
run; and the state dict of the authors' PyTorch program.  w_avg is estimated: neither has one.
"""

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from flax import nnx

import coral_jax
from converters import command, openvino, reading
from converters.stylegan2 import AVERAGED, estimated_w_avg
from coral_jax import weights
from coral_jax.models.mobile_stylegan import MobileStyleGAN, MobileStyleGANConfig
from coral_jax.models.stylegan2 import MAPPING_LR_MUL

READOUTS = Path(coral_jax.__file__).parent / "faces" / "weights" / "readouts.safetensors"
_NETWORKS = ("MappingNetwork", "SynthesisNetwork")

Arrays = dict[str, np.ndarray]  # by our names


def convert(checkpoint: Path, out: Path, readouts: str | None = None) -> str:
    """Convert a file; the lines say what was made and what had to be made up.

    ValueError for what is not a MobileStyleGAN, and for read-outs of another one.
    """
    added = _readouts(Path(readouts), checkpoint) if readouts else _packaged(checkpoint)
    if zipfile.is_zipfile(checkpoint) and checkpoint.suffix != ".pth":
        arrays, notes = of_openvino(*_networks(checkpoint)), []
    else:
        arrays, notes = of_state_dict(reading.read(checkpoint), str(checkpoint))
    generator = make(arrays | added, str(checkpoint))
    weights.save(out, generator, metadata=command.origin(checkpoint))
    notes.append(f"{checkpoint} has no w_avg: it is estimated from {AVERAGED:,} w")
    size = f"MobileStyleGAN of {generator.size} px, {generator.n_latent} codes of {generator.w_dim}"
    lower = "".join(f", read-out at {size} px" for size in generator.config.readouts)
    return "\n".join([*notes, f"{out}: {size}, {len(generator.layers)} layers{lower}"])


def _packaged(checkpoint: Path) -> Arrays:
    """Arrays of the package's read-outs, if they were learned for this checkpoint."""
    arrays, about = weights.load_tensors(READOUTS)
    return arrays if about["source_sha256"] == weights.fingerprint(checkpoint) else {}


def _readouts(path: Path, checkpoint: Path) -> Arrays:
    """Arrays of a file of read-outs; ValueError where they were learned for another checkpoint."""
    arrays, about = weights.load_tensors(path)
    if about.get("source_sha256") != weights.fingerprint(checkpoint):
        raise ValueError(f"{path} holds no read-outs of {checkpoint}; leave --readouts out, or train some for it")
    return arrays


def make(arrays: Arrays, origin: str) -> MobileStyleGAN:
    """The generator of arrays by our names, with its w_avg; ValueError for arrays that do not fit."""
    generator = nnx.eval_shape(lambda: MobileStyleGAN(_config(arrays), nnx.Rngs(0)))
    weights.fill(generator, arrays | {"w_avg": np.zeros(generator.w_dim, np.float32)}, origin)
    generator.w_avg.set_value(estimated_w_avg(generator))
    return generator


def _config(arrays: Arrays) -> MobileStyleGANConfig:
    """Sizes, from the shapes of the arrays."""
    mapping = len([name for name in arrays if re.fullmatch(r"mapping\.layers\.\d+\.kernel", name)])
    blocks = (len([name for name in arrays if re.fullmatch(r"convs\.\d+\.kernel", name)]) - 1) // 2
    channels = [(4 * 2**block, arrays[f"convs.{2 * block}.kernel"].shape[-1]) for block in range(blocks + 1)]
    z_dim, w_dim = arrays["mapping.layers.0.kernel"].shape
    readouts = sorted({int(found[1]) for name in arrays if (found := re.fullmatch(r"readouts\.(\d+)\.\w+", name))})
    return MobileStyleGANConfig(z_dim, w_dim, mapping, tuple(channels), tuple(readouts))


# --- OpenVINO ---------------------------------------------------------------------------------------------------------


def _networks(wheel: Path) -> list[openvino.Graph]:
    """The mapping and the synthesis network in a zip, wherever they lie in it."""
    with zipfile.ZipFile(wheel) as archive:
        names = {Path(name).name: name for name in archive.namelist()}
        wanted = [f"{network}{suffix}" for network in _NETWORKS for suffix in (".xml", ".bin")]
        if missing := [name for name in wanted if name not in names]:
            raise ValueError(f"{wheel} holds no {', '.join(missing)}; give the wheel of random-face, or the authors' .pth")
        files = {name: archive.read(names[name]) for name in wanted}
    return [openvino.read(files[f"{n}.xml"], files[f"{n}.bin"], f"{n} in {wheel.name}") for n in _NETWORKS]


def of_openvino(mapping: openvino.Graph, synthesis: openvino.Graph) -> Arrays:
    """Arrays by our names, of both networks."""
    arrays = {"input": synthesis.constant("m.input.input")[0].transpose(1, 2, 0)}
    products = [name for name, node in mapping.items() if node.kind == "MatMul"]
    for place, product in enumerate(products):
        bias = mapping.other(mapping.after(product, "Add"), product)
        arrays[f"mapping.layers.{place}.kernel"] = mapping.constant(mapping.pair(product)[1]).T
        arrays[f"mapping.layers.{place}.bias"] = mapping.passed_on(bias).reshape(-1)
    blocks = len([name for name in synthesis if re.fullmatch(r"m\.layers\.\d+\.conv1\.bias", name)])
    convs, styles = ["m.conv1"], ["m.conv1.conv"]
    for block in range(blocks):
        here = f"m.layers.{block}"
        convs += [f"{here}.conv1", f"{here}.conv2"]
        styles += [f"{here}.up", f"{here}.conv1.conv", f"{here}.conv2.conv"]
    head = f"m.layers.{blocks - 1}.to_img"
    for row, name in enumerate([*styles, f"{head}.conv"]):
        arrays[f"modulation.{row}.kernel"] = synthesis.constant(f"{name}.modulation.weight").T
        arrays[f"modulation.{row}.bias"] = synthesis.constant(f"{name}.modulation.bias").reshape(-1)
    for place, name in enumerate(convs):
        arrays |= {f"convs.{place}.{part}": value for part, value in _conv(synthesis, name).items()}
    arrays["head.kernel"] = synthesis.constant(f"{head}.conv.weight")[:, :, 0, 0].T
    arrays["head.bias"] = synthesis.constant(f"{head}.bias").reshape(-1)
    return arrays


def _conv(graph: openvino.Graph, name: str) -> Arrays:
    """One convolution's arrays.  Its noise and its 1x1 kernel have no names: they are found from the bias upwards."""
    bias = graph.constant(f"{name}.bias")
    convolution, noise = graph.pair(graph.other(graph.reader(f"{name}.bias"), f"{name}.bias"))
    kernel = graph.passed_on(graph.pair(convolution)[1])
    found = {"noise": graph.passed_on(noise)[0, 0], "bias": bias.reshape(-1)}
    if f"{name}.conv.weight_dw" in graph:
        found["depthwise"] = graph.constant(f"{name}.conv.weight_dw")[:, 0, 0].transpose(1, 2, 0)
    return found | {"kernel": kernel.transpose(2, 3, 1, 0)}


# --- PyTorch ----------------------------------------------------------------------------------------------------------


def of_state_dict(content: object, origin: str) -> tuple[Arrays, list[str]]:
    """Arrays by our names, of the authors' state dict, and notes on what it lacks.

    Their program demodulates by a constant `style_inv`, which is folded into the kernels, and draws noise anew each time.
    """
    content = content.get("state_dict", content) if isinstance(content, Mapping) else {}
    source = {name: np.asarray(value, np.float32) for name, value in content.items()}
    # Of the networks of a training checkpoint, the mobile one alone has depthwise weights.
    net, mapping = (_prefix(source, end, origin) for end in ("layers.0.conv1.conv.weight_dw", "layers.1.weight"))
    arrays = {"input": source[f"{net}input.input"].reshape(-1, 4, 4).transpose(1, 2, 0)}
    places = sorted({int(m[1]) for name in source if (m := re.fullmatch(rf"{mapping}layers\.(\d+)\.weight", name))})
    for layer, place in enumerate(places):
        weight = source[f"{mapping}layers.{place}.weight"]
        arrays[f"mapping.layers.{layer}.kernel"] = weight.T * np.float32(MAPPING_LR_MUL / np.sqrt(weight.shape[1]))
        arrays[f"mapping.layers.{layer}.bias"] = source[f"{mapping}layers.{place}.bias"] * np.float32(MAPPING_LR_MUL)
    blocks = len([name for name in source if re.fullmatch(rf"{net}layers\.\d+\.conv1\.bias", name)])
    convs, styles = ["conv1"], ["conv1.conv"]
    for block in range(blocks):
        convs += [f"layers.{block}.conv1", f"layers.{block}.conv2"]
        styles += [f"layers.{block}.up", f"layers.{block}.conv1.conv", f"layers.{block}.conv2.conv"]
    if f"{net}layers.0.up.modulation.weight" not in source:
        raise ValueError(f"{origin} is a MobileStyleGAN whose wavelet transforms read no style; give one where they do")
    head, rng = f"{net}layers.{blocks - 1}.to_img", np.random.default_rng(0)
    for row, name in enumerate([*(net + style for style in styles), f"{head}.conv"]):
        arrays[f"modulation.{row}.kernel"] = source[f"{name}.modulation.weight"].T
        arrays[f"modulation.{row}.bias"] = source[f"{name}.modulation.bias"]
    for place, name in enumerate(convs):
        size = 4 if place == 0 else 8 * 2 ** ((place - 1) // 2)
        strength = source[f"{net}{name}.noise.weight"].reshape(())
        arrays[f"convs.{place}.noise"] = strength * rng.standard_normal((size, size), np.float32)
        arrays[f"convs.{place}.bias"] = source[f"{net}{name}.bias"].reshape(-1)
        arrays |= {f"convs.{place}.{part}": value for part, value in _demodulated(source, f"{net}{name}.conv").items()}
    arrays["head.kernel"] = source[f"{head}.conv.weight"][:, :, 0, 0].T
    arrays["head.bias"] = source[f"{head}.bias"].reshape(-1)
    return arrays, [f"{origin} has no stored noise: drawn from seed 0, so details such as strands of hair are ours"]


def _prefix(source: Arrays, end: str, origin: str) -> str:
    found = [name.removesuffix(end) for name in source if name == end or name.endswith("." + end)]
    if len(found) != 1:
        raise ValueError(f"{origin} is not a MobileStyleGAN: {len(found)} arrays are named ...{end}")
    return found[0]


def _demodulated(source: Arrays, name: str) -> Arrays:
    """Kernels with the constant demodulation in them."""
    inverse = source[f"{name}.style_inv"].reshape(1, -1, 1, 1)
    if f"{name}.weight_dw" not in source:
        weight = source[f"{name}.weight"]
        return {"kernel": (weight * _norm(weight, inverse)).transpose(2, 3, 1, 0)}
    depthwise, permute = source[f"{name}.weight_dw"], source[f"{name}.weight_permute"]
    norm = _norm(depthwise.transpose(1, 0, 2, 3) * permute, inverse)
    return {"depthwise": depthwise[:, 0].transpose(1, 2, 0), "kernel": (permute * norm).transpose(2, 3, 1, 0)}


def _norm(weight: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """Factor [O, 1, 1, 1] of a kernel [O, I, h, w]."""
    scale = np.float32(1 / np.sqrt(9 * weight.shape[1]))
    return 1 / np.sqrt(np.sum(np.square(scale * inverse * weight), axis=(1, 2, 3), keepdims=True) + np.float32(1e-8))


if __name__ == "__main__":
    command.run(convert, readouts="A file of coral_jax.faces.train_readouts, to draw at lower sizes, too.")
