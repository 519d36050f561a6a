"""The vocabulary of a CLIP, in the forms that its checkpoints come with -> the tokenizer.json that ours reads."""

import gzip
import json
import tempfile
from importlib.util import find_spec
from pathlib import Path

from coral_jax.models.clip import CLIPConfig
from coral_jax.tokenizer import Tokenizer, clip_vocab

VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"  # OpenAI's merges, as its `clip` and open_clip install them


def find_vocabulary(checkpoint: Path) -> Path:
    """The checkpoint's folder if it has a vocabulary, else OpenAI's as open_clip or clip installed it; else ValueError."""
    folder = checkpoint if checkpoint.is_dir() else checkpoint.parent
    if any((folder / name).is_file() for name in ("vocab.json", "tokenizer.json", VOCABULARY)):
        return folder
    for package in ("open_clip", "clip"):
        spec = find_spec(package)  # looks, and does not import
        if spec and spec.origin and (path := Path(spec.origin).with_name(VOCABULARY)).is_file():
            return path
    raise ValueError(
        f"the checkpoint has no vocabulary with it; give --tokenizer={VOCABULARY} (of OpenAI's CLIP) or a Hugging Face "
        "tokenizer.json, or type pip install open_clip_torch, which brings it"
    )


def read_vocabulary(path: Path, vocab_size: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Ids and merges of OpenAI's bpe_simple_vocab_16e6.txt.gz, a tokenizer.json, a merges.txt with its vocab.json, or a
    folder with one of them; ValueError for anything else, and for what is damaged.

    vocab_size: the CLIP's, which tells how many of OpenAI's merges count.
    """
    if path.is_dir():
        files = [path / name for name in ("tokenizer.json", "merges.txt", VOCABULARY) if (path / name).is_file()]
        if not files:
            raise ValueError(f"{path} has no tokenizer.json, no merges.txt and no {VOCABULARY}; give one with --tokenizer=FILE")
        path = files[0]
    if not path.is_file():
        raise ValueError(f"there is no vocabulary {path}; give --tokenizer={VOCABULARY} or a tokenizer.json")
    try:
        if path.suffix == ".gz":
            # A first line of its version, then more merges than OpenAI uses.
            lines = gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")[1:]
            merges = _merges(lines[: vocab_size - len(clip_vocab([]))])
            return clip_vocab(merges), merges
        if path.name == "tokenizer.json":
            model = read_json(path)["model"]
            return model["vocab"], _merges(model["merges"])
        vocab = read_json(path.with_name("vocab.json"))
        lines = path.with_name("merges.txt").read_text(encoding="utf-8").split("\n")
        return vocab, _merges(line for line in lines if line and not line.startswith("#version"))
    except (OSError, EOFError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a CLIP's vocabulary, or is damaged ({error}); fetch it again") from error


def tokenizer_json(vocabulary: Path, config: CLIPConfig) -> bytes:
    """The tokenizer.json that `coral_jax.tokenizer` reads; ValueError where it does not belong to the CLIP."""
    vocab, merges = read_vocabulary(vocabulary, config.vocab_size)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        try:
            size = Tokenizer.from_vocab_merges(vocab, merges, path, config.context).vocab_size
        except Exception as error:  # the library raises a bare Exception for merges that the ids lack
            raise ValueError(f"{vocabulary} is not a CLIP's vocabulary ({error}); fetch it again") from error
        if size != config.vocab_size:
            raise ValueError(
                f"{vocabulary} has {size} tokens, and this CLIP {config.vocab_size}; give its own with --tokenizer=FILE"
            )
        return path.read_bytes()


def _merges(items: object) -> list[tuple[str, str]]:
    """Pairs from lines "a b" or lists ["a", "b"], the two forms of tokenizer.json."""
    merges = [tuple(item.split()) if isinstance(item, str) else tuple(item) for item in items]
    if wrong := [merge for merge in merges if len(merge) != 2]:
        raise ValueError(f"a merge has two parts, not {wrong[0]}")
    return merges


def read_json(path: Path) -> dict:
    """The content of a JSON file; ValueError where it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}); fetch it again") from error
