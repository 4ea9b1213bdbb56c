"""Everything that scenes can name: classes, colours, sizes, places, times, weather, relations.

The grammar writes references from these tables; `capscope.data.scenes.parse`, the metrics and the
benchmarks read captions with them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

KINDS = ("noun", "colour", "size", "relation", "place", "weather", "verb", "other")
"""Kinds of words, as benchmarks group them; `weather` includes the time of day."""


@dataclass(frozen=True)
class ObjectClass:
    """One class of objects.

    Attributes
    ----------
    names : tuple of str
        Nouns for it, the usual one first.
    companion : str
        The class that usually comes with it (the co-occurrence bias).
    places : tuple of str
        Where it is usually found.
    stretch : tuple of float
        Width and height, relative to the size of the object.
    poses : tuple of tuple of str
        Verbs (finite, participle) of each painted style.
    air : float
        Share of scenes in which it hangs or flies above the horizon.
    """

    names: tuple[str, ...]
    companion: str
    places: tuple[str, ...]
    stretch: tuple[float, float]
    poses: tuple[tuple[str, ...], ...]
    air: float = 0.0


_STAND = ("stands", "standing", "waits", "waiting")
_SIT = ("sits", "sitting", "rests", "resting")
_PARK = ("is parked", "parked", "stops", "stopping")
_LIE = ("lies", "lying", "rests", "resting")
_GROW = ("grows", "growing", "stands", "standing")
_FLY = ("flies", "flying", "soars", "soaring")
_FLOAT = ("floats", "floating", "drifts", "drifting")
_SAIL = ("sails", "sailing", "floats", "floating")
_PLACED = ("stands", "standing", "is placed", "placed")

_INDOORS = ("room", "kitchen")

CLASSES: dict[str, ObjectClass] = {
    "dog": ObjectClass(
        ("dog", "puppy", "hound"),
        "ball",
        ("meadow", "beach", "street", "room"),
        (1.06, 1.0),
        (_STAND, _SIT),
    ),
    "cat": ObjectClass(
        ("cat", "kitten", "kitty"),
        "chair",
        ("room", "kitchen", "street"),
        (1.0, 1.0),
        (_SIT, ("walks", "walking", "strolls", "strolling")),
    ),
    "rabbit": ObjectClass(
        ("rabbit", "bunny", "hare"),
        "mushroom",
        ("meadow", "snow", "desert"),
        (0.86, 1.0),
        (_SIT, ("crouches", "crouching", "hides", "hiding")),
    ),
    "bird": ObjectClass(
        ("bird", "sparrow"),
        "tree",
        ("meadow", "lake", "street", "snow"),
        (1.04, 0.9),
        (_STAND, _FLY),
        0.5,
    ),
    "horse": ObjectClass(
        ("horse", "pony"),
        "flower",
        ("meadow", "desert", "snow"),
        (1.2, 1.16),
        (_STAND, ("grazes", "grazing", "eats", "eating")),
    ),
    "turtle": ObjectClass(
        ("turtle", "tortoise"),
        "umbrella",
        ("beach", "desert", "lake"),
        (1.1, 0.78),
        (("crawls", "crawling", "walks", "walking"), ("crawls", "crawling", "rests", "resting")),
    ),
    "car": ObjectClass(
        ("car", "automobile"), "bus", ("street", "desert", "snow"), (1.34, 0.74), (_PARK, _PARK)
    ),
    "bus": ObjectClass(
        ("bus", "coach"), "car", ("street", "desert", "snow"), (1.42, 0.96), (_PARK, _PARK)
    ),
    "bicycle": ObjectClass(
        ("bicycle", "bike"),
        "balloon",
        ("street", "meadow", "beach"),
        (1.26, 0.88),
        (_PARK, ("leans", "leaning", "is parked", "parked")),
    ),
    "boat": ObjectClass(("boat", "ship"), "kite", ("lake", "beach"), (1.06, 1.06), (_SAIL, _SAIL)),
    "chair": ObjectClass(("chair", "seat"), "cat", _INDOORS, (0.84, 1.04), (_PLACED, _PLACED)),
    "table": ObjectClass(("table", "desk"), "lamp", _INDOORS, (1.22, 0.82), (_PLACED, _PLACED)),
    "lamp": ObjectClass(("lamp", "lantern"), "table", _INDOORS, (0.7, 1.08), (_PLACED, _PLACED)),
    "ball": ObjectClass(("ball",), "dog", ("beach", "meadow", "room"), (0.72, 0.72), (_LIE, _LIE)),
    "balloon": ObjectClass(
        ("balloon",), "bicycle", ("street", "meadow", "kitchen"), (0.78, 1.1), (_FLOAT, _FLOAT), 1.0
    ),
    "kite": ObjectClass(
        ("kite",), "boat", ("beach", "lake", "meadow"), (0.9, 1.1), (_FLY, _FLY), 1.0
    ),
    "umbrella": ObjectClass(
        ("umbrella", "parasol"), "turtle", ("beach", "street"), (1.06, 1.0), (_PLACED, _PLACED)
    ),
    "tree": ObjectClass(
        ("tree",), "bird", ("meadow", "street", "lake", "snow"), (0.98, 1.3), (_GROW, _GROW)
    ),
    "flower": ObjectClass(
        ("flower", "blossom"), "horse", ("meadow", "kitchen", "room"), (0.66, 0.98), (_GROW, _GROW)
    ),
    "mushroom": ObjectClass(
        ("mushroom", "toadstool"), "rabbit", ("meadow", "snow"), (0.82, 0.84), (_GROW, _GROW)
    ),
}

COLOURS: dict[str, tuple[tuple[int, int, int], tuple[str, ...]]] = {
    "red": ((206, 42, 44), ("red", "scarlet", "crimson")),
    "orange": ((243, 138, 36), ("orange", "amber")),
    "yellow": ((250, 216, 62), ("yellow", "golden")),
    "green": ((66, 166, 76), ("green", "emerald")),
    "blue": ((46, 104, 212), ("blue", "navy")),
    "purple": ((132, 70, 184), ("purple", "violet")),
    "pink": ((247, 150, 190), ("pink", "rosy")),
    "brown": ((134, 84, 48), ("brown", "chestnut")),
    "black": ((50, 50, 58), ("black", "ebony")),
    "white": ((246, 246, 242), ("white", "ivory")),
}

SIZES: dict[str, tuple[float, tuple[str, ...]]] = {
    "small": (0.23, ("small", "little", "tiny")),
    "medium": (0.32, ()),
    "large": (0.42, ("large", "big", "huge")),
}
"""Height of an object relative to the image, and words for it."""

PLACES: dict[str, tuple[str, ...]] = {
    "beach": ("on the beach", "at the seaside", "on the sand", "by the sea"),
    "meadow": ("in a meadow", "on the grass", "in a field", "on the lawn"),
    "street": ("on the street", "on a road", "in the city", "in a town"),
    "room": ("in a room", "inside a house", "in the bedroom", "on the carpet"),
    "kitchen": ("in the kitchen", "on the tiles", "on a tiled floor"),
    "snow": ("in the snow", "on the ice", "in winter"),
    "desert": ("in the desert", "on the dunes", "among dunes"),
    "lake": ("at the lake", "on the water", "at a pond"),
}
INDOORS = _INDOORS

TIMES: dict[str, tuple[str, ...]] = {
    "day": ("during the day", "in daylight", "in the morning"),
    "evening": ("at sunset", "in the evening", "at dusk"),
    "night": ("at night", "after dark", "in the moonlight"),
}
WEATHER: dict[str, tuple[str, ...]] = {
    "clear": ("on a sunny day", "in the sunshine", "in clear weather"),
    "cloudy": ("on a cloudy day", "in cloudy weather"),
    "rain": ("in the rain", "on a rainy day", "while it rains"),
    "snowfall": ("while snowflakes fall", "during snowfall"),
    "fog": ("in the fog", "on a foggy day", "in the mist"),
}

RELATIONS: dict[str, tuple[str, ...]] = {
    "left": ("left of", "to the left of", "on the left side of"),
    "right": ("right of", "to the right of", "on the right side of"),
    "above": ("above", "over"),
    "below": ("below", "under", "beneath"),
    "front": ("in front of", "before"),
    "behind": ("behind",),
    "near": ("next to", "beside", "near", "close to"),
}
"""Relations between two objects and the phrases for them."""
SIDES: dict[str, tuple[str, ...]] = {
    "left": ("on the left", "on the left side", "at the left"),
    "middle": ("in the middle", "in the centre"),
    "right": ("on the right", "on the right side", "at the right"),
}
"""Absolute positions in the image and the phrases for them."""

_RELATION_WORDS = frozenset(
    {"left", "right", "side", "middle", "centre", "above", "over", "below", "under", "beneath"}
    | {"front", "before", "behind", "next", "beside", "near", "close"}
)
_FILLERS = frozenset(
    {"a", "an", "the", "to", "of", "in", "on", "at", "by", "is", "it", "and", "while", "with"}
)


def noun_class(word: str) -> str | None:
    """Return the object class that `word` names, or None."""
    return _nouns().get(word)


def colour_of(word: str) -> str | None:
    """Return the colour that `word` names, or None."""
    return _colours().get(word)


def size_of(word: str) -> str | None:
    """Return ``small`` or ``large`` if `word` names a size, or None."""
    return next((size for size, (_, words) in SIZES.items() if word in words), None)


def word_kind(word: str) -> str:
    """Return the kind of `word`, one of `KINDS`."""
    return _kinds().get(word, "other")


@cache
def _nouns() -> dict[str, str]:
    return {word: name for name, entry in CLASSES.items() for word in entry.names}


@cache
def _colours() -> dict[str, str]:
    return {word: colour for colour, (_, words) in COLOURS.items() for word in words}


@cache
def _kinds() -> dict[str, str]:
    verbs = {word for entry in CLASSES.values() for pose in entry.poses for word in pose}
    phrases = {
        "verb": [*verbs],
        "weather": [p for table in (TIMES, WEATHER) for words in table.values() for p in words],
        "place": [phrase for words in PLACES.values() for phrase in words],
        "size": [word for _, words in SIZES.values() for word in words],
    }
    kinds = {
        word: kind
        for kind, listed in phrases.items()
        for phrase in listed
        for word in phrase.split()
        if word not in _FILLERS
    }
    kinds.update(dict.fromkeys(_RELATION_WORDS, "relation"))
    kinds.update(dict.fromkeys(_colours(), "colour"))
    kinds.update(dict.fromkeys(_nouns(), "noun"))
    return kinds
