"""The committed toons networks do what the package says of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coral_jax.blend import original_synthesis
from coral_jax.domains import EMBEDDED, load_domain
from coral_jax.toons.captions import PHRASES
from coral_jax.toons.faces import GROUPS, Z_DIM, faces_from_z, has
from coral_jax.toons.renderer import PARTS, render

Z = jax.random.normal(jax.random.key(77), (96, Z_DIM))
FACES = jax.jit(faces_from_z)(Z)
DRAWING = render(FACES)  # image, parts
TOLD_APART = ["happy", "blue_eyes", "mohawk", "purple_hair", "beard", "glasses", "lipstick"]


@pytest.fixture(scope="module")
def toons():
    return load_domain("toons")


@pytest.fixture(scope="module")
def drawn(toons):
    """The generator's images and features, compiled as a whole: operations one by one take longer to compile."""
    draw = jax.jit(lambda generator, z: original_synthesis(generator, generator.broadcast(generator.mapping(z))))
    return draw(toons.generator, Z)


@pytest.fixture(scope="module")
def generated(drawn):
    return drawn.image


@pytest.fixture(scope="module")
def scores(toons, generated):
    """Cosine of every generated face with every attribute's phrase: {attribute: [96]}."""
    ids = toons.tokenizer([PHRASES[attribute][0].removeprefix("=") for attribute in TOLD_APART])
    encode = jax.jit(lambda clip, images, ids: (clip.encode_image(images), clip.encode_text(ids)))
    image, text = encode(toons.clip, generated, ids)
    image, text = (x / jnp.linalg.norm(x, axis=-1, keepdims=True) for x in (image, text))
    return dict(zip(TOLD_APART, np.asarray(text @ image.T), strict=True))


def test_weights_are_at_most_25_mb():
    assert sum(path.stat().st_size for path in EMBEDDED["toons"].iterdir()) <= 25e6


def test_the_generator_draws_the_drawing(generated):
    drawing = DRAWING[0]
    assert float(jnp.mean(jnp.square(generated - drawing))) < 0.02  # an average face is 20 times as far
    average = jnp.mean(drawing, axis=0, keepdims=True)
    assert float(jnp.mean(jnp.square(average - drawing))) > 0.1


def test_the_classifier_reads_generated_faces(toons, generated):
    answers = jax.jit(lambda classifier, images: classifier(images))(toons.classifier(), generated)
    right = {q: np.mean(np.asarray(jnp.argmax(answers[q], -1) == FACES.category[q])) for q in GROUPS}
    assert np.mean(list(right.values())) > 0.85, right


@pytest.mark.parametrize("attribute", TOLD_APART)
def test_clip_tells_faces_that_have_an_attribute_from_those_that_have_not(scores, attribute):
    true = np.asarray(has(FACES, attribute))
    assert np.mean(scores[attribute][true][:, None] > scores[attribute][~true][None]) > 0.9


def test_the_part_segmenter_finds_the_parts(toons, drawn):
    segment = jax.jit(lambda segmenter, features: segmenter.segment(features))
    found = jnp.argmax(segment(toons.segmenter("parts"), drawn.features), -1)
    assert float(jnp.mean(found == jnp.argmax(DRAWING[1], -1))) > 0.9
    assert jax.eval_shape(segment, toons.segmenter("mixture"), drawn.features).shape == (96, 64, 64, 5)
    assert toons.segmenter("parts").config.segments == len(PARTS)
