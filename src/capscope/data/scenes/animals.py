"""Animals: each function paints one class; `style` chooses the pose."""

from __future__ import annotations

from capscope.data.scenes.pen import Pen

NOSE = (40, 30, 36)
BLUSH = (246, 150, 150)
BEAK = (244, 166, 42)


def dog(pen: Pen, style: int) -> None:
    """Paint a dog: 0 stands, 1 sits."""
    if style == 0:
        pen.stroke([(16, 50), (6, 40), (5, 24)], 7, pen.main)
        for leg in (24, 58):
            pen.box((leg, 62, leg + 10, 96), pen.dark, radius=4)
        pen.blob([(12, 52), (22, 42), (50, 44), (68, 46), (72, 60), (60, 73), (24, 73)], pen.main)
        for leg in (15, 49):
            pen.box((leg, 62, leg + 11, 98), pen.main, radius=4)
        pen.box((16, 60, 25, 72), pen.main, radius=3, outline=False)
        pen.box((50, 60, 59, 72), pen.main, radius=3, outline=False)
        x, y = 0.0, 0.0
    else:
        pen.stroke([(26, 88), (12, 88), (6, 74)], 7, pen.main)
        pen.blob([(22, 92), (24, 66), (42, 48), (66, 46), (72, 70), (70, 96), (36, 97)], pen.main)
        pen.ellipse((22, 66, 54, 97), pen.main)
        pen.box((56, 58, 68, 98), pen.main, radius=5)
        pen.ellipse((50, 90, 72, 99), pen.light)
        x, y = 2.0, 2.0
    pen.ellipse((52 + x, 10 + y, 88 + x, 52 + y), pen.main)
    pen.blob(
        [(76 + x, 34 + y), (92 + x, 28 + y), (98 + x, 38 + y), (90 + x, 49 + y), (74 + x, 48 + y)],
        pen.light,
    )
    pen.disc(96 + x, 34 + y, 4.5, NOSE, outline=False)
    pen.blob(
        [(56 + x, 12 + y), (48 + x, 22 + y), (49 + x, 46 + y), (60 + x, 48 + y), (65 + x, 26 + y)],
        pen.dark,
    )
    pen.eye(76 + x, 27 + y)
    pen.stroke(
        [(58 + x, 51 + y), (68 + x, 54 + y), (76 + x, 52 + y)],
        5,
        (200, 60, 60) if pen.main[0] < 190 else (50, 90, 190),
        outline=False,
    )


def cat(pen: Pen, style: int) -> None:
    """Paint a cat: 0 sits, 1 walks."""
    if style == 0:
        pen.stroke([(66, 90), (90, 86), (92, 62), (84, 52)], 7, pen.main)
        pen.blob([(28, 96), (26, 70), (38, 50), (60, 50), (74, 70), (74, 96), (50, 98)], pen.main)
        pen.ellipse((38, 62, 62, 96), pen.light, outline=False)
        for x in (34, 52):
            pen.ellipse((x, 88, x + 15, 99), pen.light)
        left, top = 22.0, 12.0
    else:
        pen.stroke([(84, 54), (97, 44), (94, 20)], 6, pen.main)
        for x in (36, 72):
            pen.box((x, 64, x + 9, 95), pen.dark, radius=4)
        pen.blob([(24, 56), (36, 46), (70, 46), (90, 54), (88, 72), (60, 76), (28, 74)], pen.main)
        for x in (46, 64):
            pen.stroke([(x, 47), (x + 2, 58)], 4, pen.dark, outline=False)
        for x in (25, 79):
            pen.box((x, 64, x + 10, 98), pen.main, radius=4)
        left, top = 2.0, 10.0
    for x0, x1, x2 in ((4, 6, 22), (52, 50, 34)):
        pen.polygon([(left + x0, top + 20), (left + x1, top - 10), (left + x2, top + 6)], pen.main)
    pen.ellipse((left, top, left + 56, top + 44), pen.main)
    for x in (18, 38):
        pen.eye(left + x, top + 20, 5)
    pen.polygon(
        [(left + 25, top + 28), (left + 31, top + 28), (left + 28, top + 32)], BLUSH, outline=False
    )
    for y in (30, 35):
        pen.stroke([(left + 12, top + y), (left - 1, top + y - 2)], 1, pen.ink, outline=False)
        pen.stroke([(left + 44, top + y), (left + 57, top + y - 2)], 1, pen.ink, outline=False)


def rabbit(pen: Pen, style: int) -> None:
    """Paint a rabbit: 0 sits upright, 1 crouches."""
    if style == 0:
        for points in (
            [(36, 34), (26, 4), (40, 2), (46, 30)],
            [(54, 30), (60, 2), (74, 4), (64, 34)],
        ):
            pen.blob(points, pen.main)
        pen.stroke([(37, 10), (41, 26)], 4, BLUSH, outline=False)
        pen.stroke([(63, 10), (59, 26)], 4, BLUSH, outline=False)
        pen.disc(78, 84, 9, (250, 250, 250))
        pen.blob([(24, 96), (24, 72), (38, 56), (62, 56), (76, 72), (76, 96), (50, 99)], pen.main)
        pen.ellipse((37, 64, 63, 94), pen.light, outline=False)
        for x in (26, 54):
            pen.ellipse((x, 88, x + 20, 99), pen.light)
        pen.ellipse((26, 24, 74, 64), pen.main)
        for x in (40, 60):
            pen.eye(x, 42, 4.5)
        pen.disc(50, 50, 3, BLUSH, outline=False)
        pen.stroke([(44, 55), (50, 58), (56, 55)], 1.6, pen.ink, outline=False)
    else:
        for points in (
            [(66, 40), (46, 12), (56, 4), (74, 34)],
            [(76, 36), (70, 4), (82, 4), (84, 36)],
        ):
            pen.blob(points, pen.main)
        pen.disc(10, 72, 9, (250, 250, 250))
        pen.blob([(10, 78), (18, 56), (42, 46), (66, 56), (72, 76), (60, 94), (20, 96)], pen.main)
        pen.ellipse((12, 62, 46, 96), pen.main)
        pen.ellipse((18, 88, 50, 99), pen.light)
        pen.ellipse((58, 88, 80, 98), pen.light)
        pen.ellipse((56, 32, 96, 72), pen.main)
        pen.eye(80, 48, 4.5)
        pen.disc(94, 55, 3, BLUSH, outline=False)


def bird(pen: Pen, style: int) -> None:
    """Paint a bird: 0 stands, 1 flies."""
    if style == 0:
        for x in (44, 56):
            pen.stroke([(x, 80), (x, 96)], 3, BEAK, outline=False)
            pen.stroke([(x - 5, 97), (x + 7, 97)], 3, BEAK, outline=False)
        pen.polygon([(24, 60), (2, 52), (4, 70), (22, 74)], pen.dark)
        pen.polygon([(84, 28), (99, 36), (84, 42)], BEAK)
        pen.blob(
            [
                (18, 66),
                (34, 48),
                (56, 40),
                (60, 18),
                (78, 12),
                (90, 28),
                (86, 50),
                (70, 80),
                (40, 86),
            ],
            pen.main,
        )
        pen.blob([(26, 58), (46, 50), (60, 60), (44, 74), (28, 70)], pen.dark)
        pen.ellipse((58, 52, 78, 78), pen.light, outline=False)
        pen.eye(76, 28, 4.5)
    else:
        pen.polygon([(20, 56), (0, 46), (2, 66)], pen.dark)
        pen.blob([(44, 52), (22, 24), (26, 4), (48, 18), (64, 46)], pen.dark)
        pen.polygon([(88, 46), (100, 54), (86, 60)], BEAK)
        pen.blob(
            [
                (14, 58),
                (34, 48),
                (62, 46),
                (72, 36),
                (86, 38),
                (92, 52),
                (82, 64),
                (52, 74),
                (26, 68),
            ],
            pen.main,
        )
        pen.blob([(36, 56), (40, 82), (58, 96), (64, 74), (58, 56)], pen.light)
        pen.eye(80, 48, 5)


def horse(pen: Pen, style: int) -> None:
    """Paint a horse: 0 stands, 1 grazes."""
    mane = pen.light if sum(pen.main) < 300 else pen.dark
    pen.stroke([(14, 46), (5, 54), (6, 78)], 7, mane)
    for x in (28, 58):
        pen.box((x, 60, x + 7, 96), pen.dark, radius=2)
    pen.blob([(12, 50), (22, 40), (48, 44), (66, 42), (70, 56), (62, 68), (22, 68)], pen.main)
    for x in (17, 62):
        pen.box((x, 58, x + 8, 93), pen.main, radius=2)
        pen.box((x, 90, x + 8, 98), NOSE, radius=1)
    pen.box((18, 56, 24, 66), pen.main, outline=False)
    pen.box((63, 50, 69, 64), pen.main, outline=False)
    if style == 0:
        pen.polygon([(72, 12), (72, 0), (80, 9)], pen.main)
        pen.blob(
            [
                (56, 50),
                (62, 26),
                (72, 8),
                (82, 8),
                (97, 26),
                (94, 35),
                (82, 30),
                (77, 34),
                (72, 56),
            ],
            pen.main,
        )
        pen.stroke([(70, 8), (60, 24), (55, 44)], 7, mane)
        pen.eye(81, 17, 3.6)
        pen.disc(93, 29, 1.6, NOSE, outline=False)
    else:
        pen.polygon([(86, 56), (96, 50), (93, 62)], pen.main)
        pen.blob(
            [(58, 46), (70, 40), (86, 54), (95, 66), (92, 90), (82, 92), (80, 72), (66, 62)],
            pen.main,
        )
        pen.stroke([(66, 40), (80, 44), (90, 56)], 6, mane)
        pen.eye(87, 70, 3.6)
        pen.disc(88, 88, 1.6, NOSE, outline=False)


def turtle(pen: Pen, style: int) -> None:
    """Paint a turtle: 0 looks up, 1 looks ahead."""
    skin = (150, 190, 110) if pen.main[1] < 150 or pen.main[0] > 180 else (214, 190, 120)
    raised = 12 if style == 0 else 0
    pen.polygon([(10, 80), (0, 88), (14, 90)], skin)
    for x in (16, 58):
        pen.ellipse((x, 72, x + 17, 99), skin)
    pen.stroke([(72, 76), (80, 66 - raised)], 15, skin)
    pen.ellipse((72, 40 - raised, 99, 72 - raised), skin)
    pen.eye(89, 53 - raised, 4.5)
    pen.blob(
        [(4, 82), (8, 54), (24, 26), (44, 18), (64, 26), (80, 54), (82, 82), (44, 86)], pen.main
    )
    pen.box((2, 76, 84, 88), pen.light, radius=6)
    for points in ([(34, 36), (54, 36), (62, 54), (44, 66), (26, 54)],):
        pen.polygon(points, pen.dark)
    for x, y in ((16, 62), (70, 62)):
        pen.disc(x, y, 7, pen.dark)
