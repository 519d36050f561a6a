"""The vocabulary of a CLIP, in the forms that its checkpoints come with -> the tokenizer.json that ours reads."""

import gzip
import tempfile
import zlib
from importlib.util import find_spec
from pathlib import Path

from converters import hugging_face
from coral_jax.models.clip import CLIPConfig
from coral_jax.tokenizer import Tokenizer, clip_vocab

VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"  # OpenAI's merges, as its `clip` and open_clip install them
_HUGGING_FACE = (("tokenizer.json",), ("vocab.json", "merges.txt"))  # each a tokenizer of Hugging Face's


def find_vocabulary(checkpoint: Path) -> Path:
    """The checkpoint's folder if it has a vocabulary, else OpenAI's as open_clip or clip installed it; else ValueError."""
    folder = checkpoint if checkpoint.is_dir() else checkpoint.parent
    if _has_hugging_face(folder) or (folder / VOCABULARY).is_file():
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
    """Ids and merges of OpenAI's bpe_simple_vocab_16e6.txt.gz, or of a folder with it or with Hugging Face's files, one of
    which stands for its folder; ValueError for anything else, and for what is damaged.

    vocab_size: the CLIP's, which tells how many of OpenAI's merges count.
    """
    if not path.exists():
        raise ValueError(f"there is no vocabulary {path}; give --tokenizer={VOCABULARY} or a tokenizer.json")
    if path.suffix == ".gz":
        return _openais(path, vocab_size)
    folder = path if path.is_dir() else path.parent
    if _has_hugging_face(folder):
        return hugging_face.vocabulary(folder)
    if (folder / VOCABULARY).is_file():
        return _openais(folder / VOCABULARY, vocab_size)
    raise ValueError(
        f"{folder} has no tokenizer.json, no vocab.json with merges.txt and no {VOCABULARY}; give one with --tokenizer=FILE"
    )


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


def _has_hugging_face(folder: Path) -> bool:
    return any(all((folder / name).is_file() for name in names) for names in _HUGGING_FACE)


def _openais(path: Path, vocab_size: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A line of the file's version, then one merge "a b" a line, more than OpenAI uses."""
    try:
        lines = gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")[1:]
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise ValueError(f"{path} is not a CLIP's vocabulary, or is damaged ({error}); fetch it again") from error
    merges = [tuple(line.split()) for line in lines[: max(vocab_size - len(clip_vocab([])), 0)]]
    if wrong := [merge for merge in merges if len(merge) != 2]:
        raise ValueError(f"{path} is not a CLIP's vocabulary: a merge has two parts, not {wrong[0]}; fetch it again")
    return clip_vocab(merges), merges
