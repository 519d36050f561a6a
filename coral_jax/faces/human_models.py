"""Networks of the package human-models, as pure functions of their arrays and pictures of aligned faces (NHWC).

faceres (age and gender; HSE-FaceRes, a MobileNet) and mobileface (identity; MobileFace's third version).  How they see a face
- which part of the picture, which order of colours - was chosen by what each finds in generated faces.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax

from coral_jax.faces.packages import Arrays
from coral_jax.models.ops import depthwise, of_channels

FRAMED = 512  # px of the pictures that the frames are cut from
_FACERES_FRAME, _MOBILEFACE_FRAME = (slice(88, 440), slice(80, 432)), (slice(64, 448), slice(64, 448))  # rows, columns
_BGR_MEAN = (103.939, 116.779, 123.68)  # of pixels in [0, 255]
_AROUND = ((1, 1), (1, 1))  # MobileFace pads on all sides, where TensorFlow's SAME pads a strided convolution on one only


def framed_for_faceres(images: Array) -> Array:
    """images [B, 512, 512, 3] in [-1, 1] -> what faceres sees of them, [B, 224, 224, 3]: blue first, less the mean."""
    faces = _framed(images, _FACERES_FRAME, 224)[..., ::-1]
    return faces - of_channels(jnp.asarray(_BGR_MEAN), faces)


def framed_for_mobileface(images: Array) -> Array:
    """images [B, 512, 512, 3] in [-1, 1] -> what mobileface sees of them, [B, 112, 112, 3] in [0, 255]."""
    return _framed(images, _MOBILEFACE_FRAME, 112)


def _framed(images: Array, frame: tuple[slice, slice], size: int) -> Array:
    if images.shape[1:3] != (FRAMED, FRAMED):
        raise ValueError(f"frames are cut from {FRAMED} x {FRAMED} px; got {images.shape[1]} x {images.shape[2]}: resize them")
    faces = images[:, frame[0], frame[1]]
    return (jax.image.resize(faces, (len(images), size, size, 3), "linear") + 1) * 127.5


def conv(x: Array, kernel: Array, stride: int = 1, padding: str | tuple = "SAME") -> Array:
    """Convolution without bias, [B, H, W, C] -> [B, H', W', C']."""
    return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def faceres(arrays: Arrays, faces: Array) -> tuple[Array, Array]:
    """(probability of each year of age [B, 100], of male [B]) of faces as they are framed for it."""

    def shifted(x: Array, name: str) -> Array:
        return jnp.clip(x + of_channels(arrays[f"{name}_bn/batchnorm_1/sub"], x), 0, 6)

    def dense(x: Array, name: str) -> Array:
        y = x @ arrays[f"{name}/kernel"]
        return y + of_channels(arrays[f"{name}/bias"], y)

    x = shifted(conv(faces, arrays["conv1/convolution/merged_input"], 2), "conv1")
    for block in range(1, 14):
        name = f"conv_dw_{block}"
        x = depthwise(x, arrays[f"{name}/depthwise_kernel"][..., 0], 2 if block in (2, 4, 6, 12) else 1)
        x = shifted(x * of_channels(arrays[f"{name}_bn/batchnorm_1/mul"], x), name)
        x = shifted(conv(x, arrays[f"conv_pw_{block}/convolution/merged_input"]), f"conv_pw_{block}")
    x = jax.nn.relu(dense(x.mean((1, 2)), "feats"))
    return jax.nn.softmax(dense(x, "age_pred")), jax.nn.sigmoid(dense(x, "gender_pred"))[:, 0]


def mobileface(arrays: Arrays, faces: Array) -> Array:
    """Features of identity [B, 256], not normalised, of faces as they are framed for it."""

    def prelu(x: Array, name: str) -> Array:
        return jnp.maximum(x, 0) + of_channels(arrays[f"{name}_gamma"], x) * jnp.minimum(x, 0)

    x = (faces - 127.5) / 128
    x = prelu(conv(x, arrays["conv1_weight"], 2, _AROUND), "prelu1")
    for stage in range(1, 5):
        name = f"stage{stage}_unit1"
        x = conv(x, arrays[f"{name}_conv0_0_weight"])
        first = x = prelu(depthwise(x, arrays[f"{name}_conv0_1_df"][..., 0], 2, _AROUND), f"{name}_prelu0")
        for layer in (1, 2):
            x = prelu(depthwise(x, arrays[f"{name}_conv{layer}_df"][..., 0], 1, _AROUND), f"{name}_prelu{layer}")
        x = x + first
    x = x.reshape(len(x), -1) @ arrays["dense/kernel"]
    return x * of_channels(arrays["batchnorm0/mul"], x) + of_channels(arrays["batchnorm0/sub"], x)
