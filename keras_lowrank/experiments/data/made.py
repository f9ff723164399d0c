"""Data sets that need no download: bundled, or made."""

import numpy as np

from keras_lowrank.experiments.data.data import Data


def digits(seed: int = 0, test_share: float = 0.2) -> Data:
    """The 1797 handwritten digits of 8 x 8 pixels that scikit-learn bundles.

    Args:
        seed: Int, of the order before the split.
        test_share: Float in (0, 1), the share held out.

    Returns:
        `Data` with `x` of shape `(n, 64)`, in [0, 1].

    Raises:
        ImportError: when scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            "The digits come with scikit-learn. Install it with "
            '`pip install "keras-lowrank[demo]"`.'
        ) from error
    images, labels = load_digits(return_X_y=True)
    images = (images / 16.0).astype(np.float32)
    order = np.random.default_rng(seed).permutation(len(images))
    images, labels = images[order], labels[order].astype(np.int32)
    held_out = round(test_share * len(images))
    return Data(
        "digits",
        images[held_out:],
        labels[held_out:],
        images[:held_out],
        labels[:held_out],
        scale="divided by 16",
    )


def teacher_student(
    seed: int = 0,
    inputs: int = 50,
    classes: int = 10,
    teacher_width: int = 50,
    teacher_rank: int | None = None,
    samples: int = 5000,
    test_samples: int = 1000,
) -> Data:
    """Gaussian inputs with the classes that a random network gives them.

    The teacher has one hidden layer of ReLUs with Gaussian weights, whose
    first matrix can be of low rank. The class is the largest of its outputs,
    each standardised over 10,000 inputs, so that no class is rare.

    Args:
        seed: Int >= 0, of teacher and inputs.
        inputs: Int >= 1, features.
        classes: Int >= 2.
        teacher_width: Int >= 1, hidden units of the teacher.
        teacher_rank: Int from 1 to `min(inputs, teacher_width)`, the rank of
            its first matrix; full by default.
        samples: Int >= 1, training samples.
        test_samples: Int >= 1.

    Returns:
        `Data` with `x` of shape `(n, inputs)`.

    Raises:
        ValueError: for a rank out of range.
    """
    full = min(inputs, teacher_width)
    rank = full if teacher_rank is None else teacher_rank
    if not 1 <= rank <= full:
        raise ValueError(
            f"`teacher_rank` must be from 1 to {full}. "
            f"Received: teacher_rank={teacher_rank}."
        )
    rng = np.random.default_rng(seed)
    first = rng.normal(size=(inputs, teacher_width))
    if rank < full:
        first = rng.normal(size=(inputs, rank)) @ rng.normal(
            size=(rank, teacher_width)
        )
    second = rng.normal(size=(teacher_width, classes))

    def outputs(x):
        return np.maximum(x @ first, 0) @ second

    # Of many inputs, so that labels do not depend on how many are made.
    typical = outputs(rng.normal(size=(10_000, inputs)))
    halves: list[np.ndarray] = []
    for stream, count in enumerate((samples, test_samples)):
        draw = np.random.default_rng((seed, stream))
        x = draw.normal(size=(count, inputs))
        scores = (outputs(x) - typical.mean(0)) / typical.std(0)
        halves += [x.astype(np.float32), scores.argmax(1).astype(np.int32)]
    x_train, y_train, x_test, y_test = halves
    return Data(
        "teacher_student",
        x_train,
        y_train,
        x_test,
        y_test,
        classes,
        "standard normal",
    )
