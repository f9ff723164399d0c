"""Weight matrices: names, shapes and values when asked for."""

import dataclasses
import math
import time
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_lowrank import linalg
from keras_lowrank.matricize import Matricization
from keras_lowrank.matricize import Skip
from keras_lowrank.matricize import factored_by
from keras_lowrank.spectrum import Spectrum
from keras_lowrank.weights.applied import Applied
from keras_lowrank.weights.applied import applied_product
from keras_lowrank.weights.applied import applied_tensor
from keras_lowrank.weights.assignment import reason_against_setting
from keras_lowrank.weights.assignment import set_part
from keras_lowrank.weights.assignment import set_product


@dataclasses.dataclass(frozen=True, eq=False)
class SkippedWeight:
    """A variable that is not measured, and why.

    Args:
        name: String, relative to the model.
        path: String, the `path` Keras gives the variable.
        shape: Tuple of ints.
        reason: String.
        variable: Keras variable.
        layer: Keras layer that owns it.
        unsupported: Boolean, whether it is a matrix we cannot read.
    """

    name: str
    path: str
    shape: tuple[int, ...]
    reason: str
    variable: Any = dataclasses.field(repr=False)
    layer: Any = dataclasses.field(repr=False)
    unsupported: bool = dataclasses.field(default=False, repr=False)


@dataclasses.dataclass(frozen=True, eq=False)
class WeightMatrix:
    """One matrix of a model: a whole variable, or a part such as a head.

    It holds the Keras variable and reads its value when asked, never before:
    on JAX a value is only valid while `model` has been touched.

    Args:
        name: String, relative to the model, the same in every process.
        variable: Keras variable.
        layer: Keras layer that owns the variable.
        matricization: `Matricization` that says which axes are rows.
        part: Int, the position of a head, gate, ...; `None` for the whole.

    Example:

    >>> import keras
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> matrix = weight_matrices(model)["dense/kernel"]
    >>> matrix.matrix_shape, matrix.role, matrix.spectrum().values.shape
    ((4, 3), 'kernel', (3,))
    """

    name: str
    variable: Any = dataclasses.field(repr=False)
    layer: Any = dataclasses.field(repr=False)
    matricization: Matricization = dataclasses.field(repr=False)
    part: int | None = dataclasses.field(default=None, repr=False)

    @property
    def path(self) -> str:
        """The path that Keras gives the variable in this process."""
        return self.variable.path

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the variable, or of the kernel that it is a factor of."""
        made = factored_by([self.layer], self.variable)
        return tuple(self.variable.shape if made is None else made[1].shape)

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """Shape `(m, n)` of the matrix, block-diagonal ones in full."""
        return self.matricization.matrix_shape(self._applied.shape, self.part)

    @property
    def blocks(self) -> int:
        """How many diagonal blocks the matrix has; 1 for a dense one."""
        if self.part is not None:
            return 1
        how = self.matricization
        sizes = how.split or self._applied.shape
        return math.prod(sizes[axis] for axis in how.blocks)

    @property
    def role(self) -> str:
        """What the layer calls the variable, such as `recurrent_kernel`."""
        return self.variable.name

    @property
    def note(self) -> str:
        """How the matrix differs from the variable, as `with LoRA`."""
        return self._applied.note

    @property
    def trainable(self) -> bool:
        """Whether training changes the matrix, by LoRA factors for one."""
        return any(source.trainable for source in self._applied.sources)

    @property
    def _applied(self) -> Applied:
        # Asked again each time: LoRA may be enabled after we were made.
        found = factored_by([self.layer], self.variable)
        if found is None:
            applied = applied_tensor(self.layer, self.variable)
        else:
            applied = applied_product(found[1])
        if isinstance(applied, Skip):
            raise ValueError(
                f"'{self.name}' is no longer a matrix of its model: "
                f"{applied.reason}. Call `weight_matrices` again."
            )
        return applied

    def to_numpy(self) -> np.ndarray:
        """The matrix as it is now, widened exactly to float32 or float64.

        Returns:
            NumPy array of shape `(m, n)`, or `(b, m, n)` for the blocks of a
            block-diagonal matrix.
        """
        return self.matricization.matrix(self._applied.read(), self.part)

    def assign(self, value) -> None:
        """Set the matrix, in the variable or the factors it is read of.

        Args:
            value: NumPy array of the shape of `to_numpy()`; of a low-rank
                layer a `linalg.Product` of the shapes of `to_product()`.

        Raises:
            ValueError: when the layer does not store the matrix, as with LoRA
                or quantized, or when the value does not fit.
        """
        reason = self.reason_against_assign()
        if reason:
            raise ValueError(f"'{self.name}' cannot be set: {reason}.")
        found = factored_by([self.layer], self.variable)
        if found is None:
            wanted = self.to_numpy().shape
            if np.shape(value) != wanted:
                raise ValueError(
                    f"'{self.name}' has the shape {wanted}. "
                    f"Received: a value of shape {np.shape(value)}."
                )
            set_part(self.variable, self.matricization, self.part, value)
            return
        product = self.to_product()
        assert product is not None
        fits = isinstance(value, linalg.Product) and (
            value.left.shape == product.left.shape
            and value.right.shape == product.right.shape
        )
        if not fits:
            raise ValueError(
                f"'{self.name}' is a product, of factors of the shapes "
                f"{product.left.shape} and {product.right.shape}. Received: "
                f"{value!r}. Give `assign` a `linalg.Product` of such."
            )
        set_product(found[1], value)

    def reason_against_assign(self) -> str:
        """Why `assign` would refuse, or an empty string."""
        found = factored_by([self.layer], self.variable)
        made = None if found is None else found[1]
        return reason_against_setting(
            self._applied, self.variable, made, self.part
        )

    def to_product(self) -> linalg.Product | None:
        """The factors of a matrix that is a product, `None` of another."""
        product = self._applied.product
        return None if product is None or self.part is not None else product()

    def spectrum(self, method: str = "auto") -> Spectrum:
        """Singular values of the matrix as it is now.

        Args:
            method: As for `keras_lowrank.linalg.spectrum`.

        Returns:
            A `Spectrum`.
        """
        return next(WeightMatrices([self]).spectra(method))


class WeightMatrices(Sequence):
    """The matrices of a model, in its order, and what was skipped.

    Args:
        matrices: List of `WeightMatrix`. They are also found by name:
            `matrices["dense/kernel"]`.
        skipped: List of `SkippedWeight`.
        unbuilt: List of names of layers without variables yet.
    """

    def __init__(self, matrices, skipped=(), unbuilt=()):
        self.matrices = list(matrices)
        self.skipped = list(skipped)
        self.unbuilt = list(unbuilt)
        self._route: linalg.CheaperRoute | None = None

    @property
    def names(self) -> list[str]:
        """Names of the matrices."""
        return [matrix.name for matrix in self.matrices]

    def __len__(self):
        return len(self.matrices)

    def __getitem__(self, key):
        if not isinstance(key, str):
            return self.matrices[key]
        for matrix in self.matrices:
            if matrix.name == key:
                return matrix
        reasons = {weight.name: weight.reason for weight in self.skipped}
        why = f" It was skipped: {reasons[key]}." if key in reasons else ""
        raise KeyError(f"No matrix is named {key!r}.{why} Names: {self.names}.")

    def spectra(
        self, method: str = "auto", workers: int = 1, device: str = "auto"
    ) -> Iterator:
        """Spectra of the matrices as they are now, in order.

        Args:
            method: As for `keras_lowrank.linalg.spectrum`; or `"certified"`,
                as `linalg.certified_spectra`, one by one and on the host.
            workers: Int >= 1, threads of the host to spread the matrices
                over.
            device: Who computes: `"host"`; `"device"`, the one that holds the
                weights; or `"auto"`, the cheaper of the two as measured in
                the first three calls, which on a CPU is the host. The values
                are the same to 1e-9 of the largest.

        Yields:
            One `Spectrum` per matrix.
        """
        linalg.check_route(device)
        if method == "certified":
            yield from linalg.certified_spectra(self._arrays())
            return
        if device != "auto":
            yield from self._spectra_by(device, method, workers)
            return
        if self._route is None:
            self._route = linalg.CheaperRoute(
                any(linalg.on_accelerator(one.variable) for one in self)
            )
        began = time.perf_counter()
        yield from self._spectra_by(self._route.choice, method, workers)
        self._route.took(time.perf_counter() - began)

    def snapshot(self) -> list[np.ndarray | linalg.Product]:
        """Copies on the host of all matrices as they are now, in order.

        They take the memory of the whole model; `linalg.spectra` takes them.
        """
        return list(self._arrays())

    def _spectra_by(self, device, method, workers):
        if device == "host":
            return linalg.spectra(self._arrays(), method, workers)
        return iter(linalg.device_spectra(self._arrays(device), method))

    def _arrays(self, device="host"):
        # The parts of one variable follow each other and share one copy.
        variable, value, xp = None, None, np
        for matrix in self.matrices:
            applied = matrix._applied
            if matrix.variable is not variable:
                variable, value = matrix.variable, None
            if applied.product is not None and matrix.part is None:
                yield applied.product()
                continue
            if value is None:
                xp, value = np, None
                if device == "device" and applied.stored:
                    xp, value = ops, linalg.device_tensor(variable)
                if value is None:
                    xp, value = np, applied.read()
            yield matrix.matricization.matrix(value, matrix.part, xp)

    def __repr__(self):
        lines = [
            f"  {matrix.name}: {matrix.matrix_shape[0]} x "
            f"{matrix.matrix_shape[1]}"
            for matrix in self.matrices
        ]
        head = (
            f"<WeightMatrices: {len(self.matrices)} matrices, "
            f"{len(self.skipped)} skipped>"
        )
        return "\n".join([head, *lines])
