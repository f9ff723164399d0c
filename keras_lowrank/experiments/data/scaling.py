"""From pixels to what a network is given."""

import numpy as np

# What the paper's code subtracts and divides by, of values in [0, 1]. It uses
# the statistics of CIFAR-100 for both CIFARs.
_CIFAR = ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))
_MNIST = ((0.1307,), (0.3081,))
PAPER = {
    "cifar10": _CIFAR,
    "cifar100": _CIFAR,
    "mnist": _MNIST,
    "fashion_mnist": _MNIST,
    "svhn": ((0.5,) * 3, (0.5,) * 3),
}

NORMALIZATIONS = ("paper", "unit", "standard")


def scale(
    arrays: dict[str, np.ndarray],
    name: str,
    normalization: str = "paper",
    mean=None,
    std=None,
    pad: int | None = None,
) -> tuple[np.ndarray, np.ndarray, str]:
    """Both halves as float32, channels last.

    Args:
        arrays: Dict of four arrays. Bytes are taken as pixels: images without
            channels get one, and values are divided by 255.
        name: String, the data set.
        normalization: `"paper"`, what the paper's code does to this data set,
            and `"unit"` for one that it does not use; `"unit"`, nothing more;
            `"standard"`, to mean 0 and standard deviation 1 of each channel
            (or feature) over the training samples.
        mean: List of floats, what to subtract instead, of each channel.
        std: List of floats, what to divide by instead.
        pad: Int >= 0, zeros around an image, before anything is subtracted.
            By default 2 for MNIST and Fashion-MNIST under `"paper"`, which
            makes them 32 x 32, and else 0.

    Returns:
        Tuple of `x_train`, `x_test` and what was done, in words.

    Raises:
        ValueError: for an unknown normalization, or lists that do not fit.
    """
    if normalization not in NORMALIZATIONS:
        raise ValueError(
            f"`normalization` must be one of {NORMALIZATIONS}. "
            f"Received: normalization={normalization!r}."
        )
    if (mean is None) != (std is None):
        raise ValueError(
            "`mean` and `std` must be given together. "
            f"Received: mean={mean}, std={std}."
        )
    if pad is None:
        small = name in ("mnist", "fashion_mnist")
        pad = 2 if small and normalization == "paper" else 0
    halves = [
        _pixels(arrays[key], pad, arrays["x_train"].dtype)
        for key in ("x_train", "x_test")
    ]
    done = ["divided by 255"] if arrays["x_train"].dtype == np.uint8 else []
    if pad:
        done.insert(0, f"padded by {pad}")
    if mean is None and normalization == "paper" and name in PAPER:
        mean, std = PAPER[name]
    elif mean is None and normalization == "standard":
        axes = tuple(range(halves[0].ndim - 1))
        mean = halves[0].mean(axes, dtype=np.float64)
        std = halves[0].std(axes, dtype=np.float64)
        std = np.where(std > 0, std, 1.0)  # a pixel that is always the same
    if mean is not None:
        shift, by = (np.asarray(v, np.float32) for v in (mean, std))
        channels = halves[0].shape[-1]
        for key, value in (("mean", shift), ("std", by)):
            if value.shape not in ((), (1,), (channels,)):
                raise ValueError(
                    f"`{key}` must have one value, or {channels}, one for "
                    f"each channel. Received: {key}={value.tolist()}."
                )
        if not np.all(by > 0):
            raise ValueError(
                f"`std` must be larger than 0. Received: std={by.tolist()}."
            )
        for half in halves:  # in place: CIFAR takes 614 MB
            half -= shift
            half /= by
        words = [np.array2string(v, precision=4) for v in (shift, by)]
        if shift.size > 4:
            words = ["its mean", "its standard deviation"]
        done.append(f"less {words[0]}, divided by {words[1]}")
    return halves[0], halves[1], ", ".join(done) or "as given"


def _pixels(x: np.ndarray, pad: int, dtype) -> np.ndarray:
    values = x.astype(np.float32)
    if dtype == np.uint8:
        if values.ndim == 3:
            values = values[..., None]
        values /= 255
    if pad:
        if values.ndim != 4:
            raise ValueError(
                "`pad` is for images. Received: "
                f"pad={pad} for samples of shape {values.shape[1:]}."
            )
        values = np.pad(values, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    return values
