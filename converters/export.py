"""A generator of this program -> the formats that other StyleGAN2 programs read.

    python -m converters.export --checkpoint=weights/generator.safetensors --out=generator.pt --format=rosinality

--format=rosinality: a .pt with g_ema and latent_avg, for rosinality/stylegan2-pytorch and all that is built on it.
--format=nvidia: a .safetensors with the names and shapes of stylegan2-ada-pytorch's state dict; its G_ema loads it with
load_state_dict. converters.stylegan2 reads both back, and no bit changes on the way.
"""

import io
from pathlib import Path

import numpy as np

from converters import command
from converters.engine import extract
from converters.stylegan2 import nvidia_table, rosinality_table
from converters.stylegan2_source import FILTER
from coral_jax import weights
from coral_jax.models.stylegan2 import StyleGAN2, StyleGAN2Config
from coral_jax.runtime.files import write_bytes

FORMATS = ("rosinality", "nvidia")


def convert(checkpoint: Path, out: Path, format: str | None) -> str:
    """Write the generator in `checkpoint`, of this program, in another program's format; the line says how to load it."""
    if format not in FORMATS:
        wrong = "no --format" if format is None else f"there is no format {format!r}"
        raise ValueError(f"{wrong}; type --format={' or --format='.join(FORMATS)}")
    generator = weights.load(checkpoint)
    if not isinstance(generator, StyleGAN2):
        raise ValueError(
            f"{checkpoint} holds no generator but {type(generator).__name__}; give a StyleGAN2, such as a domain's generator"
        )
    if format == "nvidia":
        if out.suffix != ".safetensors":
            raise ValueError(f"--format=nvidia writes safetensors; name --out {out.with_suffix('.safetensors')}")
        metadata = command.origin(checkpoint) | {"architecture": "stylegan2-ada-pytorch G_ema"}
        weights.save_tensors(out, nvidia_arrays(generator), metadata)
    else:
        write_bytes(out, rosinality_bytes(generator))
    return f"{out}: {constructor(generator.config, format)}"


def nvidia_arrays(generator: StyleGAN2) -> dict[str, np.ndarray]:
    """The state dict of stylegan2-ada-pytorch's Generator: weights, w_avg, and the resampling filters beside them."""
    arrays = extract(generator, nvidia_table(generator.config))
    for resolution, _ in generator.config.channels:
        for owner in ("", "conv0.", "conv1.")[:: 2 if resolution == 4 else 1]:  # the first block has one convolution
            arrays[f"synthesis.b{resolution}.{owner}resample_filter"] = FILTER
    return arrays


def rosinality_bytes(generator: StyleGAN2) -> bytes:
    """A .pt as rosinality/stylegan2-pytorch writes it; ValueError if its Generator cannot have these sizes."""
    try:
        import torch
    except ImportError as error:
        raise ValueError('a .pt is written with torch; type pip install -e ".[convert]"') from error
    config = generator.config
    if config.z_dim != config.w_dim:
        raise ValueError(
            f"rosinality's Generator has z as wide as w; this one has z {config.z_dim} and w {config.w_dim}: "
            "export it with --format=nvidia"
        )
    arrays = extract(generator, rosinality_table(config))
    for block in range(len(config.channels) - 1):
        arrays[f"convs.{2 * block}.conv.blur.kernel"] = FILTER * 4  # which keeps the mean of what it first spreads by zeros
        arrays[f"to_rgbs.{block}.upsample.kernel"] = FILTER * 4
    tensors = {name: torch.from_numpy(np.array(array, order="C")) for name, array in arrays.items()}
    latent_avg = tensors.pop("latent_avg")
    file = io.BytesIO()
    torch.save({"g_ema": tensors, "latent_avg": latent_avg}, file)
    return file.getvalue()


def constructor(config: StyleGAN2Config, format: str) -> str:
    """How to make a network, in the other program, into which the exported weights load."""
    widths, size = dict(config.channels), config.size
    if format == "nvidia":
        base, most = widths[size] * size, widths[4]
        call = f"Generator(z_dim={config.z_dim}, c_dim=0, w_dim={config.w_dim}, img_resolution={size}, img_channels=3, "
        call += f"mapping_kwargs=dict(num_layers={config.mapping_layers})"
        if all(width == min(base // resolution, most) for resolution, width in widths.items()):
            return f"the state dict of {call}, synthesis_kwargs=dict(channel_base={base}, channel_max={most}))"
        return f"the state dict of {call}) with its channels_dict set to {widths}"
    call = f"Generator({size}, {config.w_dim}, {config.mapping_layers}"
    for multiplier in (1, 2):  # up to 32 px, rosinality's table has 512 channels, then halves them
        if all(width == min(512, 16384 * multiplier // resolution) for resolution, width in widths.items()):
            return f"g_ema is the state dict of {call}, channel_multiplier={multiplier})"
    return f"g_ema is the state dict of {call}) with its table `channels` set to {widths}"


if __name__ == "__main__":
    command.run(convert, format="rosinality (.pt) or nvidia (.safetensors).")
