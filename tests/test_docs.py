"""The documents: links resolve, the README stays short and its Python runs, commands name modules and flags that exist.

Commands are parsed, never run.  What should be neither parsed nor run goes into a block without a language, or ```text.
"""

import json
import os
import re
import shlex
import subprocess
import sys

import pytest
from conftest import REPOSITORY

README, CHANGELOG = REPOSITORY / "README.md", REPOSITORY / "CHANGELOG.md"
DOCUMENTS = [README, CHANGELOG, *sorted((REPOSITORY / "docs").glob("*.md")), REPOSITORY / "benchmarks" / "README.md"]
README_LINES = 180

# Run with a JSON list of [module, arguments] as its input: prints what is wrong with each, null for nothing.
PARSER = """
import json, runpy, sys
from absl import app, flags, logging
from coral_jax import commands

class Started(Exception):
    pass

def run(*_, words=0, **__):
    raise Started(words)  # all flags are defined now

app.define_help_flags()
app.run = commands.run = run
own = set(flags.FLAGS)

def problem(module, arguments):
    for name in set(flags.FLAGS) - own:
        delattr(flags.FLAGS, name)
    flags.FLAGS.unparse_flags()
    sys.argv = [module, *arguments]  # where ml_collections looks for --config.FIELD
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except Started as started:
        rest = flags.FLAGS([module, *arguments])[1 + started.args[0] :]
        if "config" in flags.FLAGS and flags.FLAGS["config"].present:
            flags.FLAGS["config"].value.prompt  # read lazily: this is where a missing file shows
        return f"unexpected {rest}" if rest else None
    return "runs without absl.app"

problems = []
for module, arguments in json.load(sys.stdin):
    try:
        problems.append(problem(module, arguments))
    except Exception as error:
        problems.append(str(error).strip().splitlines()[-1])
print(json.dumps(problems))
"""


def _name(document):
    return str(document.relative_to(REPOSITORY))


def blocks(document, language):
    """The fenced blocks of a language in a document."""
    return re.findall(rf"^```{language}\n(.*?)^```$", document.read_text(encoding="utf-8"), re.M | re.S)


def prose(document):
    """A document without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", document.read_text(encoding="utf-8"), flags=re.M | re.S)


def code_spans(document):
    """What stands between backticks in the prose of a document, on one line each."""
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose(document))]


def links(document):
    """The targets of a document's links and pictures that are not on the web."""
    found = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", prose(document)))
    return [target for target in found if not re.match(r"[a-z]+:", target)]


def anchors(document):
    """The fragments that GitHub gives the headings of a document."""
    found = []
    for heading in re.findall(r"^#+ (.+)$", prose(document), re.M):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", text).strip().replace(" ", "-")
        repeated = sum(re.fullmatch(rf"{re.escape(slug)}(-\d+)?", other) is not None for other in found)
        found.append(f"{slug}-{repeated}" if repeated else slug)
    return found


def commands(text):
    """Every (module, arguments) that a shell text runs as python -m, also inside quotes; loops count with their first value."""
    text = re.sub(r"(?m)(^|\s)#.*$", "", text.replace("\\\n", ""))
    for name, first in re.findall(r"\bfor (\w+) in (\S+)", text):
        text = re.sub(rf"\${name}\b|\${{{name}}}", first, text)
    lexer = shlex.shlex(text, posix=True, punctuation_chars=";&|\n")
    lexer.whitespace, lexer.whitespace_split = " \t\r", True
    found, words = [], []
    for word in [*lexer, "\n"]:
        if word.strip(";&|\n"):
            words.append(word)
            continue
        starts = [i for i in range(len(words) - 2) if re.search(r"(^|/)python3?$", words[i]) and words[i + 1] == "-m"]
        if starts:
            found.append((words[starts[0] + 2], words[starts[0] + 3 :]))
        else:  # what is run on another machine comes in quotes
            found += [command for quoted in words if "python -m " in quoted for command in commands(quoted)]
        words = []
    return found


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_links_lead_somewhere(document):
    for target in links(document):
        path, _, fragment = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        assert file.exists(), f"{target}: there is no {file}"
        assert not fragment or fragment in anchors(file), f"{target}: the headings of {file} are {anchors(file)}"


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if d != CHANGELOG], ids=_name)  # it names what has moved
def test_files_that_are_named_exist(document):
    for code in code_spans(document):
        if re.fullmatch(r"(coral_jax|configs|converters|benchmarks|tests|docs)/[\w./-]+", code):
            assert (REPOSITORY / code).exists(), f"there is no {code}"


def test_the_readme_is_short():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= README_LINES


@pytest.mark.parametrize("document", [README, REPOSITORY / "docs" / "library.md"], ids=_name)
def test_python_runs_as_it_stands(document, tmp_path):
    (code,) = blocks(document, "python")
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert any(tmp_path.iterdir()), "it saves nothing"


def test_commands_name_modules_and_flags_that_exist():
    found = []
    for document in DOCUMENTS:
        texts = blocks(document, "sh") + [code for code in code_spans(document) if code.startswith("python -m ")]
        found += [(document.name, command) for text in texts for command in commands(text)]
    ours = [place for place in found if re.match(r"(coral_jax|converters|benchmarks)\.", place[1][0])]
    assert {module for _, (module, _) in found} - {module for _, (module, _) in ours} == {"venv", "pytest"}
    assert {"coral_jax.train", "converters.domain", "benchmarks.step"} <= {module for _, (module, _) in ours}
    done = subprocess.run(
        [sys.executable, "-c", PARSER], cwd=REPOSITORY, input=json.dumps([command for _, command in ours]),
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    problems = zip(ours, json.loads(done.stdout.splitlines()[-1]), strict=True)
    wrong = [f"{name}: {module} {shlex.join(rest)}: {reason}" for (name, (module, rest)), reason in problems if reason]
    assert not wrong, "\n".join(wrong)


def test_commands_are_found_in_shell_texts():
    text = """
# python -m a.comment
for size in 1 2; do
    X=1 .venv/bin/python -m b.loop --size=$size --name=${size}_x  # python -m a.comment
done && python -m c.next --prompt="a; b" \\
    --more
ssh host --command='cd x &&
    python -m d.quoted --there'
"""
    assert commands(text) == [
        ("b.loop", ["--size=1", "--name=1_x"]), ("c.next", ["--prompt=a; b", "--more"]), ("d.quoted", ["--there"])
    ]  # fmt: skip
