"""Checkpoints as e4e and pSp publish theirs, of made-up weights and of any size."""

import numpy as np
from flax import nnx
from rule import rule_tensor

from converters import encoder
from coral_jax import weights
from coral_jax.models.encoder import PyramidEncoder, PyramidEncoderConfig

COMPARED = (0, 3, 9)  # codes of the golden: one of each level of the pyramid; the others' heads take most of the time
SMALL = PyramidEncoderConfig(5, True, (1, 1, 2, 1), (4, 5, 6, 8), 64)


def golden_tensor(name, shape):
    """The golden's weights; zeros for heads that are not compared."""
    if "styles." in name and int(name.split(".")[2]) not in COMPARED:
        return np.zeros(shape, np.float32)
    return rule_tensor(name, shape)


def checkpoint(config, **opts):
    """A checkpoint of an encoder of other sizes, under e4e's names."""
    variables = weights.named_variables(nnx.eval_shape(lambda: PyramidEncoder(config, nnx.Rngs(0))))
    state = {}
    for ours, (theirs, layout) in encoder.table(config).items():
        shape = layout.write(np.broadcast_to(np.float32(0), variables[ours].shape)).shape
        state[f"encoder.{theirs}"] = rule_tensor(f"encoder.{theirs}", shape)
    average = state.pop("encoder.latent_avg")
    return {"state_dict": state, "latent_avg": average, "opts": opts}
