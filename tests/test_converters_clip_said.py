"""What lies with a CLIP's weights is read and counts, or is refused by name; nothing is guessed."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
from clip_made import SIZES, hugging_face_config, hugging_face_weights, open_clip_config, openai_weights, write_folder

from converters import clip as converter
from coral_jax import weights
from coral_jax.models import load_clip
from coral_jax.models.clip import PIXEL_MEAN, PIXEL_STD
from coral_jax.tokenizer import Tokenizer

DATA = Path(__file__).parent / "data"
HALF = (0.5, 0.5, 0.5)
PIXELS = {"mean": list(PIXEL_MEAN), "std": list(PIXEL_STD)}
PROCESSOR = {
    "image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32},
    "do_resize": True, "do_center_crop": True, "do_normalize": True, "do_rescale": True, "do_convert_rgb": True,
    "resample": 3, "rescale_factor": 1 / 255, "image_mean": list(HALF), "image_std": list(HALF),
}  # fmt: skip


@pytest.fixture(scope="module")
def tensors():
    """Weights under OpenAI's names, in float16."""
    return openai_weights()


def changed(config, part, **fields):
    """A config with other fields in one of its parts, "" for itself."""
    return config | fields if not part else config | {part: config[part] | fields}


def config_of(path, activation=None):
    """The sizes of what lies at a path, and the notes."""
    source = converter.read_source(path)
    return converter.config_of(source, activation), source.said.notes


def refused(match, path):
    """The path is refused, in one line that has this text."""
    with pytest.raises(ValueError, match=re.escape(match)) as caught:
        config_of(path)
    assert "\n" not in str(caught.value)


# --- the activation --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.float32, "bfloat16"])
def test_an_activation_that_nothing_says_is_asked_for(tmp_path, dtype):
    weights.save_tensors(tmp_path / "clip.safetensors", openai_weights(dtype=dtype), {})
    refused("give --activation=quick_gelu (OpenAI's weights, LAION-400M's ViT-B/32, all ResNets, most of MetaCLIP "
            "and DFN) or --activation=gelu (LAION's others and most of open_clip)", tmp_path / "clip.safetensors")  # fmt: skip
    for activation in ("quick_gelu", "gelu"):
        assert config_of(tmp_path / "clip.safetensors", activation)[0].activation == activation
    with pytest.raises(ValueError, match="the activation 'relu' is not known; give --activation="):
        config_of(tmp_path / "clip.safetensors", "relu")


def test_float16_in_a_torch_file_says_nothing(tmp_path):
    file = DATA / "clip_fp16_gelu.pt"  # random weights as LAION's, with GELU, in a file of torch.save
    refused("nothing says the activation of this checkpoint", file)
    config, (note,) = config_of(file, "gelu")
    assert (config.activation, config.image_size, config.vocab_size) == ("gelu", 4, 7) and "OpenAI's mean and std" in note


def test_openais_files_are_known_by_their_digest(tmp_path, tensors, monkeypatch):
    file = tmp_path / "ViT-B-32.safetensors"
    weights.save_tensors(file, tensors, {})
    monkeypatch.setitem(converter.OPENAI, weights.fingerprint(file), "ViT-B/32")
    config, notes = config_of(file)
    assert (config, notes) == (SIZES, [])
    with pytest.raises(ValueError, match="--activation=gelu, but OpenAI's ViT-B/32 says quick_gelu; leave the flag out"):
        config_of(file, "gelu")
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": open_clip_config(quick_gelu=False)}))
    refused("OpenAI's ViT-B/32 says quick_gelu", file)


@pytest.mark.parametrize("name", ["config", "open_clip_config"])
@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_a_config_counts_for_a_file_as_for_its_folder(tmp_path, tensors, name, activation):
    if name == "config":
        write_folder(tmp_path, hugging_face_weights(tensors), config=hugging_face_config(hidden_act=activation))
    else:
        described = {"model_cfg": open_clip_config(quick_gelu=activation == "quick_gelu"), "preprocess_cfg": PIXELS}
        write_folder(tmp_path, tensors, open_clip_config=described)
    for path in (tmp_path, next(tmp_path.glob("*.safetensors"))):
        config, _ = config_of(path)
        assert config == dataclasses.replace(SIZES, activation=activation)
    other = {"gelu": "quick_gelu", "quick_gelu": "gelu"}[activation]
    with pytest.raises(ValueError, match=f"--activation={other}, but .*{name}.json says {activation}; leave the flag out"):
        config_of(tmp_path, other)


def test_a_bare_model_of_open_clips_list_leaves_the_activation_open(tmp_path, tensors):
    write_folder(tmp_path, tensors, open_clip_config=open_clip_config())
    refused("nothing says the activation", tmp_path)
    assert config_of(tmp_path, "gelu")[0].activation == "gelu"
    (tmp_path / "open_clip_config.json").write_text(json.dumps(open_clip_config(quick_gelu=True)))
    assert config_of(tmp_path)[0].activation == "quick_gelu"


# --- heads and pixels ------------------------------------------------------------------------------------------------------


def test_heads_are_what_the_config_says(tmp_path, tensors):
    described = dataclasses.replace(SIZES, vision_heads=4, text_heads=2)
    write_folder(tmp_path, tensors, open_clip_config={"model_cfg": open_clip_config(described)})
    assert config_of(tmp_path)[0] == dataclasses.replace(described, activation="gelu")
    write_folder(tmp_path / "hf", hugging_face_weights(tensors), config=hugging_face_config(described))
    assert config_of(tmp_path / "hf")[0] == described
    wrong = changed(hugging_face_config(), "vision_config", num_attention_heads=3)
    (tmp_path / "hf" / "config.json").write_text(json.dumps(wrong))
    refused("hidden size (128) is not a multiple of the number of attention heads (3)", tmp_path / "hf")


def test_heads_that_nothing_says_follow_openais_rule_or_are_asked_for(tmp_path):
    narrow = dataclasses.replace(SIZES, vision_width=48, vision_heads=3)
    weights.save_tensors(tmp_path / "clip.safetensors", openai_weights(narrow), {})
    with pytest.raises(ValueError, match="nothing says the number of heads, and widths 48 and 64 are no multiples"):
        config_of(tmp_path / "clip.safetensors", "gelu")


@pytest.mark.parametrize("name", ["open_clip_config", "preprocessor_config", "processor_config"])
def test_pixel_statistics_are_what_the_files_say(tmp_path, tensors, name):
    if name == "open_clip_config":
        said = {"model_cfg": open_clip_config(), "preprocess_cfg": {"mean": list(HALF), "std": list(HALF)}}
        write_folder(tmp_path, tensors, open_clip_config=said)
    else:
        said = PROCESSOR if name == "preprocessor_config" else {"image_processor": PROCESSOR, "processor_class": "CLIP"}
        write_folder(tmp_path, hugging_face_weights(tensors), config=hugging_face_config(), **{name: said})
    for path in (tmp_path, next(tmp_path.glob("*.safetensors"))):
        config, notes = config_of(path)
        assert (config.pixel_mean, config.pixel_std, notes) == (HALF, HALF, [])


def test_pixel_statistics_that_nothing_says_are_openais_and_noted(tmp_path, tensors):
    write_folder(tmp_path, hugging_face_weights(tensors), config=hugging_face_config())
    config, (note,) = config_of(tmp_path)
    assert (config.pixel_mean, config.pixel_std) == (PIXEL_MEAN, PIXEL_STD)
    assert note.startswith("note: nothing with the weights says on which pixels they were trained; OpenAI's mean and std")


def test_a_large_vit_of_laions_must_say_its_pixel_statistics():
    shapes = {
        "visual.conv1.weight": (1024, 3, 14, 14), "visual.positional_embedding": (257, 1024), "visual.proj": (1024, 768),
        "visual.transformer.resblocks.0.ln_1.weight": (1024,),
        "visual.transformer.resblocks.0.mlp.c_fc.weight": (4096, 1024), "transformer.resblocks.0.ln_1.weight": (768,),
        "positional_embedding": (77, 768), "text_projection": (768, 768), "token_embedding.weight": (49408, 768),
    }  # fmt: skip
    source = converter.Source({name: np.broadcast_to(np.float16(0), shape) for name, shape in shapes.items()})
    assert converter.config_of(source, "quick_gelu").vision_heads == 16
    with pytest.raises(ValueError, match="mean and std of pixels, which are 0.5 for LAION-2B's and OpenAI's for others"):
        converter.config_of(source, "gelu")


@pytest.mark.parametrize("said", [
    PROCESSOR | {"image_mean": [0.4815, 0.4578, 0.4082], "image_std": [0.2686, 0.2613, 0.2758]},  # rounded by their file
    {"feature_extractor_type": "CLIPFeatureExtractor", "size": 32, "crop_size": 32, "resample": 3},  # of an old release
], ids=["rounded", "old"])  # fmt: skip
def test_openais_statistics_are_known_as_such(tmp_path, tensors, said):
    write_folder(tmp_path, hugging_face_weights(tensors), config=hugging_face_config(), preprocessor_config=said)
    assert config_of(tmp_path) == (SIZES, [])


# --- what is refused, and what is noted --------------------------------------------------------------------------------------

OPEN_CLIP = {"model_cfg": open_clip_config(), "preprocess_cfg": PIXELS}


@pytest.mark.parametrize(("part", "fields", "named"), [
    ("vision_cfg", {"pool_type": "avg"}, "vision_cfg: pool_type is 'avg'"),
    ("vision_cfg", {"attentional_pool": True}, "vision_cfg: attentional_pool is True"),
    ("vision_cfg", {"timm_model_name": "vit_base_patch16_siglip_224"}, "vision_cfg: timm_model_name is 'vit_base"),
    ("vision_cfg", {"norm_kwargs": {"eps": 1e-6}}, "vision_cfg: norm_kwargs is {'eps': 1e-06}"),
    ("vision_cfg", {"image_size": [32, 64]}, "image_size is [32, 64], and this program only takes squares"),
    ("vision_cfg", {"layers": 5}, "says vision_layers 5, and the weights have 2: they are not of one CLIP"),
    ("text_cfg", {"no_causal_mask": True}, "text_cfg: no_causal_mask is True"),
    ("text_cfg", {"pool_type": "last"}, "text_cfg: pool_type is 'last'"),
    ("text_cfg", {"pool_type": "eos", "eos_id": 2}, "text_cfg: pool_type is 'eos' (eos_id 2)"),
    ("text_cfg", {"proj_type": "none"}, "text_cfg: proj_type is 'none'"),
    ("text_cfg", {"hf_tokenizer_name": "timm/ViT-B-16-SigLIP"}, "text_cfg: hf_tokenizer_name is 'timm/ViT-B-16-SigLIP'"),
    ("", {"multimodal_cfg": {"width": 64}}, "model_cfg: multimodal_cfg is {'width': 64}"),
    ("preprocess_cfg", {"resize_mode": "squash"}, "preprocess_cfg: resize_mode is 'squash'"),
    ("preprocess_cfg", {"interpolation": "bilinear"}, "preprocess_cfg: interpolation is 'bilinear'"),
    ("preprocess_cfg", {"size": 64}, "size is 64 and image_size 32"),
    ("preprocess_cfg", {"mean": [0.5, 0.5]}, "mean is [0.5, 0.5], and must be three numbers"),
])  # fmt: skip
def test_what_open_clips_config_changes_is_refused_by_name(tmp_path, tensors, part, fields, named):
    if part == "preprocess_cfg":
        said = changed(OPEN_CLIP, part, **fields)
    else:
        said = OPEN_CLIP | {"model_cfg": changed(open_clip_config(), part, **fields)}
    write_folder(tmp_path, tensors, open_clip_config=said)
    refused(named, tmp_path)
    refused(named, tmp_path / "open_clip_model.safetensors")


@pytest.mark.parametrize(("part", "fields", "named"), [
    ("vision_config", {"layer_norm_eps": 1e-6}, "vision_config: layer_norm_eps is 1e-06"),
    ("text_config", {"hidden_act": "gelu"}, "hidden_act is 'quick_gelu' in vision_config and 'gelu' in text_config"),
    ("text_config", {"eos_token_id": 7}, "eos_token_id is 7, and this program reads the text at the highest id, 519"),
    ("text_config", {"intermediate_size": 64}, "text_config: intermediate_size is 64"),
    ("vision_config", {"num_channels": 1}, "vision_config: num_channels is 1"),
    ("vision_config", {"patch_size": 16}, "says patch_size 16, and the weights have 8: they are not of one CLIP"),
    ("", {"projection_dim": 32}, "says embed_dim 32, and the weights have 24: they are not of one CLIP"),
    ("", {"quantization_config": {"quant_method": "gptq"}}, "quantization_config is {'quant_method': 'gptq'}"),
    ("", {"model_type": "siglip"}, "describes a 'siglip' model; give a 'clip' one"),
    ("", {"model_type": "metaclip_2"}, "describes a 'metaclip_2' model; give a 'clip' one"),
])  # fmt: skip
def test_what_hugging_faces_config_changes_is_refused_by_name(tmp_path, tensors, part, fields, named):
    write_folder(tmp_path, hugging_face_weights(tensors), config=changed(hugging_face_config(), part, **fields))
    refused(named, tmp_path)
    refused(named, tmp_path / "model.safetensors")


def test_activations_that_are_not_done_are_refused(tmp_path, tensors):
    write_folder(tmp_path, hugging_face_weights(tensors), config=hugging_face_config(hidden_act="gelu_new"))
    refused("config.json says the activation 'gelu_new', and this program only does quick_gelu and gelu", tmp_path)


@pytest.mark.parametrize(("fields", "named"), [
    ({"do_center_crop": False}, "do_center_crop is False"),
    ({"do_normalize": False}, "do_normalize is False"),
    ({"resample": 2}, "resample is 2"),
    ({"image_processor_type": "SiglipImageProcessor"}, "image_processor_type is 'SiglipImageProcessor'"),
    ({"size": {"shortest_edge": 40}}, "size is 40 and crop_size 32"),
    ({"size": {"height": 32, "width": 32}}, "size is {'height': 32, 'width': 32}"),
    ({"rescale_factor": 1.0}, "rescale_factor is 1.0"),
    ({"size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 64}}, "config.json says 64; keep the one"),
])  # fmt: skip
def test_other_ways_to_make_pixels_are_refused_by_name(tmp_path, tensors, fields, named):
    write_folder(tmp_path, hugging_face_weights(tensors), config=hugging_face_config(), preprocessor_config=PROCESSOR | fields)
    refused(named, tmp_path)


def test_unknown_fields_are_noted_and_those_of_old_releases_are_not(tmp_path, tensors):
    old = {"torch_dtype": "float32", "bad_words_ids": None, "num_beams": 1, "use_bfloat16": False, "pruned_heads": {}}
    said = changed(hugging_face_config(), "text_config", rope_theta=1e4, **old)
    write_folder(tmp_path, hugging_face_weights(tensors), config=said, preprocessor_config=PROCESSOR | {"do_flip": True})
    assert config_of(tmp_path)[1] == [
        f"note: {tmp_path / 'config.json'}: text_config: rope_theta is not known here and was ignored",
        f"note: {tmp_path / 'preprocessor_config.json'}: do_flip is not known here and was ignored",
    ]
    said = OPEN_CLIP | {"model_cfg": changed(open_clip_config(), "vision_cfg", registers=4, patch_dropout=0.5)}
    write_folder(tmp_path / "oc", tensors, open_clip_config=said)
    file = tmp_path / "oc" / "open_clip_config.json"
    assert config_of(tmp_path / "oc")[1] == [f"note: {file}: vision_cfg: registers is not known here and was ignored"]


def test_text_read_at_the_highest_id_by_another_name_is_taken(tmp_path, tensors):
    said = {"model_cfg": changed(open_clip_config(), "text_cfg", pool_type="eos", eos_id=SIZES.vocab_size - 1)}
    write_folder(tmp_path, tensors, open_clip_config=said)
    assert config_of(tmp_path)[0].text_heads == SIZES.text_heads
    said = changed(hugging_face_config(), "text_config", eos_token_id=2)  # transformers' word for the highest id
    write_folder(tmp_path / "hf", hugging_face_weights(tensors), config=said)
    assert config_of(tmp_path / "hf")[0] == SIZES


def test_files_that_contradict_each_other_are_refused(tmp_path, tensors):
    said = {"model_cfg": open_clip_config(quick_gelu=False)}
    write_folder(tmp_path, hugging_face_weights(tensors), config=hugging_face_config())
    (tmp_path / "open_clip_config.json").write_text(json.dumps(said))
    refused("config.json says activation quick_gelu, and", tmp_path)


@pytest.mark.parametrize(("content", "named"), [
    ("{", "open_clip_config.json is not JSON"),
    ("[]", "open_clip_config.json holds no JSON object, but a list"),
    ('{"model_cfg": {"embed_dim": 24}}', "has no vision_cfg, or one that is not a JSON object"),
    ('{"model_cfg": {"vision_cfg": {}, "text_cfg": null}}', "has no text_cfg, or one that is not a JSON object"),
    ('{"model_cfg": {"vision_cfg": {"width": "wide"}, "text_cfg": {}}}', "vision_cfg: width is 'wide', and must be a whole"),
    ('{"model_cfg": {"vision_cfg": {}, "text_cfg": {"heads": "8"}}}', "text_cfg: heads is '8', and must be a whole"),
])  # fmt: skip
def test_damaged_configs_are_one_line(tmp_path, tensors, content, named):
    write_folder(tmp_path, tensors, open_clip_config=content)
    refused(named, tmp_path)
    refused(named, tmp_path / "open_clip_model.safetensors")


def test_a_missing_shard_is_named(tmp_path, tensors):
    write_folder(tmp_path, hugging_face_weights(tensors), config=hugging_face_config())
    index = tmp_path / "model.safetensors.index.json"
    (tmp_path / "model.safetensors").rename(tmp_path / "model-00001-of-00002.safetensors")
    names = {name: f"model-{number:05}-of-00002.safetensors" for number, name in enumerate("ab", 1)}
    index.write_text(json.dumps({"weight_map": names}))
    for path in (tmp_path, tmp_path / "model-00001-of-00002.safetensors"):
        refused("index.json names model-00002-of-00002.safetensors, and there is no such file", path)
    index.write_text(json.dumps({"weight_map": {"a": "../secret.safetensors"}}))
    refused("names the file ../secret.safetensors, which is not in its folder", tmp_path)
    index.write_text("{}")
    refused("has no weight_map", tmp_path)


# --- the tokenizer ---------------------------------------------------------------------------------------------------------


def test_a_folder_is_converted_with_its_tokenizer_and_notes(tmp_path, tensors):
    said = {"image_processor": PROCESSOR, "processor_class": "CLIPProcessor"}
    write_folder(tmp_path, hugging_face_weights(tensors), config=hugging_face_config() | {"surprise": 1}, processor_config=said)
    line, note = converter.convert(tmp_path, tmp_path / "out" / "clip.safetensors").split("\n")
    assert "quick_gelu, pixels of mean 0.5/0.5/0.5 and std 0.5/0.5/0.5" in line and "surprise is not known here" in note
    clip = load_clip(tmp_path / "out" / "clip.safetensors")
    assert clip.config == dataclasses.replace(SIZES, pixel_mean=HALF, pixel_std=HALF)
    grey = np.zeros((1, 32, 32, 3), np.float32)
    np.testing.assert_array_equal(clip.preprocess(grey), grey)  # the mean of the pixels is their middle
    assert Tokenizer(tmp_path / "out" / "tokenizer.json", 16)(["Blue eyes"])[0, :4].tolist() == [518, 514, 517, 519]


@pytest.mark.parametrize(("name", "content", "named"), [
    ("tokenizer_config", {"tokenizer_class": "T5Tokenizer"}, "tokenizer_class is 'T5Tokenizer'"),
    ("tokenizer_config", {"tokenizer_class": "CLIPTokenizer", "do_lower_case": False}, "do_lower_case is False"),
    ("added_tokens", {"<new-concept>": 520}, "the tokenizer has added tokens, <new-concept>"),
])  # fmt: skip
def test_other_tokenizers_are_refused(tmp_path, tensors, name, content, named):
    write_folder(tmp_path, hugging_face_weights(tensors), config=hugging_face_config(), **{name: content})
    with pytest.raises(ValueError, match=named):
        converter.convert(tmp_path, tmp_path / "out" / "clip.safetensors")
    assert not (tmp_path / "out").exists()
