"""What can be said of a generated face: the words that labels give reliably, with synonyms.

Left out, since no label says them reliably: curly hair and makeup, which no critic knows; mustache, whose darkness is a
beard's; sad, which the critic says of closed eyes and odd faces; angry, which the generator cannot be made to show.
Green eyes are left out, since the network does not learn them: they lie between brown and blue ones.
"""

from coral_jax.worlds.grammar import Grammar

#: attribute -> phrases; the first is the plainest. A phrase that starts with "=" is an adjective of the face.
PHRASES: dict[str, tuple[str, ...]] = {
    "happy": ("=happy", "=smiling", "=cheerful", "=joyful", "a smile", "a happy expression"),
    "teeth": ("=smiling with teeth", "=laughing", "a toothy smile", "teeth"),
    "serious": ("=serious", "=neutral", "a neutral expression", "a serious expression"),
    "surprised": ("=surprised", "=astonished", "=amazed", "=shocked", "a surprised expression"),
    "mouth_open": ("mouth open", "an open mouth", "open mouth"),
    "eyes_closed": ("eyes closed", "closed eyes", "=sleeping"),
    "old": ("=old", "=elderly", "=aged", "wrinkles"),
    "young": ("=young", "=youthful"),
    "child": ("=childlike", "child", "a child", "kid"),
    "man": ("man", "=male", "=masculine", "a man"),
    "woman": ("woman", "=female", "=feminine", "a woman"),
    "glasses": ("glasses", "eyeglasses", "spectacles", "=wearing glasses"),
    "sunglasses": ("sunglasses", "dark glasses", "=wearing sunglasses"),
    "hat": ("hat", "a hat", "cap", "=wearing a hat"),
    "beard": ("beard", "a beard", "=bearded", "a full beard"),
    "black_hair": ("black hair", "=black haired"),
    "brown_hair": ("brown hair", "=brunette"),
    "blond_hair": ("blond hair", "blonde hair", "golden hair", "=blond"),
    "grey_hair": ("grey hair", "gray hair", "silver hair"),
    "red_hair": ("red hair", "ginger hair", "=redhead"),
    "purple_hair": ("purple hair", "violet hair"),
    "pink_hair": ("pink hair", "=pink haired"),
    "green_hair": ("green hair", "=green haired"),
    "blue_hair": ("blue hair", "=blue haired"),
    "long_hair": ("long hair", "=long haired"),
    "short_hair": ("short hair", "short haircut"),
    "bald": ("=bald", "a bald head", "no hair"),
    "bangs": ("bangs", "a fringe", "fringe"),
    "lipstick": ("lipstick", "red lipstick", "=wearing lipstick", "red lips"),
    "blue_eyes": ("blue eyes", "=blue eyed"),
    "brown_eyes": ("brown eyes", "=brown eyed"),
    "pale": ("=pale", "pale skin", "=fair skinned"),
    "tanned": ("=tanned", "tanned skin", "a tan"),
}

_GRAMMAR = Grammar(
    phrases=PHRASES,
    hair={  # what two or three attributes of hair are called together
        "long_hair": "long", "short_hair": "short", "black_hair": "black", "brown_hair": "brown", "blond_hair": "blond",
        "red_hair": "red", "grey_hair": "grey", "purple_hair": "purple", "pink_hair": "pink", "green_hair": "green",
        "blue_hair": "blue",
    },
    subjects=("face", "person", "portrait"),
    openings=("", "", "a photo of ", "a picture of "),
    fillers=frozenset(
        ("a", "an", "the", "and", "with", "of", "face", "person", "portrait", "photo", "picture", "wearing", "has", "having",
         "his", "her", "their", "very", "eyes", "hair")
    ),
)  # fmt: skip
VOCABULARY = tuple(PHRASES)  #: the attributes
WORDS = _GRAMMAR.words  #: every word that a caption may hold
caption, wordings, parse = _GRAMMAR.caption, _GRAMMAR.wordings, _GRAMMAR.parse
