"""The committed toons networks do what the package says of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coral_jax.domains import EMBEDDED, load_domain
from coral_jax.toons.captions import PHRASES
from coral_jax.toons.faces import GROUPS, Z_DIM, faces_from_z, has
from coral_jax.toons.renderer import PARTS, render

Z = jax.random.normal(jax.random.key(77), (96, Z_DIM))
FACES = faces_from_z(Z)


@pytest.fixture(scope="module")
def toons():
    return load_domain("toons")


@pytest.fixture(scope="module")
def generated(toons):
    return toons.generator.synthesis(toons.generator.broadcast(toons.generator.mapping(Z)))


def test_weights_are_at_most_25_mb():
    assert sum(path.stat().st_size for path in EMBEDDED["toons"].iterdir()) <= 25e6


def test_the_generator_draws_the_drawing(generated):
    drawn = render(FACES)[0]
    assert float(jnp.mean(jnp.square(generated - drawn))) < 0.02  # an average face is 20 times as far
    average = jnp.mean(drawn, axis=0, keepdims=True)
    assert float(jnp.mean(jnp.square(average - drawn))) > 0.1


def test_the_classifier_reads_generated_faces(toons, generated):
    answers = toons.classifier()(generated)
    right = {q: np.mean(np.asarray(jnp.argmax(answers[q], -1) == FACES.category[q])) for q in GROUPS}
    assert np.mean(list(right.values())) > 0.85, right


@pytest.mark.parametrize("attribute", ["happy", "blue_eyes", "mohawk", "purple_hair", "beard", "glasses", "lipstick"])
def test_clip_tells_faces_that_have_an_attribute_from_those_that_have_not(toons, generated, attribute):
    text = np.asarray(toons.clip.encode_text(toons.tokenizer([PHRASES[attribute][0].removeprefix("=")])))[0]
    image = np.asarray(toons.clip.encode_image(generated))
    scores = image @ text / np.linalg.norm(image, axis=-1) / np.linalg.norm(text)
    true = np.asarray(has(FACES, attribute))
    assert np.mean(scores[true][:, None] > scores[~true][None]) > 0.9


def test_the_part_segmenter_finds_the_parts(toons):
    from coral_jax.blend import original_synthesis

    generator = toons.generator
    _, features = original_synthesis(generator, generator.broadcast(generator.mapping(Z[:16])))
    found = jnp.argmax(toons.segmenter("parts").segment(features), -1)
    true = jnp.argmax(render(faces_from_z(Z[:16]))[1], -1)
    assert float(jnp.mean(found == true)) > 0.9
    assert toons.segmenter("mixture").segment(features).shape == (16, 64, 64, 5)
    assert toons.segmenter("parts").config.segments == len(PARTS)
