"""The order of the data: the same batches on every backend."""

import keras
import numpy as np


def epoch_order(samples: int, seed: int, epoch: int) -> np.ndarray:
    """The order in which an epoch visits the samples.

    A function of its arguments alone, so a run that goes on at any epoch
    sees what it would have seen.

    Args:
        samples: Int, how many there are.
        seed: Int >= 0.
        epoch: Int, complete epochs before.

    Returns:
        Int64 array of shape `(samples,)`, a permutation.

    Example:

    >>> epoch_order(5, seed=0, epoch=3)
    array([3, 0, 2, 1, 4])
    """
    return np.random.default_rng((seed, epoch)).permutation(samples)


class Batches(keras.utils.PyDataset):
    """Data for `fit`: the same batches, in the same order, on every backend.

    The order of an epoch is `epoch_order`, also after a restart:

    ```python
    Batches(x, y, batch_size=32, seed=0).fit(model, epochs=10)
    ```

    Given to `model.fit` itself, Keras would shuffle the batches again and
    every epoch would have one order: a data set is not told the epoch, and
    Keras opens it once or twice before the first, by the backend.

    Args:
        x: Array of shape `(n, ...)`.
        y: Array of shape `(n, ...)`.
        batch_size: Int >= 1. The last batch of an epoch is the rest.
        seed: Int >= 0.
    """

    def __init__(self, x, y, batch_size: int, seed: int = 0):
        super().__init__()
        self.x = x
        self.y = y
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0
        self._order = epoch_order(len(x), seed, 0)

    def __len__(self):
        return -(-len(self.x) // self.batch_size)

    def __getitem__(self, index):
        start = index * self.batch_size
        chosen = self._order[start : start + self.batch_size]
        return self.x[chosen], self.y[chosen]

    def on_epoch_begin(self):
        """Take the order of the epoch that was told."""
        self._order = epoch_order(len(self.x), self.seed, self.epoch)

    def fit(self, model: keras.Model, callbacks=(), **options):
        """Call `model.fit` on these batches.

        Args:
            model: Compiled Keras model.
            callbacks: List of callbacks.
            **options: What else `fit` takes, as `epochs`, `initial_epoch`.

        Returns:
            The `History` of `fit`.
        """
        options |= {"callbacks": [_Follow(self), *callbacks], "shuffle": False}
        return model.fit(self, **options)


class _Follow(keras.callbacks.Callback):
    def __init__(self, batches: Batches):
        super().__init__()
        self.batches = batches

    def on_epoch_begin(self, epoch, logs=None):
        self.batches.epoch = epoch
