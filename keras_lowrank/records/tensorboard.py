"""TensorBoard event files, with or without TensorFlow installed."""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_lowrank.images import png
from keras_lowrank.records.layout import Layout
from keras_lowrank.records.layout import training_layout
from keras_lowrank.records.record import Measurement
from keras_lowrank.records.recording import Recording
from keras_lowrank.records.spectrum_image import DEPTH
from keras_lowrank.records.spectrum_image import DESCRIPTION
from keras_lowrank.records.spectrum_image import spectrum_image


class EventWriter:
    """Writes measurements as TensorBoard scalars, histograms and images.

    Scalars are `<measure>/<weight>` and `<measure>_mean`, `learning_rate`, and
    `loss` and the other logs of the epoch; histograms are
    `spectrum_log10/<weight>`, logarithms of singular values over the largest;
    images are `spectrum_over_time/<weight>`. Features have the same, as
    `features/<layer>`, and `features_<measure>_mean`. The step of TensorBoard
    is the epoch.

    Args:
        log_dir: Path of the directory for the event files.
        first_epoch: Int, the first that will be written. TensorBoard hides
            what earlier event files say of it and of later ones.

    Raises:
        ImportError: when tensorboardX is not installed.
    """

    def __init__(self, log_dir, first_epoch: int = 0):
        self._writer = tensorboardx().SummaryWriter(
            str(log_dir),
            purge_step=first_epoch or None,
            # A file is named by its second, and two in one would be one.
            filename_suffix=f".{time.time_ns()}",
        )

    def write(self, measurement: Measurement) -> None:
        """Append one measurement and flush it to the event file."""
        scalars = dict(measurement.logs)
        if measurement.learning_rate is not None:
            scalars["learning_rate"] = measurement.learning_rate
        for record in measurement.records:
            for measure, value in record.values.items():
                scalars[f"{measure}/{record.weight}"] = value
                scalars[f"{measure}_mean"] = measurement.mean(measure)
        for record in measurement.features:
            for measure, value in record.values.items():
                scalars[f"{measure}/{record.weight}"] = value
                scalars[f"features_{measure}_mean"] = measurement.feature_mean(
                    measure
                )
        histograms = [
            _spectrum(record.weight, np.asarray(record.spectrum.values))
            for record in measurement.all_records
            if record.spectrum.finite and not record.collapsed
        ]
        self._add(
            [*_scalars(scalars), *histograms],
            measurement.epoch,
            measurement.time or None,
        )

    def write_scalars(
        self,
        scalars: Mapping[str, float],
        epoch: int,
        wall_time: float | None = None,
    ) -> None:
        """Append numbers by their tags.

        Args:
            scalars: Dict from tags to numbers.
            epoch: Int, epochs complete.
            wall_time: Float, seconds since 1970; now by default.
        """
        self._add(_scalars(scalars), epoch, wall_time)

    def write_images(self, recording: Recording) -> None:
        """Append an image of the spectra so far, for each weight matrix.

        Args:
            recording: `Recording` with a measurement.
        """
        last = recording.measurements[-1]
        images = [
            _image(f"spectrum_over_time/{name}", recording.spectra(name))
            for name in recording.weights + recording.features
        ]
        self._add(images, last.epoch, last.time or None)

    def write_layout(self, layout: Layout) -> None:
        """Append what charts the tab of custom scalars opens on.

        TensorBoard shows the last that a directory holds.

        Args:
            layout: Dict as of `training_layout`.
        """
        if layout:
            self._writer.add_custom_scalars(layout)
            self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()

    def _add(self, values: list, epoch: int, wall_time: float | None) -> None:
        from tensorboardX.proto.summary_pb2 import Summary

        # In one event, and under names as they are: tensorboardX would put
        # `_` for the brackets in those of parts of a kernel.
        self._writer.file_writer.add_summary(
            Summary(value=values), epoch, wall_time
        )
        self._writer.flush()


def layout_of(recording: Recording) -> Layout:
    """The charts of a recording, empty where no logs are known yet.

    Args:
        recording: `Recording`.

    Returns:
        Dict as of `training_layout`.
    """
    logs = dict.fromkeys(
        key for item in recording.measurements for key in item.logs
    )
    if not logs:
        return {}
    if any(item.learning_rate is not None for item in recording.measurements):
        logs.setdefault("learning_rate")
    return training_layout(
        [measure.name for measure in recording.measures],
        logs,
        bool(recording.features),
    )


def tensorboardx():
    """The package tensorboardX, or an error that says what to install."""
    try:
        import tensorboardX
    except ImportError as error:
        raise ImportError(
            "Event files for TensorBoard need tensorboardX, which needs "
            "neither TensorFlow nor Torch. Install it with "
            '`pip install "keras-lowrank[tensorboard]"`, or leave out '
            "`tensorboard`."
        ) from error
    return tensorboardX


def _scalars(scalars: Mapping[str, float]) -> list:
    from tensorboardX.proto.summary_pb2 import Summary

    return [
        Summary.Value(tag=tag, simple_value=float(value))
        for tag, value in scalars.items()
    ]


# Eight buckets to a decade, down to where a spectrum is no longer resolved.
_EDGES = np.linspace(DEPTH, 0, 1 - 8 * DEPTH)
_BUCKETS = (
    "How many singular values there are at each log10(sigma_i / sigma_1): the "
    f"largest is at 0, and what is below {DEPTH} is counted there. Where the "
    "rank falls, they move to the left."
)


def _spectrum(weight: str, values: np.ndarray):
    """A histogram of logarithms of singular values over the largest.

    Of the logarithms, since TensorBoard draws evenly spaced buckets.
    """
    from tensorboardX.proto.tensor_pb2 import TensorProto

    decades = np.log10(np.maximum(values / values[0], 10.0**DEPTH))
    counts, _ = np.histogram(decades, _EDGES)
    # Empty ones as well, so that all runs have the same axis. Distributions
    # begin where the first does, which is therefore at the least value.
    buckets = np.stack([_EDGES[:-1], _EDGES[1:], counts], axis=1)
    buckets[0, 0] = decades[-1]
    tensor = TensorProto(
        dtype="DT_DOUBLE",
        tensor_shape=_shape(*buckets.shape),
        tensor_content=buckets.astype("<f8").tobytes(),
    )
    tag = f"spectrum_log10/{weight}"
    return _described(tag, "histograms", tensor, _BUCKETS)


def _image(tag: str, spectra: Mapping[int, Any]):
    from tensorboardX.proto.tensor_pb2 import TensorProto

    pixels = spectrum_image(spectra)
    height, width = pixels.shape
    tensor = TensorProto(
        dtype="DT_STRING",
        tensor_shape=_shape(3),
        string_val=[str(width).encode(), str(height).encode(), png(pixels)],
    )
    return _described(tag, "images", tensor, DESCRIPTION)


def _described(tag: str, plugin: str, tensor, description: str):
    """A value in the form that TensorBoard keeps the description of."""
    from tensorboardX.proto.summary_pb2 import Summary
    from tensorboardX.proto.summary_pb2 import SummaryMetadata

    metadata = SummaryMetadata(
        plugin_data=SummaryMetadata.PluginData(plugin_name=plugin),
        summary_description=description,
    )
    return Summary.Value(tag=tag, tensor=tensor, metadata=metadata)


def _shape(*sizes: int):
    from tensorboardX.proto.tensor_shape_pb2 import TensorShapeProto

    dims = [TensorShapeProto.Dim(size=size) for size in sizes]
    return TensorShapeProto(dim=dims)
