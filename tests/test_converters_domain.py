"""Domains made of converted files: what is in the folder, what is fitted, that a run works on it, what is refused."""

import json
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
import tiny
from conftest import REPOSITORY, run_config
from flax import nnx

from converters import domain as converter
from converters.templates import TEMPLATES
from coral_jax import weights
from coral_jax.blend import original_synthesis
from coral_jax.config import make, resolve
from coral_jax.domains import load_domain
from coral_jax.global_directions.templates import wordings
from coral_jax.methods import AUTHORS, METHODS
from coral_jax.models import load_clip, load_generator, load_identity
from coral_jax.models.segmenter import MixtureSegmenter
from coral_jax.models.stylegan2 import StyleGAN2, StyleGAN2Config
from coral_jax.training.loop import train

WIDER = StyleGAN2Config(32, 6, 5, 2, ((4, 8), (8, 6), (16, 6), (32, 4)))


@pytest.fixture
def files(weights_dir):
    """Files of tiny networks, as the converters write them."""
    folder = weights_dir / "tiny"
    return [folder / name for name in ("generator.safetensors", "clip.safetensors", "identity.safetensors")]


def test_a_domain_is_made_and_trained_on(files, tmp_path, monkeypatch):
    monkeypatch.setattr(converter, "FIT_FACES", 3)
    monkeypatch.setattr(converter.fit_segmenter, "__defaults__", (3,))
    line = converter.make_domain("sketches", *files, template="sketch", segmenter_fit=True, weights_dir=str(tmp_path))
    assert "domain sketches (16 px, 6 codes, identity, mixture of 5 segments)" in line and ":domain=sketches" in line
    assert [path.name for path in tmp_path.iterdir()] == ["sketches"]
    loaded = load_domain("sketches", tmp_path)
    assert loaded.settings == TEMPLATES["sketch"].settings and isinstance(loaded.segmenter(), MixtureSegmenter)
    sources = json.loads((tmp_path / "sketches" / "domain.json").read_text())["sources"]
    assert sources["clip.safetensors"] == {"path": str(files[1]), "sha256": weights.fingerprint(files[1])}
    assert sources.keys() == {"generator.safetensors", "clip.safetensors", "tokenizer.json", "identity.safetensors",
                              "mixture.safetensors"}  # fmt: skip
    config = run_config(tmp_path)
    config.update(domain="sketches", method="segment_global", steps=2, sheet_seeds="0")
    assert train(config, tmp_path / "run")["steps"] == 2


def test_without_identity_and_segmenter(files, tmp_path):
    generator, clip, _ = files
    line = converter.make_domain("cats", generator, clip.parent, None, template="pixar", weights_dir=str(tmp_path))
    assert "no identity, no segmenter (segment_* methods need --segmenter_fit)" in line
    loaded = load_domain("cats", tmp_path)
    assert loaded.identity is None and loaded.segmenters == {}
    config = run_config(tmp_path)
    config.update(domain="cats", method="segment_global", steps=1)
    with pytest.raises(ValueError, match="this domain has none; .* converters.domain --segmenter_fit"):
        train(config, tmp_path / "run")


def test_cars_come_without_bars(files, tmp_path):
    """Rows 64 to 448 of 512 are, at 32 px, rows 4 to 28; the files of the converters say what they were made from."""
    made_from = {"source": "car.pkl", "source_sha256": "ab" * 32}
    weights.save(tmp_path / "cars.safetensors", tiny.generator(WIDER), metadata=made_from)
    converter.make_domain("cars", tmp_path / "cars.safetensors", files[1], None, template="cars", weights_dir=str(tmp_path))
    description = json.loads((tmp_path / "cars" / "domain.json").read_text())
    assert description["content_rows"] == [4, 28]
    sources = description["sources"]
    assert sources["generator.safetensors"] == made_from | {
        "path": str(tmp_path / "cars.safetensors"), "sha256": weights.fingerprint(tmp_path / "cars.safetensors"),
    }  # fmt: skip
    assert sources["clip.safetensors"].keys() == sources["tokenizer.json"].keys() == {"path", "sha256"}
    draw = jax.jit(lambda generator: generator.synthesis(tiny.w_plus(1, config=WIDER)))
    whole = draw(load_generator(tmp_path / "cars.safetensors"))
    np.testing.assert_allclose(draw(load_domain("cars", tmp_path).generator), whole[:, 4:28], atol=1e-5)


def test_a_domain_says_what_its_generator_draws(files, tmp_path):
    """The template's subject whatever the domain is called, or the one that is given; global directions speak of it."""
    weights.save(tmp_path / "cars.safetensors", tiny.generator(WIDER))

    def made(name, **given):
        converter.make_domain(name, tmp_path / "cars.safetensors", files[1], None, weights_dir=str(tmp_path), **given)
        return load_domain(name, tmp_path)

    mine = made("my_cars", template="cars")
    assert mine.subject == "car" and (mine.language, mine.truth, mine.direction_faces) == (None, None, None)
    asked, neutral = wordings(mine, "red")
    assert "a photo of a red car." in asked and "a photo of my car." in neutral
    assert not any("face" in text for text in (*asked, *neutral))
    assert "a photo of a sports car." in wordings(mine, "sports car")[0]
    boats = made("cars", template="cars", subject="boat")
    assert boats.subject == "boat" and "a photo of the red boat." in wordings(boats, "red")[0]
    assert made("cats", template="sketch").subject == "face"
    others = {name: template.subject for name, template in TEMPLATES.items() if template.subject != "face"}
    assert others == {"cars": "car", "cats": "cat"}


def test_templates_scale_the_rows_of_the_picture():
    assert [TEMPLATES["cars"].content_rows(size) for size in (8, 512, 1024)] == [(1, 7), (64, 448), (128, 896)]
    assert TEMPLATES["ffhq"].content_rows(1024) is None


def test_the_mixture_tells_the_parts_of_a_face_apart():
    generator = tiny.generator(WIDER)
    segmenter = converter.fit_segmenter(generator, 1.0, faces=4)
    assert segmenter.config.layers == ((5, 6), (7, 4)) and segmenter.config.resolution == 32
    assert (segmenter.config.segments, segmenter.config.components) == (5, 10)
    w_plus = generator.broadcast(generator.mapping(np.random.default_rng(0).standard_normal((2, 6)).astype(np.float32)))
    segments = np.asarray(jax.jit(lambda g, s, w: s.segment(original_synthesis(g, w).features))(generator, segmenter, w_plus))
    assert segments.shape == (2, 32, 32, 5)
    np.testing.assert_allclose(segments.sum(axis=-1), 1, atol=1e-5)
    assert (np.bincount(segments.argmax(axis=-1).ravel(), minlength=5) > 0).sum() >= 4


def test_a_mixture_needs_features_of_16_px():
    small = StyleGAN2Config(8, 6, 5, 2, ((4, 8), (8, 6)))
    with pytest.raises(ValueError, match="needs a generator of at least 16 px; leave it out"):
        converter.fit_segmenter(tiny.generator(small), 1.0)


def test_a_file_that_changed_is_found(files, tmp_path):
    converter.make_domain("cats", *files, template="pixar", weights_dir=str(tmp_path))
    shutil.copyfile(files[2].with_name("mixture.safetensors"), tmp_path / "cats" / "identity.safetensors")
    with pytest.raises(ValueError, match="identity.safetensors changed since the domain was made .* make the domain again"):
        load_domain("cats", tmp_path)


def test_nothing_is_left_after_an_error(files, tmp_path, monkeypatch):
    def fail(*_):
        raise ValueError("no memory")

    monkeypatch.setattr(converter, "fit_segmenter", fail)
    with pytest.raises(ValueError, match="no memory"):
        converter.make_domain("cats", *files, template="pixar", segmenter_fit=True, weights_dir=str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_names_that_cannot_be_are_refused(files, weights_dir):
    for name, message in (("../cats", "cannot name a domain"), ("toons", "comes with the program"), ("tiny", "there already")):
        with pytest.raises(ValueError, match=message):
            converter.make_domain(name, *files, template="pixar", weights_dir=str(weights_dir))


def test_files_that_do_not_belong_are_refused(files, tmp_path):
    generator, clip, identity = files

    def refused(message, *given, template="pixar"):
        with pytest.raises(ValueError, match=message):
            converter.make_domain("cats", *given, template=template, weights_dir=str(tmp_path / "weights"))

    foreign = tmp_path / "ffhq.pt"
    foreign.write_bytes(b"PK\x03\x04 a zip archive")
    refused(r"ffhq.pt is not a file of this program; convert it first, python -m converters.stylegan2 --checkpoint=\S*ffhq.pt",
            foreign, clip, identity)  # fmt: skip
    weights.save_tensors(tmp_path / "model.safetensors", {"visual.proj": np.zeros(3)}, {})
    refused("model.safetensors is not a file of this program; convert it first, python -m converters.clip",
            generator, tmp_path / "model.safetensors", identity)  # fmt: skip
    refused("holds a network of the kind CLIP, not a generator", clip, clip, identity)
    refused("holds a network of the kind StyleGAN2, not an identity network", generator, clip, generator)
    refused(
        "there is no .*lost.safetensors; make it with python -m converters.identity",
        generator,
        clip,
        tmp_path / "lost.safetensors",
    )
    shutil.copyfile(clip, tmp_path / "clip.safetensors")
    refused("there is no .*tokenizer.json; python -m converters.clip writes it", generator, tmp_path, identity)
    refused("unknown template 'pixr'; did you mean 'pixar'", *files, template="pixr")
    refused("the template ffhq is for generators of 1024 px, and this one draws 16 px; give --template=sketch or pixar",
            *files, template="ffhq")  # fmt: skip
    large = StyleGAN2Config(64, 6, 5, 1, tuple((4 * 2**i, 2) for i in range(5)))
    weights.save(tmp_path / "cars.safetensors", tiny.build(lambda: StyleGAN2(large, nnx.Rngs(0))))
    refused("cars draws no faces; give --identity=none", tmp_path / "cars.safetensors", clip, identity, template="cars")
    assert not list((tmp_path / "weights").glob("*"))


@pytest.mark.parametrize("template", TEMPLATES)
def test_every_template_has_settings_that_a_run_takes(template):
    for method in METHODS:
        chosen = resolve(make("red car", f"method={method}"), TEMPLATES[template].settings)
        own = AUTHORS.get(method, {})
        assert (chosen.tau, chosen.settings.steps) == (own.get("tau", 0.85), own.get("steps", 20_000))
        assert chosen.settings.truncation == 0.7


def test_networks_are_loaded_by_what_they_are(files):
    for load, path in zip((load_generator, load_clip, load_identity), files, strict=True):
        assert type(load(path)) is type(weights.load(path))
        with pytest.raises(ValueError, match="holds a network of the kind"):
            load(next(other for other in files if other != path))
    with pytest.raises(FileNotFoundError):
        load_clip(files[0].with_name("lost.safetensors"))


def test_the_command(files, tmp_path):
    names = [f"--{kind}={path}" for kind, path in zip(("generator", "clip"), files, strict=False)]
    command = [sys.executable, "-m", "converters.domain", "--name=cats", f"--weights_dir={tmp_path}", *names]
    run = {"cwd": REPOSITORY, "capture_output": True, "text": True, "timeout": 300}
    done = subprocess.run(command, **run)
    assert done.returncode == 1 and "no --identity; type python -m converters.domain --name=ffhq" in done.stderr
    done = subprocess.run([*command, "--identity=none", "--template=sketch", "--subject=cat"], **run)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{tmp_path / 'cats'}: domain cats (16 px, 6 codes, no identity") and done.stderr == ""
    loaded = load_domain("cats", tmp_path)
    assert loaded.identity is None and loaded.subject == "cat"
