"""Arrays of numbers as images, with nothing but NumPy and zlib.

An image is an array of bytes, each the number of a colour in one palette:
viridis, black and white. A third of the bytes of red, green and blue are
compressed in a third of the time.
"""

import struct
import zlib

import numpy as np

# The last two colours of the palette; those before are viridis.
BLACK = 254
WHITE = 255

# Nine colours of viridis, from low to high, between which there is a line: it
# rises evenly in lightness, for colour-blind readers and for print.
_VIRIDIS = np.array(
    [
        (68, 1, 84),
        (71, 44, 122),
        (59, 81, 139),
        (44, 113, 142),
        (33, 144, 141),
        (39, 173, 129),
        (92, 200, 99),
        (170, 220, 50),
        (253, 231, 37),
    ],
    np.float64,
)
_PLACES = np.linspace(0.0, 1.0, len(_VIRIDIS))
_LINE = np.linspace(0.0, 1.0, BLACK)
_PALETTE = np.stack(
    [np.interp(_LINE, _PLACES, channel) for channel in _VIRIDIS.T], axis=-1
)
_PALETTE = np.vstack([_PALETTE, np.zeros(3), np.full(3, 255.0)])

# Five rows of three points each.
_GLYPHS = {
    "0": "111 101 101 101 111",
    "1": "010 110 010 010 111",
    "2": "111 001 111 100 111",
    "3": "111 001 111 001 111",
    "4": "101 101 111 001 001",
    "5": "111 100 111 001 111",
    "6": "111 100 111 101 111",
    "7": "111 001 001 001 001",
    "8": "111 101 111 101 111",
    "9": "111 101 111 001 111",
    "-": "000 000 111 000 000",
}
_SCALE = 3  # pixels of a point
TEXT_HEIGHT = 5 * _SCALE


def viridis(values, low: float, high: float) -> np.ndarray:
    """Colours of numbers, from dark for `low` to bright for `high`.

    Args:
        values: Float array of any shape. What is not a number is white, what
            lies outside of the range has the colour of its end.
        low: Float.
        high: Float, above `low`.

    Returns:
        Array of the same shape of bytes, numbers of colours in the palette.
    """
    values = np.asarray(values, np.float64)
    place = np.clip((values - low) / (high - low), 0.0, 1.0)
    missing = np.isnan(place)
    colours = np.rint(np.where(missing, 0.0, place) * (BLACK - 1))
    return np.where(missing, WHITE, colours).astype(np.uint8)


def number_pixels(number: int) -> np.ndarray:
    """A whole number in black on white, for the axes of an image.

    Args:
        number: Int.

    Returns:
        Array of shape `(TEXT_HEIGHT, width)` of bytes.
    """
    glyphs = [
        np.array([[point == "1" for point in row] for row in glyph.split()])
        for glyph in (_GLYPHS[letter] for letter in str(number))
    ]
    gap = np.zeros((5, 1), bool)
    parts = [part for glyph in glyphs for part in (glyph, gap)][:-1]
    points = np.concatenate(parts, axis=1).repeat(_SCALE, 0).repeat(_SCALE, 1)
    return np.where(points, BLACK, WHITE).astype(np.uint8)


def png(pixels: np.ndarray) -> bytes:
    """An image as a PNG file.

    Args:
        pixels: Array of shape `(height, width)` of bytes, from the top, each
            the number of a colour in the palette.

    Returns:
        The bytes of the file.

    Reference:
        [PNG specification](https://www.w3.org/TR/png-3/)
    """
    height, width = pixels.shape
    # Each row is preceded by the number of its filter, which is none.
    rows = np.zeros((height, 1 + width), np.uint8)
    rows[:, 1:] = pixels
    # Eight bits for each pixel, of a palette.
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", header),
            _chunk(b"PLTE", np.rint(_PALETTE).astype(np.uint8).tobytes()),
            _chunk(b"IDAT", zlib.compress(rows.tobytes())),
            _chunk(b"IEND", b""),
        ]
    )


def _chunk(name: bytes, content: bytes) -> bytes:
    checked = name + content
    size = struct.pack(">I", len(content))
    return size + checked + struct.pack(">I", zlib.crc32(checked))
