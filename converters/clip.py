"""CLIP weights of OpenAI, open_clip and Hugging Face -> this program's, with their tokenizer.

    python -m converters.clip --checkpoint=ViT-B-32.pt --out=weights/clip.safetensors

Takes OpenAI's .pt (the TorchScript archive or its state dict), open_clip's .pt, .bin and .safetensors, and Hugging Face
folders, sharded or not.  The image tower is a ViT or one of OpenAI's ResNets; its sizes are read from the weights, and all
else from the config files that lie with them, whether their folder is given or a file in it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from flax import nnx

from converters import command, engine, hugging_face, open_clip, reading, wrappings
from converters.clip_names import HUGGING_FACE_MARK, from_hugging_face, table
from converters.clip_said import Said, read_json
from converters.vocabulary import VOCABULARY, find_vocabulary, tokenizer_json
from coral_jax import weights
from coral_jax.models.clip import ACTIVATIONS, CLIP, PIXEL_MEAN, PIXEL_STD, CLIPConfig
from coral_jax.models.clip_resnet import REDUCTION
from coral_jax.runtime.files import write_bytes

# Sizes and buffers that some checkpoints list among their weights.
IGNORED = ("input_resolution", "context_length", "vocab_size", "attn_mask", r".*position_ids", r".*num_batches_tracked")

# SHA-256 of the files that OpenAI published, as the URLs in its clip.py have them: all of them have QuickGELU.
OPENAI = {
    "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762": "RN50",
    "8fa8567bab74a42d41c5915025a8e4538c3bdbe8804a470a72f30b0d94fab599": "RN101",
    "7e526bd135e493cef0776de27d5f42653e6b4c8bf9e0f653bb11773263205fdd": "RN50x4",
    "52378b407f34354e150460fe41077663dd5b39c54cd0bfd2b27167a4a06ec9aa": "RN50x16",
    "be1cfb55d75a9666199fb2206c106743da0f6468c9d327f3e0d0a543a9919d9c": "RN50x64",
    "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af": "ViT-B/32",
    "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f": "ViT-B/16",
    "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836": "ViT-L/14",
    "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02": "ViT-L/14@336px",
}

# A config file -> the weights that lie with it, the first that is there: safetensors first, which need no torch.
_WEIGHTS = {
    hugging_face.CONFIG: ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin",
                          "pytorch_model.bin.index.json"),
    open_clip.FILE: ("open_clip_model.safetensors", "open_clip_model.safetensors.index.json",
                     "open_clip_pytorch_model.bin", "open_clip_pytorch_model.bin.index.json"),
}  # fmt: skip

_MARKS = ("token_embedding.weight", "text_model.embeddings.token_embedding.weight")  # OpenAI's and Hugging Face's names

_HEAD_WIDTH = 64
_VISION_HEAD_WIDTHS = {1280: 80, 1408: 88, 1664: 104, 1792: 112}  # of open_clip's ViT-H, ViT-g, ViT-bigG and ViT-e

_NEEDED = ("transformer.resblocks.0.ln_1.weight", "positional_embedding", "text_projection", "token_embedding.weight")
_NEEDED_VIT = ("visual.conv1.weight", "visual.positional_embedding", "visual.proj",
               "visual.transformer.resblocks.0.ln_1.weight", "visual.transformer.resblocks.0.mlp.c_fc.weight")  # fmt: skip
_NEEDED_RESNET = tuple(f"visual.layer{stage}.0.conv1.weight" for stage in (1, 2, 3, 4))
_POOL = "visual.attnpool.positional_embedding"


@dataclass
class Source:
    """Weights under OpenAI's names, and what the files that lie with them say that the weights themselves do not."""

    tensors: Mapping[str, np.ndarray]
    said: Said = field(default_factory=Said)
    origin: Mapping[str, str] = field(default_factory=dict)  # names and SHA-256 of the files


def convert(checkpoint: Path, out: Path, tokenizer: str | None = None, activation: str | None = None) -> str:
    """Convert a file or folder, and write tokenizer.json next to `out`; the lines say what was made, and what to look at.

    tokenizer: where the vocabulary is, a file or folder as `read_vocabulary` takes; None: in the checkpoint's folder,
    else in the installed open_clip or OpenAI's clip. activation: of ACTIVATIONS, for a checkpoint that does not say it.
    """
    tokenizer_out = out.with_name("tokenizer.json")
    if tokenizer_out.exists():
        raise ValueError(f"{tokenizer_out} is there already, of another CLIP; give an --out in another folder")
    vocabulary = Path(tokenizer) if tokenizer else find_vocabulary(checkpoint)
    source = read_source(checkpoint)
    config = config_of(source, activation)
    text = tokenizer_json(vocabulary, config)
    clip = load(source, config, str(checkpoint))
    origin, notes = source.origin, source.said.notes
    del source
    weights.save(out, clip, metadata=origin)
    write_bytes(tokenizer_out, text)
    tower = f"ViT of {config.image_size} px in patches of {config.patch_size}, width {config.vision_width}"
    if config.is_resnet:
        tower = f"ResNet of {config.image_size} px, width {config.vision_width}"
    done = (
        f"{out}: CLIP, {tower} x {config.vision_layers} layers, text width {config.text_width} x {config.text_layers}, "
        f"{config.embed_dim} features, {config.activation}, pixels of mean {_digits(config.pixel_mean)} and std "
        f"{_digits(config.pixel_std)}; {tokenizer_out}: {config.vocab_size} tokens of {vocabulary}"
    )
    return "\n".join([done, *notes])


def load(source: Source, config: CLIPConfig, origin: str) -> CLIP:
    """The network with the source's weights, float16 kept; ValueError lists all that does not fit."""
    clip = nnx.eval_shape(lambda: CLIP(config, nnx.Rngs(0)))
    engine.fill(clip, table(config), source.tensors, origin, IGNORED, keep_half=True)
    return clip


# --- what a checkpoint holds ---------------------------------------------------------------------------------------------


def read_source(checkpoint: Path) -> Source:
    """Read a file or folder with all that is said of it; ValueError for a folder without weights, and for a CLIP that is
    not like OpenAI's."""
    files = find_weights(checkpoint)
    if len(files) == 1:
        tensors = wrappings.find(reading.read(files[0]), _MARKS, str(files[0]), "and no CLIP; give a CLIP's weights").arrays
    else:
        tensors = {name: tensor for file in files for name, tensor in _shard(file).items()}
    is_hugging_face = HUGGING_FACE_MARK in tensors
    said = read_said(files[0].parent, is_hugging_face)
    origins = [command.origin(file) for file in files]
    for origin in origins:
        if name := OPENAI.get(origin["source_sha256"]):
            said.add(f"OpenAI's {name}", activation="quick_gelu", pixel_mean=PIXEL_MEAN, pixel_std=PIXEL_STD)
    origin = {key: " ".join(origin[key] for origin in origins) for key in origins[0]}
    return Source(from_hugging_face(tensors) if is_hugging_face else tensors, said, origin)


def find_weights(checkpoint: Path) -> list[Path]:
    """The file of weights, or all its shards, of a folder or of a file in it; ValueError where there is none."""
    if not checkpoint.is_dir():
        for index in checkpoint.parent.glob("*.index.json"):
            if checkpoint == index or checkpoint.name in _shard_names(index):
                return _shards(index)
        return [checkpoint]
    found = {
        config: [checkpoint / name for name in names if (checkpoint / name).is_file()]
        for config, names in _WEIGHTS.items()
        if (checkpoint / config).is_file()
    }
    if found.get(hugging_face.CONFIG) and found.get(open_clip.FILE):  # timm's folders have a config.json of timm's
        kind = hugging_face.model_type(checkpoint / hugging_face.CONFIG)
        found.pop(hugging_face.CONFIG if kind != "clip" else open_clip.FILE)
    if not any(found.values()):
        raise ValueError(
            f"{checkpoint} has no config.json with model.safetensors or pytorch_model.bin (Hugging Face), nor "
            "open_clip_config.json with open_clip's; fetch them into it, or give a file"
        )
    file = next(files[0] for files in found.values() if files)
    return _shards(file) if file.suffix == ".json" else [file]


def read_said(folder: Path, is_hugging_face: bool) -> Said:
    """What the config files in a folder say of the CLIP in it, whose weights may have Hugging Face's names.

    ValueError where they contradict each other, and where they describe what this program does not do.
    """
    said = Said()
    if (file := folder / hugging_face.CONFIG).is_file():
        if (kind := hugging_face.model_type(file)) == "clip":
            said.take(file, hugging_face.said(folder))
        elif is_hugging_face:
            raise ValueError(f"{file} describes a {kind!r} model; give a 'clip' one")
        else:
            said.notes.append(f"note: {file} describes a {kind!r} model, not these weights, and was ignored")
    if (file := folder / open_clip.FILE).is_file():
        said.take(file, open_clip.said(file))
    if file := hugging_face.processor_file(folder):
        said.take(file, hugging_face.processor_said(file))
    return said


def _shards(index: Path) -> list[Path]:
    """The files that an index names; ValueError where one is missing or lies elsewhere."""
    for name in (names := _shard_names(index)):
        if Path(name).name != name:
            raise ValueError(f"{index} names the file {name}, which is not in its folder; fetch it again")
        if not (index.parent / name).is_file():
            raise ValueError(f"{index} names {name}, and there is no such file; fetch it into the folder")
    return [index.parent / name for name in names]


def _shard(file: Path) -> Mapping[str, np.ndarray]:
    content = reading.read(file)
    if not isinstance(content, Mapping):
        raise ValueError(f"{file} holds no names and arrays; fetch it again")
    return content


def _shard_names(index: Path) -> list[str]:
    named = read_json(index).get("weight_map")
    if not isinstance(named, dict) or not named:
        raise ValueError(f"{index} has no weight_map of arrays and files; fetch it again")
    return sorted(set(map(str, named.values())))


# --- sizes -----------------------------------------------------------------------------------------------------------------


def config_of(source: Source, activation: str | None = None) -> CLIPConfig:
    """Sizes from the weights' shapes; heads, activation and pixel statistics as the files say, heads else as OpenAI's.

    activation: what to take where no file says it. ValueError for another kind of network, for files that are not of these
    weights, and for an activation that nothing tells.
    """
    sizes, said = _sizes(source.tensors), source.said
    for name in sizes.keys() & said.fields.keys():
        if sizes[name] != said.fields[name]:
            raise ValueError(
                f"{said.files[name]} says {name} {said.fields[name]}, and the weights have {sizes[name]}: "
                "they are not of one CLIP; give the checkpoint with its own files, or move the file elsewhere"
            )
    fields = _heads(sizes) | said.fields | sizes | {"activation": _activation(said, activation)}
    if "pixel_mean" not in fields:
        _check_unsaid_pixels(fields)
        said.notes.append(
            "note: nothing with the weights says on which pixels they were trained; OpenAI's mean and std were taken, as "
            "most CLIPs have them"
        )
    if fields["vision_heads"] is None or fields["text_heads"] is None:
        raise ValueError(
            f"nothing says the number of heads, and widths {sizes['vision_width']} and {sizes['text_width']} are no multiples "
            "of OpenAI's 64 a head; put config.json or open_clip_config.json next to the checkpoint"
        )
    return CLIPConfig(**fields)


def _sizes(tensors: Mapping[str, np.ndarray]) -> dict[str, object]:
    """The fields of CLIPConfig that the shapes tell."""
    if any(name.startswith("visual.trunk.") for name in tensors):
        raise ValueError(
            "this CLIP's vision tower is neither a ViT nor OpenAI's ResNet; give one that is, such as ViT-B-32 or RN50"
        )
    needed = (*(_NEEDED_RESNET if _POOL in tensors else _NEEDED_VIT), *_NEEDED)
    if absent := [name for name in needed if name not in tensors]:
        raise ValueError(
            f"this is not a CLIP of OpenAI's kind: no {', '.join(absent)}; give a CLIP with a ViT or OpenAI's ResNet"
        )
    text_width, embed_dim = tensors["text_projection"].shape
    vocab_size, _ = tensors["token_embedding.weight"].shape
    return {
        "text_width": text_width,
        "text_layers": _count(tensors, "transformer.resblocks."),
        "embed_dim": embed_dim,
        "context": tensors["positional_embedding"].shape[0],
        "vocab_size": vocab_size,
        **(_resnet_sizes(tensors) if _POOL in tensors else _vit_sizes(tensors)),
    }


def _vit_sizes(tensors: Mapping[str, np.ndarray]) -> dict[str, object]:
    width, _, _, patch = tensors["visual.conv1.weight"].shape
    hidden = tensors["visual.transformer.resblocks.0.mlp.c_fc.weight"].shape[0]
    return {
        "image_size": patch * _grid(tensors["visual.positional_embedding"]),
        "patch_size": patch,
        "vision_width": width,
        "vision_layers": _count(tensors, "visual.transformer.resblocks."),
        "vision_hidden": None if hidden == 4 * width else hidden,
    }


def _resnet_sizes(tensors: Mapping[str, np.ndarray]) -> dict[str, object]:
    return {
        "image_size": REDUCTION * _grid(tensors[_POOL]),
        "patch_size": REDUCTION,
        "vision_width": tensors["visual.layer1.0.conv1.weight"].shape[0],
        "vision_layers": tuple(_count(tensors, f"visual.layer{stage}.") for stage in (1, 2, 3, 4)),
    }


def _grid(positions: np.ndarray) -> int:
    """Patches a side, of the embeddings of a class token and a square of patches."""
    grid = math.isqrt(len(positions) - 1)
    if grid**2 + 1 != len(positions):
        raise ValueError(f"this CLIP takes {len(positions) - 1} patches, which are no square; give a CLIP for square pictures")
    return grid


def _count(tensors: Mapping[str, np.ndarray], prefix: str) -> int:
    return 1 + max(int(name[len(prefix) :].split(".")[0]) for name in tensors if name.startswith(prefix))


def _heads(sizes: Mapping[str, object]) -> dict[str, int | None]:
    """Heads by the rule of OpenAI's and open_clip's models; None where the rule does not fit the width."""
    width = sizes["vision_width"] * (32 if isinstance(sizes["vision_layers"], tuple) else 1)
    parts = {"vision_heads": (width, _VISION_HEAD_WIDTHS.get(sizes["vision_width"], _HEAD_WIDTH)),
             "text_heads": (sizes["text_width"], _HEAD_WIDTH)}  # fmt: skip
    return {name: None if whole % part else whole // part for name, (whole, part) in parts.items()}


# --- what the shapes do not tell -------------------------------------------------------------------------------------------


def _activation(said: Said, given: str | None) -> str:
    found = said.fields.get("activation")
    if given and found and given != found:
        raise ValueError(f"--activation={given}, but {said.files['activation']} says {found}; leave the flag out")
    chosen = found or given
    if chosen in ACTIVATIONS:
        return chosen
    if found:
        raise ValueError(
            f"{said.files['activation']} says the activation {found!r}, and this program only does "
            f"{' and '.join(ACTIVATIONS)}; give another CLIP"
        )
    what = f"the activation {given!r} is not known" if given else "nothing says the activation of this checkpoint"
    raise ValueError(
        f"{what}; give --activation=quick_gelu (OpenAI's weights, LAION-400M's ViT-B/32, all ResNets, most of MetaCLIP "
        "and DFN) or --activation=gelu (LAION's others and most of open_clip), or put its config.json or "
        "open_clip_config.json next to the checkpoint"
    )


def _check_unsaid_pixels(fields: Mapping[str, object]) -> None:
    """Published CLIPs of these sizes differ in their mean and std, so that they cannot be left unsaid."""
    if fields["activation"] == "gelu" and (fields["vision_width"], fields["patch_size"]) == (1024, 14):
        raise ValueError(
            "nothing says this ViT-L-14's mean and std of pixels, which are 0.5 for LAION-2B's and OpenAI's for others; put "
            "its open_clip_config.json or preprocessor_config.json next to the checkpoint"
        )


def _digits(values: tuple[float, ...]) -> str:
    return "/".join(f"{value:.4g}" for value in values)


if __name__ == "__main__":
    command.run(
        convert,
        tokenizer=f"The vocabulary: {VOCABULARY}, a tokenizer.json, merges.txt, or a folder with one of them.",
        activation="quick_gelu (OpenAI's) or gelu (most of open_clip), where no file next to the checkpoint says it.",
    )
