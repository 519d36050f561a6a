"""Prompts to token ids: CLIP's lower-case byte-pair encoding, run by the `tokenizers` library."""

import html
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path

import ftfy
import numpy as np
import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers

START, END, WORD_END = "<|startoftext|>", "<|endoftext|>", "</w>"
# OpenAI's split: contractions, runs of letters, single digits, runs of everything else.
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


class Tokenizer:
    """CLIP's tokenizer: list of prompts -> int32 ids [N, context], zeros after <|endoftext|>."""

    def __init__(self, path: str | os.PathLike, context: int):
        """Reads a tokenizer.json; `context` is the number of ids a row, the CLIP's `config.context`."""
        try:
            self._bpe = tokenizers.Tokenizer.from_str(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise
        except Exception as error:  # the library raises a bare Exception for anything it cannot parse
            raise ValueError(
                f"{path} is not a tokenizer.json ({error}); copy the domain's tokenizer.json again"
            ) from error
        self.context = context
        self.start, self.end = self._bpe.token_to_id(START), self._bpe.token_to_id(END)
        if self.start is None or self.end is None:
            raise ValueError(f"{path} has no {START} and {END} tokens; give the tokenizer.json of a CLIP")
        if self.end != max(self._bpe.get_vocab().values()):
            raise ValueError(f"{path}: {END} must have the highest id, where CLIP reads the text; give a CLIP's file")

    @property
    def vocab_size(self) -> int:
        """Number of rows that the CLIP's token embedding needs."""
        return self.end + 1

    def __call__(self, prompts: list[str]) -> np.ndarray:
        """Prompts -> ids int32 [len(prompts), context]; ValueError for an empty or a too long prompt."""
        if isinstance(prompts, str):
            raise ValueError(f"expected a list of prompts, got one string; pass [{prompts!r}]")
        ids = np.zeros((len(prompts), self.context), np.int32)
        for row, prompt in zip(ids, prompts, strict=True):
            tokens = [self.start, *self._encode(prompt), self.end]
            if len(tokens) == 2:
                raise ValueError("the prompt is empty; say what the edited image should show, such as 'blue eyes'")
            if len(tokens) > self.context:
                raise ValueError(
                    f"the prompt {prompt!r} has {len(tokens) - 2} tokens, and this CLIP reads at most "
                    f"{self.context - 2}; shorten it{self._offer(prompt)}"
                )
            row[: len(tokens)] = tokens
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Ids of one prompt -> its text as the tokenizer read it (lower case, single spaces)."""
        kept = [int(i) for i in ids]
        kept = kept[: kept.index(self.end)] if self.end in kept else kept
        return self._bpe.decode([i for i in kept if i != self.start], skip_special_tokens=False).strip()

    def _encode(self, prompt: str) -> list[int]:
        return self._bpe.encode(clean(prompt), add_special_tokens=False).ids

    def _offer(self, prompt: str) -> str:
        """The longest beginning of the prompt, in whole words, that fits; nothing if not even one word does."""
        words = prompt.split()
        while words and len(self._encode(" ".join(words))) > self.context - 2:
            words.pop()
        return f", for example to {' '.join(words)!r}" if words else ""

    @classmethod
    def from_vocab_merges(
        cls, vocab: dict[str, int], merges: list[tuple[str, str]], path: str | os.PathLike, context: int
    ) -> "Tokenizer":
        """Writes `path` (tokenizer.json) from OpenAI's merges, in order, and `clip_vocab(merges)`; returns it read."""
        text = json.loads(_pipeline(models.BPE(vocab, merges, end_of_word_suffix=WORD_END, fuse_unk=False)).to_str())
        Path(path).write_text(json.dumps(text, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")
        return cls(path, context)

    @classmethod
    def train(cls, captions: Iterable[str], vocab_size: int, path: str | os.PathLike) -> None:
        """Writes to `path` a tokenizer.json of CLIP's form, with at most `vocab_size` ids, learnt from captions.

        Every byte keeps its two tokens (inside a word and at its end), so that any prompt can be written.
        """
        units = _byte_units()
        if vocab_size < len(units) + 2:
            raise ValueError(f"vocab_size {vocab_size} is too small; at least {len(units) + 2} are needed for bytes")
        bpe = _pipeline(models.BPE(end_of_word_suffix=WORD_END))
        # Given as special tokens, the units get fixed ids; the trainer breaks ties by id, so the result is repeatable.
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size - 2, special_tokens=units, end_of_word_suffix=WORD_END, show_progress=False
        )
        bpe.train_from_iterator(captions, trainer)
        merges = [tuple(merge) for merge in json.loads(bpe.to_str())["model"]["merges"]]
        cls.from_vocab_merges(clip_vocab(merges), merges, path, context=2)


def clean(text: str) -> str:
    """A prompt as OpenAI's CLIP reads it: mended by ftfy (NFC, straight quotes, no control characters), HTML unescaped
    twice since text copied from web pages is often escaped twice, single spaces, lower case."""
    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return re.sub(r"\s+", " ", text).strip().lower()


def clip_vocab(merges: list[tuple[str, str]]) -> dict[str, int]:
    """Ids in OpenAI's order: bytes, bytes that end a word, one token a merge, then the start and end tokens."""
    tokens = [*_byte_units(), *("".join(merge) for merge in merges), START, END]
    return {token: index for index, token in enumerate(tokens)}


def _byte_units() -> list[str]:
    # OpenAI's `bytes_to_unicode` order: printable bytes, then the others, which byte-level BPE writes from U+0100 on.
    characters = sorted(pre_tokenizers.ByteLevel.alphabet())
    return [*characters, *(character + WORD_END for character in characters)]


def _pipeline(model: models.BPE) -> tokenizers.Tokenizer:
    """CLIP's splitting, and its text cleaning but for ftfy's, around a BPE model."""
    bpe = tokenizers.Tokenizer(model)
    bpe.normalizer = normalizers.Sequence(
        [
            normalizers.NFC(),  # after `clean`, of use to other programs that read the file
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Lowercase(),
        ]
    )
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Replace(WORD_END, " ")])
    return bpe
