"""The tokenizer against OpenAI's ids, its training, and its errors."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from coral_jax.tokenizer import Tokenizer, clean, clip_vocab

DATA = Path(__file__).parent / "data"
CAPTIONS = ["a happy face with blue eyes", "a sad man with purple hair", "mohawk hairstyle, mustache & beard"] * 3


@pytest.fixture(scope="module")
def openai(tmp_path_factory):
    """A tokenizer with those of OpenAI's merges that the golden prompts use, at their own ids; and the prompts."""
    golden = json.loads((DATA / "clip_tokens.json").read_text(encoding="utf-8"))
    ranks = {int(rank): tuple(merge.split()) for rank, merge in golden["merges"].items()}
    units = {token: i for token, i in clip_vocab([]).items() if i < 512}
    vocab = {**units, **{"".join(merge): 512 + rank for rank, merge in ranks.items()}}
    vocab |= {"<|startoftext|>": 49406, "<|endoftext|>": 49407}
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    return Tokenizer.from_vocab_merges(vocab, list(ranks.values()), path, context=77), golden["prompts"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The path of a small trained tokenizer."""
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    Tokenizer.train(CAPTIONS, 560, path)
    return path


def test_ids_are_openais(openai):
    tokenizer, prompts = openai
    ids = tokenizer([case["prompt"] for case in prompts])
    assert ids.shape == (len(prompts), 77) and ids.dtype == np.int32 and tokenizer.vocab_size == 49408
    for row, case in zip(ids, prompts, strict=True):
        assert row.tolist() == case["ids"] + [0] * (77 - len(case["ids"])), case["prompt"]


def test_text_is_cleaned_as_openais(openai):
    tokenizer, _ = openai
    written = ["a woman's face", "mustache & beard", '"blue eyes"', "na\u00efve"]
    pasted = ["  A\twoman\u2019s \n FACE ", "mustache &amp;amp; beard", "\u201cblue eyes\u201d", "nai\u0308ve"]
    np.testing.assert_array_equal(tokenizer(pasted), tokenizer(written))
    assert tokenizer.decode(tokenizer(["  A happy\n face"])[0]) == "a happy face"


@pytest.mark.parametrize(("pasted", "written"), [
    ("\ufeffblue eyes", "blue eyes"),  # the mark that some editors put first
    ("Blue\u00a0eyes\u2028", "blue eyes"),
    ("caf\u00c3\u00a9", "caf\u00e9"),  # read in a wrong encoding somewhere
    ("\uff22lue \ufb01sh", "blue fish"),  # wide letters, ligatures
    ("blue\x00 eyes\x1b[31m", "blue eyes"),  # control characters, colours of a terminal
    ("&lt;b&gt;Blue&amp;nbsp;eyes", "<b>blue eyes"),
    ("nai\u0308ve \u201ctoon\u201d \u2019s", 'na\u00efve "toon" \'s'),
])  # fmt: skip
def test_prompts_are_mended_as_openais_program_mends_them(openai, pasted, written):
    assert clean(pasted) == written
    np.testing.assert_array_equal(openai[0]([pasted]), openai[0]([written]))


def test_special_tokens_in_a_prompt_are_text(openai):
    tokenizer, _ = openai
    ids = tokenizer(["blue <|endoftext|> eyes"])[0]
    assert (ids == tokenizer.end).sum() == 1 and (ids == tokenizer.start).sum() == 1


def test_trained_tokenizer_learns_words_and_writes_any_text(trained):
    tokenizer = Tokenizer(trained, context=24)
    assert 514 < tokenizer.vocab_size <= 560
    assert tokenizer.end == tokenizer.vocab_size - 1
    ids = tokenizer(["happy face", "na\u00efve \U0001f600 dragon 42"])
    assert ids.max() == tokenizer.end and (ids >= 0).all()
    assert ids.argmax(axis=1)[0] < len("happyface")  # letters were merged
    assert tokenizer.decode(ids[1]) == "na\u00efve \U0001f600 dragon 4 2"


def test_training_is_repeatable_across_processes(trained, tmp_path):
    # Another process has another hash seed, which must not decide ties between merges.
    code = "import sys, json; from coral_jax.tokenizer import Tokenizer; "
    code += "Tokenizer.train(json.loads(sys.argv[1]), 560, sys.argv[2])"
    again = tmp_path / "again.json"
    subprocess.run([sys.executable, "-c", code, json.dumps(CAPTIONS), str(again)], check=True, cwd=DATA.parent.parent)
    assert hashlib.sha256(again.read_bytes()).digest() == hashlib.sha256(trained.read_bytes()).digest()


@pytest.mark.parametrize("prompt", ["", "  \n\t ", "\ufeff"])
def test_an_empty_prompt_is_an_error(openai, prompt):
    with pytest.raises(ValueError, match="prompt is empty; say what"):
        openai[0]([prompt])


def test_a_long_prompt_is_an_error_that_offers_one_that_fits(trained):
    tokenizer = Tokenizer(trained, context=8)
    with pytest.raises(ValueError, match=r"at most 6; shorten it, for example to 'a happy face") as caught:
        tokenizer(["a happy face with blue eyes and purple hair"])
    offered = str(caught.value).rsplit("to '", 1)[1].rstrip("'")
    assert tokenizer([offered])[0, 0] == tokenizer.start


def test_a_long_single_word_is_an_error_without_an_offer(trained):
    with pytest.raises(ValueError, match="shorten it$"):
        Tokenizer(trained, context=8)(["xqzjvkwxqzjvkwxqzjvkw"])


def test_mistakes_are_explained(trained, tmp_path):
    with pytest.raises(ValueError, match=r"pass \['blue eyes'\]"):
        Tokenizer(trained, context=8)("blue eyes")
    with pytest.raises(ValueError, match="at least 514"):
        Tokenizer.train(CAPTIONS, 100, tmp_path / "tokenizer.json")
    broken = tmp_path / "broken.json"
    broken.write_text("{}")
    with pytest.raises(ValueError, match="is not a tokenizer.json"):
        Tokenizer(broken, context=8)
