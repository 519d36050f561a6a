"""What an open_clip_config.json says of the CLIP whose weights lie with it."""

from pathlib import Path

from converters.clip_said import check, numbers, part, read_json, side, whole
from coral_jax.models.clip import PIXEL_MEAN, PIXEL_STD
from coral_jax.models.clip_resnet import REDUCTION

FILE = "open_clip_config.json"

_OFF = (False, None)
_NONE = (None, "", {})
# Of both towers: blocks that are not OpenAI's.
_BLOCKS = {
    "ls_init_value": _NONE, "act_kwargs": _NONE, "norm_kwargs": _NONE, "block_type": (None, "default"), "qk_norm": _OFF,
    "scaled_cosine_attn": _OFF, "scale_heads": _OFF, "scale_attn_inner": _OFF, "scale_attn": _OFF, "scale_fc": _OFF,
}  # fmt: skip
# What changes the features -> the values that this program does.
_FIXED = {
    "model_cfg": {
        "multimodal_cfg": _NONE, "audio_cfg": _NONE, "genlip_cfg": _NONE, "genlap_cfg": _NONE, "init_logit_bias": _NONE,
        "nonscalar_logit_scale": _OFF,
    },
    "vision_cfg": _BLOCKS | {
        "timm_model_name": _NONE, "attentional_pool": (*_OFF, "none"), "pool_type": ("tok",), "no_ln_pre": _OFF,
        "final_ln_after_pool": _OFF, "in_chans": (3,), "image_seq_len": _NONE,
    },
    "text_cfg": _BLOCKS | {
        "text_arch": ("clip",), "hf_model_name": _NONE, "hf_tokenizer_name": (*_NONE, "openai/clip-vit-large-patch14"),
        "tokenizer_mode": _NONE, "tokenizer_kwargs": _NONE, "tokenizer_type": _NONE, "embed_cls": _OFF,
        "no_causal_mask": _OFF, "variable_text": _OFF, "proj_type": ("linear",), "proj_bias": _OFF, "mlp_ratio": (4.0,),
        "final_ln_after_pool": _OFF, "norm_type": (None, "layernorm"), "attention_bias": (None, True),
        "mlp_bias": (None, True), "pre_norm": _OFF, "reg_tokens": (0,), "attn_gated": _OFF, "value_residual": _OFF,
        "norm_placement": ("pre",), "attention_mode": ("causal",),
    },
    "preprocess_cfg": {"mode": ("RGB",), "interpolation": ("bicubic",), "resize_mode": ("shortest",)},
}  # fmt: skip
# What the weights' own shapes and names say too, and what only counts in training or next to a field refused above.
_HARMLESS = {
    "model_cfg": {"custom_text", "init_logit_scale", "output_dict", "cast_dtype"},
    "vision_cfg": {
        "mlp_ratio", "patch_dropout", "pos_embed_type", "output_tokens", "attn_pooler_queries", "attn_pooler_heads",
        "timm_model_pretrained", "timm_pool", "timm_proj", "timm_proj_bias", "timm_drop", "timm_drop_path", "timm_model_kwargs",
    },
    "text_cfg": {
        "pad_id", "bos_id", "output_tokens", "tiktoken_name", "hf_model_pretrained", "hf_proj_type", "hf_pooler_type",
        "hf_model_config", "pos_embed", "rope_temperature", "mlp_type", "norm_eps", "zero_init_residual", "gate_bias",
    },
    "preprocess_cfg": {"fill_color"},
}  # fmt: skip
_USED = {
    "model_cfg": {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu"},
    "vision_cfg": {"image_size", "layers", "width", "head_width", "patch_size"},
    "text_cfg": {"context_length", "vocab_size", "width", "heads", "layers", "pool_type", "eos_id"},
    "preprocess_cfg": {"size", "mean", "std"},
}


def said(file: Path) -> tuple[dict[str, object], list[str]]:
    """Fields of CLIPConfig that the file says, and notes; ValueError for a CLIP that is not like OpenAI's.

    What the file leaves out has open_clip's default; sizes are only read where they are given.
    """
    config = read_json(file)
    model = part(config, "model_cfg", file) if "model_cfg" in config else config
    vision, text = part(model, "vision_cfg", file), part(model, "text_cfg", file)
    pixels = part(config, "preprocess_cfg", file) if config.get("preprocess_cfg") else {}
    notes = []
    for name, given in (("model_cfg", model), ("vision_cfg", vision), ("text_cfg", text), ("preprocess_cfg", pixels)):
        harmless = _HARMLESS[name] | ({"preprocess_cfg"} if given is config else set())
        notes += check(given, f"{file}: {name}", _USED[name], _FIXED[name], harmless)
    _check_pooling(text, file)
    fields = {"text_heads": whole(text.get("heads", 8), "text_cfg: heads", str(file)), **_vision(vision, file)}
    # open_clip's list of models has files without these two, which there depend on the weights.
    if "quick_gelu" in model or "model_cfg" in config:
        fields["activation"] = "quick_gelu" if model.get("quick_gelu") else "gelu"
    if "preprocess_cfg" in config:
        fields["pixel_mean"] = numbers(pixels.get("mean") or PIXEL_MEAN, "mean", str(file))
        fields["pixel_std"] = numbers(pixels.get("std") or PIXEL_STD, "std", str(file))
    for ours, given, theirs in (
        ("embed_dim", model, "embed_dim"), ("text_width", text, "width"), ("text_layers", text, "layers"),
        ("context", text, "context_length"), ("vocab_size", text, "vocab_size"),
    ):  # fmt: skip
        if theirs in given:
            fields[ours] = given[theirs]
    if "size" in pixels:
        size = side(pixels["size"], "preprocess_cfg.size", str(file))
        if size != fields.setdefault("image_size", size):
            raise ValueError(f"{file}: size is {size} and image_size {fields['image_size']}; give a CLIP that has one size")
    return fields, notes


def _vision(vision: dict, file: Path) -> dict[str, object]:
    layers = vision.get("layers", 12)
    width = whole(vision.get("width", 768), "vision_cfg: width", str(file))
    head_width = whole(vision.get("head_width", 64), "vision_cfg: head_width", str(file))
    is_resnet = isinstance(layers, list)
    fields = {"vision_heads": width * (32 if is_resnet else 1) // head_width}
    if "layers" in vision:
        fields["vision_layers"] = tuple(layers) if is_resnet else layers
    if "width" in vision:
        fields["vision_width"] = width
    if "image_size" in vision:
        fields["image_size"] = side(vision["image_size"], "image_size", str(file))
    if is_resnet or "patch_size" in vision:
        fields["patch_size"] = REDUCTION if is_resnet else side(vision["patch_size"], "patch_size", str(file))
    return fields


def _check_pooling(text: dict, file: Path) -> None:
    """Ours reads the text at the highest id; "eos" does the same where that is the highest."""
    pooling, end = text.get("pool_type", "argmax"), text.get("eos_id")
    if pooling == "argmax" or (pooling == "eos" and end is not None and end == text.get("vocab_size", 49408) - 1):
        return
    raise ValueError(
        f"{file}: text_cfg: pool_type is {pooling!r} (eos_id {end}), and this program reads the text at its end token, the "
        "highest id ('argmax'); give another CLIP"
    )
