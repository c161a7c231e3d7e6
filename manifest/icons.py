"""Draws the two icons of the Teams app package: a bell that calls, in colour and as an outline.

Run it after a change here: ``python manifest/icons.py``. It needs nothing but Python, and gives the same bytes
every time.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "teams"
PETROL = (11, 92, 107)
WHITE = (255, 255, 255)
SAMPLES = 6  # by this many in each direction is a pixel sampled, for smooth edges

# A shape says of a point, in units where the icon is 1 by 1 with y downwards, whether it lies inside.
Shape = Callable[[float, float], bool]


def bell(x: float, y: float) -> bool:
    """The body of the bell: a dome that flares into a rim."""
    if not 0.22 <= y <= 0.70:
        return False
    half = math.sqrt(max(0.0, 0.19**2 - (0.41 - y) ** 2)) if y < 0.41 else 0.19 + 0.42 * max(0.0, y - 0.52) ** 1.2
    return abs(x - 0.5) <= half


def rim(x: float, y: float) -> bool:
    return inside_bar(x, y, left=0.235, right=0.765, middle=0.70, thick=0.07)


def crown(x: float, y: float) -> bool:
    return math.hypot(x - 0.5, y - 0.205) <= 0.045


def clapper(x: float, y: float) -> bool:
    return y >= 0.76 and math.hypot(x - 0.5, y - 0.765) <= 0.075


def waves(x: float, y: float) -> bool:
    """One arc of sound on either side."""
    radius = math.hypot(x - 0.5, y - 0.42)
    angle = math.degrees(math.atan2(abs(x - 0.5), 0.42 - y))
    return 0.335 <= radius <= 0.385 and 52 <= angle <= 100


def inside_bar(x: float, y: float, *, left: float, right: float, middle: float, thick: float) -> bool:
    """A bar with round ends."""
    nearest = min(max(x, left + thick / 2), right - thick / 2)
    return math.hypot(x - nearest, y - middle) <= thick / 2


def calling_bell(x: float, y: float) -> bool:
    return any(shape(x, y) for shape in (bell, rim, crown, clapper, waves))


def tile(x: float, y: float) -> bool:
    """A square with round corners, as large as the icon."""
    corner = 0.18
    dx = max(corner - x, x - (1 - corner), 0.0)
    dy = max(corner - y, y - (1 - corner), 0.0)
    return math.hypot(dx, dy) <= corner


def cover(shape: Shape, column: int, row: int, size: int) -> float:
    """How much of a pixel the shape covers, 0 to 1."""
    steps = [(step + 0.5) / SAMPLES for step in range(SAMPLES)]
    hits = sum(shape((column + dx) / size, (row + dy) / size) for dx in steps for dy in steps)
    return hits / SAMPLES**2


def colour_pixel(column: int, row: int, size: int) -> tuple[int, int, int, int]:
    ink = cover(calling_bell, column, row, size)
    red, green, blue = (
        round(ground + (stroke - ground) * ink) for ground, stroke in zip(PETROL, WHITE, strict=True)
    )
    return red, green, blue, round(255 * cover(tile, column, row, size))


def outline_pixel(column: int, row: int, size: int) -> tuple[int, int, int, int]:
    return *WHITE, round(255 * cover(calling_bell, column, row, size))


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(size: int, pixel: Callable[[int, int, int], tuple[int, int, int, int]]) -> bytes:
    """A square PNG with 8 bits each of red, green, blue and opacity."""
    rows = b"".join(
        b"\0" + bytes(value for column in range(size) for value in pixel(column, row, size)) for row in range(size)
    )
    header = struct.pack(">IIBBBBB", size, size, 8, 6, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    )


def main() -> None:
    for name, content in (("color.png", png(192, colour_pixel)), ("outline.png", png(32, outline_pixel))):
        (FOLDER / name).write_bytes(content)
        print(f"{FOLDER / name}: {len(content)} bytes")


if __name__ == "__main__":
    main()
