"""One command makes a domain of published files: from a server on this machine that cuts, lies and is not there."""

import errno
import hashlib
import importlib.util
import io
import json
import re
import zipfile

import numpy as np
import pytest

from converters.templates import TEMPLATES
from coral_jax import weights
from coral_jax.download import manifest, sources, store
from coral_jax.download.manifest import File, Licence
from coral_jax.runtime.progress import ByteProgress

FREE = Licence("MIT", commercial=True)
CONTENT = np.random.default_rng(0).bytes(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def file(server):
    """A published file: two sources of the same bytes."""
    server.files |= {"/a/x.bin": CONTENT, "/b/x.bin": CONTENT}
    return File("x.bin", FREE, (f"{server.url}/a/x.bin", f"{server.url}/b/x.bin"), sha256=SHA256)


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# --- one file ----------------------------------------------------------------------------------------------------------------


def test_a_file_is_fetched_once(server, file, tmp_path):
    for _ in range(2):
        path = store.Store(tmp_path).get(file)
        assert path == tmp_path / "downloads" / "x.bin" and path.read_bytes() == CONTENT
    assert [sent.count for sent in server.sent] == [len(CONTENT)] and names(tmp_path) == ["downloads/x.bin"]


def test_a_cut_connection_is_taken_up_again(server, file, tmp_path):
    server.cut["/a/x.bin"] = [1_200_000, 700_000]
    assert store.Store(tmp_path).get(file).read_bytes() == CONTENT
    assert [sent.range for sent in server.sent] == [None, "bytes=1200000-", "bytes=1900000-"]
    assert [sent.count for sent in server.sent] == [1_200_000, 700_000, 1_100_000]
    assert names(tmp_path) == ["downloads/x.bin"]


def test_the_next_command_resumes(server, file, tmp_path, capsys):
    one = File(file.name, FREE, file.sources[:1], sha256=SHA256)
    server.cut["/a/x.bin"] = [1_200_000, 0]  # and then nothing comes any more
    with pytest.raises(store.Unavailable, match="no source gives x.bin"):
        store.Store(tmp_path).get(one)
    assert f"{one.sources[0]}: the connection was cut after 1,200,000 of 3,000,000 bytes" in capsys.readouterr().err
    assert not (tmp_path / "downloads" / "x.bin").exists()
    server.sent.clear()
    assert store.Store(tmp_path).get(one).read_bytes() == CONTENT
    assert [(sent.range, sent.count) for sent in server.sent] == [("bytes=1200000-", 1_800_000)]


@pytest.mark.parametrize("change", ["no ranges", "no tag", "another tag", "another file"])
def test_what_cannot_be_resumed_begins_again(server, file, tmp_path, change):
    """Never the start of one file and the end of another, even where nothing tells the SHA-256."""
    one = File(file.name, FREE, file.sources[:1])
    server.cut["/a/x.bin"] = [1_200_000, 0, 0]
    server.tags = change != "no tag"
    with pytest.raises(store.Unavailable):
        store.Store(tmp_path).get(one)
    server.cut.clear(), server.sent.clear()
    server.ranges = change != "no ranges"
    if change == "another tag":
        server.version = "2"
    if change == "another file":
        server.files["/a/x.bin"] = CONTENT[::-1]
    assert store.Store(tmp_path).get(one).read_bytes() == server.files["/a/x.bin"]
    assert [sent.count for sent in server.sent] == [3_000_000]


def test_a_file_of_another_checksum_is_removed_and_the_next_source_tried(server, file, tmp_path, capsys):
    server.files["/a/x.bin"] = CONTENT[:-1] + b"!"
    assert store.Store(tmp_path).get(file).read_bytes() == CONTENT
    assert re.search(rf"/a/x.bin: its SHA-256 is \w+, and the manifest says {SHA256}; removed", capsys.readouterr().err)
    (tmp_path / "downloads" / "x.bin").unlink()
    server.files["/b/x.bin"] = b"short"
    with pytest.raises(store.Unavailable):
        store.Store(tmp_path).get(file)
    assert names(tmp_path) == []


def test_a_source_that_has_no_file_gives_way_to_the_next(server, file, tmp_path, capsys):
    del server.files["/a/x.bin"]
    assert store.Store(tmp_path).get(file).read_bytes() == CONTENT
    assert f"{file.sources[0]}: HTTP 404 Not Found\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("http://127.0.0.1:9/x.bin", "Connection refused"),
        ("gdrive:123", "Google Drive .* open https://drive.google.com/uc[?]id=123"),
        ("huggingface:x.bin", "write huggingface:OWNER/REPO/PATH"),
        ("file:///etc/hostname", "this is no source"),
        ("PAGE", "it answers with a web page"),
    ],
)
def test_why_a_source_fails_is_one_line(server, tmp_path, capsys, source, reason):
    server.files["/login.html"] = b"<html>"
    source = f"{server.url}/login.html" if source == "PAGE" else source
    with pytest.raises(store.Unavailable):
        store.Store(tmp_path).get(File("x.bin", FREE, (source,)))
    assert re.fullmatch(rf"  {re.escape(source)}: .*{reason}.*\n", capsys.readouterr().err)


def test_the_checksum_that_hugging_face_tells_is_checked(server, file, tmp_path, monkeypatch, capsys):
    told = {"x.bin": "0" * 64}
    monkeypatch.setattr(sources, "_resolve_hugging_face", lambda source: (file.sources[0], told[source.rpartition("/")[2]]))
    unknown = File("x.bin", FREE, ("huggingface:a/b/x.bin",))
    with pytest.raises(store.Unavailable):
        store.Store(tmp_path).get(unknown)
    assert f"its SHA-256 is {SHA256}, and the source says {'0' * 64}; removed" in capsys.readouterr().err
    told["x.bin"] = SHA256
    assert store.Store(tmp_path).get(unknown).read_bytes() == CONTENT


def test_an_unknown_checksum_is_recorded_at_first_use_and_checked_from_then_on(server, file, tmp_path, capsys):
    unknown = File(file.name, FREE, file.sources[:1])
    begun = store.Store(tmp_path)
    path = begun.get(unknown)
    assert not (tmp_path / "checksums.json").exists()
    begun.record([unknown])
    assert json.loads((tmp_path / "checksums.json").read_text()) == {"x.bin": SHA256}
    path.write_bytes(b"damaged")
    assert store.Store(tmp_path).get(unknown).read_bytes() == CONTENT  # removed and fetched again
    said = rf"it was {SHA256} when it was first used \(recorded in {tmp_path / 'checksums.json'}\); removed"
    assert re.search(said, capsys.readouterr().err)
    path.unlink()
    server.files["/a/x.bin"] = b"another"
    with pytest.raises(store.Unavailable):
        store.Store(tmp_path).get(unknown)
    assert re.search(said, capsys.readouterr().err) and not path.exists()


def test_files_that_are_there_are_taken_and_checked_the_same_way(server, file, tmp_path, capsys):
    given = tmp_path / "given"
    given.mkdir()
    (given / "x.bin").write_bytes(CONTENT)
    assert store.Store(tmp_path, given).get(file).read_bytes() == CONTENT and not server.sent
    (tmp_path / "downloads" / "x.bin").unlink()
    (given / "x.bin").write_bytes(b"wrong")
    assert store.Store(tmp_path, given).get(file).read_bytes() == CONTENT
    assert f"{given / 'x.bin'}: its SHA-256 is" in capsys.readouterr().err and (given / "x.bin").read_bytes() == b"wrong"
    with pytest.raises(ValueError, match="there is no folder .*; give one with --from=FOLDER"):
        store.Store(tmp_path, tmp_path / "nowhere")


def test_a_full_disk_is_one_line(file, tmp_path, monkeypatch):
    class Full(io.FileIO):
        def write(self, _):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store, "open", lambda path, _: Full(path, "w"), raising=False)
    with pytest.raises(ValueError, match="the disk is full: x.bin does not fit into .*--weights_dir.*resumes"):
        store.Store(tmp_path).get(file)
    assert "downloads/x.bin" not in names(tmp_path)


def test_progress_counts_megabytes_and_ends_its_line():
    class Terminal(io.StringIO):
        isatty = lambda _: True  # noqa: E731

    stream = Terminal()
    with ByteProgress("x.bin", 0, 3_000_000, stream) as progress:
        progress.show(1_500_000, {})
    assert "x.bin  1.5/3.0 MB" in stream.getvalue() and stream.getvalue().endswith("\n")


# --- the manifest ------------------------------------------------------------------------------------------------------------


def test_the_packages_manifest_holds_together():
    entries = manifest.load()
    assert list(entries) == [
        "ffhq", "ffhq-e4e", "ffhq-512", "ffhq-256", "faces", "faces-clip", "cars", "cats", "metfaces", "landmarker",
        "imagenet",
    ]  # fmt: skip
    listed = "\n".join(manifest.listing(entries))
    for entry in entries.values():
        template = TEMPLATES[entry.template] if entry.template else None
        assert (
            entry.packaged or entry.file or (entry.subject, "identity" in entry.networks) == (template.subject, template.faces)
        )
        for file in entry.files():
            assert file.sha256 is None or re.fullmatch("[0-9a-f]{64}", file.sha256)
            assert all(sources.link(source).startswith("https://") for source in file.sources) and file.sources
            assert f"\n{file.name} (" in listed and all(source in listed for source in file.sources)
            assert file.licence.text in listed
    assert "ViT-B-32.pt (354.0 MB; MIT" in listed and "model_ir_se50.pth (175.4 MB; " in listed


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"mit"', '"gpl"', "'gpl' is named and not there"),
        ("[files.", "[files", "is not a manifest"),
        ('"tiny.pkl"]\n', '"../tiny.pkl"]\n', "'../tiny.pkl' cannot name a file"),
        ("clip = ", "clap = ", r"networks \['clap'\]; write some of generator, clip, identity"),
        ("sha256", "sha1", "unexpected keyword argument 'sha1'"),
        ('subject = "face"', 'file = "tiny.pkl"', "tiny is one file; write its about, and nothing else"),
    ],
)
def test_a_manifest_that_does_not_hold_together_is_refused(tmp_path, old, new, message):
    text = """
        [licences.mit]\ntext = "MIT"\ncommercial = true
        [files."tiny.pkl"]\nlicence = "mit"\nsha256 = "00"\nsources = []
        [networks]\ntiny = [["tiny.pkl"]]
        [entries.tiny]\nabout = ""\ntemplate = "sketch"\nsubject = "face"\nnetworks = { generator = "tiny", clip = "tiny" }
    """
    path = tmp_path / "manifest.toml"
    path.write_text(text)
    assert list(manifest.load(path)) == ["tiny"]
    path.write_text(text.replace(old, new))
    with pytest.raises(ValueError, match=message):
        manifest.load(path)
    with pytest.raises(ValueError, match="there is no manifest"):
        manifest.load(tmp_path / "nowhere.toml")


def test_a_wheel_comes_as_pip_fetches_it_and_is_not_installed(tmp_path, monkeypatch):
    """From a folder in place of the package index."""
    wheel = tmp_path / "index" / "some_faces-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("some_faces/__init__.py", "raise SystemExit('run')")
        archive.writestr("some_faces/a.task", CONTENT)
        archive.writestr("some_faces-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: some-faces\nVersion: 1.0\n")
        archive.writestr("some_faces-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("some_faces-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    kept = store.Store(tmp_path / "weights")
    file = File(wheel.name, FREE, ("pypi:some-faces==1.0",), sha256=weights.fingerprint(wheel))
    assert kept.get(file).read_bytes() == wheel.read_bytes()
    member = "pypi:some-faces==1.0/some_faces/a.task"
    assert kept.get(File("a.task", FREE, (member,), sha256=SHA256)).read_bytes() == CONTENT
    assert sources.link(member) == "https://pypi.org/project/some-faces/1.0/#files"
    with (
        pytest.raises(sources.Failed, match="some_faces-1.0-.*whl has no b.task"),
        sources.opened("pypi:some-faces==1.0/b.task"),
    ):
        pass
    assert importlib.util.find_spec("some_faces") is None
    with (
        pytest.raises(sources.Failed, match="pip does not give it .ERROR: .*some-faces==2.0"),
        sources.opened("pypi:some-faces==2.0"),
    ):
        pass
    assert sources.link("pypi:some-faces==1.0") == "https://pypi.org/project/some-faces/1.0/#files"
