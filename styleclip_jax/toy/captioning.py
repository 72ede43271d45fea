"""Captions of faces: true sentences in varied words, and what contradicts them."""

import dataclasses

import numpy as np

from styleclip_jax.toy import attributes
from styleclip_jax.toy.attributes import Face

# Phrases by where they stand in a caption: before the noun ("adjective"), or after it
# behind "with" or "wearing", or alone ("on a … background").
_PLACES = ("adjective", "with", "wearing", "on")

_HAIR_WORDS = {
    "black": ("black", "dark"),
    "brown": ("brown", "brunette"),
    "blonde": ("blonde", "blond", "golden", "yellow"),
    "red": ("red", "ginger", "orange"),
    "grey": ("grey", "gray", "silver", "white"),
    "blue": ("blue",),
    "pink": ("pink",),
}
_PHRASES: dict[str, dict[str, dict[str, tuple[str, ...]]]] = {
    "hair_color": {
        value: {
            "with": tuple(f"{word} hair" for word in words),
            "adjective": tuple(f"{word} haired" for word in words),
        }
        for value, words in _HAIR_WORDS.items()
    },
    "hair_style": {
        "short": {"with": ("short hair",), "adjective": ("short haired",)},
        "long": {"with": ("long hair",), "adjective": ("long haired",)},
        "bald": {
            "adjective": ("bald", "bald", "bald headed", "hairless"),
            "with": ("no hair", "a bald head", "a shaved head"),
        },
        "curly": {
            "with": ("curly hair", "curls", "an afro"),
            "adjective": ("curly haired",),
        },
        "bun": {"with": ("a bun", "a hair bun", "hair in a bun")},
        "bob": {"with": ("a bob", "a bob cut", "a bob haircut", "bob hair")},
    },
    "skin": {
        "light": {"with": ("light skin", "pale skin", "fair skin")},
        "medium": {"with": ("medium skin", "olive skin")},
        "tan": {"with": ("tan skin", "tanned skin", "brown skin")},
        "dark": {"with": ("dark skin", "black skin")},
    },
    "eyes": {value: {"with": (f"{value} eyes",)} for value in attributes.EYE_COLORS},
    "mouth": {
        "neutral": {
            "adjective": ("serious", "neutral", "calm"),
            "with": ("a neutral expression", "a closed mouth"),
        },
        "smile": {
            "adjective": ("smiling", "smiling", "happy", "laughing", "cheerful"),
            "with": ("a smile", "a big smile", "a happy smile"),
        },
        "sad": {
            "adjective": ("sad", "sad", "unhappy", "frowning"),
            "with": ("a frown", "a sad expression"),
        },
        "surprised": {
            "adjective": ("surprised", "surprised", "shocked", "amazed"),
            "with": ("an open mouth", "a surprised expression"),
        },
    },
    "facial_hair": {
        "none": {
            "adjective": ("clean shaven", "beardless"),
            "with": ("no beard", "no facial hair"),
        },
        "beard": {
            "adjective": ("bearded",),
            "with": ("a beard", "a full beard", "a bushy beard", "beard"),
        },
        "moustache": {"with": ("a moustache", "a mustache", "moustache")},
    },
    "glasses": {
        "none": {"with": ("no glasses",)},
        "glasses": {
            "with": ("glasses", "eyeglasses", "round glasses", "spectacles"),
            "wearing": ("glasses", "eyeglasses", "round glasses", "spectacles"),
        },
        "sunglasses": {
            "with": ("sunglasses", "sunglasses", "dark glasses", "shades"),
            "wearing": ("sunglasses", "sunglasses", "dark glasses", "shades"),
        },
    },
    "background": {
        value: {"on": (f"on a {value} background",)}
        for value in attributes.BACKGROUND_COLORS
    },
    "clothes": {
        value: {"wearing": tuple(f"a {value} {w}" for w in ("shirt", "sweater"))}
        for value in attributes.CLOTHES_COLORS
    },
}
_MENTION_WEIGHTS = {
    "hair_color": 3.0,
    "hair_style": 2.4,
    "skin": 1.0,
    "eyes": 0.8,
    "mouth": 3.0,
    "facial_hair": 2.4,
    "glasses": 3.0,
    "background": 0.7,
    "clothes": 0.9,
}
_NOUNS = ("face", "person", "man", "woman", "portrait", "head", "character", "human")
_COMMON_NOUNS = ("face", "person")
_TEMPLATES = (
    "a photo of {}",
    "a bad photo of {}",
    "a picture of {}",
    "a drawing of {}",
    "a cartoon of {}",
    "an image of {}",
    "a portrait of {}",
    "a rendering of {}",
    "a photo of the {}",
    "a close-up photo of {}",
)


@dataclasses.dataclass(frozen=True)
class Caption:
    """Caption: a sentence about a face, and the faces that it is true of.

    Attributes:
      text: the sentence.
      allowed: the values that each attribute mentioned may have.
    """

    text: str
    allowed: dict[str, tuple[str, ...]]


def caption(face: Face, rng: np.random.Generator) -> Caption:
    """Caption of a face: a true sentence on up to four attributes in varied words."""
    names = list(_MENTION_WEIGHTS)
    weights = np.array(list(_MENTION_WEIGHTS.values()))
    count = rng.choice(5, p=(0.04, 0.41, 0.3, 0.17, 0.08))
    mentioned = rng.choice(names, count, replace=False, p=weights / weights.sum())
    phrases: dict[str, list[str]] = {place: [] for place in _PLACES}
    allowed: dict[str, tuple[str, ...]] = {}
    for name in mentioned:
        other, hiding = attributes.HIDDEN_BY.get(name, (None, None))
        if other and getattr(face, other) == hiding:
            continue
        value = getattr(face, name)
        places = _PHRASES[name][value]
        place = str(rng.choice(list(places)))
        phrases[place].append(str(rng.choice(places[place])))
        allowed[name] = (value,)
        # A hair colour is said of hair, and an eye colour of eyes that are seen.
        if other and hiding:
            allowed.setdefault(other, _all_but(other, hiding))
    if not allowed and face.hair_style != "bald" and rng.random() < 0.3:
        phrases["with"].append("hair")
        allowed["hair_style"] = _all_but("hair_style", "bald")
    return Caption(_sentence(phrases, rng), allowed)


def contradictions(captions: list[Caption]) -> np.ndarray:
    """Values that contradict each caption, [N, NUM_VALUES] float32 of 0 and 1.

    A caption is true of a face exactly when the product with the face's one-hot
    attributes is zero.
    """
    contradicted = np.zeros((len(captions), attributes.NUM_VALUES), np.float32)
    for row, entry in zip(contradicted, captions, strict=True):
        for name, values in entry.allowed.items():
            part = row[attributes.SLICES[name]]
            part[:] = [value not in values for value in attributes.ATTRIBUTES[name]]
    return contradicted


def _all_but(name: str, value: str) -> tuple[str, ...]:
    return tuple(other for other in attributes.ATTRIBUTES[name] if other != value)


def _sentence(phrases: dict[str, list[str]], rng: np.random.Generator) -> str:
    nouns = _COMMON_NOUNS if rng.random() < 0.5 else _NOUNS
    style = rng.random()
    if any(phrases.values()) and style < 0.12:
        # The bare phrases: "blonde hair", "a beard and sunglasses".
        text = " and ".join(part for place in _PLACES for part in phrases[place])
    else:
        article = ("a", "a", "the", "")[rng.integers(4)]
        parts = [article, *phrases["adjective"], str(rng.choice(nouns))]
        for word in ("with", "wearing"):
            if phrases[word]:
                parts += [word, " and ".join(phrases[word])]
        text = " ".join([*parts, *phrases["on"]]).strip()
    if rng.random() < 0.4:
        text = str(rng.choice(_TEMPLATES)).format(text)
    return text + "." if rng.random() < 0.25 else text
