"""What can be said of a toon face: phrases with synonyms for every attribute, captions made of them, and prompts read back."""

from coral_jax.toons.faces import ATTRIBUTES
from coral_jax.worlds.grammar import Grammar

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

_GRAMMAR = Grammar(
    phrases=PHRASES,
    hair={  # what two or three attributes of hair are called together
        "long_hair": "long", "short_hair": "short", "curly_hair": "curly", "black_hair": "black", "brown_hair": "brown",
        "blond_hair": "blond", "red_hair": "red", "grey_hair": "grey", "purple_hair": "purple",
    },
    subjects=("face", "person", "cartoon face", "portrait", "character"),
    openings=("", "", "a photo of ", "a drawing of ", "a picture of "),
    fillers=frozenset(
        ("a", "an", "the", "and", "with", "of", "face", "person", "portrait", "photo", "picture", "drawing", "cartoon",
         "character", "man", "woman", "wearing", "has", "having", "his", "her", "their", "very", "big", "eyes", "hair")
    ),
)  # fmt: skip
WORDS = _GRAMMAR.words  #: every word that a caption may hold
caption, wordings, parse = _GRAMMAR.caption, _GRAMMAR.wordings, _GRAMMAR.parse
