"""A pen for icons: supersampled shapes in unit coordinates, with ink outlines and tones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

SUPERSAMPLING = 3
STEPS = 6
"""Points of a spline from one knot to the next."""
Point = tuple[float, float]
Colour = tuple[int, int, int]


def blend(first: Colour, second: Colour, share: float) -> Colour:
    """Return `first` mixed with a `share` in [0, 1] of `second`."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


class Pen:
    """Draws one object onto a transparent layer; coordinates run from 0 to 100 both ways.

    Parameters
    ----------
    width, height : int
        Size of the layer in pixels of the finished image.
    main : tuple of int
        The colour that references name; `light`, `dark` and `ink` are tones of it.
    """

    def __init__(self, width: int, height: int, main: Colour) -> None:
        self.size = (width, height)
        self.image = Image.new("RGBA", (width * SUPERSAMPLING, height * SUPERSAMPLING))
        self.draw = ImageDraw.Draw(self.image)
        self.scale_x = width * SUPERSAMPLING / 100
        self.scale_y = height * SUPERSAMPLING / 100
        self.main = main
        self.light = blend(main, (255, 255, 255), 0.38)
        self.dark = blend(main, (20, 16, 30), 0.3)
        bright = sum(main) / 3
        self.ink = blend(main, (18, 14, 26), 0.62 if bright > 215 else 0.74)
        self.line_width = max(2, round(0.028 * height * SUPERSAMPLING))

    def layer(self) -> Image.Image:
        """Return the layer (RGBA) at the size of the finished image."""
        return self.image.reduce(SUPERSAMPLING)

    def _points(self, points: Sequence[Point]) -> list[Point]:
        return [(x * self.scale_x, y * self.scale_y) for x, y in points]

    def polygon(self, points: Sequence[Point], fill: Colour, *, outline: bool = True) -> None:
        """Fill a polygon; its outline is drawn in ink with round joints."""
        corners = self._points(points)
        self.draw.polygon(corners, fill=fill)
        if outline:
            closed = [*corners, corners[0], corners[1]]
            self.draw.line(closed, fill=self.ink, width=self.line_width, joint="curve")

    def blob(self, points: Sequence[Point], fill: Colour, *, outline: bool = True) -> None:
        """Fill a smooth closed curve through `points` (Catmull-Rom spline)."""
        self.polygon(spline(points, closed=True), fill, outline=outline)

    def ellipse(
        self, box: tuple[float, float, float, float], fill: Colour, *, outline: bool = True
    ) -> None:
        """Fill the ellipse inside ``(x0, y0, x1, y1)``."""
        (x0, y0), (x1, y1) = self._points([box[:2], box[2:]])
        ink = self.ink if outline else None
        self.draw.ellipse((x0, y0, x1, y1), fill=fill, outline=ink, width=self.line_width)

    def disc(
        self, x: float, y: float, radius: float, fill: Colour, *, outline: bool = True
    ) -> None:
        """Fill a true circle; `radius` is in units of the height."""
        wide = radius * self.scale_y / self.scale_x
        self.ellipse((x - wide, y - radius, x + wide, y + radius), fill, outline=outline)

    def ring(self, x: float, y: float, radius: float, width: float, fill: Colour) -> None:
        """Draw a true circle line of `width`, in units of the height."""
        cx, cy, r = x * self.scale_x, y * self.scale_y, radius * self.scale_y
        thick = max(2, round(width * self.scale_y))
        self.draw.ellipse((cx - r, cy - r, cx + r, cy + r), outline=fill, width=thick)

    def box(
        self,
        box: tuple[float, float, float, float],
        fill: Colour,
        *,
        radius: float = 0,
        outline: bool = True,
    ) -> None:
        """Fill a rectangle with rounded corners."""
        (x0, y0), (x1, y1) = self._points([box[:2], box[2:]])
        ink = self.ink if outline else None
        self.draw.rounded_rectangle(
            (x0, y0, x1, y1), radius * self.scale_y, fill, ink, self.line_width
        )

    def stroke(
        self, points: Sequence[Point], width: float, fill: Colour, *, outline: bool = True
    ) -> None:
        """Draw a smooth line with round ends; `width` in units of the height."""
        path = self._points(spline(points, closed=False) if len(points) > 2 else list(points))
        thick = max(2, round(width * self.scale_y))
        rounds = [(thick + 2 * self.line_width, self.ink)] if outline else []
        for pixels, colour in [*rounds, (thick, fill)]:
            self.draw.line(path, fill=colour, width=pixels, joint="curve")
            for x, y in (path[0], path[-1]):
                r = pixels / 2 - 0.5
                self.draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)

    def eye(self, x: float, y: float, radius: float = 4.5) -> None:
        """Draw an eye with a glint; dark objects get a white rim."""
        if sum(self.main) < 220:
            self.disc(x, y, radius * 1.45, (240, 240, 240), outline=False)
        self.disc(x, y, radius, (24, 20, 28), outline=False)
        self.disc(x + radius * 0.3, y - radius * 0.4, radius * 0.35, (255, 255, 255), outline=False)


def spline(points: Sequence[Point], *, closed: bool) -> list[Point]:
    """Return a Catmull-Rom spline through `points`."""
    knots = np.asarray(points, dtype=float)
    if closed:
        before, after, last = np.roll(knots, 1, 0), np.roll(knots, -1, 0), np.roll(knots, -2, 0)
    else:
        ends = np.concatenate([knots[:1], knots, knots[-1:]])
        before, knots, after, last = ends[:-3], ends[1:-2], ends[2:-1], ends[3:]
    t = np.arange(STEPS)[:, None, None] / STEPS
    curve = 0.5 * (
        2 * knots
        + (after - before) * t
        + (2 * before - 5 * knots + 4 * after - last) * t**2
        + (3 * (knots - after) + last - before) * t**3
    )
    path = [(float(x), float(y)) for x, y in curve.transpose(1, 0, 2).reshape(-1, 2)]
    return path if closed else [*path, (float(points[-1][0]), float(points[-1][1]))]
