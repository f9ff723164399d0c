"""A layer that changes nothing and measures the rank of what passes it."""

import math
from typing import Any

import keras
from keras import ops

from keras_lowrank.layers.asked_by import inside_prediction
from keras_lowrank.layers.asked_by import inside_step
from keras_lowrank.layers.moments import Moments
from keras_lowrank.measures import Measure
from keras_lowrank.measures import as_measures
from keras_lowrank.measures import measure_config
from keras_lowrank.measures import measure_from_config
from keras_lowrank.spectrum import Spectrum

DEFAULT_MEASURES = ("effective_rank", "stable_rank", "energy_rank")


@keras.saving.register_keras_serializable(package="keras_lowrank")
class FeatureRank(keras.layers.Layer):
    """Identity that measures the rank of the features passing through it.

    Every vector along `axis` is one sample, so that a feature map of shape
    `(batch, height, width, channels)` has `batch * height * width` of them.
    The singular values are those of the matrix `(samples, d)` of all features
    since the last reset, which is not kept: one pass sums the outer products
    in float64, and the state is `d * d` numbers however many samples pass.

    Its measures are metrics: `fit` puts them into `logs` and `History` as
    `<layer name>_<measure>`, with `val_` in front those of the validation
    data; `evaluate` returns them. Keras resets them at the start of every
    epoch and evaluation. They are computed on the host when an epoch or an
    evaluation ends. **Within it they are NaN**, in the progress bar and in
    what `train_on_batch` and `test_on_batch` return: eigenvalues at every step
    would cost more than the step. Ask `result()` whenever you like instead.

    All calls count, in training, in evaluation and by hand, from wherever a
    shared layer is called; those of `predict` and of `export` do not. Samples
    that a mask excludes are left out; sample weights are not seen. Inputs and
    gradients pass unchanged. The layer has no weights: models can be saved and
    loaded with it or without, and a loaded one begins with no samples.

    Each step adds one product of float64 matrices, `d * d` by batch, and each
    result the eigenvalues of a `d * d` matrix: milliseconds for `d` of 256,
    seconds from 2048 on, a minute at 8192. Project wider features first.

    Args:
        measures: What to report: anything that `as_measures` takes. Functions
            of your own have to be registered for the model to be saved.
        centered: Boolean, whether the mean is taken off, so that the singular
            values are those of the covariance. RankMe does not center.
        axis: Int, the axis of a feature vector; the others hold samples. The
            last by default; 1 for feature maps with the channels first.
        **kwargs: Keyword arguments of `keras.layers.Layer`. Give a `name`,
            since automatic ones are numbered through the life of a process.

    Call arguments:
        inputs: Tensor of at least two dimensions, of any real dtype.
        mask: Boolean tensor, which samples count, of the shape of `inputs`
            without `axis`, or of the first of those axes.

    Raises:
        ValueError: when the length of `axis` is not known, or the mask does
            not fit.

    Example:

    >>> layer = FeatureRank(measures="effective_rank", name="features")
    >>> features = layer(np.diag([1.0, 1.0, 0.0]))
    >>> round(layer.result()["features_effective_rank"], 6)
    2.0
    >>> layer.spectrum().values
    array([1., 1., 0.])

    Reference:
        - [Garrido et al., ICML 2023](https://arxiv.org/abs/2210.02885)
          (RankMe, the effective rank of features)
        - [Roy & Vetterli, 2007](https://ieeexplore.ieee.org/document/7098875)
    """

    def __init__(
        self, measures=DEFAULT_MEASURES, centered=False, axis=-1, **kwargs
    ):
        # Inputs must come out in the dtype they came in.
        super().__init__(**{"autocast": False} | kwargs)
        self.measures = as_measures(measures)
        self.centered = bool(centered)
        self.axis = axis
        self.supports_masking = True
        self.moments: Any = None
        # One for each, or a `train_step` that returns what each metric says
        # under its name would give other keys than Keras expects of it.
        self._measuring = [
            _FeatureMetric(self, measure) for measure in self.measures
        ]

    def build(self, input_shape):
        rank = len(input_shape)
        if rank < 2 or not -rank <= self.axis < rank or self.axis in (0, -rank):
            raise ValueError(
                "FeatureRank needs inputs with samples on the first axis and "
                f"features on axis {self.axis}. Received: "
                f"input_shape={tuple(input_shape)} for layer '{self.name}'. "
                "Choose another `axis`."
            )
        size = input_shape[self.axis]
        if size is None:
            raise ValueError(
                "FeatureRank needs the length of a feature vector. Received: "
                f"input_shape={tuple(input_shape)} for layer '{self.name}', "
                f"where axis {self.axis} is unknown. Say it in `keras.Input`, "
                "or choose another `axis`."
            )
        self.input_spec = keras.layers.InputSpec(axes={self.axis: size})
        with keras.name_scope(self.name, caller=self):
            self.moments = Moments(size)

    def call(self, inputs, mask=None):
        if not inside_prediction():
            features = ops.moveaxis(ops.stop_gradient(inputs), self.axis, -1)
            valid = None if mask is None else self._valid(mask, features)
            rows = ops.reshape(features, (-1, self.moments.size))
            self.moments.add(rows, valid)
        return inputs

    def _valid(self, mask, features):
        """A mask with an entry for each sample."""
        samples = features.shape[:-1]
        mask = ops.cast(mask, "bool")
        fits = len(mask.shape) <= len(samples) and all(
            one in (other, None, 1) or other is None
            for one, other in zip(mask.shape, samples, strict=False)
        )
        if not fits:
            raise ValueError(
                "`mask` must have the shape of the inputs without the axis of "
                "the features, or of its first axes. Received: mask of shape "
                f"{tuple(mask.shape)} for samples of shape {tuple(samples)} in "
                f"layer '{self.name}'."
            )
        for _ in range(len(samples) - len(mask.shape)):
            mask = ops.expand_dims(mask, -1)
        whole = ops.broadcast_to(mask, ops.shape(features)[:-1])
        return ops.reshape(whole, (-1,))

    def compute_output_shape(self, input_shape):
        return input_shape

    def compute_output_spec(self, inputs, mask=None):
        return keras.KerasTensor(inputs.shape, dtype=inputs.dtype)

    @property
    def variables(self):
        # State that belongs to a step but to no file, as that of a
        # `SeedGenerator`: it has to be here for JAX to hand it on.
        sums = [] if self.moments is None else self.moments.variables
        return [*super().variables, *sums]

    # Reading ----------------------------------------------------------------

    def spectrum(self) -> Spectrum | None:
        """Singular values of the features since the last reset.

        Computed on the host, in float64. Values below 1e-7 of the largest
        (when centered, of the mean, if that is larger) are zero.

        Returns:
            A `Spectrum` of a matrix of shape `(samples, d)`; all NaN, with the
            reason, if a feature was not finite; `None` before the first.
        """
        if self.moments is None or not self.moments.samples:
            return None
        return self.moments.spectrum(self.centered)

    def result(self) -> dict[str, float]:
        """The measures of the features since the last reset.

        Returns:
            Dict from `<layer name>_<measure>` to a float: NaN before the
            first sample, if a feature was not finite, and inside a step.
        """
        return {
            self._key(measure): self._value(measure)
            for measure in self.measures
        }

    def _key(self, measure: Measure) -> str:
        return f"{self.name}_{measure.name}"

    def _value(self, measure: Measure) -> float:
        spectrum = None if inside_step() else self.spectrum()
        if spectrum is None or not spectrum.finite:
            return math.nan
        return measure(spectrum)

    def reset_state(self) -> None:
        """Forget all samples, as Keras does when an epoch begins."""
        if self.moments is not None:
            self.moments.reset()

    # Saving -----------------------------------------------------------------

    def get_config(self):
        return super().get_config() | {
            "measures": [measure_config(measure) for measure in self.measures],
            "centered": self.centered,
            "axis": self.axis,
        }

    @classmethod
    def from_config(cls, config):
        measures = [measure_from_config(item) for item in config["measures"]]
        return cls(**config | {"measures": measures})


class _FeatureMetric(keras.metrics.Metric):
    """What Keras asks and resets in place of the layer. It has no state."""

    def __init__(self, layer: FeatureRank, measure: Measure):
        super().__init__(name=layer._key(measure))
        self._measure = measure
        # Not the layer itself, which would become part of the metric.
        self._value, self._reset = layer._value, layer.reset_state

    def result(self):
        return ops.convert_to_tensor(self._value(self._measure), "float32")

    def reset_state(self):
        self._reset()
