"""A network of OpenVINO's intermediate representation (an .xml and a .bin), read as a graph of operations and constants."""

import re
import xml.etree.ElementTree as ET
from typing import NamedTuple

import numpy as np

_TYPES = {"f32": np.float32, "f16": np.float16, "i64": np.int64, "i32": np.int32}


class Node(NamedTuple):
    """An operation: its type, the names of what it reads, in order, and its attributes; `value` is a constant's."""

    kind: str
    inputs: tuple[str, ...]
    attributes: dict[str, str]
    value: np.ndarray | None = None


class Graph(dict[str, Node]):
    """Nodes by name, in an order in which each comes after what it reads."""

    def reader(self, name: str) -> str:
        """Name of the first node that reads a node; ValueError for none."""
        if found := next((reader for reader, node in self.items() if name in node.inputs), ""):
            return found
        raise ValueError(f"nothing in the network reads {name}")

    def after(self, name: str, kind: str) -> str:
        """Name of the first node of a kind that follows a node along its first readers; ValueError for none."""
        while self[name].kind != kind:
            name = self.reader(name)
        return name

    def pair(self, name: str) -> tuple[str, str]:
        """The names of the two nodes that a node reads; ValueError where it reads one or more than two."""
        if len(self[name].inputs) != 2:
            raise ValueError(f"{name} of the network reads {len(self[name].inputs)} values; two were expected")
        return self[name].inputs

    def other(self, name: str, read: str) -> str:
        """What a node of two inputs reads apart from `read`."""
        first, second = self.pair(name)
        return second if first == read else first

    def constant(self, name: str) -> np.ndarray:
        """Value of a constant; ValueError where there is none of that name."""
        if name not in self or self[name].value is None:
            raise ValueError(f"the network has no constant {name}")
        return self[name].value

    def passed_on(self, name: str) -> np.ndarray:
        """Value of the constant that a node passes on, through reshapes; ValueError where it computes something."""
        while self[name].kind == "Reshape":
            name = self[name].inputs[0]
        return self.constant(name)


def read(xml: bytes, weights: bytes, origin: str) -> Graph:
    """The graph of a network; ValueError for what is not one, or was cut short."""
    if re.search(rb"<!(DOCTYPE|ENTITY)", xml[:4096]):
        raise ValueError(f"{origin} is not a network of OpenVINO: it declares entities")
    try:
        root = ET.fromstring(xml)
    except ET.ParseError as error:
        raise ValueError(f"{origin} is not XML ({error}); fetch it again") from error
    layers, edges = root.find("layers"), root.find("edges")
    if root.tag != "net" or layers is None or edges is None:
        raise ValueError(f"{origin} is not a network of OpenVINO (its root is {root.tag!r})")
    names = {layer.get("id"): layer.get("name") for layer in layers}
    reads: dict[str, dict[int, str]] = {name: {} for name in names.values()}
    try:
        for edge in edges:
            reads[names[edge.get("to-layer")]][int(edge.get("to-port"))] = names[edge.get("from-layer")]
        nodes = {layer.get("name"): _node(layer, reads[layer.get("name")], weights, origin) for layer in layers}
    except (KeyError, TypeError) as error:
        raise ValueError(f"{origin} lacks a part that each network of OpenVINO has ({error}); fetch it again") from error
    return _sorted(nodes, origin)


def _node(layer: ET.Element, reads: dict[int, str], weights: bytes, origin: str) -> Node:
    data = layer.find("data")
    attributes = {} if data is None else dict(data.attrib)
    value = _value(layer.get("name"), attributes, weights, origin) if layer.get("type") == "Const" else None
    return Node(layer.get("type"), tuple(reads[port] for port in sorted(reads)), attributes, value)


def _value(name: str, attributes: dict[str, str], weights: bytes, origin: str) -> np.ndarray:
    if attributes["element_type"] not in _TYPES:
        raise ValueError(f"{origin}: the constant {name} is of the type {attributes['element_type']}, which is not read")
    shape = [int(size) for size in attributes["shape"].split(",")] if attributes["shape"] else []
    start, length = int(attributes["offset"]), int(attributes["size"])
    kind = np.dtype(_TYPES[attributes["element_type"]])
    if length != kind.itemsize * int(np.prod(shape)) or not 0 <= start <= len(weights) - length:
        raise ValueError(f"{origin}: the constant {name} does not fit its weights, of {len(weights)} bytes; fetch both again")
    return np.frombuffer(weights, kind, length // kind.itemsize, start).reshape(shape)


def _sorted(nodes: dict[str, Node], origin: str) -> Graph:
    graph, left = Graph(), dict(nodes)
    while left:
        ready = [name for name, node in left.items() if all(read in graph for read in node.inputs)]
        if not ready:
            raise ValueError(f"{origin}: {next(iter(left))} and others of its network wait for each other")
        graph.update((name, left.pop(name)) for name in ready)
    return graph
