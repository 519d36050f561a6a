"""CLIP written plainly in torch, on a state dict with OpenAI's names: what the towers are tested against where torch is."""

import numpy as np
import torch
import torch.nn.functional as F

ACTIVATIONS = {"quick_gelu": lambda x: x * torch.sigmoid(1.702 * x), "gelu": F.gelu}


def image_features(state, pixels, heads, activation):
    """pixels [B, 3, S, S] -> [B, E], by a ResNet if the state dict holds one, else by a ViT."""
    return (_resnet if "visual.attnpool.positional_embedding" in state else _vit)(state, pixels, heads, activation)


def text_features(state, ids, heads, activation, end=None):
    """ids [B, N] -> [B, E], read at the first token `end` of each row, or at the highest id."""
    x = state["token_embedding.weight"][ids] + state["positional_embedding"][: ids.shape[1]]
    mask = torch.full((ids.shape[1], ids.shape[1]), float("-inf")).triu(1)
    x = _norm(state, "ln_final", _blocks(state, "transformer", x, heads, activation, mask))
    at = ids.argmax(dim=1) if end is None else (ids == end).int().argmax(dim=1)
    return x[torch.arange(len(x)), at] @ state["text_projection"]


def _vit(state, pixels, heads, activation):
    x = F.conv2d(pixels, state["visual.conv1.weight"], stride=state["visual.conv1.weight"].shape[-1])
    x = x.flatten(2).transpose(1, 2)
    token = state["visual.class_embedding"].expand(len(x), 1, -1)
    x = _norm(state, "visual.ln_pre", torch.cat([token, x], dim=1) + state["visual.positional_embedding"])
    x = _blocks(state, "visual.transformer", x, heads, activation, None)
    return _norm(state, "visual.ln_post", x[:, 0]) @ state["visual.proj"]


def _resnet(state, pixels, heads, _):
    x = pixels
    for number in (1, 2, 3):
        x = F.conv2d(x, state[f"visual.conv{number}.weight"], stride=2 if number == 1 else 1, padding=1)
        x = _batch_norm(state, f"visual.bn{number}", x).relu()
    x = F.avg_pool2d(x, 2)
    for stage in (1, 2, 3, 4):
        index = 0
        while f"visual.layer{stage}.{index}.conv1.weight" in state:
            x = _bottleneck(state, f"visual.layer{stage}.{index}", x, 2 if stage > 1 and index == 0 else 1)
            index += 1
    x = x.flatten(2).permute(2, 0, 1)
    x = torch.cat([x.mean(dim=0, keepdim=True), x]) + state["visual.attnpool.positional_embedding"][:, None]
    pool = {name: state[f"visual.attnpool.{name}"] for name in (f"{part}_proj.{leaf}" for part in "qkvc"
                                                                  for leaf in ("weight", "bias"))}  # fmt: skip
    mixed, _ = F.multi_head_attention_forward(
        x[:1], x, x, x.shape[-1], heads, None, torch.cat([pool["q_proj.bias"], pool["k_proj.bias"], pool["v_proj.bias"]]),
        None, None, False, 0.0, pool["c_proj.weight"], pool["c_proj.bias"], training=False, need_weights=False,
        use_separate_proj_weight=True, q_proj_weight=pool["q_proj.weight"], k_proj_weight=pool["k_proj.weight"],
        v_proj_weight=pool["v_proj.weight"],
    )  # fmt: skip
    return mixed[0]


def _bottleneck(state, name, x, stride):
    y = _batch_norm(state, f"{name}.bn1", F.conv2d(x, state[f"{name}.conv1.weight"])).relu()
    y = _batch_norm(state, f"{name}.bn2", F.conv2d(y, state[f"{name}.conv2.weight"], padding=1)).relu()
    y = F.avg_pool2d(y, stride) if stride > 1 else y
    y = _batch_norm(state, f"{name}.bn3", F.conv2d(y, state[f"{name}.conv3.weight"]))
    if f"{name}.downsample.0.weight" in state:
        x = F.avg_pool2d(x, stride) if stride > 1 else x
        x = _batch_norm(state, f"{name}.downsample.1", F.conv2d(x, state[f"{name}.downsample.0.weight"]))
    return (x + y).relu()


def _blocks(state, name, x, heads, activation, mask):
    index = 0
    while (block := f"{name}.resblocks.{index}") + ".ln_1.weight" in state:
        width = x.shape[-1]
        y = _norm(state, f"{block}.ln_1", x).transpose(0, 1)
        y, _ = F.multi_head_attention_forward(
            y, y, y, width, heads, state[f"{block}.attn.in_proj_weight"], state[f"{block}.attn.in_proj_bias"], None, None,
            False, 0.0, state[f"{block}.attn.out_proj.weight"], state[f"{block}.attn.out_proj.bias"], training=False,
            need_weights=False, attn_mask=mask,
        )  # fmt: skip
        x = x + y.transpose(0, 1)
        y = F.linear(_norm(state, f"{block}.ln_2", x), state[f"{block}.mlp.c_fc.weight"], state[f"{block}.mlp.c_fc.bias"])
        y = ACTIVATIONS[activation](y)
        x = x + F.linear(y, state[f"{block}.mlp.c_proj.weight"], state[f"{block}.mlp.c_proj.bias"])
        index += 1
    return x


def _norm(state, name, x):
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-5)


def _batch_norm(state, name, x):
    return F.batch_norm(x, *(state[f"{name}.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias")))


def as_torch(tensors):
    """numpy arrays -> float32 tensors."""
    return {name: torch.from_numpy(np.asarray(tensor, np.float32)) for name, tensor in tensors.items()}
