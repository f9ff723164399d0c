"""Arrays of numbers as images, with nothing but NumPy and zlib."""

import struct
import zlib

import numpy as np

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
_NO_VALUE = (255, 255, 255)


def viridis(values, low: float, high: float) -> np.ndarray:
    """Colours of numbers, from dark for `low` to bright for `high`.

    Args:
        values: Float array of any shape. What is not a number is white, what
            lies outside of the range has the colour of its end.
        low: Float.
        high: Float, above `low`.

    Returns:
        Array of shape `values.shape + (3,)` of bytes, red, green and blue.
    """
    values = np.asarray(values, np.float64)
    place = np.clip((values - low) / (high - low), 0.0, 1.0)
    places = np.linspace(0.0, 1.0, len(_VIRIDIS))
    colours = np.stack(
        [np.interp(place, places, channel) for channel in _VIRIDIS.T], axis=-1
    )
    colours[np.isnan(values)] = _NO_VALUE
    return np.round(colours).astype(np.uint8)


def png(colours: np.ndarray) -> bytes:
    """An image as a PNG file.

    Args:
        colours: Array of shape `(height, width, 3)` of bytes, from the top.

    Returns:
        The bytes of the file.

    Reference:
        [PNG specification](https://www.w3.org/TR/png-3/), RFC 2083
    """
    height, width, _ = colours.shape
    # Each row is preceded by the number of its filter, which is none.
    rows = np.zeros((height, 1 + 3 * width), np.uint8)
    rows[:, 1:] = colours.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", header),
            _chunk(b"IDAT", zlib.compress(rows.tobytes())),
            _chunk(b"IEND", b""),
        ]
    )


def _chunk(name: bytes, content: bytes) -> bytes:
    checked = name + content
    size = struct.pack(">I", len(content))
    return size + checked + struct.pack(">I", zlib.crc32(checked))
