"""The graphs of human-models' networks as their package has them, run one operation after the other."""

import json
import math
from pathlib import Path

import numpy as np

#: of each network: nodes (operation, name, what it reads, what it was told), shapes of arrays, values of small arrays
GRAPHS = json.loads((Path(__file__).parent / "data" / "human_models_graphs.json").read_text())


def narrow(name: str, width: int) -> dict[str, np.ndarray]:
    """Random arrays for a network that has `width` channels in all layers but the first and the last."""
    random, arrays = np.random.default_rng(0), {}
    outputs = {"faceres": (1, 100), "mobileface": (256,)}[name]
    for key, shape in GRAPHS[name]["shapes"].items():
        ends = {*outputs, 3, 1} if "depthwise" not in key and "_df" not in key else {3, 1}
        if name == "faceres" and key.startswith("feats"):
            ends = {}
        slim = [size if size in ends else 16 * width if size == 2048 else width for size in shape]
        fan = 9 if slim[-1] == 1 and len(slim) == 4 else math.prod(slim[:-1])
        arrays[key] = (random.standard_normal(slim) * fan**-0.5).astype(np.float32)
    return arrays | {key: np.array(value, np.float32) for key, value in GRAPHS[name]["values"].items()}


def run(name: str, arrays: dict[str, np.ndarray], images: np.ndarray) -> dict[str, np.ndarray]:
    """What each node of a network gives for images [B, H, W, C]."""
    found = dict(arrays)
    for op, node, inputs, told in GRAPHS[name]["nodes"]:
        given = [found[one] for one in inputs]
        found[node] = images if op == "Placeholder" else _OPERATIONS[op](*given, **told)
    return found


def _fused(x, kernel, bias, fused):
    y = x @ kernel + bias
    return np.maximum(y, 0) if fused == ["BiasAdd", "Relu"] else y


def _windows(x, padding, stride, size):
    """The windows of a convolution, [B, H', W', C, h, w]."""
    if padding == "SAME":
        pads = [max((-(-n // stride) - 1) * stride + size - n, 0) for n in x.shape[1:3]]
        x = np.pad(x, [(0, 0), *((pad // 2, pad - pad // 2) for pad in pads), (0, 0)])
    return np.lib.stride_tricks.sliding_window_view(x, (size, size), (1, 2))[:, ::stride, ::stride]


def _conv(x, kernel, padding, stride):
    return np.einsum("bhwcij,ijcd->bhwd", _windows(x, padding, stride, len(kernel)), kernel, optimize=True)


def _depthwise(x, kernel, padding, stride):
    return np.einsum("bhwcij,ijc->bhwc", _windows(x, padding, stride, len(kernel)), kernel[..., 0])


_OPERATIONS = {
    "Add": np.add,
    "AddV2": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Minimum": np.minimum,
    "Maximum": np.maximum,
    "MatMul": np.matmul,
    "_FusedMatMul": _fused,
    "Relu": lambda x: np.maximum(x, 0),
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "Softmax": lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True),
    "Mean": lambda x, axes: x.mean(tuple(axes.astype(int))),
    "Pad": lambda x, widths: np.pad(x, widths.astype(int)),
    "Reshape": lambda x, _: x.reshape(len(x), -1),
    "Conv2D": _conv,
    "DepthwiseConv2dNative": _depthwise,
}
