"""Checkpoints as e4e and pSp publish theirs, of made-up weights and of any size."""

import zlib

import numpy as np
from flax import nnx

from converters import encoder
from coral_jax import weights
from coral_jax.models.encoder import PyramidEncoder, PyramidEncoderConfig

COMPARED = (0, 3, 9)  # codes of the golden: one of each level of the pyramid; the others' heads take most of the time
SMALL = PyramidEncoderConfig(5, True, (1, 1, 2, 1), (4, 5, 6, 8), 64)


def rule_tensor(name, shape):
    """The golden's weights, made from the name; zeros for heads that are not compared."""
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if "styles." in name and int(name.split(".")[2]) not in COMPARED:
        return np.zeros(shape, np.float32)
    value = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
    if name.endswith("running_var"):
        return 0.5 + np.abs(value)
    if len(shape) > 1:
        return value * np.float32(np.sqrt(1 / np.prod(shape[1:])))
    return 1 + 0.1 * value if name.endswith("weight") and "running" not in name else 0.1 * value


def checkpoint(config, **opts):
    """A checkpoint of an encoder of other sizes, under e4e's names."""
    variables = weights.named_variables(nnx.eval_shape(lambda: PyramidEncoder(config, nnx.Rngs(0))))
    state = {}
    for ours, (theirs, layout) in encoder.table(config).items():
        shape = layout.write(np.broadcast_to(np.float32(0), variables[ours].shape)).shape
        state[f"encoder.{theirs}"] = rule_tensor(f"encoder.{theirs}".replace("styles", "heads"), shape)
    average = state.pop("encoder.latent_avg")
    return {"state_dict": state, "latent_avg": average, "opts": opts}
