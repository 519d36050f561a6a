"""Weights of the Inception-v3 that FID is measured with -> this program's.

    python -m converters.inception --checkpoint=pt_inception-2015-12-05-6726825d.pth --out=weights/inception.safetensors

Takes pytorch-fid's `pt_inception-2015-12-05-6726825d.pth`, and `inception-2015-12-05.pt`, the TorchScript of NVIDIA that
clean-fid uses.  Both hold the same network; torchvision's `inception_v3_google` is another one, and refused.
"""

import re
from pathlib import Path

import numpy as np
from flax import nnx

from converters import command, engine, reading, wrappings
from coral_jax import weights
from coral_jax.models.inception import BLOCKS, Inception, InceptionConfig, Kernel

MARKERS = ("Conv2d_1a_3x3.conv.weight", "layers.conv.weight")  # of pytorch-fid and of clean-fid
_NONE = "and no Inception-v3 of FID; give pt_inception-2015-12-05-6726825d.pth or inception-2015-12-05.pt"
# The scores of the 1008 classes, and a head that only training used: features need neither.
IGNORED = (r"fc\..*", r"output\..*", r"AuxLogits\..*", r".*\.num_batches_tracked")

# Convolutions of each block in our order: branch by branch, those side by side last.
_PYTORCH_35 = ("branch1x1", "branch5x5_1", "branch5x5_2", "branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3", "branch_pool")
_PYTORCH_17 = ("branch1x1", "branch7x7_1", "branch7x7_2", "branch7x7_3", *(f"branch7x7dbl_{i}" for i in range(1, 6)),
               "branch_pool")  # fmt: skip
_PYTORCH_8 = ("branch1x1", "branch3x3_1", "branch3x3_2a", "branch3x3_2b", "branch3x3dbl_1", "branch3x3dbl_2",
              "branch3x3dbl_3a", "branch3x3dbl_3b", "branch_pool")  # fmt: skip
_PYTORCH_BLOCKS = {
    "Mixed_5b": _PYTORCH_35, "Mixed_5c": _PYTORCH_35, "Mixed_5d": _PYTORCH_35,
    "Mixed_6a": ("branch3x3", "branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"),
    "Mixed_6b": _PYTORCH_17, "Mixed_6c": _PYTORCH_17, "Mixed_6d": _PYTORCH_17, "Mixed_6e": _PYTORCH_17,
    "Mixed_7a": ("branch3x3_1", "branch3x3_2", *(f"branch7x7x3_{i}" for i in range(1, 5))),
    "Mixed_7b": _PYTORCH_8, "Mixed_7c": _PYTORCH_8,
}  # fmt: skip
_PYTORCH_STEM = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3")


def _tower(name: str, count: int) -> tuple[str, ...]:
    return tuple(f"{name}.conv" + (f"_{i}" if i else "") for i in range(count))


_NVIDIA_35 = ("conv", *_tower("tower", 2), *_tower("tower_1", 3), "tower_2.conv")
_NVIDIA_17 = ("conv", *_tower("tower", 3), *_tower("tower_1", 5), "tower_2.conv")
_NVIDIA_8 = ("conv", "tower_conv", "tower_mixed_conv", "tower_mixed_conv_1", "tower_1_conv", "tower_1_conv_1",
             "tower_1_mixed_conv", "tower_1_mixed_conv_1", "tower_2_conv")  # fmt: skip
_NVIDIA_BLOCKS = (
    _NVIDIA_35, _NVIDIA_35, _NVIDIA_35,
    ("conv", *_tower("tower", 3)),
    _NVIDIA_17, _NVIDIA_17, _NVIDIA_17, _NVIDIA_17,
    (*_tower("tower", 2), *_tower("tower_1", 4)),
    _NVIDIA_8, _NVIDIA_8,
)  # fmt: skip


def convert(checkpoint: Path, out: Path) -> str:
    """Convert a file; the line says what was made. ValueError for another network's weights."""
    inception, form = load(reading.read(checkpoint), str(checkpoint))
    weights.save(out, inception, metadata=command.origin(checkpoint))
    return f"{out}: Inception-v3 of 2015-12-05 for FID, 299 px to 2048 features, from the weights of {form}"


def load(content: object, origin: str) -> tuple[Inception, str]:
    """The network with weights of either form, and whose form it is; ValueError lists all that does not fit."""
    source = wrappings.find(content, MARKERS, origin, _NONE).arrays
    if "layers.conv.weight" in source:
        table, form = nvidia_table(), "NVIDIA"
        # Its batch norms have no scale. Ours, like pytorch-fid's, have: of ones.
        source = {**source, **{name: np.ones_like(source[_beta(name)]) for name, _ in table.values() if _beta(name) in source}}
    else:
        table, form = pytorch_fid_table(), "pytorch-fid"
        if np.shape(source.get("fc.weight", np.empty((1008, 2048))))[0] != 1008:
            raise ValueError(
                f"{origin} is an Inception-v3 of other training than FID's (its head has {len(source['fc.weight'])} classes, "
                "not 1008); give pt_inception-2015-12-05-6726825d.pth"
            )
    inception = empty()
    engine.fill(inception, table, source, origin, IGNORED)
    return inception, form


def empty() -> Inception:
    """The network with shapes only, to be filled."""
    return nnx.eval_shape(lambda: Inception(InceptionConfig(), nnx.Rngs(0)))


def pytorch_fid_table() -> engine.Table:
    """Our state paths -> names of pytorch-fid (torchvision's names) and layouts."""
    names = {"conv.kernel": "conv.weight", "norm.scale": "bn.weight", "norm.bias": "bn.bias",
             "norm.mean": "bn.running_mean", "norm.var": "bn.running_var"}  # fmt: skip
    blocks = [[f"{block}.{conv}" for conv in convs] for block, convs in _PYTORCH_BLOCKS.items()]
    return _table(_PYTORCH_STEM, blocks, names)


def nvidia_table() -> engine.Table:
    """Our state paths -> names of NVIDIA's TorchScript and layouts; the scales, of ones, are called `.scale` there."""
    names = {"conv.kernel": "weight", "norm.scale": "scale", "norm.bias": "beta", "norm.mean": "mean", "norm.var": "var"}
    blocks = [
        [f"layers.mixed{f'_{index}' if index else ''}.{conv}" for conv in convs] for index, convs in enumerate(_NVIDIA_BLOCKS)
    ]
    return _table(list(_tower("layers", 5)), blocks, names)


def _table(stem: list[str] | tuple[str, ...], blocks: list[list[str]], names: dict[str, str]) -> engine.Table:
    """names: of the arrays of one convolution, ours -> theirs."""
    pairs = [(f"stem.{index}", theirs) for index, theirs in enumerate(stem)]
    for index, (block, convs) in enumerate(zip(BLOCKS, blocks, strict=True)):
        ours = [
            f"blocks.{index}.{number}.{kind}.{place}"
            for number, steps in enumerate(block)
            for kind, count in (
                ("convs", sum(isinstance(step, Kernel) for step in steps)),
                ("forks", 2 * any(type(step) is tuple for step in steps)),
            )
            for place in range(count)
        ]
        pairs += zip(ours, convs, strict=True)
    return {
        f"{ours}.{own}": (f"{theirs}.{their}", engine.CONV if own == "conv.kernel" else engine.SAME)
        for ours, theirs in pairs
        for own, their in names.items()
    }


def _beta(name: str) -> str:
    """Name of the offsets that belong to the scales `name`; no array's name for any other."""
    return re.sub(r"\.scale$", ".beta", name) if name.endswith(".scale") else ""


if __name__ == "__main__":
    command.run(convert)
