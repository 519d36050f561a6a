"""What can be said of a toon face: phrases with synonyms for every attribute, captions made of them, and prompts read back."""

import re
from collections.abc import Sequence

import numpy as np

from coral_jax.toons.faces import ATTRIBUTES

#: attribute -> phrases; the first is the plainest. A phrase that starts with "=" is an adjective of the face.
PHRASES: dict[str, tuple[str, ...]] = {
    "happy": ("=happy", "=smiling", "=cheerful", "=joyful", "a smile", "a happy expression"),
    "sad": ("=sad", "=unhappy", "=gloomy", "=sorrowful", "a sad expression", "a frown"),
    "angry": ("=angry", "=furious", "=mad", "=annoyed", "an angry expression"),
    "surprised": ("=surprised", "=astonished", "=amazed", "=shocked", "a surprised expression"),
    "blue_eyes": ("blue eyes", "=blue eyed"),
    "green_eyes": ("green eyes", "=green eyed"),
    "brown_eyes": ("brown eyes", "=brown eyed"),
    "mohawk": ("mohawk hairstyle", "mohawk", "a mohawk", "a mohawk haircut"),
    "afro": ("afro hairstyle", "afro", "an afro", "afro hair"),
    "bald": ("=bald", "a bald head", "no hair"),
    "curly_hair": ("curly hair", "curls", "curly hairstyle", "wavy hair"),
    "long_hair": ("long hair", "long hairstyle"),
    "short_hair": ("short hair", "short haircut"),
    "black_hair": ("black hair", "=black haired", "dark hair"),
    "brown_hair": ("brown hair", "=brunette"),
    "blond_hair": ("blond hair", "blonde hair", "golden hair", "=blond"),
    "red_hair": ("red hair", "ginger hair", "=redhead"),
    "grey_hair": ("grey hair", "gray hair", "silver hair"),
    "purple_hair": ("purple hair", "violet hair"),
    "beard": ("beard", "a beard", "=bearded", "a full beard"),
    "mustache": ("mustache", "a mustache", "moustache", "a moustache"),
    "glasses": ("glasses", "eyeglasses", "spectacles", "=wearing glasses"),
    "lipstick": ("lipstick", "red lipstick", "=wearing lipstick", "painted lips"),
    "makeup": ("makeup", "make-up", "=wearing makeup", "eye shadow and blush"),
}
assert PHRASES.keys() == ATTRIBUTES.keys()

_JOINED = {  # "long purple hair": what two or three attributes of hair are called together
    "long_hair": "long", "short_hair": "short", "curly_hair": "curly", "black_hair": "black", "brown_hair": "brown",
    "blond_hair": "blond", "red_hair": "red", "grey_hair": "grey", "purple_hair": "purple",
}  # fmt: skip
_SUBJECTS = ("face", "person", "cartoon face", "portrait", "character")
_OPENINGS = ("", "", "a photo of ", "a drawing of ", "a picture of ")
_FILLERS = frozenset(
    ("a", "an", "the", "and", "with", "of", "face", "person", "portrait", "photo", "picture", "drawing", "cartoon",
     "character", "man", "woman", "wearing", "has", "having", "his", "her", "their", "very", "big", "eyes", "hair")
)  # fmt: skip
#: every word that a caption may hold
WORDS = frozenset(
    word
    for text in ("a an with and", *_JOINED.values(), *_SUBJECTS, *_OPENINGS, *(p for ps in PHRASES.values() for p in ps))
    for word in re.findall(r"\w+", text)
)


def _hair_phrase(names: Sequence[str]) -> str:
    return " ".join(_JOINED[n] for n in _JOINED if n in names) + " hair"


def caption(attributes: Sequence[str], random: np.random.Generator) -> str:
    """A caption that says that a face has these attributes, in a random wording."""
    names = [attributes[i] for i in random.permutation(len(attributes))]
    hair = [n for n in names if n in _JOINED]
    phrases = [str(random.choice(PHRASES[n])) for n in names]
    if len(hair) > 1 and random.random() < 0.6:
        phrases = [str(random.choice(PHRASES[n])) for n in names if n not in hair]
        phrases.insert(random.integers(len(phrases) + 1), _hair_phrase(hair))
    if random.random() < 0.55:  # as users type: "happy", "blue eyes", "curly hair and lipstick"
        return " and ".join(p.removeprefix("=") for p in phrases)
    subject = str(random.choice(_SUBJECTS))
    return _sentence(str(random.choice(_OPENINGS)), subject, phrases)


def _sentence(opening: str, subject: str, phrases: Sequence[str]) -> str:
    adjectives = [p[1:] for p in phrases if p.startswith("=")]
    things = [p for p in phrases if not p.startswith("=")]
    article = "an" if (adjectives or [subject])[0][0] in "aeiou" else "a"
    text = f"{opening}{article} {' '.join([', '.join(adjectives), subject]).strip()}"
    return f"{text} with {' and '.join(things)}" if things else text


def wordings(prompt: str) -> tuple[list[str], list[str]]:
    """Captions of a face as the prompt asks for it, and the same ones of any face."""
    names = parse(prompt)
    phrases = [prompt] if names is None else [PHRASES[name][0] for name in names]
    frames = [(opening, subject) for opening in dict.fromkeys(_OPENINGS) for subject in _SUBJECTS]
    return [_sentence(*frame, phrases) for frame in frames], [_sentence(*frame, ()) for frame in frames]


def parse(prompt: str) -> list[str] | None:
    """The attributes that a prompt asks for, in its order; None where it says something this grammar does not know."""
    text = " " + re.sub(r"[^a-z\- ]", " ", prompt.lower()) + " "
    text = re.sub(r"\s+", " ", text)
    found: list[tuple[int, str]] = []
    colours_and_forms = "|".join(_JOINED.values())
    for match in re.finditer(rf"((?:(?:{colours_and_forms}) )+)hair(?:style|cut)? ", text):
        for word in match.group(1).split():
            found.append((match.start(), next(n for n, w in _JOINED.items() if w == word)))
    text = re.sub(rf" (?:(?:{colours_and_forms}) )+hair(?:style|cut)? ", " ; ", text)
    every = sorted(((p.removeprefix("="), n) for n, ps in PHRASES.items() for p in ps), key=lambda item: -len(item[0]))
    for phrase, name in every:
        while (at := text.find(f" {phrase} ")) >= 0:
            found.append((at, name))
            text = text[:at] + " " + ";" * len(phrase) + " " + text[at + len(phrase) + 2 :]
    left = [word for word in text.replace(";", " ").split() if word not in _FILLERS]
    names = list(dict.fromkeys(name for _, name in sorted(found, key=lambda item: item[0])))
    return names if names and not left else None
