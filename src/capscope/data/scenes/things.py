"""Furniture, toys and plants: each function paints one class; `style` chooses the model."""

from __future__ import annotations

from math import cos, pi, sin

from capscope.data.scenes.pen import Pen

WOOD = (156, 106, 62)
LEAF = (86, 156, 72)
CREAM = (250, 236, 208)
METAL = (120, 124, 132)


def chair(pen: Pen, style: int) -> None:
    """Paint a chair: 0 wooden, 1 armchair."""
    if style == 0:
        for x in (22, 66):
            pen.box((x, 56, x + 8, 92), pen.dark, radius=2)
        pen.box((20, 4, 30, 60), pen.main, radius=3)
        pen.box((66, 4, 76, 60), pen.main, radius=3)
        for y in (10, 26, 42):
            pen.box((28, y, 68, y + 9), pen.light)
        pen.polygon([(18, 54), (78, 54), (88, 68), (10, 68)], pen.main)
        for x in (11, 78):
            pen.box((x, 66, x + 9, 98), pen.main, radius=2)
    else:
        for x in (14, 78):
            pen.box((x, 86, x + 8, 98), WOOD)
        pen.box((16, 8, 84, 74), pen.main, radius=18)
        pen.box((24, 54, 76, 76), pen.light, radius=8)
        pen.box((10, 70, 90, 92), pen.main, radius=6)
        for x in (4, 76):
            pen.box((x, 42, x + 20, 92), pen.dark, radius=10)
        for x, y in ((38, 26), (62, 26), (38, 42), (62, 42)):
            pen.disc(x, y, 2.6, pen.ink, outline=False)


def table(pen: Pen, style: int) -> None:
    """Paint a table: 0 with four legs, 1 round with a cloth."""
    if style == 0:
        for x in (20, 72):
            pen.box((x, 36, x + 7, 86), pen.dark)
        for x in (8, 84):
            pen.box((x, 36, x + 8, 98), pen.main)
        pen.box((10, 38, 90, 54), pen.dark)
        pen.polygon([(14, 20), (86, 20), (99, 38), (1, 38)], pen.light)
        pen.box((1, 36, 99, 46), pen.main)
    else:
        pen.box((46, 50, 55, 92), WOOD)
        pen.ellipse((28, 86, 72, 99), WOOD)
        pen.blob(
            [
                (4, 32),
                (6, 56),
                (18, 66),
                (30, 58),
                (42, 70),
                (56, 60),
                (70, 70),
                (82, 58),
                (94, 60),
                (96, 32),
            ],
            pen.main,
        )
        pen.ellipse((2, 14, 98, 50), pen.light)
        pen.ellipse((18, 20, 82, 44), pen.main, outline=False)


def lamp(pen: Pen, style: int) -> None:
    """Paint a lamp: 0 floor lamp, 1 desk lamp."""
    if style == 0:
        pen.stroke([(50, 36), (50, 92)], 5, METAL)
        pen.ellipse((28, 88, 72, 99), METAL)
        pen.disc(50, 38, 7, (255, 244, 180))
        pen.polygon([(36, 4), (64, 4), (84, 38), (16, 38)], pen.main)
        pen.polygon([(19, 32), (81, 32), (84, 38), (16, 38)], pen.light, outline=False)
    else:
        pen.ellipse((14, 86, 62, 99), METAL)
        pen.stroke([(38, 90), (22, 56), (56, 22)], 5, pen.dark)
        pen.disc(22, 56, 5, METAL)
        pen.disc(78, 46, 9, (255, 244, 180))
        pen.polygon([(46, 22), (62, 6), (99, 36), (64, 60)], pen.main)
        pen.polygon([(58, 50), (92, 31), (99, 36), (64, 60)], pen.light, outline=False)


def ball(pen: Pen, style: int) -> None:
    """Paint a ball: 0 beach ball, 1 with a star."""
    pen.disc(50, 52, 46, pen.main)
    if style == 0:
        pen.blob([(50, 8), (70, 28), (74, 60), (60, 94), (50, 97), (56, 60)], CREAM, outline=False)
        pen.blob([(46, 8), (24, 20), (8, 46), (10, 64), (26, 40)], CREAM, outline=False)
        pen.ring(50, 52, 46, 5, pen.ink)
    else:
        points = []
        for k in range(10):
            reach = 26 if k % 2 == 0 else 11
            points.append((50 + reach * sin(k * pi / 5), 52 - reach * cos(k * pi / 5)))
        pen.polygon(points, CREAM)
    pen.ellipse((24, 16, 42, 30), (255, 255, 255), outline=False)


def balloon(pen: Pen, style: int) -> None:
    """Paint a balloon: 0 round, 1 heart-shaped."""
    pen.stroke([(50, 72), (46, 82), (54, 90), (50, 99)], 1.6, (90, 84, 90), outline=False)
    pen.polygon([(44, 76), (56, 76), (50, 68)], pen.dark)
    if style == 0:
        pen.blob(
            [(50, 2), (72, 8), (84, 30), (76, 54), (50, 72), (24, 54), (16, 30), (28, 8)], pen.main
        )
    else:
        pen.blob(
            [
                (50, 16),
                (66, 3),
                (86, 8),
                (90, 28),
                (76, 52),
                (50, 73),
                (24, 52),
                (10, 28),
                (14, 8),
                (34, 3),
            ],
            pen.main,
        )
    pen.blob([(30, 18), (38, 12), (36, 26), (28, 34)], blend_white(pen), outline=False)


def blend_white(pen: Pen) -> tuple[int, int, int]:
    """Return the colour of a highlight on `pen.main`."""
    red, green, blue = (min(255, channel + 90) for channel in pen.main)
    return red, green, blue


def kite(pen: Pen, style: int) -> None:
    """Paint a kite: 0 diamond, 1 delta."""
    pen.stroke([(48, 68), (38, 78), (52, 86), (42, 98)], 2, (90, 84, 90), outline=False)
    for x, y in ((40, 78), (49, 88)):
        pen.polygon([(x - 8, y - 4), (x + 8, y + 4), (x + 8, y - 4), (x - 8, y + 4)], pen.dark)
    if style == 0:
        pen.polygon([(50, 2), (84, 30), (48, 70), (16, 30)], pen.main)
        pen.polygon([(50, 2), (84, 30), (50, 30)], pen.light)
        pen.polygon([(16, 30), (50, 30), (48, 70)], pen.light)
    else:
        pen.polygon([(50, 4), (98, 56), (50, 46), (2, 56)], pen.main)
        pen.polygon([(50, 4), (62, 49), (50, 68), (38, 49)], pen.light)


def umbrella(pen: Pen, style: int) -> None:
    """Paint an umbrella: 0 with a crook, 1 a parasol."""
    if style == 0:
        pen.stroke([(50, 44), (50, 86), (56, 95), (64, 90), (64, 84)], 4, WOOD)
    else:
        pen.stroke([(50, 44), (50, 98)], 5, CREAM)
    pen.stroke([(50, 2), (50, 12)], 3, pen.ink, outline=False)
    pen.blob(
        [
            (2, 48),
            (10, 26),
            (28, 11),
            (50, 6),
            (72, 11),
            (90, 26),
            (98, 48),
            (82, 43),
            (66, 50),
            (50, 43),
            (34, 50),
            (18, 43),
        ],
        pen.main,
    )
    pen.blob(
        [(34, 49), (36, 26), (50, 8), (64, 26), (66, 49), (50, 44)],
        pen.light if style == 0 else CREAM,
    )


def tree(pen: Pen, style: int) -> None:
    """Paint a tree: 0 round crown, 1 fir."""
    pen.polygon([(42, 66), (58, 66), (62, 98), (38, 98)], WOOD)
    if style == 0:
        pen.blob(
            [
                (10, 48),
                (12, 28),
                (28, 20),
                (36, 6),
                (58, 3),
                (70, 18),
                (88, 26),
                (92, 50),
                (78, 66),
                (58, 68),
                (40, 72),
                (20, 66),
            ],
            pen.main,
        )
        for x, y, r in ((32, 34, 9), (62, 26, 8), (52, 52, 10), (76, 48, 7)):
            pen.disc(x, y, r, pen.light, outline=False)
    else:
        for y in (46, 26, 6):
            pen.polygon(
                [(50, y - 4), (88 - (46 - y) * 0.35, y + 34), (12 + (46 - y) * 0.35, y + 34)],
                pen.main,
            )
            pen.polygon([(50, y + 2), (60, y + 22), (40, y + 22)], pen.light, outline=False)


def flower(pen: Pen, style: int) -> None:
    """Paint a flower: 0 daisy, 1 tulip."""
    pen.stroke([(50, 40), (48, 70), (50, 98)], 5, LEAF)
    pen.blob([(50, 88), (24, 82), (14, 62), (36, 66)], LEAF)
    pen.blob([(50, 84), (74, 76), (86, 58), (62, 62)], LEAF)
    if style == 0:
        for k in range(8):
            x, y = 50 + 24 * cos(k * pi / 4), 30 + 21 * sin(k * pi / 4)
            pen.disc(x, y, 11, pen.main)
        centre = (250, 206, 60) if pen.main[0] < 225 or pen.main[2] > 100 else (120, 76, 40)
        pen.disc(50, 30, 13, centre)
    else:
        pen.blob(
            [(24, 8), (38, 18), (50, 3), (62, 18), (76, 8), (78, 34), (64, 52), (36, 52), (22, 34)],
            pen.main,
        )
        pen.blob([(50, 8), (62, 28), (50, 50), (38, 28)], pen.light)


def mushroom(pen: Pen, style: int) -> None:
    """Paint a mushroom: 0 wide cap, 1 tall cap."""
    pen.blob([(38, 46), (62, 46), (66, 76), (72, 97), (28, 97), (34, 76)], CREAM)
    if style == 0:
        pen.blob(
            [(3, 52), (10, 26), (34, 8), (66, 8), (90, 26), (97, 52), (74, 58), (50, 54), (26, 58)],
            pen.main,
        )
        spots = ((28, 30, 8), (54, 20, 7), (74, 34, 8), (48, 42, 6))
    else:
        pen.blob([(16, 60), (22, 28), (40, 5), (60, 5), (78, 28), (84, 60), (50, 64)], pen.main)
        spots = ((36, 30, 7), (60, 24, 6), (66, 48, 7), (40, 50, 6))
    spot = CREAM if sum(pen.main) < 600 else (200, 160, 110)
    for x, y, radius in spots:
        pen.disc(x, y, radius, spot, outline=False)
