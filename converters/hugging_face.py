"""What a Hugging Face folder says of its CLIP: `transformers` reads it, so that defaults are those of that library.

Needs no torch: only configs, image processors and tokenizers are read.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from converters.clip_said import check, numbers, read_json, side
from coral_jax.tokenizer import END, START

CONFIG = "config.json"
PROCESSORS = ("processor_config.json", "preprocessor_config.json")  # the first is read if it describes an image processor
TOKENIZER = "tokenizer_config.json"

_TOKENIZER_TYPES = (None, "CLIPTokenizer", "CLIPTokenizerFast")
_PROCESSOR_TYPES = (None, "CLIPImageProcessor", "CLIPImageProcessorFast", "CLIPImageProcessorPil", "CLIPFeatureExtractor")
# What changes the features -> the values that this program does, transformers' own default first.
_FIXED = {
    CONFIG: {"quantization_config": (None, {}), "per_layer_config": (None, {}), "pruned_heads": ({}, None)},
    "processor": {
        "image_processor_type": _PROCESSOR_TYPES, "feature_extractor_type": _PROCESSOR_TYPES, "do_resize": (True, None),
        "do_center_crop": (True, None), "do_rescale": (True, None), "do_normalize": (True, None), "resample": (3, None),
        "do_pad": (False, None), "pad_size": (None,), "use_square_size": (False, None), "default_to_square": (False, None),
    },
}  # fmt: skip
_FIXED["vision_config"] = _FIXED[CONFIG] | {"layer_norm_eps": (1e-5,), "num_channels": (3,)}
_FIXED["text_config"] = _FIXED[CONFIG] | {"layer_norm_eps": (1e-5,)}
# Fields of older releases, none of which a CLIP's features depend on.
_HARMLESS = {
    "add_cross_attention", "attn_implementation", "_attn_implementation", "_attn_implementation_autoset", "_commit_hash",
    "cross_attention_hidden_size", "dropout", "finetuning_task", "gradient_checkpointing", "is_decoder", "num_labels",
    "output_past", "prefix", "sep_token_id", "task_specific_params", "text_config_dict", "tf_legacy_loss",
    "tie_encoder_decoder", "tie_word_embeddings", "tokenizer_class", "torch_dtype", "torchscript", "use_bfloat16",
    "vision_config_dict",
}  # fmt: skip
_PROCESSOR_HARMLESS = {"do_convert_rgb", "processor_class", "data_format", "input_data_format", "device", "return_tensors",
                       "disable_grouping", "image_seq_length", "_valid_processor_keys"}  # fmt: skip
_PROCESSOR_USED = {"size", "crop_size", "image_mean", "image_std", "rescale_factor"}


def model_type(file: Path) -> str | None:
    """What kind of model a config.json describes; ValueError where it is damaged."""
    return read_json(file).get("model_type")


def said(folder: Path) -> tuple[dict[str, object], list[str]]:
    """Fields of CLIPConfig that a CLIP's config.json says, and notes; ValueError for a CLIP that is not like OpenAI's."""
    file, library = folder / CONFIG, _library()
    raw = read_json(file)
    with _one_line(file):
        config = library.CLIPConfig.from_pretrained(folder, local_files_only=True)
    vision, text, notes = config.vision_config, config.text_config, []
    generation = library.GenerationConfig().to_dict().keys()  # older releases wrote these fields into every config
    for name, read in ((CONFIG, config), ("text_config", text), ("vision_config", vision)):
        own = raw if read is config else (raw.get(name) or {}) | (raw.get(f"{name}_dict") or {})
        known = type(read)().to_dict().keys() | generation | _HARMLESS
        where = str(file) if read is config else f"{file}: {name}"
        notes += check(own, where, known - _FIXED[name].keys(), _FIXED[name], set())
    if vision.hidden_act != text.hidden_act:
        raise ValueError(
            f"{file}: hidden_act is {vision.hidden_act!r} in vision_config and {text.hidden_act!r} in text_config, and this "
            "program only does one activation for both; give another CLIP"
        )
    if text.intermediate_size != 4 * text.hidden_size:
        raise ValueError(
            f"{file}: text_config: intermediate_size is {text.intermediate_size}, and this program only does 4 times "
            f"hidden_size, {4 * text.hidden_size}; give another CLIP"
        )
    notes += _check_end(raw.get("text_config_dict") or raw.get("text_config") or {}, text, file)
    fields = {
        "activation": vision.hidden_act,
        "image_size": side(vision.image_size, "image_size", str(file)),
        "patch_size": side(vision.patch_size, "patch_size", str(file)),
        "vision_width": vision.hidden_size, "vision_layers": vision.num_hidden_layers,
        "vision_heads": vision.num_attention_heads,
        "text_width": text.hidden_size, "text_layers": text.num_hidden_layers, "text_heads": text.num_attention_heads,
        "embed_dim": config.projection_dim, "context": text.max_position_embeddings, "vocab_size": text.vocab_size,
    }  # fmt: skip
    return fields, notes


def processor_file(folder: Path) -> Path | None:
    """The file in a folder that describes how pictures become pixels, the newer form first; None where there is none."""
    for name in PROCESSORS:
        file = folder / name
        if file.is_file() and (name != PROCESSORS[0] or "image_processor" in read_json(file)):
            return file
    return None


def processor_said(file: Path) -> tuple[dict[str, object], list[str]]:
    """Fields of CLIPConfig that a description of an image processor says, and notes.

    ValueError for a way that is not OpenAI's: a resize, a crop and a normalisation.
    """
    processors = _library().CLIPImageProcessorPil
    with _one_line(file):
        raw, _ = processors.get_image_processor_dict(str(file.parent), local_files_only=True)
        processor = processors.from_dict(raw)
    notes = check(raw, str(file), _PROCESSOR_USED, _FIXED["processor"], _PROCESSOR_HARMLESS)
    if abs(processor.rescale_factor - 1 / 255) > 1e-6:
        raise ValueError(
            f"{file}: rescale_factor is {processor.rescale_factor}, and this program only does 1/255; give another CLIP"
        )
    # Sizes that the file leaves out have a default of the library's, which need not be this CLIP's.
    sizes = {name: _side(processor, name, file) for name in ("size", "crop_size") if raw.get(name)}
    if len(set(sizes.values())) > 1:
        raise ValueError(
            f"{file}: size is {sizes['size']} and crop_size {sizes['crop_size']}, and this program only does equal ones; "
            "give another CLIP"
        )
    fields = {
        "pixel_mean": numbers(processor.image_mean, "image_mean", str(file)),
        "pixel_std": numbers(processor.image_std, "image_std", str(file)),
    }
    return fields | ({"image_size": next(iter(sizes.values()))} if sizes else {}), notes


def _side(processor: object, name: str, file: Path) -> int:
    given = {key: value for key, value in dict(getattr(processor, name)).items() if value is not None}
    if not given.keys() <= {"shortest_edge", "height", "width"} or (name == "size" and "shortest_edge" not in given):
        raise ValueError(
            f"{file}: {name} is {given}, and this program resizes the shortest_edge and crops a square; give another CLIP"
        )
    return side(given, name, str(file))


def vocabulary(folder: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Ids and merges of a CLIP's tokenizer; ValueError for one that splits or cleans text in another way."""
    configured = read_json(folder / TOKENIZER) if (folder / TOKENIZER).is_file() else {}
    kind, lower = configured.get("tokenizer_class"), configured.get("do_lower_case", True)
    if kind not in _TOKENIZER_TYPES or not lower:
        wrong = f"do_lower_case is {lower}" if kind in _TOKENIZER_TYPES else f"tokenizer_class is {kind!r}"
        raise ValueError(f"{folder / TOKENIZER}: {wrong}, and this program only does CLIPTokenizer's way; give another CLIP")
    with _one_line(folder):
        tokenizer = _library().CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        content = json.loads(tokenizer.backend_tokenizer.to_str())
    vocab = content["model"]["vocab"]
    if added := sorted({token["content"] for token in content["added_tokens"]} - vocab.keys() - {START, END}):
        raise ValueError(f"{folder}: the tokenizer has added tokens, {', '.join(added)}; give a CLIP without")
    return vocab, [tuple(merge) for merge in content["model"]["merges"]]


def _check_end(given: dict, text: object, file: Path) -> list[str]:
    """Ours reads the text at the highest id, as transformers does for an eos_token_id of 2 (older releases), or the highest."""
    end, last = text.eos_token_id, text.vocab_size - 1
    if end in (2, last):
        return []
    if "eos_token_id" in given:
        raise ValueError(
            f"{file}: text_config: eos_token_id is {end}, and this program reads the text at the highest id, {last}; "
            "give another CLIP"
        )
    return [f"note: {file}: text_config: no eos_token_id; the text is read at the vocabulary's end token, {last}"]


def _library() -> object:
    """transformers, imported only for what Hugging Face wrote: it takes seconds, and says that there is no torch."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    import transformers

    return transformers


@contextlib.contextmanager
def _one_line(file: str | Path) -> Iterator[None]:
    """Errors of transformers in one line; it raises many kinds, some of no class of its own."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"transformers cannot read {file} ({reason}); fetch the folder's files again") from error
