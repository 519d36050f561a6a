"""CLIPs with random weights in the layouts that are published, and the folders that they come in."""

import gzip
import json

import jax
import numpy as np
from flax import nnx

from converters import clip as converter
from coral_jax import weights
from coral_jax.models.clip import CLIP, CLIPConfig
from coral_jax.tokenizer import clip_vocab

MERGES = [("b", "l"), ("bl", "u"), ("blu", "e</w>"), ("e", "y"), ("ey", "e"), ("eye", "s</w>")]
SIZES = CLIPConfig(
    image_size=32, patch_size=8, vision_width=128, vision_layers=2, vision_heads=2, text_width=64, text_layers=2,
    text_heads=1, embed_dim=24, context=16, vocab_size=514 + len(MERGES),
)  # fmt: skip
RESNET = CLIPConfig(
    image_size=64, patch_size=32, vision_width=4, vision_layers=(1, 2, 1, 1), vision_heads=2, text_width=64, text_layers=1,
    text_heads=1, embed_dim=24, context=8, vocab_size=40,
)  # fmt: skip


def relative_error(got, expected):
    """Norm of the error over the norm of what was expected."""
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))


def features(clip, pixels, ids):
    """Image features of pixels [B, 3, S, S] and text features of ids, in float32."""
    clip = jax.tree.map(lambda leaf: leaf.astype(np.float32), clip)
    with jax.default_matmul_precision("highest"):
        image, text = jax.jit(lambda c, p, i: (c.encode_pixels(p), c.encode_text(i)))(clip, pixels.transpose(0, 2, 3, 1), ids)
    return np.asarray(image), np.asarray(text)


def inputs(config=SIZES):
    """Pixels [2, 3, S, S] and ids [2, 7]."""
    rng = np.random.default_rng(0)
    ids = rng.integers(0, config.vocab_size - 2, (2, 7)).astype(np.int32)
    ids[:, 0], ids[0, 4:], ids[1, 6] = config.vocab_size - 2, [config.vocab_size - 1, 0, 0], config.vocab_size - 1
    return rng.standard_normal((2, 3, config.image_size, config.image_size)).astype(np.float32), ids


def openai_weights(config=SIZES, dtype=np.float16):
    """Random weights under OpenAI's names; variances are above 0, and activations differ in the features."""
    network = nnx.eval_shape(lambda: CLIP(config, nnx.Rngs(0)))
    variables, rng = weights.named_variables(network), np.random.default_rng(1)
    made = {}
    for ours, (theirs, layout) in converter.table(config).items():
        random = rng.standard_normal(layout.write(np.broadcast_to(np.float32(0), variables[ours].shape)).shape)
        made[theirs] = np.asarray(0.5 + np.abs(random) if theirs.endswith("running_var") else 0.1 * random, dtype)
    return made


def hugging_face_weights(tensors):
    """The same weights under Hugging Face's names and in its layouts."""
    renamed = {"logit_scale": tensors["logit_scale"]}
    for name, tensor in tensors.items():
        tower = "vision_model" if name.startswith("visual.") else "text_model"
        own = name.removeprefix("visual.")
        if own in _ROOTS[tower]:
            renamed[_ROOTS[tower][own]] = tensor.T if own in ("proj", "text_projection") else tensor
        elif own.startswith("transformer.resblocks."):
            _, _, index, *leaf = own.split(".")
            prefix, leaf = f"{tower}.encoder.layers.{index}.", ".".join(leaf)
            if leaf.startswith("attn.in_proj_"):
                for part, third in zip("qkv", np.split(tensor, 3), strict=True):
                    renamed[f"{prefix}self_attn.{part}_proj.{leaf.removeprefix('attn.in_proj_')}"] = third
            else:
                for old, new in _LEAVES:
                    leaf = leaf.replace(old, new)
                renamed[prefix + leaf] = tensor
        else:
            old, leaf = own.rsplit(".", 1) if "." in own else (own, "")
            if old in _NORMS:
                renamed[f"{tower}.{_NORMS[old]}.{leaf}"] = tensor
    return renamed


_ROOTS = {
    "vision_model": {
        "class_embedding": "vision_model.embeddings.class_embedding",
        "conv1.weight": "vision_model.embeddings.patch_embedding.weight",
        "positional_embedding": "vision_model.embeddings.position_embedding.weight", "proj": "visual_projection.weight",
    },
    "text_model": {
        "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
        "positional_embedding": "text_model.embeddings.position_embedding.weight",
        "text_projection": "text_projection.weight",
    },
}  # fmt: skip
_NORMS = {"ln_pre": "pre_layrnorm", "ln_post": "post_layernorm", "ln_final": "final_layer_norm"}
_LEAVES = (("attn.out", "self_attn.out"), ("ln_", "layer_norm"), ("mlp.c_fc", "mlp.fc1"), ("mlp.c_proj", "mlp.fc2"))


def hugging_face_config(config=SIZES, **fields):
    """The config.json of a CLIP of these sizes; fields: of both towers."""
    vision = {
        "hidden_size": config.vision_width, "intermediate_size": config.vision_hidden or 4 * config.vision_width,
        "num_hidden_layers": config.vision_layers, "num_attention_heads": config.vision_heads,
        "image_size": config.image_size, "patch_size": config.patch_size,
    }  # fmt: skip
    text = {
        "hidden_size": config.text_width, "intermediate_size": 4 * config.text_width,
        "num_hidden_layers": config.text_layers, "num_attention_heads": config.text_heads,
        "max_position_embeddings": config.context, "vocab_size": config.vocab_size, "eos_token_id": config.vocab_size - 1,
    }  # fmt: skip
    towers = {"vision_config": vision | fields, "text_config": text | fields}
    return {"model_type": "clip", "projection_dim": config.embed_dim, **towers}


def open_clip_config(config=SIZES, **fields):
    """The model_cfg of an open_clip_config.json of these sizes; fields: of the whole model."""
    vision = {"image_size": config.image_size, "layers": config.vision_layers, "width": config.vision_width}
    if not config.is_resnet:
        vision |= {"patch_size": config.patch_size, "head_width": config.vision_width // config.vision_heads}
    text = {
        "context_length": config.context, "vocab_size": config.vocab_size, "width": config.text_width,
        "heads": config.text_heads, "layers": config.text_layers,
    }  # fmt: skip
    return {"embed_dim": config.embed_dim, "vision_cfg": vision, "text_cfg": text} | fields


def write_folder(folder, tensors, **configs):
    """A folder of weights with a vocabulary and config files, given as dictionaries by their names without .json."""
    folder.mkdir(exist_ok=True)
    is_open_clip = "open_clip_config" in configs
    weights.save_tensors(folder / ("open_clip_model.safetensors" if is_open_clip else "model.safetensors"), tensors, {})
    (folder / "vocab.json").write_text(json.dumps(clip_vocab(MERGES)))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, MERGES)))
    for name, content in configs.items():
        (folder / f"{name}.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def write_openai_vocabulary(path, merges=MERGES):
    """A file of OpenAI's form: a line of its version, then the merges, more than are used."""
    lines = ["#version", *(" ".join(merge) for merge in merges), "never used"]
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    return path
