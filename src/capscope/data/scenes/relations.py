"""Where objects stand to one another: what references may say, and what counts as true."""

from __future__ import annotations

from capscope.data.scenes.recipe import Recipe, SceneObject

MARGIN = 0.18
"""Distance between centres, relative to the image, from which references say left or right."""


def holds(recipe: Recipe, first: int, relation: str, second: int) -> bool:
    """Whether object `first` stands in `relation` to object `second` (indices in the recipe).

    Left, right, above and below compare centres; front and behind compare depth; near means that
    the gap between the boxes is at most 0.15 of the image.
    """
    a, b = recipe.objects[first], recipe.objects[second]
    return {
        "left": a.x < b.x,
        "right": a.x > b.x,
        "above": _middle(a) < _middle(b),
        "below": _middle(a) > _middle(b),
        "front": first > second,
        "behind": first < second,
        "near": _gap(a, b) <= 0.15 * recipe.size,
    }[relation]


def side_holds(recipe: Recipe, index: int, side: str) -> bool:
    """Whether an object's centre lies on the `side` of the image: left, middle or right."""
    x = recipe.objects[index].x / recipe.size
    return {"left": x < 0.5, "middle": 0.3 <= x <= 0.7, "right": x > 0.5}[side]


def clear_relations(recipe: Recipe, first: int, second: int) -> list[str]:
    """Relations of `first` to `second` that nobody would dispute, with a margin."""
    a, b = recipe.objects[first], recipe.objects[second]
    size = recipe.size
    across, down = (b.x - a.x) / size, (_middle(b) - _middle(a)) / size
    found = []
    if abs(across) >= MARGIN:
        found.append("left" if across > 0 else "right")
    if abs(down) >= 0.24 and abs(across) < 0.3:
        found.append("above" if down > 0 else "below")
    if _overlap(a, b) >= 0.15:
        found.append("front" if first > second else "behind")
    if _gap(a, b) <= 0.06 * size and abs(down) < 0.24:
        found.append("near")
    return found


def clear_side(recipe: Recipe, index: int) -> str | None:
    """The side of the image on which an object clearly lies, or None."""
    x = recipe.objects[index].x / recipe.size
    if x <= 0.38:
        return "left"
    if x >= 0.62:
        return "right"
    return "middle" if 0.42 <= x <= 0.58 else None


def _middle(thing: SceneObject) -> float:
    return thing.y - thing.height / 2


def _gap(a: SceneObject, b: SceneObject) -> float:
    """Return the distance between two boxes in pixels; 0 if they touch."""
    across = max(a.left, b.left) - min(a.left + a.width, b.left + b.width)
    down = max(a.top, b.top) - min(a.y, b.y)
    return float(max(across, 0) + max(down, 0))


def _overlap(a: SceneObject, b: SceneObject) -> float:
    """Return the shared area of two boxes, relative to the smaller one."""
    across = min(a.left + a.width, b.left + b.width) - max(a.left, b.left)
    down = min(a.y, b.y) - max(a.top, b.top)
    smaller = min(a.width * a.height, b.width * b.height)
    return max(across, 0) * max(down, 0) / smaller
