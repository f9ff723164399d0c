"""What a weight matrix measures before training: the baseline of a curve."""

import operator
import random

import keras
import numpy as np

from keras_lowrank import linalg
from keras_lowrank.measures import as_measures
from keras_lowrank.spectrum import Spectrum


def initial_spectra(
    shape: tuple[int, ...],
    initializer="glorot_uniform",
    samples: int = 3,
    seed: int = 0,
) -> list[Spectrum]:
    """Spectra of freshly initialized kernels of one shape.

    A rank means little without that of an untrained matrix of the same shape:
    square and oblong matrices start from different spectra, and under a
    threshold relative to the Frobenius norm from different ranks.

    Global seeds are neither used nor changed. The same arguments give the
    same spectra in one backend; another backend draws other numbers, whose
    spectra differ by less than the samples do among themselves.

    Args:
        shape: Tuple of ints, the shape of the kernel as Keras stores it:
            `(input, output)`, or `(*window, input, output)` of a convolution.
            Fans follow Keras' rule for it, and the matrix is
            `(window * input, output)`. For the heads of attention give the
            merged shape `(dim, heads * head_dim)`, from which Keras draws
            them.
        initializer: Keras initializer, its name or config; or `"torch"`, the
            default of `torch.nn.Linear` and `Conv2d`: uniform between
            `-1 / sqrt(fan_in)` and `1 / sqrt(fan_in)`.
        samples: Int >= 1, how many kernels to draw.
        seed: Int, the seed of the first; the others follow. The seed of
            `initializer` itself is not used. An initializer without a seed of
            its own, such as `Identity` or a plain function, is called as it
            is.

    Returns:
        List of `samples` `Spectrum`.

    Raises:
        ValueError: for a shape of fewer than two axes, or no samples.

    Example:

    >>> [spectrum.shape for spectrum in initial_spectra((3, 3, 16, 32))]
    [(144, 32), (144, 32), (144, 32)]
    """
    shape = _checked_shape(shape)
    if not isinstance(samples, int) or samples < 1:
        raise ValueError(
            "`samples` must be a whole number from 1 on. "
            f"Received: samples={samples!r}."
        )
    make = _initializer(initializer)
    return [
        linalg.spectrum(_draw(make, shape, seed + sample))
        for sample in range(samples)
    ]


def initial_baseline(
    shape: tuple[int, ...],
    initializer="glorot_uniform",
    measures=("rank", "stable_rank", "effective_rank", "energy_rank"),
    samples: int = 3,
    seed: int = 0,
) -> dict[str, float]:
    """Mean of measures over freshly initialized kernels of one shape.

    Spectra of large random matrices hardly vary: for a 256 x 256 kernel the
    standard deviation over draws is below 1 for the rank and for the
    effective rank, and a few percent for the stable rank, which hangs on the
    largest value alone. Measure `initial_spectra` one by one for the spread.

    Args:
        shape: Tuple of ints, as in `initial_spectra`.
        initializer: As in `initial_spectra`.
        measures: Names, functions, or a list or dict of these, as in
            `rank_report`.
        samples: Int >= 1, how many kernels to average over.
        seed: Int, the seed of the first.

    Returns:
        Dict from the name of each measure to its mean, a float.

    Raises:
        ValueError: for an unknown measure, a shape of fewer than two axes, or
            no samples.

    Example:

    >>> baseline = initial_baseline((64, 32), measures=["rank"])
    >>> baseline
    {'rank': 32.0}

    Reference:
        [Galanti et al., CPAL 2025](https://arxiv.org/abs/2206.05794), whose
        networks start from `initializer="torch"`.
    """
    chosen = as_measures(measures)
    spectra = initial_spectra(shape, initializer, samples, seed)
    return {
        measure.name: float(np.mean([measure(s) for s in spectra]))
        for measure in chosen
    }


def _checked_shape(shape) -> tuple[int, ...]:
    try:
        sizes = tuple(operator.index(size) for size in shape)
    except TypeError:
        sizes = ()
    if len(sizes) < 2 or min(sizes) < 1:
        raise ValueError(
            "`shape` must be the shape of a kernel, with at least two "
            "positive sizes, such as (256, 128) or (3, 3, 64, 128). "
            f"Received: shape={shape!r}."
        )
    return sizes


def _initializer(identifier):
    # One that is made without a seed takes it from Python's `random`.
    state = random.getstate()
    try:
        if isinstance(identifier, str) and identifier == "torch":
            return keras.initializers.VarianceScaling(
                scale=1 / 3, mode="fan_in", distribution="uniform"
            )
        return keras.initializers.get(identifier)
    finally:
        random.setstate(state)


def _draw(make, shape, seed: int) -> np.ndarray:
    if isinstance(make, keras.initializers.Initializer):
        config = make.get_config()
        if "seed" in config:
            make = type(make).from_config(config | {"seed": seed})
    value = make(shape, dtype="float32")
    return linalg.host_array(value).reshape(-1, shape[-1])
