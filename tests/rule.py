"""Weights made from their names, as those of the goldens were."""

import zlib

import numpy as np


def rule_tensor(name, shape):
    """The tensor of a published name; so scaled that features stay of order one."""
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    value = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
    if name.endswith("running_var"):
        return 0.5 + np.abs(value)
    if len(shape) > 1:
        return value * np.float32(np.sqrt(1 / np.prod(shape[1:])))
    return 1 + 0.1 * value if name.endswith("weight") else 0.1 * value
