"""CLIP's published forms into ours: features, tokens, pictures, and what is said of what cannot be converted."""

import gzip
import json
from importlib.util import find_spec
from pathlib import Path

import jax
import numpy as np
import PIL.Image
import pytest
from flax import nnx

from converters import clip as converter
from converters import vocabulary
from coral_jax import weights
from coral_jax.models import load_clip
from coral_jax.models.clip import CLIP, PIXEL_MEAN, PIXEL_STD, CLIPConfig, preprocess
from coral_jax.tokenizer import Tokenizer, clip_vocab

DATA = Path(__file__).parent / "data"
MERGES = [("b", "l"), ("bl", "u"), ("blu", "e</w>"), ("e", "y"), ("ey", "e"), ("eye", "s</w>")]
SIZES = CLIPConfig(
    image_size=32, patch_size=8, vision_width=128, vision_layers=2, vision_heads=2, text_width=64, text_layers=2,
    text_heads=1, embed_dim=24, context=16, vocab_size=514 + len(MERGES),
)  # fmt: skip


def relative_error(got, expected):
    """Norm of the error over the norm of what was expected."""
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))


def features(clip, pixels, ids):
    """Image features of pixels [B, 3, S, S] and text features of ids."""
    with jax.default_matmul_precision("highest"):
        image, text = jax.jit(lambda c, p, i: (c.encode_pixels(p), c.encode_text(i)))(clip, pixels.transpose(0, 2, 3, 1), ids)
    return np.asarray(image), np.asarray(text)


def inputs(config=SIZES):
    """Pixels [2, 3, S, S] and ids [2, 7]."""
    rng = np.random.default_rng(0)
    ids = rng.integers(0, config.vocab_size - 2, (2, 7)).astype(np.int32)
    ids[:, 0], ids[0, 4:], ids[1, 6] = config.vocab_size - 2, [config.vocab_size - 1, 0, 0], config.vocab_size - 1
    return rng.standard_normal((2, 3, config.image_size, config.image_size)).astype(np.float32), ids


def shape(layout, variable):
    """Shape of a variable in the published layout."""
    return layout.write(np.broadcast_to(np.float32(0), variable.shape)).shape


def openai_weights(config=SIZES, dtype=np.float16):
    """Random weights under OpenAI's names."""
    network = nnx.eval_shape(lambda: CLIP(config, nnx.Rngs(0)))
    variables, rng = weights.named_variables(network), np.random.default_rng(1)
    return {
        theirs: np.asarray(0.1 * rng.standard_normal(shape(layout, variables[ours])), dtype)
        for ours, (theirs, layout) in converter.table(config).items()
    }


def write_openai_vocabulary(path, merges=MERGES):
    """A file of OpenAI's form: a line of its version, then the merges, more than are used."""
    lines = ["#version", *(" ".join(merge) for merge in merges), "never used"]
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    return path


def test_openais_weights_give_openais_features():
    source = converter.read_source(DATA / "clip_openai_tiny_weights.safetensors")
    config = converter.config_of(source)
    assert config == CLIPConfig(
        image_size=64, patch_size=16, vision_width=128, vision_layers=3, vision_heads=2, text_width=64, text_layers=3,
        text_heads=1, embed_dim=48, context=77, vocab_size=40,
    )  # fmt: skip
    network = jax.tree.map(lambda leaf: leaf.astype(np.float32), converter.load(source, config, "tiny"))
    expected, _ = weights.load_tensors(DATA / "clip_openai_tiny.safetensors")
    image, text = features(network, expected["pixels"], expected["ids"])
    assert relative_error(image, expected["image_features"]) < 1e-5
    assert relative_error(text, expected["text_features"]) < 1e-5


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
    line = converter.convert(source, out, str(write_openai_vocabulary(tmp_path / "bpe.txt.gz")))
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
        converter.convert(source, out.with_name("other.safetensors"), str(tmp_path / "bpe.txt.gz"))


def test_every_layout_is_undone_to_the_bit():
    source = converter.Source(openai_weights())
    config = converter.config_of(source)
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
    loaded = converter.load(source, converter.config_of(source), "ViT.pt")
    expected = converter.load(converter.Source(tensors), SIZES, "the same")
    for name, variable in weights.named_variables(loaded).items():
        np.testing.assert_array_equal(variable[...], weights.named_variables(expected)[name][...])


def test_open_clip_says_its_activation_in_the_config_beside(tmp_path):
    weights.save_tensors(tmp_path / "open_clip_model.safetensors", openai_weights(dtype=np.float32), {})
    with pytest.raises(ValueError, match="give --activation=quick_gelu .* or --activation=gelu"):
        converter.config_of(converter.read_source(tmp_path / "open_clip_model.safetensors"))
    source = converter.read_source(tmp_path / "open_clip_model.safetensors")
    assert converter.config_of(source, "gelu").activation == "gelu"
    model = {"vision_cfg": {"width": 128, "layers": 2, "head_width": 32}, "text_cfg": {"heads": 2}}
    described = tmp_path / "open_clip_config.json"
    described.write_text(json.dumps({"model_cfg": model}))
    for path in (tmp_path, tmp_path / "open_clip_model.safetensors"):
        config = converter.config_of(converter.read_source(path))
        assert (config.activation, config.vision_heads, config.text_heads) == ("gelu", 4, 2)
    with pytest.raises(ValueError, match="--activation=quick_gelu, but this checkpoint's is gelu"):
        converter.config_of(converter.read_source(tmp_path), "quick_gelu")
    described.write_text(json.dumps({"model_cfg": model | {"quick_gelu": True}}))
    assert converter.config_of(converter.read_source(tmp_path)).activation == "quick_gelu"
    described.write_text(json.dumps({"model_cfg": model, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}))
    with pytest.raises(ValueError, match="trained on pixels of mean"):
        converter.read_source(tmp_path)


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
        model = {"vocab": vocab, "merges": lines if form == "lines" else merges}
        (tmp_path / "tokenizer.json").write_text(json.dumps({"model": model}), encoding="utf-8")
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
    with pytest.raises(ValueError, match="has no tokenizer.json, no merges.txt"):
        vocabulary.tokenizer_json(tmp_path, SIZES)
    with pytest.raises(ValueError, match="there is no vocabulary"):
        vocabulary.tokenizer_json(tmp_path / "none.gz", SIZES)
    short = write_openai_vocabulary(tmp_path / "short.gz", MERGES[:2])
    with pytest.raises(ValueError, match="not a CLIP's vocabulary|has 51[67] tokens, and this CLIP 520"):
        vocabulary.tokenizer_json(short, SIZES)
    short.write_bytes(short.read_bytes()[:20])
    with pytest.raises(ValueError, match="short.gz is not a CLIP's vocabulary, or is damaged"):
        vocabulary.tokenizer_json(short, SIZES)
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": clip_vocab([]), "merges": ["q w"]}}))
    with pytest.raises(ValueError, match="not a CLIP's vocabulary"):
        vocabulary.tokenizer_json(tmp_path, SIZES)


def test_other_networks_are_refused(tmp_path):
    tensors = openai_weights()
    for name in ("visual.attnpool.positional_embedding", "visual.trunk.conv.weight"):
        with pytest.raises(ValueError, match="vision tower is not a ViT; give one that is"):
            converter.config_of(converter.Source(tensors | {name: np.zeros(3)}))
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
    weights.save_tensors(tmp_path / "model.safetensors", tensors, {})
    (tmp_path / "config.json").write_text('{"model_type": "siglip"}')
    with pytest.raises(ValueError, match="describes a 'siglip' model; give the folder of a 'clip' one"):
        converter.read_source(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="config.json is not JSON"):
        converter.read_source(tmp_path)


def test_pictures_are_preprocessed_as_openai_does():
    pixels = preprocess(PIL.Image.open(DATA / "franz-kafka.jpg"), 224)
    stored = np.asarray(PIL.Image.open(DATA / "franz-kafka-224.png"), np.float64)  # the golden, exact in 8 bits
    expected = (stored / 255 - PIXEL_MEAN) / PIXEL_STD
    assert pixels.shape == (224, 224, 3) and pixels.dtype == np.float32
    np.testing.assert_allclose(pixels, expected, atol=1e-6)


@pytest.mark.parametrize("size", [(40, 90), (90, 40), (64, 64), (10, 10)])
def test_pictures_of_any_shape_and_mode_are_cropped_to_a_square(size):
    for mode in ("L", "RGBA", "P"):
        assert preprocess(PIL.Image.new(mode, size), 32).shape == (32, 32, 3)
