"""Vehicles: each function paints one class; `style` chooses the model."""

from __future__ import annotations

from itertools import pairwise
from math import cos, pi, sin

from capscope.data.scenes.pen import Pen

TYRE = (44, 44, 50)
HUB = (206, 210, 216)
GLASS = (190, 226, 242)
LAMP = (255, 232, 150)


def wheel(pen: Pen, x: float, y: float, radius: float) -> None:
    """Paint a wheel with a hub."""
    pen.disc(x, y, radius, TYRE)
    pen.disc(x, y, radius * 0.5, HUB, outline=False)


def car(pen: Pen, style: int) -> None:
    """Paint a car: 0 saloon, 1 estate."""
    roof = (
        [(24, 46), (34, 16), (66, 16), (80, 46)]
        if style == 0
        else [(10, 46), (14, 14), (64, 14), (80, 46)]
    )
    pen.polygon(roof, pen.main)
    left = 31 if style == 0 else 17
    pen.polygon([(left, 44), (left + 6, 23), (47, 23), (47, 44)], GLASS)
    pen.polygon([(52, 44), (52, 23), (62, 23), (71, 44)], GLASS)
    pen.blob(
        [(3, 74), (3, 52), (12, 44), (78, 44), (95, 52), (98, 74), (92, 82), (8, 82)], pen.main
    )
    pen.box((6, 62, 96, 66), pen.light, outline=False)
    pen.box((49, 50, 50, 78), pen.dark, outline=False)
    pen.box((54, 54, 60, 57), pen.ink, outline=False)
    pen.ellipse((90, 52, 98, 66), LAMP)
    pen.box((2, 54, 7, 66), (222, 60, 50))
    for x in (24, 77):
        wheel(pen, x, 80, 17)


def bus(pen: Pen, style: int) -> None:
    """Paint a bus: 0 coach, 1 double-decker."""
    pen.box((2, 6, 98, 84), pen.main, radius=10)
    rows = (20,) if style == 0 else (13, 44)
    depth = 28 if style == 0 else 20
    for y in rows:
        for x in (8, 26, 44, 62):
            pen.box((x, y, x + 15, y + depth), GLASS, radius=3)
    if style == 0:
        pen.box((80, 20, 95, 78), GLASS, radius=3)
        pen.box((87, 22, 88, 77), pen.ink, outline=False)
        pen.box((4, 56, 78, 63), pen.light, outline=False)
    else:
        pen.box((80, 13, 95, 33), GLASS, radius=3)
        pen.box((80, 42, 95, 80), GLASS, radius=3)
        pen.box((4, 36, 96, 41), pen.light, outline=False)
    pen.box((93, 70, 98, 78), LAMP)
    for x in (22, 72):
        wheel(pen, x, 84, 14)


def bicycle(pen: Pen, style: int) -> None:
    """Paint a bicycle: 0 plain, 1 with a basket."""
    for x in (22, 78):
        pen.ring(x, 68, 29, 6, TYRE)
        for k in range(4):
            dx, dy = cos(k * pi / 4), sin(k * pi / 4)
            wide = 24 * pen.scale_y / pen.scale_x
            pen.stroke(
                [(x - wide * dx, 68 - 24 * dy), (x + wide * dx, 68 + 24 * dy)],
                1,
                HUB,
                outline=False,
            )
        pen.disc(x, 68, 5, HUB)
    frame = [(22, 68), (38, 34), (68, 34), (48, 68), (22, 68)]
    for start, end in pairwise(frame):
        pen.stroke([start, end], 7, pen.main)
    pen.stroke([(34, 22), (48, 68)], 7, pen.main)
    pen.stroke([(64, 16), (78, 68)], 7, pen.main)
    pen.stroke([(26, 20), (42, 20)], 8, TYRE, outline=False)
    pen.stroke([(64, 16), (74, 10), (80, 16)], 5, TYRE, outline=False)
    pen.disc(48, 68, 7, HUB)
    if style == 1:
        pen.polygon([(72, 18), (96, 18), (92, 40), (76, 40)], (196, 150, 90))


def boat(pen: Pen, style: int) -> None:
    """Paint a boat: 0 with two sails, 1 a steamer."""
    if style == 0:
        pen.stroke([(50, 4), (50, 74)], 3, (120, 80, 50))
        pen.polygon([(54, 6), (54, 64), (92, 64)], pen.light)
        pen.polygon([(46, 14), (46, 64), (16, 64)], pen.main)
        pen.polygon([(50, 2), (50, 11), (64, 7)], (230, 70, 60), outline=False)
    else:
        pen.box((46, 14, 62, 44), pen.dark)
        pen.box((46, 20, 62, 27), (245, 245, 245), outline=False)
        pen.box((26, 40, 78, 74), (244, 240, 230), radius=3)
        for x in (36, 52, 68):
            pen.disc(x, 55, 6, GLASS)
    pen.polygon([(2, 70), (98, 70), (84, 96), (18, 96)], pen.main)
    pen.polygon([(6, 77), (94, 77), (91, 83), (10, 83)], pen.light, outline=False)
