"""Text and JSON as people's editors write them, names that file systems take, and folders at home."""

import codecs
import pwd

import pytest

from coral_jax.config import prompts_of
from coral_jax.evaluation.plan import cell_folder
from coral_jax.runtime.files import NAME_BYTES, expand, file_name, free_name, read_json, read_text, user_cache, write_json

PROMPTS = ["happy", "blue eyes", "glückliches Gesicht"]


@pytest.mark.parametrize(
    "before, encoding, newline",
    [
        (b"", "utf-8", "\n"),
        (codecs.BOM_UTF8, "utf-8", "\r\n"),
        (codecs.BOM_UTF16_LE, "utf-16-le", "\r\n"),
        (codecs.BOM_UTF16_BE, "utf-16-be", "\n"),
        (codecs.BOM_UTF32_LE, "utf-32-le", "\n"),
        (codecs.BOM_UTF8, "utf-8", "\r"),
        (codecs.BOM_UTF8, "utf-8", "\n\ufeff"),  # files joined, each with a mark
    ],
)
def test_prompts_are_read_from_files_of_any_editor(tmp_path, before, encoding, newline):
    path = tmp_path / "prompts.txt"
    path.write_bytes(before + newline.join([*PROMPTS, ""]).encode(encoding))
    assert list(prompts_of(str(path)).values()) == PROMPTS


@pytest.mark.parametrize(
    "content, message",
    [
        ("happy\ncafé\n".encode("latin-1"), r"prompts.txt is not UTF-8 text \(line 2\); save it as UTF-8"),
        ("happy\n".encode("utf-16-le"), "prompts.txt holds NUL characters, as binary files and UTF-16 without a mark do"),
        (codecs.BOM_UTF16_LE + b"h\0a", "prompts.txt is not UTF-16 text"),
        (codecs.BOM_UTF8 + b"\n \r\n", "no prompts; give several"),
    ],
)
def test_text_in_an_unknown_encoding_is_never_guessed(tmp_path, content, message):
    path = tmp_path / "prompts.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        prompts_of(str(path))


def test_a_folder_is_no_file_of_prompts(tmp_path):
    with pytest.raises(ValueError, match="there is no file .*; write the prompts into it"):
        prompts_of(str(tmp_path))


def test_json_is_read_with_a_mark_and_refused_where_it_is_no_object(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"prompt": "glücklich"})
    path.write_bytes(codecs.BOM_UTF8 + path.read_bytes())
    assert read_json(path, "") == {"prompt": "glücklich"}
    cases = {'{"a": 1': "is not JSON, or is cut short", "": "is not JSON, or is cut short", "[" * 100_000: "is not JSON",
             "[1]": "holds a list and not an object", "null": "holds a NoneType and not"}  # fmt: skip
    for content, message in cases.items():
        path.write_text(content)
        with pytest.raises(ValueError, match=rf"x.json {message}.*; make it again"):
            read_json(path, "make it again")


def test_ordinary_names_stay_and_others_are_shortened_to_names_of_their_own():
    assert file_name("attention_mapper:lambda_area=0;tau=0.5") == "attention_mapper_lambda_area=0_tau=0.5"
    assert file_name("Größe, 大") == "Größe_大"
    for text in ("w" * 201, "大" * 67, "大" * 300, "..", ".", ":-)", "", "é" * 150):
        name = file_name(text)
        assert len(name.encode()) <= NAME_BYTES and name.strip(".") and "/" not in name
        assert name == file_name(text) != file_name(text + "w")
    assert len({file_name("w" * 300 + end) for end in ("a", "b", "ab")}) == 3
    assert file_name("w" * 200) == "w" * 200


def test_prompts_get_folders_that_can_be_made(tmp_path):
    long, other = "glad " * 60 + "a", "glad " * 60 + "b"
    folders = prompts_of(f"{long};{other};:-);:-(;Blue  Eyes")
    assert list(folders.values()) == [long, other, ":-)", ":-(", "Blue  Eyes"] and "blue_eyes" in folders
    for name in folders:
        (tmp_path / name).mkdir()
    assert len(list(tmp_path.iterdir())) == 5
    assert cell_folder(tmp_path, "segment_global", "..").resolve().parent == tmp_path / "segment_global"


@pytest.mark.parametrize("text", ["Happy;happy", "blue eyes;blue-eyes", "cafe\u0301;caf\u00e9", "σας;ΣΑΣ"])
def test_prompts_never_share_a_folder(text):
    with pytest.raises(ValueError, match="would share the folder"):
        prompts_of(text)


def test_home_is_found_or_asked_for(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "~/caches")
    assert expand("~/x/~y") == tmp_path / "x" / "~y" and str(expand("x/~")) == "x/~"
    assert user_cache() == tmp_path / "caches" / "coral_jax"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert user_cache() == tmp_path / ".cache" / "coral_jax"
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", lambda _: {}["no entry"])
    with pytest.raises(ValueError, match="no home folder is known for ~/.cache; write the path out, or set HOME"):
        user_cache()
    with pytest.raises(ValueError, match="no home folder is known for ~nobody-here/x"):
        expand("~nobody-here/x")


def test_text_keeps_what_is_not_a_mark(tmp_path):
    (tmp_path / "x.txt").write_bytes("a\r\n“b” \u200d c".encode())
    assert read_text(tmp_path / "x.txt") == "a\r\n“b” \u200d c"


def test_a_name_that_is_taken_gets_a_number(tmp_path):
    for name in ("a/X", "a/x_2", "b/x_3"):
        (tmp_path / name).mkdir(parents=True)
    assert free_name("x", tmp_path / "a") == "x_3"
    assert free_name("x", tmp_path / "a", tmp_path / "b", tmp_path / "none") == "x_4"
    assert free_name("x", tmp_path / "b") == "x"
