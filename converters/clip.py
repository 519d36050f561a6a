"""CLIP weights of OpenAI, open_clip and Hugging Face -> this program's, with the tokenizer beside them.

    python -m converters.clip --checkpoint=ViT-B-32.pt --out=weights/clip.safetensors

Takes OpenAI's .pt (the TorchScript archive or its state dict), open_clip's .pt, .bin and .safetensors, and Hugging Face
folders.  The vision tower must be a ViT; its sizes are read from the weights.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from flax import nnx

from converters import command, engine, reading
from converters.vocabulary import VOCABULARY, find_vocabulary, read_json, tokenizer_json
from coral_jax import weights
from coral_jax.models.clip import ACTIVATIONS, CLIP, PIXEL_MEAN, PIXEL_STD, CLIPConfig
from coral_jax.runtime.files import write_bytes

# Sizes and buffers that some checkpoints list among their weights.
IGNORED = ("input_resolution", "context_length", "vocab_size", "attn_mask", r".*position_ids")

_HEAD_WIDTH = 64
_VISION_HEAD_WIDTHS = {1280: 80, 1408: 88, 1664: 104}  # of open_clip's ViT-H, ViT-g and ViT-bigG


class Source(NamedTuple):
    """Weights under OpenAI's names, and what a config beside them says that the weights themselves do not."""

    tensors: Mapping[str, np.ndarray]
    activation: str | None = None
    vision_heads: int | None = None
    text_heads: int | None = None


def convert(checkpoint: Path, out: Path, tokenizer: str | None = None, activation: str | None = None) -> str:
    """Convert a file or folder, and write tokenizer.json beside `out`; the line says what was made.

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
    del source
    weights.save(out, clip, metadata=command.origin(find_weights(checkpoint)[0]))
    write_bytes(tokenizer_out, text)
    return (
        f"{out}: CLIP, ViT of {config.image_size} px in patches of {config.patch_size}, width {config.vision_width} x "
        f"{config.vision_layers} layers, text width {config.text_width} x {config.text_layers}, {config.embed_dim} features, "
        f"{config.activation}; {tokenizer_out}: {config.vocab_size} tokens of {vocabulary}"
    )


def load(source: Source, config: CLIPConfig, origin: str) -> CLIP:
    """The network with the source's weights, float16 kept; ValueError lists all that does not fit."""
    clip = nnx.eval_shape(lambda: CLIP(config, nnx.Rngs(0)))
    engine.fill(clip, table(config), source.tensors, origin, IGNORED, keep_half=True)
    return clip


# --- what a checkpoint holds ---------------------------------------------------------------------------------------------


def read_source(checkpoint: Path) -> Source:
    """Read a file or folder; ValueError for a folder without weights, and for a CLIP that is not like OpenAI's."""
    file, said = find_weights(checkpoint)
    return _source(reading.read(file), **said)


def find_weights(checkpoint: Path) -> tuple[Path, dict]:
    """The file of weights in a folder (or the file given), and fields of `Source` that a config beside it tells.

    ValueError for a folder without weights, and for a config of a CLIP that is not like OpenAI's.
    """
    if not checkpoint.is_dir():
        beside = checkpoint.parent / "open_clip_config.json"
        return checkpoint, _said_by_open_clip(read_json(beside)) if beside.is_file() else {}
    preprocessing = checkpoint / "preprocessor_config.json"
    if preprocessing.is_file():
        read = read_json(preprocessing)
        _check_statistics(read.get("image_mean"), read.get("image_std"))
    for config, says, names in (
        ("config.json", _said_by_hugging_face, ("model.safetensors", "pytorch_model.bin")),
        ("open_clip_config.json", _said_by_open_clip, ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")),
    ):
        found = [checkpoint / name for name in names if (checkpoint / name).is_file()]
        if found and (checkpoint / config).is_file():
            return found[0], says(read_json(checkpoint / config))
    raise ValueError(
        f"{checkpoint} has no config.json with model.safetensors or pytorch_model.bin (Hugging Face), nor "
        "open_clip_config.json with open_clip's; fetch them into it, or give a file"
    )


def from_hugging_face(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Hugging Face's names and layouts -> OpenAI's; names that are not known stay as they are."""
    renamed = {}
    for name, tensor in tensors.items():
        if name in ("visual_projection.weight", "text_projection.weight"):
            renamed[{"v": "visual.proj", "t": "text_projection"}[name[0]]] = tensor.T
            continue
        for pattern, replacement in _HUGGING_FACE:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    for name in [name for name in renamed if ".attn.q_proj." in name]:
        parts = [name.replace(".q_proj.", f".{part}_proj.") for part in "qkv"]
        if all(part in renamed for part in parts):
            renamed[name.replace(".q_proj.", ".in_proj_")] = np.concatenate([renamed.pop(part) for part in parts])
    return renamed


_HUGGING_FACE = (
    (r"^vision_model\.embeddings\.class_embedding$", "visual.class_embedding"),
    (r"^vision_model\.embeddings\.patch_embedding\.", "visual.conv1."),
    (r"^vision_model\.embeddings\.position_embedding\.weight$", "visual.positional_embedding"),
    (r"^vision_model\.pre_layrnorm\.", "visual.ln_pre."),
    (r"^vision_model\.post_layernorm\.", "visual.ln_post."),
    (r"^vision_model\.encoder\.layers\.", "visual.transformer.resblocks."),
    (r"^text_model\.embeddings\.token_embedding\.", "token_embedding."),
    (r"^text_model\.embeddings\.position_embedding\.weight$", "positional_embedding"),
    (r"^text_model\.final_layer_norm\.", "ln_final."),
    (r"^text_model\.encoder\.layers\.", "transformer.resblocks."),
    (r"(resblocks\.\d+)\.layer_norm([12])\.", r"\1.ln_\2."),
    (r"(resblocks\.\d+)\.self_attn\.", r"\1.attn."),
    (r"(resblocks\.\d+)\.mlp\.fc1\.", r"\1.mlp.c_fc."),
    (r"(resblocks\.\d+)\.mlp\.fc2\.", r"\1.mlp.c_proj."),
)


def _source(content: object, **said: object) -> Source:
    if isinstance(content, Mapping):
        content = content.get("state_dict", content)  # as open_clip's training writes it
    if not isinstance(content, Mapping):
        raise ValueError("the checkpoint holds no state dict (names and arrays); give a file of weights")
    tensors = {name.removeprefix("module."): value for name, value in content.items()}
    return Source(from_hugging_face(tensors) if "vision_model.pre_layrnorm.weight" in tensors else tensors, **said)


def _said_by_hugging_face(config: dict) -> dict:
    if config.get("model_type") != "clip":
        raise ValueError(f"config.json describes a {config.get('model_type')!r} model; give the folder of a 'clip' one")
    towers = []
    for name, defaults in (("vision", {"num_attention_heads": 12}), ("text", {"num_attention_heads": 8})):
        given = (config.get(f"{name}_config") or {}) | (config.get(f"{name}_config_dict") or {})
        towers.append(defaults | {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5} | given)
    activations = sorted({tower["hidden_act"] for tower in towers})
    if len(activations) > 1 or any(tower["layer_norm_eps"] != 1e-5 for tower in towers):
        raise ValueError(
            "config.json: both towers must have one activation, and layer_norm_eps 1e-5; this CLIP cannot be converted"
        )
    vision, text = towers
    return {
        "activation": activations[0], "vision_heads": vision["num_attention_heads"], "text_heads": text["num_attention_heads"],
    }  # fmt: skip


def _said_by_open_clip(config: dict) -> dict:
    model, preprocessing = config.get("model_cfg", config), config.get("preprocess_cfg", {})
    _check_statistics(preprocessing.get("mean"), preprocessing.get("std"))
    vision, text = model["vision_cfg"], model["text_cfg"]
    said = {"activation": "quick_gelu" if model.get("quick_gelu") else "gelu", "text_heads": text.get("heads")}
    if "width" in vision and isinstance(vision.get("layers"), int):  # a ViT; others are refused by their weights
        said["vision_heads"] = vision["width"] // vision.get("head_width", _HEAD_WIDTH)
    return said


def _check_statistics(mean: list[float] | None, std: list[float] | None) -> None:
    given = (*(mean or PIXEL_MEAN), *(std or PIXEL_STD))
    if not np.allclose(given, (*PIXEL_MEAN, *PIXEL_STD), atol=1e-4):
        raise ValueError(
            f"this CLIP was trained on pixels of mean {mean} and std {std}, and this program gives it OpenAI's; "
            "give a CLIP trained on OpenAI's mean and std"
        )


# --- sizes and names -------------------------------------------------------------------------------------------------------


def config_of(source: Source, activation: str | None = None) -> CLIPConfig:
    """Sizes from the weights' shapes; heads and activation as the source says, else by the rule of OpenAI's models.

    activation: what to take where the source says nothing. ValueError for another kind of network, and for an activation
    that nothing tells.
    """
    tensors = source.tensors
    if any(name.startswith(("visual.attnpool.", "visual.trunk.")) for name in tensors):
        raise ValueError("this CLIP's vision tower is not a ViT; give one that is, such as ViT-B-32 or ViT-L-14")
    needed = ("visual.conv1.weight", "visual.positional_embedding", "visual.proj", "visual.transformer.resblocks.0.ln_1.weight",
              "visual.transformer.resblocks.0.mlp.c_fc.weight", "transformer.resblocks.0.ln_1.weight", "positional_embedding",
              "text_projection", "token_embedding.weight")  # fmt: skip
    if absent := [name for name in needed if name not in tensors]:
        raise ValueError(f"this is not a CLIP of OpenAI's kind: no {', '.join(absent)}; give a CLIP with a ViT")
    width, _, _, patch = tensors["visual.conv1.weight"].shape
    text_width, embed_dim = tensors["text_projection"].shape
    hidden = tensors["visual.transformer.resblocks.0.mlp.c_fc.weight"].shape[0]
    return CLIPConfig(
        image_size=patch * math.isqrt(tensors["visual.positional_embedding"].shape[0] - 1),
        patch_size=patch,
        vision_width=width,
        vision_layers=_count(tensors, "visual.transformer.resblocks."),
        vision_heads=source.vision_heads or width // _VISION_HEAD_WIDTHS.get(width, _HEAD_WIDTH),
        text_width=text_width,
        text_layers=_count(tensors, "transformer.resblocks."),
        text_heads=source.text_heads or text_width // _HEAD_WIDTH,
        embed_dim=embed_dim,
        context=tensors["positional_embedding"].shape[0],
        vocab_size=tensors["token_embedding.weight"].shape[0],
        activation=_activation(source, activation),
        vision_hidden=None if hidden == 4 * width else hidden,
    )


def _activation(source: Source, given: str | None) -> str:
    said = source.activation
    if said is None and source.tensors["visual.conv1.weight"].dtype == np.float16:
        said = "quick_gelu"  # OpenAI's checkpoints are the ones in float16, and all of them have it
    if given and said and given != said:
        raise ValueError(f"--activation={given}, but this checkpoint's is {said}; leave the flag out")
    chosen = said or given
    if chosen not in ACTIVATIONS:
        what = "the checkpoint does not say its activation" if chosen is None else f"the activation {chosen!r} is not known"
        raise ValueError(
            f"{what}; give --activation=quick_gelu (OpenAI's weights, and others trained with them) or --activation=gelu "
            "(open_clip's LAION weights), or put open_clip_config.json beside the checkpoint"
        )
    return chosen


def _count(tensors: Mapping[str, np.ndarray], prefix: str) -> int:
    return 1 + max(int(name[len(prefix) :].split(".")[0]) for name in tensors if name.startswith(prefix))


def table(config: CLIPConfig) -> engine.Table:
    """Our state paths -> OpenAI's names and layouts."""
    found = {
        "logit_scale": ("logit_scale", engine.SAME),
        "vision.class_embedding": ("visual.class_embedding", engine.SAME),
        "vision.positional_embedding": ("visual.positional_embedding", engine.SAME),
        "vision.patch.kernel": ("visual.conv1.weight", _patches(config.patch_size)),
        "vision.proj.kernel": ("visual.proj", engine.SAME),
        "text.token_embedding": ("token_embedding.weight", engine.SAME),
        "text.positional_embedding": ("positional_embedding", engine.SAME),
        "text.proj.kernel": ("text_projection", engine.SAME),
        **_norm("vision.ln_pre", "visual.ln_pre"),
        **_norm("vision.ln_post", "visual.ln_post"),
        **_norm("text.ln_final", "ln_final"),
    }
    for tower, theirs, layers in (("vision", "visual.", config.vision_layers), ("text", "", config.text_layers)):
        for index in range(layers):
            found |= _block(f"{tower}.blocks.{index}", f"{theirs}transformer.resblocks.{index}")
    return found


def _block(ours: str, theirs: str) -> engine.Table:
    maps = {"qkv": ("attn.in_proj_weight", "attn.in_proj_bias"), "out": ("attn.out_proj.weight", "attn.out_proj.bias"),
            "fc": ("mlp.c_fc.weight", "mlp.c_fc.bias"), "proj": ("mlp.c_proj.weight", "mlp.c_proj.bias")}  # fmt: skip
    found = _norm(f"{ours}.ln_1", f"{theirs}.ln_1") | _norm(f"{ours}.ln_2", f"{theirs}.ln_2")
    for own, (weight, bias) in maps.items():
        found[f"{ours}.{own}.kernel"] = (f"{theirs}.{weight}", engine.LINEAR)
        found[f"{ours}.{own}.bias"] = (f"{theirs}.{bias}", engine.SAME)
    return found


def _norm(ours: str, theirs: str) -> engine.Table:
    return {f"{ours}.scale": (f"{theirs}.weight", engine.SAME), f"{ours}.bias": (f"{theirs}.bias", engine.SAME)}


def _patches(patch: int) -> engine.Layout:
    """A convolution over patches, [O, 3, p, p] <-> the linear map of flattened patches, [p p 3, O]."""
    return engine.Layout(
        lambda theirs: engine.CONV.read(theirs).reshape(-1, theirs.shape[0]),
        lambda ours: engine.CONV.write(ours.reshape(patch, patch, 3, -1)),
    )


if __name__ == "__main__":
    command.run(
        convert,
        tokenizer=f"The vocabulary: {VOCABULARY}, a tokenizer.json, merges.txt, or a folder with one of them.",
        activation="quick_gelu (OpenAI's) or gelu (open_clip's LAION), where the checkpoint does not say it.",
    )
