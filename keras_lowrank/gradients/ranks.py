"""Spectra of the gradients of one's own batches, beside their bound."""

import dataclasses
from collections.abc import Iterator
from collections.abc import Mapping

import keras
import numpy as np

from keras_lowrank import linalg
from keras_lowrank.gradients.autodiff import batch_gradients
from keras_lowrank.gradients.uses import weight_uses
from keras_lowrank.measures import numerical_rank
from keras_lowrank.spectrum import Spectrum
from keras_lowrank.tables import Column
from keras_lowrank.tables import Table
from keras_lowrank.tables import shape_text
from keras_lowrank.weights import weight_matrices


@dataclasses.dataclass(frozen=True)
class GradientRank:
    """The gradient of one weight matrix, for one batch.

    Args:
        weight: String, the name of the weight matrix.
        spectrum: `Spectrum` of the gradient.
        batch_size: Int, samples in the batch.
        uses: Int, vectors of a sample that the matrix multiplies; `None`
            where it is not known.
        reason: String, why it is not known.
    """

    weight: str
    spectrum: Spectrum
    batch_size: int
    uses: int | None
    reason: str = ""

    @property
    def tolerance(self) -> float:
        """Values below this part of the largest count as rounding errors.

        The longer side times the spacing of float32 at 1, the usual rule.
        """
        return max(self.spectrum.shape) * float(np.finfo(np.float32).eps)

    @property
    def rank(self) -> int:
        """Rank of the gradient, up to rounding errors of float32."""
        return int(numerical_rank(self.spectrum, self.tolerance, "spectral"))

    @property
    def bound(self) -> int | None:
        """What Lemma 3.1 allows: `uses * batch_size`, at most `min(m, n)`."""
        if self.uses is None:
            return None
        return min(self.uses * self.batch_size, *self.spectrum.shape)


class GradientRanks(Mapping):
    """The gradients of all weight matrices for one batch, by name.

    Args:
        ranks: List of `GradientRank`.
    """

    def __init__(self, ranks: list[GradientRank]):
        self._ranks = {rank.weight: rank for rank in ranks}

    def __getitem__(self, weight: str) -> GradientRank:
        return self._ranks[weight]

    def __iter__(self) -> Iterator[str]:
        return iter(self._ranks)

    def __len__(self) -> int:
        return len(self._ranks)

    def table(self) -> Table:
        """Rank and bound of every gradient."""
        rows = []
        for rank in self.values():
            bound, full = rank.bound, min(rank.spectrum.shape)
            verdict = rank.reason
            if bound == full:
                verdict = "vacuous: any matrix has such a rank"
            rows.append(
                {
                    "weight": rank.weight,
                    "shape": rank.spectrum.shape,
                    "uses": rank.uses,
                    "rank": rank.rank,
                    "bound": bound,
                    "verdict": verdict or None,
                }
            )
        columns = [
            Column("weight", "Weight"),
            Column("shape", "Matrix", shape_text),
            Column("uses", "Uses\nper sample", str),
            Column("rank", "Rank of\ngradient", str),
            Column("bound", "Bound", str),
            Column("verdict", "The bound is", justify="left"),
        ]
        size = next(iter(self.values())).batch_size if self._ranks else 0
        notes = [
            "bound = min(uses * batch size, m, n), Lemma 3.1",
            "rank = values above max(m, n) * 1.2e-7 of the largest",
        ]
        return Table(f"Gradients of a batch of {size}", columns, rows, notes)

    def __repr__(self):
        return f"<GradientRanks of {len(self)} weight matrices>"


def gradient_spectra(
    model, x, y, loss=None, training: bool = True, weights=None, views=None
) -> GradientRanks:
    """Spectra of the gradients of a batch, beside the bound of Lemma 3.1.

    The gradient is that of the data alone, without regularisers and decay:
    the mean over the samples of the batch. The model is left as it was.

    Args:
        model: Built Keras model with one output.
        x: Inputs of a batch, as `model` takes them.
        y: Targets of the batch.
        loss: Function of targets and outputs, a `keras.losses.Loss` or a name
            of one; the loss of `compile` by default.
        training: Boolean, whether the model is called in training mode, as
            `fit` does, with dropout and the statistics of the batch.
        weights: Which weight matrices, as for `weight_matrices`.
        views: As for `weight_matrices`.

    Returns:
        `GradientRanks`: a dict from names of weight matrices to
        `GradientRank`, with a `table`. Frozen weights are left out.

    Raises:
        ValueError: when there is no loss.

    Example:

    >>> model = keras.Sequential([keras.Input((20,)), keras.layers.Dense(30)])
    >>> x, y = np.random.normal(size=(4, 20)), np.random.normal(size=(4, 30))
    >>> gradients = gradient_spectra(model, x, y, loss="mse")
    >>> gradients["dense/kernel"].rank, gradients["dense/kernel"].bound
    (4, 4)

    Reference:
        [Galanti et al., CPAL 2025](https://arxiv.org/abs/2206.05794), Lemma
        3.1
    """
    loss = getattr(model, "loss", None) if loss is None else loss
    if loss is None or isinstance(loss, (list, tuple, dict)):
        raise ValueError(
            "`gradient_spectra` needs one loss of one output. Received: "
            f"loss={loss!r}. Give `loss`, a function of targets and outputs."
        )
    matrices = weight_matrices(model, weights=weights, views=views)
    uses = weight_uses(model, x, weights=weights, views=views)
    gradients = batch_gradients(model, x, y, keras.losses.get(loss), training)
    by_variable = {
        id(variable): gradient
        for variable, gradient in zip(
            model.trainable_variables, gradients, strict=True
        )
    }
    size = len(keras.tree.flatten(x)[0])
    ranks = []
    for matrix in matrices:
        gradient = by_variable.get(id(matrix.variable))
        if gradient is None or matrix.note:
            continue
        array = matrix.matricization.matrix(gradient, matrix.part)
        known = uses[matrix.name]
        ranks.append(
            GradientRank(
                matrix.name,
                linalg.spectrum(array),
                size,
                known.count,
                known.reason,
            )
        )
    return GradientRanks(ranks)
