"""Time and memory of published sizes on this machine, with random weights: converters, a domain, one step, one edit.

    python -m benchmarks.real_sizes --out=runs/real_sizes

Makes checkpoints of the sizes of stylegan2-ffhq-config-f.pt (1024 px), ViT-B/32 and IR-SE50 in the formats in which they
are published (the text tower's vocabulary is the toons'), then runs each command in a process of its own.  Writes
table.json and table.md.  Needs pip install -e ".[convert]".
"""

import shutil
from pathlib import Path

import numpy as np
from absl import flags

from benchmarks.networks import ffhq_config, random_network
from benchmarks.process import measured
from converters import clip, engine, export, identity
from coral_jax import commands
from coral_jax.domains import EMBEDDED
from coral_jax.models.clip import CLIP, CLIPConfig
from coral_jax.models.identity import Identity, IdentityConfig
from coral_jax.models.stylegan2 import StyleGAN2
from coral_jax.runtime.files import write_bytes, write_json
from coral_jax.tokenizer import Tokenizer

_OUT = flags.DEFINE_string("out", "runs/real_sizes", "folder of all that is made")
_SIZE = flags.DEFINE_integer("size", 1024, "resolution of the generator: a power of two from 64 to 1024")

_TOKENIZER = EMBEDDED["toons"] / "tokenizer.json"


def make_checkpoints(folder: Path, size: int) -> None:
    """Write generator.pt, ViT-B-32.pt (float16) and model_ir_se50.pth with random weights into `folder`."""
    import torch

    def save(name: str, arrays: dict[str, np.ndarray], dtype: type) -> None:
        torch.save({key: torch.from_numpy(np.array(value, dtype)) for key, value in arrays.items()}, folder / name)

    folder.mkdir(parents=True, exist_ok=True)
    generator = random_network(StyleGAN2, ffhq_config(size))
    write_bytes(folder / "generator.pt", export.rosinality_bytes(generator))
    config = CLIPConfig(vocab_size=Tokenizer(_TOKENIZER, 77).vocab_size)
    save("ViT-B-32.pt", engine.extract(random_network(CLIP, config), clip.table(config)), np.float16)
    faces = IdentityConfig()
    save("model_ir_se50.pth", engine.extract(random_network(Identity, faces), identity.table(faces)), np.float32)


def main() -> None:
    """Make the checkpoints, run the commands, write the table."""
    out = Path(_OUT.value)
    if out.exists():
        raise ValueError(f"{out} is there already; give another --out or remove it")
    given, ours = out / "published", out / "converted"
    make_checkpoints(given, _SIZE.value)
    options = [f"--name=ffhq{_SIZE.value}", f"--weights_dir={out / 'weights'}", "--segmenter_fit"]
    config = f"configs/surprised.py:domain=ffhq{_SIZE.value}"
    fields = {"weights_dir": out / "weights", "steps": 1, "batch_size": 1, "sheet_seeds": "0"}
    jobs = {
        "convert the generator": ["converters.stylegan2", f"--checkpoint={given / 'generator.pt'}",
                                  f"--out={ours / 'generator.safetensors'}"],
        "convert CLIP": ["converters.clip", f"--checkpoint={given / 'ViT-B-32.pt'}", f"--out={ours / 'clip.safetensors'}",
                         f"--tokenizer={_TOKENIZER}", "--activation=quick_gelu"],
        "convert the identity network": ["converters.identity", f"--checkpoint={given / 'model_ir_se50.pth'}",
                                         f"--out={ours / 'identity.safetensors'}"],
        "make the domain": ["converters.domain", *options, *(f"--{n}={ours / n}.safetensors" for n in
                                                             ("generator", "clip", "identity"))],
        "train one step, batch 1": ["coral_jax.train", f"--config={config}", f"--workdir={out / 'run'}",
                                    *(f"--config.{name}={value}" for name, value in fields.items())],
        "edit one face": ["coral_jax.edit", f"--edit={out / 'run'}", "--seeds=0", f"--out={out / 'faces'}",
                          f"--weights_dir={out / 'weights'}"],
    }  # fmt: skip
    rows = {name: measured(["-m", *arguments]) for name, arguments in jobs.items()}
    write_json(out / "table.json", {"size": _SIZE.value, "rows": rows})
    lines = [f"| at {_SIZE.value} px | seconds | peak memory |", "|---|---|---|"]
    lines += [f"| {name} | {row['seconds']:.0f} | {row['peak_gb']:.1f} GB |" for name, row in rows.items()]
    write_bytes(out / "table.md", ("\n".join(lines) + "\n").encode())
    print("\n".join(lines))
    for folder in (given, ours, out / "weights"):
        shutil.rmtree(folder)


if __name__ == "__main__":
    commands.run(main)
