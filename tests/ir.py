"""OpenVINO networks as data: a numpy interpreter of the operations that MobileStyleGAN's have, and a writer of small ones."""

import math
import xml.etree.ElementTree as ET
from collections import Counter

import numpy as np

W_DIM = 5
_TYPES = {"f32": np.float32, "i64": np.int64, "i32": np.int32}


def run(xml, weights, feeds, kept=(), dtype=np.float64):
    """Values of the network's nodes by name, given those of some: only the `kept` ones, and what feeds its results.

    Returns (values, names of the PReLUs in order, the value that the result reads).
    """
    root = ET.fromstring(xml)
    layers = {layer.get("id"): layer for layer in root.find("layers")}
    inputs = {number: {} for number in layers}
    for edge in root.find("edges"):
        inputs[edge.get("to-layer")][int(edge.get("to-port"))] = (edge.get("from-layer"), edge.get("from-port"))
    left = Counter(place for reads in inputs.values() for place in reads.values())
    values, found, rectified, result = {}, {}, [], None
    for number, layer in layers.items():
        kind, name = layer.get("type"), layer.get("name")
        reads = [inputs[number][port] for port in sorted(inputs[number])]
        arguments = [values[place] for place in reads]
        for place in reads:  # at 1024 px they are large
            left[place] -= 1
            if not left[place]:
                del values[place]
        if kind == "Result":
            (result,) = arguments
            continue
        data = {} if layer.find("data") is None else layer.find("data").attrib
        if name in feeds:
            out = np.asarray(feeds[name], dtype)
        else:
            out = constant(data, weights, dtype) if kind == "Const" else OPERATIONS[kind](data, *arguments)
        ports = [port.get("id") for port in layer.find("output")]
        values |= {(number, port): value for port, value in zip(ports, out if isinstance(out, list) else [out], strict=True)}
        if kind == "PReLU":
            rectified.append(name)
        if name in kept or kind == "PReLU":
            found[name] = out
    return found, rectified, result


def constant(data, weights, dtype):
    kind = _TYPES[data["element_type"]]
    shape = [int(size) for size in data["shape"].split(",")] if data["shape"] else []
    value = np.frombuffer(weights, kind, math.prod(shape), int(data["offset"])).reshape(shape)
    return value.astype(dtype) if kind is np.float32 else value


def numbers(text):
    return [int(number) for number in text.split(",")]


def convolution(data, x, kernel):
    assert numbers(data["strides"]) == numbers(data["dilations"]) == [1, 1]
    return sum(mixed(part, kernel[:, :, i, j]) for i, j, part in shifts(data, x, kernel))


def mixed(x, kernel):
    """Channels [B, O, H, W] of x [B, I, H, W] by a kernel [O, I]."""
    return (kernel @ x.reshape(*x.shape[:2], -1)).reshape(len(x), len(kernel), *x.shape[2:])


def group_convolution(data, x, kernel):
    assert kernel.shape[1:3] == (1, 1) and numbers(data["strides"]) == [1, 1]
    return sum(part * kernel[None, :, 0, 0, i, j, None, None] for i, j, part in shifts(data, x, kernel))


def shifts(data, x, kernel):
    """Every place (i, j) of a kernel [..., h, w] with the part of the padded x [B, C, H, W] that it multiplies."""
    (top, left), (bottom, right) = numbers(data["pads_begin"]), numbers(data["pads_end"])
    x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    height, width = (size - kernel_size + 1 for size, kernel_size in zip(x.shape[2:], kernel.shape[-2:], strict=True))
    for i, j in np.ndindex(kernel.shape[-2:]):
        yield i, j, x[:, :, i : i + height, j : j + width]


def group_convolution_transposed(data, x, kernel):
    """Of a stride as large as the kernel, one input channel a group: no two products meet."""
    assert kernel.shape[1:3] == (1, 1) and numbers(data["strides"]) == list(kernel.shape[3:])
    assert numbers(data["pads_begin"]) == numbers(data["output_padding"]) == [0, 0]
    batch, channels, height, width = x.shape
    product = x[:, :, :, None, :, None] * kernel[None, :, 0, 0, None, :, None, :]
    return product.reshape(batch, channels, height * kernel.shape[3], width * kernel.shape[4])


def reshape(data, x, shape):
    assert data["special_zero"] == "true"
    return x.reshape([x.shape[place] if size == 0 else size for place, size in enumerate(shape)])


def matmul(data, x, y):
    return (x.T if data["transpose_a"] == "true" else x) @ (y.T if data["transpose_b"] == "true" else y)


def broadcast(data, x, shape):
    if data["mode"] == "bidirectional":
        shape = np.broadcast_shapes(x.shape, tuple(shape))
    return np.broadcast_to(x, tuple(shape))


OPERATIONS = {
    "Add": lambda data, x, y: x + y,
    "Multiply": lambda data, x, y: x * y,
    "Power": lambda data, x, y: x**y,
    "ReduceMean": lambda data, x, axes: x.mean(axis=tuple(axes), keepdims=data["keep_dims"] == "true"),
    "MatMul": matmul,
    "ShapeOf": lambda data, x: np.array(x.shape),
    "Gather": lambda data, x, indices, axis: np.take(x, indices, axis=int(axis)),
    "Unsqueeze": lambda data, x, axes: np.expand_dims(x, tuple(axes)),
    "Squeeze": lambda data, x, axes: np.squeeze(x, tuple(axes)),
    "Concat": lambda data, *parts: np.concatenate(parts, int(data["axis"])),
    "Reshape": reshape,
    "PReLU": lambda data, x, slope: np.where(x >= 0, x, slope * x),
    "Convolution": convolution,
    "GroupConvolution": group_convolution,
    "GroupConvolutionBackpropData": group_convolution_transposed,
    "VariadicSplit": lambda data, x, axis, sizes: np.split(x, np.cumsum(sizes)[:-1], int(axis)),
    "Broadcast": broadcast,
    "Tile": lambda data, x, times: np.tile(x, tuple(times)),
}


class Writer:
    """A network in the making; what its methods return stands for an output of a node."""

    def __init__(self, name):
        self.root = ET.Element("net", name=name, version="10")
        self.layers, self.edges = ET.SubElement(self.root, "layers"), ET.SubElement(self.root, "edges")
        self.weights = b""

    def op(self, kind, *reads, name=None, outputs=1, **data):
        number = str(len(self.layers))
        layer = ET.SubElement(self.layers, "layer", id=number, name=name or number, type=kind, version="opset1")
        if data:
            ET.SubElement(layer, "data", {key: str(value) for key, value in data.items()})
        ends = ET.SubElement(layer, "input")
        for port, (origin, origin_port) in enumerate(reads):
            ET.SubElement(ends, "port", id=str(port))
            places = {"from-layer": origin, "from-port": origin_port, "to-layer": number, "to-port": str(port)}
            ET.SubElement(self.edges, "edge", places)
        ends = ET.SubElement(layer, "output")
        ports = [str(len(reads) + place) for place in range(outputs)]
        for port in ports:
            ET.SubElement(ends, "port", id=port)
        made = [(number, port) for port in ports]
        return made[0] if outputs == 1 else made

    def const(self, value, name=None):
        value = np.asarray(value)
        value = value.astype(np.float32 if value.dtype.kind == "f" else np.int64)
        kind = "f32" if value.dtype == np.float32 else "i64"
        made = self.op("Const", name=name, element_type=kind, shape=", ".join(map(str, value.shape)),
                       offset=len(self.weights), size=value.nbytes)  # fmt: skip
        self.weights += value.tobytes()
        return made

    def bytes(self):
        """The .xml and the .bin."""
        return ET.tostring(self.root), self.weights


def mapping_network(rng, widths):
    """A mapping network as the wheel random-face has it, of random weights: (.xml, .bin)."""
    net = Writer("MappingNetwork")
    z = net.op("Parameter", name="var", shape=f"1, {widths[0]}", element_type="f32")
    square = net.op("Power", z, net.const(np.float64([[2.0]])))
    mean = net.op("ReduceMean", square, net.const([1]), keep_dims="true")
    root = net.op("Power", net.op("Add", mean, net.const([[1e-8]])), net.const([[0.5]]))
    x = net.op("Multiply", z, net.op("Multiply", net.const([[1.0]]), net.op("Power", root, net.const([[-1.0]]))))
    for width_in, width in zip(widths, widths[1:], strict=False):
        kernel = net.const(rng.standard_normal((width, width_in)) / np.sqrt(width_in))
        x = net.op("MatMul", x, kernel, transpose_a="false", transpose_b="true")
        shape = net.op("Concat", net.const([1]), _sizes(net, x, 1), axis=0)
        bias = net.op("Reshape", net.const(rng.standard_normal(width)), shape, special_zero="true")
        x = net.op("PReLU", net.op("Add", x, bias), net.const([0.2]))
        x = net.op("Multiply", x, net.const([[2**0.5]]))
    net.op("Result", x)
    return net.bytes()


def synthesis_network(rng, channels):
    """A synthesis network as the wheel has it, of random weights, channels at 4, 8, ... px: (.xml, .bin)."""
    net = Writer("SynthesisNetwork")
    w = net.op("Parameter", name="style", shape=f"1, {W_DIM}", element_type="f32")
    constant = net.const(rng.standard_normal((1, channels[0], 4, 4)), "m.input.input")
    ones = net.op("Concat", _sizes(net, w, 0), *[net.const([1])] * 3, axis=0)
    filled = net.op("Broadcast", net.const([1]), net.op("ShapeOf", ones, output_type="i64"), mode="numpy")
    x = net.op("Tile", net.op("Broadcast", constant, filled, mode="bidirectional"), ones)
    x = _styled(net, rng, "m.conv1", x, w, channels[0], channels[0], 4)
    for block, (wide, width) in enumerate(zip(channels, channels[1:], strict=False)):
        here = f"m.layers.{block}"
        x = net.op("Multiply", _style(net, rng, f"{here}.up", w, wide), x)
        x = _inverse_haar(net, x, wide // 4)
        x = _styled(net, rng, f"{here}.conv1", x, w, wide // 4, width, 8 * 2**block)
        x = _styled(net, rng, f"{here}.conv2", x, w, width, width, 8 * 2**block)
    style = _style(net, rng, f"{here}.to_img.conv", w, width)
    x = net.op("Multiply", net.op("Multiply", style, net.const(np.full((1, 1, 1, 1), width**-0.5))), x)
    kernel = net.const(rng.standard_normal((12, width, 1, 1)), f"{here}.to_img.conv.weight")
    bias = net.const(rng.standard_normal((1, 12, 1, 1)), f"{here}.to_img.bias")
    net.op("Result", _inverse_haar(net, net.op("Add", _convolved(net, "Convolution", x, kernel), bias), 3))
    return net.bytes()


def _sizes(net, x, *axes):
    """Sizes of x along axes, each as a vector of one, as exported graphs compute them."""
    one = [net.op("Gather", net.op("ShapeOf", x, output_type="i64"), net.const(axis), net.const(0)) for axis in axes]
    each = [net.op("Unsqueeze", size, net.const([0])) for size in one]
    return each[0] if len(each) == 1 else each


def _style(net, rng, name, w, width):
    kernel = net.const(rng.standard_normal((width, W_DIM)) / 3, f"{name}.modulation.weight")
    product = net.op("MatMul", w, kernel, transpose_a="false", transpose_b="true")
    bias = net.const(1 + 0.3 * rng.standard_normal((1, width)), f"{name}.modulation.bias")
    style = net.op("Add", product, bias, name=f"{name}.style")
    shape = net.op("Concat", _sizes(net, w, 0), *(net.const([size]) for size in (-1, 1, 1)), axis=0)
    return net.op("Reshape", style, shape, special_zero="true")


def _convolved(net, kind, x, kernel, pad=0):
    pads = {"pads_begin": f"{pad}, {pad}", "pads_end": f"{pad}, {pad}"}
    return net.op(kind, x, kernel, strides="1, 1", dilations="1, 1", auto_pad="explicit", **pads)


def _styled(net, rng, name, x, w, width_in, width, size):
    scale = net.const(np.full((1, 1, 1, 1), (9 * width_in) ** -0.5))
    x = net.op("Multiply", net.op("Multiply", _style(net, rng, f"{name}.conv", w, width_in), scale), x)
    if size == 4:
        x = _convolved(net, "Convolution", x, net.const(rng.standard_normal((width, width_in, 3, 3))), 1)
    else:
        around = net.const(rng.standard_normal((width_in, 1, 1, 3, 3)), f"{name}.conv.weight_dw")
        x = _convolved(net, "GroupConvolution", x, around, 1)
        x = _convolved(net, "Convolution", x, net.const(rng.standard_normal((width, width_in, 1, 1))))
    x = net.op("Add", x, net.const(0.3 * rng.standard_normal((1, 1, size, size))))
    x = net.op("Add", x, net.const(rng.standard_normal((1, width, 1, 1)), f"{name}.bias"))
    return net.op("PReLU", x, net.const([0.2]))


def _inverse_haar(net, x, channels):
    low, high = net.op("VariadicSplit", x, net.const(1), net.const([channels, 3 * channels]), outputs=2)
    batch, height, width = _sizes(net, x, 0, 2, 3)
    shape = net.op("Concat", batch, net.const([channels]), net.const([3]), height, width, axis=0)
    split = net.op("VariadicSplit", net.op("Reshape", high, shape, special_zero="true"), net.const(2),
                   net.const([1, 1, 1]), outputs=3)  # fmt: skip
    first, second, third = (net.op("Squeeze", band, net.const([2])) for band in split)

    def double(one, other, kernel_shape, strides):
        """Sum of two bands, doubled along one axis by the wavelet's two filters."""
        both = []
        for band, sign in ((one, 1.0), (other, -1.0)):
            kernel = np.float64([1.0, sign]).reshape(kernel_shape) * 0.5**0.5
            kernel = net.const(np.broadcast_to(kernel, (channels, 1, 1, *kernel.shape)))
            both.append(net.op("GroupConvolutionBackpropData", band, kernel, strides=strides, pads_begin="0, 0",
                               pads_end="0, 0", dilations="1, 1", auto_pad="explicit", output_padding="0, 0"))  # fmt: skip
        return net.op("Add", *both)

    rows = (double(low, first, (2, 1), "2, 1"), double(second, third, (2, 1), "2, 1"))
    return double(*rows, (1, 2), "1, 2")
