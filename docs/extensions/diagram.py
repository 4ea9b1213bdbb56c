"""The house as a picture, drawn from its imports: rooms in storeys, an arrow to what is imported.

An arrow that others lead round to is left out: what a room imports stands somewhere below it.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from imports import SOURCE, arrows

PICTURE = Path(__file__).resolve().parents[1] / "images" / "rooms.svg"
GROUND = "foundation"
"""What the modules that are rooms of their own are drawn as."""
WIDTH, HEIGHT, GAP, STOREY, MARGIN = 112, 34, 28, 74, 12

Graph = dict[str, set[str]]


def drawn_rooms() -> Graph:
    """Return the arrows between folders; all that is no folder is one room."""
    found = arrows()
    folders = {name for name in found if (SOURCE / name).is_dir()}
    graph: Graph = {GROUND: set()}
    for name in sorted(folders):
        graph[name] = {used if used in folders else GROUND for used in found[name]}
    return graph


def reduced(graph: Graph) -> Graph:
    """Return the graph without arrows that others lead round to."""
    below = {name: _reached(graph, name) for name in graph}
    return {
        name: {one for one in used if not any(one in below[other] for other in used)}
        for name, used in graph.items()
    }


def _reached(graph: Graph, name: str) -> set[str]:
    found: set[str] = set()
    left = list(graph[name])
    while left:
        one = left.pop()
        if one not in found:
            found.add(one)
            left += graph[one]
    return found


def storeys(graph: Graph) -> dict[str, int]:
    """Return how high each room is: above all that it imports."""
    heights: dict[str, int] = {}
    while len(heights) < len(graph):
        free = [name for name in graph if name not in heights and graph[name] <= heights.keys()]
        if not free:
            raise ValueError(f"a cycle among {sorted(set(graph) - set(heights))}")
        heights |= {
            name: 1 + max((heights[one] for one in graph[name]), default=-1) for name in free
        }
    return heights


def draw() -> str:
    """Return the picture as SVG."""
    graph = reduced(drawn_rooms())
    heights = storeys(graph)
    paths = [_stations(name, one, heights) for name in sorted(graph) for one in sorted(graph[name])]
    order = _arranged(graph, heights, paths)
    widest = max(map(len, order))
    wide = widest * (WIDTH + GAP) - GAP + 2 * MARGIN
    tall = (len(order) - 1) * STOREY + HEIGHT + 2 * MARGIN
    places: dict[str, tuple[float, float]] = {}
    for storey, names in enumerate(order):
        left = (wide - len(names) * (WIDTH + GAP) + GAP) / 2
        for number, name in enumerate(names):
            middle = left + number * (WIDTH + GAP) + WIDTH / 2
            places[name] = (middle, tall - MARGIN - HEIGHT - storey * STOREY)
    lines = [_line([places[one] for one in path]) for path in paths]
    boxes = [_box(name, *places[name]) for name in sorted(graph)]
    return "\n".join([HEADER.format(wide=wide, tall=tall), *lines, *boxes, "</svg>", ""])


def _stations(name: str, one: str, heights: dict[str, int]) -> list[str]:
    """Return the rooms of an arrow, and a station on every storey that it passes."""
    passed = range(heights[name] - 1, heights[one], -1)
    return [name, *(f"{name}>{one}@{storey}" for storey in passed), one]


def _arranged(graph: Graph, heights: dict[str, int], paths: list[list[str]]) -> list[list[str]]:
    """Return what stands on each storey from left to right, near to what it is joined with."""
    storey_of = dict(heights)
    joined: dict[str, list[str]] = {}
    for path in paths:
        for storey, name in zip(range(heights[path[0]], -1, -1), path, strict=False):
            storey_of[name] = storey
        for above, below in pairwise(path):
            joined.setdefault(above, []).append(below)
            joined.setdefault(below, []).append(above)
    order = [
        sorted(name for name, storey in storey_of.items() if storey == number)
        for number in range(max(heights.values()) + 1)
    ]
    for sweep in range(24):
        downwards = sweep % 2 == 0
        numbers = range(len(order) - 2, -1, -1) if downwards else range(1, len(order))
        for number in numbers:
            beside = order[number + 1 if downwards else number - 1]
            middle = {name: place - len(beside) / 2 for place, name in enumerate(beside)}

            def wish(name: str, middle: dict[str, float] = middle) -> tuple[float, str]:
                near = [middle[other] for other in joined.get(name, ()) if other in middle]
                return (sum(near) / len(near) if near else 0.0, name)

            order[number].sort(key=wish)
    return order


def _line(points: list[tuple[float, float]]) -> str:
    (x, y), *others = points
    text = f"M{x:g} {y + HEIGHT:g}"
    y += HEIGHT
    for number, (next_x, next_y) in enumerate(others):
        last = number == len(others) - 1
        end = next_y - (6 if last else 0)
        bend = (end - y) / 2
        text += f" C{x:g} {y + bend:g} {next_x:g} {end - bend:g} {next_x:g} {end:g}"
        x, y = next_x, end
        if not last:
            text += f" V{y + HEIGHT:g}"
            y += HEIGHT
    return f'<path d="{text}"/>'


def _box(name: str, x: float, y: float) -> str:
    return (
        f'<rect x="{x - WIDTH / 2:g}" y="{y:g}" width="{WIDTH}" height="{HEIGHT}" rx="6"/>'
        f'<text x="{x:g}" y="{y + HEIGHT / 2 + 5:g}">{name}</text>'
    )


HEADER = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {tall}" width="{wide}" role="img">
<title>The rooms of the package; an arrow points to what a room imports.</title>
<style>
svg {{ background: #fff; font: 14px system-ui, sans-serif; }}
text {{ text-anchor: middle; fill: #1b1f24; }}
rect {{ fill: #eef3fa; stroke: #3b5b85; }}
path {{ fill: none; stroke: #5a6673; stroke-width: 1.4; marker-end: url(#tip); }}
</style>
<defs>
<marker id="tip" viewBox="0 0 8 8" refX="2" refY="4" markerWidth="7" markerHeight="7" orient="auto">
<path d="M0 0 L8 4 L0 8 z" style="fill:#5a6673;stroke:none;marker-end:none"/>
</marker>
</defs>"""
