"""CLIP's published forms into ours: features, tokens, pictures, and what is said of what cannot be converted."""

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from clip_made import (
    MERGES,
    RESNET,
    SIZES,
    features,
    hugging_face_config,
    hugging_face_weights,
    inputs,
    open_clip_config,
    openai_weights,
    relative_error,
    write_folder,
    write_openai_vocabulary,
)

from converters import clip as converter
from converters import vocabulary
from coral_jax import weights
from coral_jax.models import load_clip
from coral_jax.models.clip import PIXEL_MEAN, PIXEL_STD, CLIPConfig, preprocess
from coral_jax.tokenizer import Tokenizer, clip_vocab

DATA = Path(__file__).parent / "data"


def openais_golden():
    """Weights under OpenAI's names, their sizes, and pixels, ids and features of OpenAI's own program."""
    source = converter.read_source(DATA / "clip_openai_tiny_weights.safetensors")
    expected, _ = weights.load_tensors(DATA / "clip_openai_tiny.safetensors")
    return source.tensors, converter.config_of(source, "quick_gelu"), expected


def assert_golden(source, expected, activation=None):
    """The source's network has the features that were expected, to 1e-5."""
    network = converter.load(source, converter.config_of(source, activation), "tiny")
    image, text = features(network, expected["pixels"], expected["ids"])
    assert relative_error(image, expected["image_features"]) < 1e-5
    assert relative_error(text, expected["text_features"]) < 1e-5


def test_openais_weights_give_openais_features():
    tensors, config, expected = openais_golden()
    assert config == CLIPConfig(
        image_size=64, patch_size=16, vision_width=128, vision_layers=3, vision_heads=2, text_width=64, text_layers=3,
        text_heads=1, embed_dim=48, context=77, vocab_size=40,
    )  # fmt: skip
    assert_golden(converter.Source(tensors), expected, "quick_gelu")


@pytest.mark.parametrize("shards", [1, 2])
def test_a_hugging_face_folder_is_read_as_openais_weights(tmp_path, shards):
    tensors, config, _ = openais_golden()
    renamed = hugging_face_weights(tensors)
    write_folder(tmp_path, renamed, config=hugging_face_config(config))
    if shards == 2:
        (tmp_path / "model.safetensors").unlink()
        names = {name: f"model-{1 + index % 2:05}-of-00002.safetensors" for index, name in enumerate(sorted(renamed))}
        for file in set(names.values()):
            weights.save_tensors(tmp_path / file, {name: renamed[name] for name in names if names[name] == file}, {})
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    for path in (tmp_path, *tmp_path.glob("*.safetensors*")):
        source = converter.read_source(path)
        assert converter.config_of(source) == config
        assert source.tensors.keys() == tensors.keys()
        for name, tensor in tensors.items():
            np.testing.assert_array_equal(source.tensors[name], tensor)
        files = sorted(path.name for path in tmp_path.glob("*.safetensors"))
        assert source.origin["source"] == " ".join(files) and len(source.origin["source_sha256"].split()) == shards


def test_openais_resnet_gives_its_features():
    """Weights and features of OpenAI's ModifiedResNet, made once: random weights under OpenAI's names in float16, and what
    `tests/clip_torch.py` computes with them in float32, which agreed with open_clip's own CLIP to 1e-6."""
    source = converter.read_source(DATA / "clip_resnet_tiny_weights.safetensors")
    assert converter.config_of(source, "quick_gelu") == RESNET
    assert_golden(source, weights.load_tensors(DATA / "clip_resnet_tiny.safetensors")[0], "quick_gelu")


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("config", [SIZES, RESNET], ids=["vit", "resnet"])
def test_an_open_clip_folder_gives_torchs_features(tmp_path, config, activation):
    torch = pytest.importorskip("torch")
    import clip_torch

    tensors, (pixels, ids) = openai_weights(config, np.float32), inputs(config)
    described = {"model_cfg": open_clip_config(config, quick_gelu=activation == "quick_gelu"), "preprocess_cfg": {}}
    write_folder(tmp_path, tensors, open_clip_config=described)
    source, state = converter.read_source(tmp_path), clip_torch.as_torch(tensors)
    expected = {
        "pixels": pixels, "ids": ids,
        "image_features": clip_torch.image_features(state, torch.from_numpy(pixels), config.vision_heads, activation).numpy(),
        "text_features": clip_torch.text_features(
            state, torch.from_numpy(ids).long(), config.text_heads, activation, end=config.vocab_size - 1
        ).numpy(),
    }  # fmt: skip
    assert converter.config_of(source).activation == activation
    assert_golden(source, expected)


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_a_hugging_face_folder_gives_transformers_features(tmp_path, activation):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.manual_seed(0)
    tower = {"hidden_act": activation, "num_hidden_layers": 2}
    vision = {"hidden_size": 48, "intermediate_size": 120, "num_attention_heads": 3, "image_size": 32, "patch_size": 8}
    text = {"hidden_size": 32, "intermediate_size": 128, "num_attention_heads": 4, "max_position_embeddings": 16,
            "vocab_size": SIZES.vocab_size, "eos_token_id": SIZES.vocab_size - 1}  # fmt: skip
    config = transformers.CLIPConfig(vision_config=tower | vision, text_config=tower | text, projection_dim=24)
    model = transformers.CLIPModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # away from zeros and ones, and large enough for the activations to differ
            parameter.add_(0.2 * torch.randn(parameter.shape))
        pixels, ids = inputs()
        given = {"pixel_values": torch.from_numpy(pixels), "input_ids": torch.from_numpy(ids).long()}
        output = model(**given)  # its features have unit length
    model.save_pretrained(tmp_path)
    (tmp_path / "vocab.json").write_text(json.dumps(clip_vocab(MERGES)))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, MERGES)))
    line = converter.convert(tmp_path, tmp_path / "out" / "clip.safetensors")
    assert activation in line and "ViT of 32 px in patches of 8, width 48 x 2 layers" in line
    converted = load_clip(tmp_path / "out" / "clip.safetensors")
    assert (converted.config.activation, converted.config.vision_hidden) == (activation, 120)
    image, text = features(converted, pixels, ids)
    image, text = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (image, text))
    assert relative_error(image, output.image_embeds.numpy()) < 1e-5
    assert relative_error(text, output.text_embeds.numpy()) < 1e-5
    assert relative_error(converted.logit_scale[...], model.logit_scale.detach().numpy()) < 1e-6
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    again = converter.read_source(tmp_path)
    np.testing.assert_array_equal(again.tensors["visual.proj"], model.visual_projection.weight.detach().numpy().T)


def test_float16_is_kept_in_the_file_and_the_tokenizer_lies_beside(tmp_path):
    source, out = tmp_path / "openai.safetensors", tmp_path / "weights" / "clip.safetensors"
    weights.save_tensors(source, openai_weights(), {})
    line = converter.convert(source, out, str(write_openai_vocabulary(tmp_path / "bpe.txt.gz")), "quick_gelu")
    assert f"{SIZES.vocab_size} tokens of {tmp_path / 'bpe.txt.gz'}" in line
    stored, said = weights.load_tensors(out)
    assert (said["source"], said["source_sha256"]) == (source.name, weights.fingerprint(source))
    assert {tensor.dtype for tensor in stored.values()} == {np.dtype(np.float16)}
    network = load_clip(out)
    assert network.config == SIZES and network.text.proj.kernel.dtype == np.float32
    ids = Tokenizer(out.with_name("tokenizer.json"), SIZES.context)(["Blue eyes"])[0]
    vocab = clip_vocab(MERGES)
    expected = [vocab[token] for token in ("<|startoftext|>", "blue</w>", "eyes</w>", "<|endoftext|>")]
    assert ids[:4].tolist() == expected and not ids[4:].any()
    with pytest.raises(ValueError, match="tokenizer.json is there already"):
        converter.convert(source, out.with_name("other.safetensors"), str(tmp_path / "bpe.txt.gz"), "quick_gelu")


@pytest.mark.parametrize("made", [SIZES, RESNET], ids=["vit", "resnet"])
def test_every_layout_is_undone_to_the_bit(made):
    source = converter.Source(openai_weights(made))
    config = converter.config_of(source, "quick_gelu")
    assert config == made
    back = converter.engine.extract(converter.load(source, config, "random"), converter.table(config))
    assert back.keys() == source.tensors.keys()
    for name, tensor in source.tensors.items():
        np.testing.assert_array_equal(back[name], tensor)


@pytest.mark.parametrize("wrap", [
    lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
    lambda state: {"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}, "epoch": 3},
])  # fmt: skip
def test_torch_files_read_the_same(tmp_path, wrap):
    torch = pytest.importorskip("torch")
    tensors = openai_weights()
    torch.save(wrap({name: torch.from_numpy(tensor) for name, tensor in tensors.items()}), tmp_path / "clip.pt")
    source = converter.read_source(tmp_path / "clip.pt")
    assert source.tensors.keys() == tensors.keys()
    np.testing.assert_array_equal(source.tensors["visual.proj"], tensors["visual.proj"])


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_openais_torchscript_archive_reads_the_same(tmp_path):
    torch = pytest.importorskip("torch")

    class Part(torch.nn.Module):
        def forward(self, x):
            return x

    root, tensors = Part(), openai_weights()
    for name, tensor in tensors.items():
        *path, leaf = name.split(".")
        part = root
        for step in path:
            if not hasattr(part, step):
                part.add_module(step, Part())
            part = getattr(part, step)
        part.register_parameter(leaf, torch.nn.Parameter(torch.from_numpy(tensor), requires_grad=False))
    root.register_buffer("input_resolution", torch.tensor(32))
    torch.jit.script(root).save(str(tmp_path / "ViT.pt"))
    source = converter.read_source(tmp_path / "ViT.pt")
    loaded = converter.load(source, converter.config_of(source, "quick_gelu"), "ViT.pt")
    expected = converter.load(converter.Source(tensors), SIZES, "the same")
    for name, variable in weights.named_variables(loaded).items():
        np.testing.assert_array_equal(variable[...], weights.named_variables(expected)[name][...])


def golden_vocabulary():
    """Those of OpenAI's merges that the golden prompts use, at their own ids; the prompts and their ids."""
    golden = json.loads((DATA / "clip_tokens.json").read_text(encoding="utf-8"))
    merges = {int(rank): tuple(merge.split()) for rank, merge in golden["merges"].items()}
    vocab = {token: index for token, index in clip_vocab([]).items() if index < 512}
    vocab |= {"".join(merge): 512 + rank for rank, merge in merges.items()}
    return vocab | {"<|startoftext|>": 49406, "<|endoftext|>": 49407}, list(merges.values()), golden["prompts"]


def assert_golden_ids(text, folder, prompts):
    """The tokenizer.json `text` gives OpenAI's ids for every prompt."""
    (folder / "made.json").write_bytes(text)
    tokenizer = Tokenizer(folder / "made.json", 77)
    for prompt in prompts:
        assert tokenizer([prompt["prompt"]])[0, : len(prompt["ids"])].tolist() == prompt["ids"], prompt


@pytest.mark.parametrize("form", ["pairs", "lines", "merges.txt"])
def test_hugging_face_vocabularies_give_openais_ids(tmp_path, form):
    vocab, merges, prompts = golden_vocabulary()
    lines = [" ".join(merge) for merge in merges]
    if form == "merges.txt":
        (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *lines, ""]), encoding="utf-8")
        (tmp_path / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    else:
        model = {"type": "BPE", "vocab": vocab, "merges": lines if form == "lines" else merges, "end_of_word_suffix": "</w>"}
        content = {"version": "1.0", "added_tokens": [], "model": model}
        (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    assert vocabulary.find_vocabulary(tmp_path / "model.safetensors") == tmp_path
    assert_golden_ids(vocabulary.tokenizer_json(tmp_path, CLIPConfig()), tmp_path, prompts)


def test_the_installed_vocabulary_gives_openais_ids(tmp_path):
    if not any(find_spec(package) for package in ("open_clip", "clip")):
        pytest.skip("neither open_clip nor clip is installed")
    installed = vocabulary.find_vocabulary(tmp_path)
    assert_golden_ids(vocabulary.tokenizer_json(installed, CLIPConfig()), tmp_path, golden_vocabulary()[2])


def test_wrong_vocabularies_are_explained(tmp_path, monkeypatch):
    monkeypatch.setattr(vocabulary, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="give --tokenizer=bpe_simple_vocab_16e6.txt.gz .* pip install open_clip_torch"):
        vocabulary.find_vocabulary(tmp_path)
    with pytest.raises(ValueError, match="has no tokenizer.json, no vocab.json with merges.txt"):
        vocabulary.tokenizer_json(tmp_path, SIZES)
    with pytest.raises(ValueError, match="there is no vocabulary"):
        vocabulary.tokenizer_json(tmp_path / "none.gz", SIZES)
    short = write_openai_vocabulary(tmp_path / "short.gz", MERGES[:2])
    with pytest.raises(ValueError, match="short.gz is not a CLIP's vocabulary .*; fetch it again"):
        vocabulary.tokenizer_json(short, SIZES)
    short.write_bytes(short.read_bytes()[:20])
    with pytest.raises(ValueError, match="short.gz is not a CLIP's vocabulary, or is damaged"):
        vocabulary.tokenizer_json(short, SIZES)
    (tmp_path / "vocab.json").write_text(json.dumps(clip_vocab(MERGES)))
    with pytest.raises(ValueError, match="has no tokenizer.json, no vocab.json with merges.txt"):
        vocabulary.tokenizer_json(tmp_path, SIZES)
    (tmp_path / "merges.txt").write_text("#version: 0.2\nq w\n")
    with pytest.raises(ValueError, match="transformers cannot read .*|not a CLIP's vocabulary"):
        vocabulary.tokenizer_json(tmp_path, SIZES)


def test_other_networks_are_refused(tmp_path):
    tensors = openai_weights()
    with pytest.raises(ValueError, match="is neither a ViT nor OpenAI's ResNet; give one that is"):
        converter.config_of(converter.Source(tensors | {"visual.trunk.conv.weight": np.zeros(3)}))
    with pytest.raises(ValueError, match="not a CLIP of OpenAI's kind: no visual.conv1.weight"):
        converter.config_of(converter.Source({"body.0": np.zeros(3)}))
    broken = tensors | {"visual.ln_pre.weight": np.zeros(7, np.float16), "text_decoder.weight": np.zeros(2)}
    del broken["transformer.resblocks.1.attn.in_proj_bias"]
    with pytest.raises(ValueError) as caught:
        converter.load(converter.Source(broken), SIZES, "broken.pt")
    for part in ("unused: text_decoder.weight (2,)", "for lack of transformer.resblocks.1.attn.in_proj_bias", "(7,)", "(128,)"):
        assert part in str(caught.value)
    with pytest.raises(ValueError, match="has no config.json with model.safetensors"):
        converter.read_source(tmp_path)


def test_pictures_are_preprocessed_as_openai_does():
    pixels = preprocess(PIL.Image.open(DATA / "franz-kafka.jpg"), CLIPConfig())
    stored = np.asarray(PIL.Image.open(DATA / "franz-kafka-224.png"), np.float64)  # the golden, exact in 8 bits
    expected = (stored / 255 - PIXEL_MEAN) / PIXEL_STD
    assert pixels.shape == (224, 224, 3) and pixels.dtype == np.float32
    np.testing.assert_allclose(pixels, expected, atol=1e-6)
    half = preprocess(PIL.Image.open(DATA / "franz-kafka.jpg"), CLIPConfig(pixel_mean=3 * (0.5,), pixel_std=3 * (0.25,)))
    np.testing.assert_allclose(half, (stored / 255 - 0.5) / 0.25, atol=1e-6)


@pytest.mark.parametrize("size", [(40, 90), (90, 40), (64, 64), (10, 10)])
def test_pictures_of_any_shape_and_mode_are_cropped_to_a_square(size):
    for mode in ("L", "RGBA", "P"):
        assert preprocess(PIL.Image.new(mode, size), SIZES).shape == (32, 32, 3)
