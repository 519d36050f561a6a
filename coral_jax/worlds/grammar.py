"""Captions of a domain whose CLIP knows a vocabulary, not language: made of phrases, and prompts read back."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

_JOINING = ("a", "an", "with", "and")  # what captions hold that no phrase, opening or subject says


@dataclass(frozen=True)
class Grammar:
    """What can be said of a face.

    phrases: attribute -> phrases, the plainest first; one that starts with "=" is an adjective of the face.  hair: attribute ->
    its word in "long purple hair".  fillers: words that a prompt may hold and that ask for nothing.
    """

    phrases: Mapping[str, tuple[str, ...]]
    hair: Mapping[str, str]
    subjects: tuple[str, ...]
    openings: tuple[str, ...]
    fillers: frozenset[str]

    @property
    def words(self) -> frozenset[str]:
        """Every word that a caption may hold."""
        phrases = [phrase for group in self.phrases.values() for phrase in group]
        texts = (*_JOINING, *self.hair.values(), *self.subjects, *self.openings, *phrases)
        return frozenset(word for text in texts for word in re.findall(r"\w+", text))

    def caption(self, attributes: Sequence[str], random: np.random.Generator) -> str:
        """A caption that says that a face has these attributes, in a random wording."""
        names = [attributes[i] for i in random.permutation(len(attributes))]
        hair = [n for n in names if n in self.hair]
        phrases = [str(random.choice(self.phrases[n])) for n in names]
        if len(hair) > 1 and random.random() < 0.6:
            phrases = [str(random.choice(self.phrases[n])) for n in names if n not in hair]
            joined = " ".join(self.hair[n] for n in self.hair if n in hair) + " hair"
            phrases.insert(random.integers(len(phrases) + 1), joined)
        if random.random() < 0.55:  # as users type: "happy", "blue eyes", "curly hair and lipstick"
            return " and ".join(p.removeprefix("=") for p in phrases)
        subject = str(random.choice(self.subjects))
        return _sentence(str(random.choice(self.openings)), subject, phrases)

    def wordings(self, prompt: str) -> tuple[list[str], list[str]]:
        """Captions of a face as the prompt asks for it, and the same ones of any face."""
        names = self.parse(prompt)
        phrases = [prompt] if names is None else [self.phrases[name][0] for name in names]
        frames = [(opening, subject) for opening in dict.fromkeys(self.openings) for subject in self.subjects]
        return [_sentence(*frame, phrases) for frame in frames], [_sentence(*frame, ()) for frame in frames]

    def parse(self, prompt: str) -> list[str] | None:
        """The attributes that a prompt asks for, in its order; None where it says something this grammar does not know."""
        text = " " + re.sub(r"[^a-z\- ]", " ", prompt.lower()) + " "
        text = re.sub(r"\s+", " ", text)
        found: list[tuple[int, str]] = []
        colours_and_forms = "|".join(self.hair.values())
        for match in re.finditer(rf"((?:(?:{colours_and_forms}) )+)hair(?:style|cut)? ", text):
            for word in match.group(1).split():
                found.append((match.start(), next(n for n, w in self.hair.items() if w == word)))
        text = re.sub(rf" (?:(?:{colours_and_forms}) )+hair(?:style|cut)? ", " ; ", text)
        phrases = [(phrase.removeprefix("="), name) for name, group in self.phrases.items() for phrase in group]
        for phrase, name in sorted(phrases, key=lambda item: -len(item[0])):
            while (at := text.find(f" {phrase} ")) >= 0:
                found.append((at, name))
                text = text[:at] + " " + ";" * len(phrase) + " " + text[at + len(phrase) + 2 :]
        left = [word for word in text.replace(";", " ").split() if word not in self.fillers]
        names = list(dict.fromkeys(name for _, name in sorted(found, key=lambda item: item[0])))
        return names if names and not left else None


def _sentence(opening: str, subject: str, phrases: Sequence[str]) -> str:
    adjectives = [p[1:] for p in phrases if p.startswith("=")]
    things = [p for p in phrases if not p.startswith("=")]
    article = "an" if (adjectives or [subject])[0][0] in "aeiou" else "a"
    text = f"{opening}{article} {' '.join([', '.join(adjectives), subject]).strip()}"
    return f"{text} with {' and '.join(things)}" if things else text
