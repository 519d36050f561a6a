"""Domains: what a folder gives, which folders are found, what is said about broken ones."""

import json
import re
import shutil

import jax
import numpy as np
import pytest
from conftest import make_domain

from coral_jax import domains, weights
from coral_jax.config import make, resolve
from coral_jax.domains import known_domains, load_domain, weights_folder
from coral_jax.models.segmenter import MixtureSegmenter, PixelClassifier
from coral_jax.toons import captions, truth


@pytest.fixture
def copied(weights_dir, tmp_path):
    """A weights folder of its own, with the tiny domain."""
    shutil.copytree(weights_dir / "tiny", tmp_path / "tiny")
    return tmp_path


def describe(folder, **fields):
    """Change fields of domain.json; None takes one out."""
    path = folder / "tiny" / "domain.json"
    description = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({key: value for key, value in description.items() if value != "absent"}))


def test_a_folder_gives_its_networks_and_defaults(domain):
    assert domain.name == "tiny" and domain.generator.config.size == 16 and domain.clip.config.context == 12
    assert domain.identity.config.embed_dim == 8 and domain.tokenizer.context == 12
    assert isinstance(domain.segmenter(), MixtureSegmenter)
    assert isinstance(domain.segmenter("parts"), PixelClassifier)
    assert domain.settings["methods"]["segment_global"]["lambda_l2"] == 0.001


def test_frozen_holds_the_prompts_features_and_the_segmenter(domain):
    frozen = domain.frozen("blue eyes", "parts")
    ids = domain.tokenizer(["blue eyes"])
    expected = jax.jit(lambda clip, ids: clip.encode_text(ids)[0])(domain.clip, ids)
    np.testing.assert_array_equal(frozen.text, expected)
    assert frozen.text.shape == (8,) and frozen.segmenter is domain.segmenters["parts"]
    assert frozen.generator is domain.generator and frozen.identity is domain.identity


def test_prompts_and_segmenters_that_cannot_be_are_explained(domain):
    with pytest.raises(ValueError, match="prompt is empty; say what"):
        domain.frozen(" ")
    with pytest.raises(ValueError, match="at most 10; shorten it"):
        domain.frozen("a face with an unheard of zigzag quiff")
    with pytest.raises(ValueError, match="has no segmenter 'hair'; it has: mixture, parts"):
        domain.frozen("happy", "hair")
    with pytest.raises(ValueError, match="tiny has no classifier"):
        domain.classifier()


def test_a_domain_may_lack_identity_and_segmenters(copied):
    describe(copied, identity=None, segmenters={}, default_segmenter=None)
    frozen = load_domain("tiny", copied).frozen("happy")
    assert frozen.identity is None and frozen.segmenter is None


def test_the_classifier_is_read_only_when_asked_for(copied):
    (copied / "tiny" / "classifier.safetensors").write_bytes(b"not yet")
    describe(copied, classifier="classifier.safetensors")
    domain = load_domain("tiny", copied)
    with pytest.raises(ValueError, match="is not a safetensors file"):
        domain.classifier()
    shutil.copy(copied / "tiny" / "identity.safetensors", copied / "tiny" / "classifier.safetensors")
    assert type(domain.classifier()) is type(domain.identity)


def test_the_fingerprint_follows_the_weights_and_nothing_else(copied, domain):
    assert load_domain("tiny", copied).fingerprint == domain.fingerprint
    describe(copied, settings={"tau": 0.1}, classifier="identity.safetensors")
    assert load_domain("tiny", copied).fingerprint == domain.fingerprint
    tensors, metadata = weights.load_tensors(copied / "tiny" / "generator.safetensors")
    weights.save_tensors(copied / "tiny" / "generator.safetensors", tensors | {"w_avg": tensors["w_avg"] + 1}, metadata)
    assert load_domain("tiny", copied).fingerprint != domain.fingerprint


def test_rows_that_are_the_picture(copied, domain):
    describe(copied, content_rows=[2, 14])
    cut = load_domain("tiny", copied)
    assert cut.generator.content_rows == (2, 14) and cut.fingerprint != domain.fingerprint
    assert domain.generator.content_rows is None
    images = jax.eval_shape(lambda: cut.generator.synthesis(jax.numpy.zeros((1, 6, 5))))
    assert images.shape == (1, 12, 16, 3)
    assert jax.eval_shape(cut.clip.encode_image, images).shape == (1, 8)
    for rows in ([0, 12], [12, 4], [2, 14.0], [8], 12, None):
        describe(copied, content_rows=rows)
        with pytest.raises(ValueError, match=r"content_rows is .*; give \[first, end\] .* 16 left out .* such as \[2, 14\]"):
            load_domain("tiny", copied)


def test_what_a_domain_says_of_itself(copied, domain):
    """Subject, language, truth and number of faces: nothing of these follows from the name, or changes the fingerprint."""
    said = (domain.subject, domain.language, domain.truth, domain.direction_faces)
    assert said == ("face", None, None, None)
    describe(copied, subject="ship", language="toons", truth="toons", direction_faces=7)
    told = load_domain("tiny", copied)
    assert (told.subject, told.direction_faces) == ("ship", 7) and told.fingerprint == domain.fingerprint
    assert told.language is captions and told.truth is truth
    describe(copied, subject="absent", language=None, truth=None, direction_faces=None)
    untold = load_domain("tiny", copied)
    assert (untold.subject, untold.language, untold.truth, untold.direction_faces) == said


def of_prompts(copied, prompts, **fields):
    """The copied domain with settings of its own for prompts of attention_mapper."""
    methods = {"attention_mapper": {"lambda_area": 2.0, "prompts": prompts}, "attention_global": {"lambda_l2": 2.0}}
    describe(copied, settings={"lambda_area": 1.0, "methods": methods}, **fields)
    return load_domain("tiny", copied)


def test_a_prompt_may_have_settings_of_its_own(copied):
    domain = of_prompts(copied, {"Blue eyes": {"lambda_area": 3.0, "tau": 0.7}})
    own = domain.settings_of(" blue  EYES ")["methods"]
    assert own == {"attention_mapper": {"lambda_area": 3.0, "tau": 0.7}, "attention_global": {"lambda_l2": 2.0}}
    assert domain.settings_of("blue eyes and beard")["methods"]["attention_mapper"] == {"lambda_area": 2.0}
    assert resolve(make("blue eyes"), domain.settings_of("blue eyes")).settings.lambda_area == 3.0
    assert resolve(make("blue eyes", "lambda_area=4"), domain.settings_of("blue eyes")).settings.lambda_area == 4.0


def test_prompts_that_say_the_same_share_settings(copied):
    domain = of_prompts(copied, {"eyes closed": {"lambda_area": 3.0}}, language="faces")
    for prompt in ("eyes closed", "closed eyes", "a sleeping person"):
        assert domain.settings_of(prompt)["methods"]["attention_mapper"] == {"lambda_area": 3.0}
    assert domain.settings_of("sad")["methods"]["attention_mapper"] == {"lambda_area": 2.0}


@pytest.mark.parametrize(
    "prompts, message",
    [({"old": {"steps": 9}}, r"cannot have its own \['steps'\], but lambda_l2"), ({"old": 3}, "give each prompt an object"),
     ([], r"prompts holds \[\]")],
)  # fmt: skip
def test_mistakes_in_a_prompts_own_settings_are_explained(copied, prompts, message):
    domain = of_prompts(copied, prompts)
    with pytest.raises(ValueError, match=message):
        domain.settings_of("old")


def test_the_embedded_domain_names_its_language_and_its_truth():
    toons = load_domain("toons")
    assert (toons.language, toons.truth, toons.subject, toons.direction_faces) == (captions, truth, "face", 24)


def test_a_folder_called_toons_has_no_truth_by_its_name(copied, monkeypatch):
    monkeypatch.setattr(domains, "EMBEDDED", {})
    shutil.copytree(copied / "tiny", copied / "toons")
    found = load_domain("toons", copied)
    assert found.name == "toons" and found.truth is None and found.language is None


@pytest.mark.parametrize("field", ["language", "truth"])
@pytest.mark.parametrize("value", ["cars", "os", "coral_jax.toons.captions", "", 3])
def test_an_unknown_language_or_truth_is_refused_by_name(copied, field, value):
    """Nothing is imported for a domain but what the program knows by name."""
    describe(copied, **{field: value})
    with pytest.raises(ValueError, match=re.escape(f"{field} is {value!r}")) as raised:
        load_domain("tiny", copied)
    assert "domain.json" in str(raised.value) and ("give one of toons" in str(raised.value) or value == 3)


def test_the_weights_folder_is_the_argument_else_the_variable_else_the_cache(tmp_path, monkeypatch, caches):
    assert weights_folder() == caches / "coral_jax" / "weights"
    monkeypatch.setenv("CORAL_JAX_WEIGHTS", str(tmp_path / "variable"))
    assert weights_folder() == tmp_path / "variable"
    assert weights_folder(tmp_path / "argument") == tmp_path / "argument"


def test_domains_of_the_folder_and_embedded_ones_are_known(copied, monkeypatch):
    monkeypatch.setattr(domains, "EMBEDDED", {"toons": copied / "tiny", "later": copied / "later"})
    make_domain(copied / "cars", seed=1)
    assert known_domains(copied) == {"tiny": copied / "tiny", "cars": copied / "cars", "toons": copied / "tiny"}
    assert load_domain("toons").name == "toons"
    assert load_domain("cars", copied).fingerprint != load_domain("tiny", copied).fingerprint


@pytest.mark.parametrize("name", ["ffhq", "../tiny", ""])
def test_an_unknown_domain_is_explained(weights_dir, name):
    with pytest.raises(ValueError, match=r"unknown domain .*; known: .*tiny.*; .*`python -m converters.domain`"):
        load_domain(name, weights_dir)


def test_broken_folders_are_explained(copied):
    describe(copied, generater="x", clip="absent")
    with pytest.raises(ValueError, match=r"missing fields \['clip'\], unknown fields \['generater'\]"):
        load_domain("tiny", copied)
    describe(copied, generater="absent", clip="lost.safetensors")
    with pytest.raises(ValueError, match="lacks lost.safetensors"):
        load_domain("tiny", copied)
    (copied / "tiny" / "domain.json").write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        load_domain("tiny", copied)
