"""The studio's walls: paths in every field, sizes, foreign pages, pages apart, memory, a killed server."""

import http.client
import json
import re
import shutil
import signal
import struct
import time
import zlib

import pytest
from conftest import REPOSITORY

from benchmarks.browser import Served

OUTSIDE = ["../secret", "/etc/passwd", "..", "secret/../../secret", "%2e%2e/secret", "secret\0", "~root", "C:\\secret", ""]
PAGES = REPOSITORY / "coral_jax" / "studio" / "page"


@pytest.fixture(scope="module")
def runs(trained, tmp_path_factory):
    """A runs folder, and beside it what must not be read: a run, an evaluation and a photo of the same forms."""
    folder = tmp_path_factory.mktemp("walled")
    for place in (folder / "runs" / "surprised", folder / "secret"):
        shutil.copytree(trained.folder, place)
    (folder / "secret" / "table.json").write_text('{"domain": "SECRET", "rows": []}')
    (folder / "secret" / "photo.json").write_text("{}")
    (folder / "secret" / ".studio.json").write_text('{"prompt": "SECRET"}')
    for name in ("secret", "photos"):
        (folder / "runs" / f"link_{name}").symlink_to(folder / "secret")
    (folder / "photos").mkdir()
    return folder / "runs"


@pytest.fixture(scope="module")
def studio(runs, weights_dir):
    with Served(runs, f"--photos={runs.parent / 'photos'}", f"--weights_dir={weights_dir}") as served:
        yield served


@pytest.fixture
def session(studio):
    return studio.open()


@pytest.fixture(scope="module")
def recipe(trained, domain):
    sha256 = json.loads((trained.folder / "edit" / "edit.json").read_text())["weights_sha256"]
    step = {"edit": "surprised", "weights_sha256": sha256, "alpha": 1.0, "tau": 0.3, "layers_off": [], "brush": None}
    return {"format": 1, "domain": "tiny", "domain_fingerprint": domain.fingerprint,
            "face": {"seed": 1, "truncation": 0.8}, "edits": [step]}  # fmt: skip


def requests(recipe):
    """Every request with a field that names something: (path, function from a name to the content)."""

    def of_edit(name):
        return {"recipe": recipe | {"edits": [recipe["edits"][0] | {"edit": name}]}}

    training = {"domain": "tiny", "prompt": "surprised", "method": "attention_global", "steps": 1}
    compared = {"name": "surprised", "methods": ["m"], "prompts": ["p"], "prompt": "p"}
    yield "draw", of_edit
    yield "layers", of_edit
    yield "draw", lambda name: {"recipe": recipe | {"face": {"photo": name, "picture_sha256": "", "codes_sha256": ""}}}
    yield "draw", lambda name: {"recipe": recipe | {"domain": name}}
    yield "draw", lambda name: {"recipe": recipe, "size": name}
    yield "domain", lambda name: {"domain": name}
    yield "face", lambda name: {"domain": name, "seed": 1, "truncation": 1.0}
    for field in ("domain", "method"):
        yield "learn/plan", lambda name, field=field: training | {field: name}
        yield "learn/start", lambda name, field=field: training | {field: name}
    yield "learn/live", lambda name: {"name": name}
    for action in ("pause", "stop", "go_on"):
        yield "learn/control", lambda name, action=action: {"name": name, "action": action}
    yield "learn/control", lambda name: {"name": "x", "action": name}
    yield "learn/plan", lambda name: training | {"prompt": name or " ", "steps": 0}
    yield "compare/table", lambda name: compared | {"name": name}
    yield "compare/sheet", lambda name: compared | {"name": name}
    yield "photo/keep", lambda name: {"name": name}


def test_no_field_leads_outside(studio, session, recipe, runs):
    before = sorted(path for path in runs.parent.rglob("*") if "secret" in path.parts)
    assert studio.ask("api/draw", {"recipe": recipe}, session)[0] == 200
    for path, content in requests(recipe):
        for name in [*OUTSIDE, "link_secret", str(runs.parent / "secret")]:
            status, body = studio.ask(f"api/{path}", content(name), session)
            assert status == 400 and set(json.loads(body)) == {"error"}, (path, name, status, body)
    for path in ("compare/evaluations", "learn/trainings", "shelf"):
        status, body = studio.ask(f"api/{path}", {}, session)
        assert status == 200 and b"secret" not in body.lower(), body
    assert sorted(path for path in runs.parent.rglob("*") if "secret" in path.parts) == before


@pytest.mark.parametrize(
    "path", ["page/../server.py", "page/..%2fserver.py", "page/%2e%2e/server.py", "page//etc/passwd", "etc/passwd"]
)
def test_no_address_leads_outside(studio, path):
    connection = http.client.HTTPConnection("127.0.0.1", studio.port, timeout=60)
    connection.request("GET", f"/{path}")  # as it stands: a browser would shorten it
    answer = connection.getresponse()
    assert answer.status == 404 and len(answer.read()) < 100
    connection.close()


def test_the_page_names_no_file_that_is_not_there():
    """And takes nothing from elsewhere: it works without the web."""
    for file in PAGES.iterdir():
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg|127\.0\.0\.1)", text), file
        for name in re.findall(r"[\"'](?:/page|\.)/([\w.]+)[\"']", text):
            assert (PAGES / name).is_file(), f"{file.name} names {name}"


def test_sizes_are_limited(studio, session):
    status, body = studio.ask("api/draw", b" " * (3 << 20), session)
    assert status == 413 and "more than 2 MB" in body.decode()
    status, body = studio.ask("api/photo/upload?domain=tiny&file=a.png", bytes(31 << 20), session)
    assert status == 413 and "more than 30 MB" in body.decode()


def bomb():
    """A PNG file of a few bytes that says it has 60000 x 60000 pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("a.png", b"", "cannot be read as a picture"),
        ("a.png", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "cannot be read as a picture"),
        ("a.png", bomb(), "cannot be read as a picture"),
        ("a.svg", b"<svg/>", "is no picture that can be read"),
        ("a.eps", b"%!PS", "is no picture that can be read"),
        ("../../a", b"x", "is no picture that can be read"),
        ("../../a.png", b"x", "'a.png' cannot be read as a picture"),
    ],
    ids=["empty", "svg_named_png", "bomb", "svg", "eps", "path_without_suffix", "path"],
)
def test_uploads_are_decoded_as_data(studio, session, runs, file, content, message):
    status, body = studio.ask(f"api/photo/upload?domain=tiny&file={file}", content, session)
    assert status == 400 and message in body.decode() and str(runs.parent) not in body.decode()
    assert "coral_jax_studio_" not in body.decode()


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{", b"\xff", b"[" * 100_000, b'{"recipe": 3}', b'{"recipe": {}}'],
    ids=["empty", "list", "cut", "no_text", "deep", "number", "no_recipe"],
)
def test_requests_that_are_none_are_answered(studio, session, content):
    assert studio.ask("api/draw", content, session)[0] == 400


def test_foreign_pages_are_refused(studio, session):
    for headers in ({"host": "evil.example"}, {"host": "evil.example:80"}, {"host": "127.0.0.1.evil.example"}):
        assert studio.ask("api/alive", {}, session, headers)[0] == 421
    assert studio.ask("api/alive", {}, session, {"host": "localhost:1"})[0] == 204
    assert studio.ask("api/open", {})[0] == 403  # what a form on another page can send
    for token in ("", "none", session[:-1]):
        assert studio.ask("api/draw", {}, token)[0] == 410


def test_pages_do_not_see_each_other(studio, session):
    """A photograph's name in another page is no photograph there."""
    other = studio.open()
    assert other != session
    status, _ = studio.ask("api/photo/state", {}, other)
    assert status == 400
    assert studio.ask("api/close", json.dumps({"session": other}).encode())[0] == 204
    assert studio.ask("api/alive", {}, other)[0] == 410 and studio.ask("api/alive", {}, session)[0] == 204


def test_memory_stays_flat_while_sliding(studio, session, recipe):
    def move(index):
        step = recipe["edits"][0] | {"alpha": index / 100 - 1, "tau": 0.2 + index % 7 / 20}
        assert studio.ask("api/draw", {"recipe": recipe | {"edits": [step]}}, session)[0] == 200

    for index in range(20):
        move(index)
    before = studio.memory
    for index in range(60):
        move(index)
    assert studio.memory - before < 8 << 20


def test_a_killed_studio_leaves_runs_whole(runs, weights_dir, tmp_path):
    """The training that it had begun ends by itself, and what is there can be taken up."""
    with Served(tmp_path / "runs", f"--weights_dir={weights_dir}") as served:
        session = served.open()
        asked = {"domain": "tiny", "prompt": "surprised", "method": "attention_global", "steps": 20_000}
        assert served.ask("api/learn/start", asked, session)[0] == 200
        state = None
        while state != "learning":
            trainings = json.loads(served.ask("api/learn/trainings", {}, session)[1])["trainings"]
            state = trainings[0]["state"]
            assert state in ("starting", "learning"), trainings
            time.sleep(0.2)
        status, body = served.ask("api/learn/start", asked, session)
        assert status == 400 and "is learning; stop it first" in body.decode()
        served.process.send_signal(signal.SIGKILL)
        served.process.wait()
    folder = tmp_path / "runs" / "surprised"
    log = folder / ".studio.log"
    for _ in range(600):
        if "stopped" in log.read_text():
            break
        time.sleep(0.1)
    assert "stopped; type the same command to go on" in log.read_text()
    assert any(entry.name.isdigit() for entry in (folder / "checkpoints").iterdir()) and not list(folder.rglob("*.partial"))
