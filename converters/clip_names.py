"""Names and layouts of CLIP's weights: OpenAI's, which open_clip shares, and Hugging Face's turned into them."""

import re
from collections.abc import Mapping

import numpy as np

from converters import engine
from coral_jax.models.clip import CLIPConfig

HUGGING_FACE_MARK = "vision_model.pre_layrnorm.weight"  # [sic]

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


def table(config: CLIPConfig) -> engine.Table:
    """Our state paths -> OpenAI's names and layouts."""
    found = {
        "logit_scale": ("logit_scale", engine.SAME),
        "text.token_embedding": ("token_embedding.weight", engine.SAME),
        "text.positional_embedding": ("positional_embedding", engine.SAME),
        "text.proj.kernel": ("text_projection", engine.SAME),
        **_norm("text.ln_final", "ln_final"),
    }
    for index in range(config.text_layers):
        found |= _block(f"text.blocks.{index}", f"transformer.resblocks.{index}")
    return found | (_resnet(config) if config.is_resnet else _vit(config))


def _vit(config: CLIPConfig) -> engine.Table:
    found = {
        "vision.class_embedding": ("visual.class_embedding", engine.SAME),
        "vision.positional_embedding": ("visual.positional_embedding", engine.SAME),
        "vision.patch.kernel": ("visual.conv1.weight", _patches(config.patch_size)),
        "vision.proj.kernel": ("visual.proj", engine.SAME),
        **_norm("vision.ln_pre", "visual.ln_pre"),
        **_norm("vision.ln_post", "visual.ln_post"),
    }
    for index in range(config.vision_layers):
        found |= _block(f"vision.blocks.{index}", f"visual.transformer.resblocks.{index}")
    return found


def _resnet(config: CLIPConfig) -> engine.Table:
    found = {"vision.pool.positional_embedding": ("visual.attnpool.positional_embedding", engine.SAME)}
    for ours, theirs in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"), ("out", "c_proj")):
        found |= _linear(f"vision.pool.{ours}", f"visual.attnpool.{theirs}.weight", f"visual.attnpool.{theirs}.bias")
    for index in range(3):
        found |= _conv_norm(f"vision.stem.{index}", f"visual.conv{index + 1}", f"visual.bn{index + 1}")
    for stage, count in enumerate(config.vision_layers):
        for index in range(count):
            ours, theirs = f"vision.stages.{stage}.{index}", f"visual.layer{stage + 1}.{index}"
            for number, part in enumerate(("reduce", "middle", "expand"), 1):
                found |= _conv_norm(f"{ours}.{part}", f"{theirs}.conv{number}", f"{theirs}.bn{number}")
            if index == 0:  # where a stage begins, the number of channels changes
                found |= _conv_norm(f"{ours}.shortcut", f"{theirs}.downsample.0", f"{theirs}.downsample.1")
    return found


def _block(ours: str, theirs: str) -> engine.Table:
    found = _norm(f"{ours}.ln_1", f"{theirs}.ln_1") | _norm(f"{ours}.ln_2", f"{theirs}.ln_2")
    found |= _linear(f"{ours}.qkv", f"{theirs}.attn.in_proj_weight", f"{theirs}.attn.in_proj_bias")
    for own, their in (("out", "attn.out_proj"), ("fc", "mlp.c_fc"), ("proj", "mlp.c_proj")):
        found |= _linear(f"{ours}.{own}", f"{theirs}.{their}.weight", f"{theirs}.{their}.bias")
    return found


def _linear(ours: str, weight: str, bias: str) -> engine.Table:
    return {f"{ours}.kernel": (weight, engine.LINEAR), f"{ours}.bias": (bias, engine.SAME)}


def _conv_norm(ours: str, conv: str, norm: str) -> engine.Table:
    return {f"{ours}.conv.kernel": (f"{conv}.weight", engine.CONV)} | engine.batch_norm(f"{ours}.norm", norm)


def _norm(ours: str, theirs: str) -> engine.Table:
    return {f"{ours}.scale": (f"{theirs}.weight", engine.SAME), f"{ours}.bias": (f"{theirs}.bias", engine.SAME)}


def _patches(patch: int) -> engine.Layout:
    """A convolution over patches, [O, 3, p, p] <-> the linear map of flattened patches, [p p 3, O]."""
    return engine.Layout(
        lambda theirs: engine.CONV.read(theirs).reshape(-1, theirs.shape[0]),
        lambda ours: engine.CONV.write(ours.reshape(patch, patch, 3, -1)),
    )
