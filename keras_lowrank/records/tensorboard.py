"""TensorBoard event files, with or without TensorFlow installed."""

import time

import numpy as np

from keras_lowrank.records.record import Measurement


class EventWriter:
    """Writes measurements as TensorBoard scalars and histograms.

    Scalars are `<measure>/<weight>` and `<measure>_mean`, and `loss` and the
    other logs of the epoch; histograms are `spectrum/<weight>`, singular
    values over the largest in log-spaced buckets. Of features they are
    `<measure>/features/<layer>`, `features_<measure>_mean` and
    `spectrum/features/<layer>`. The step of TensorBoard is the epoch.

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
        writer, epoch = self._writer, measurement.epoch
        scalars = {key: value for key, value in measurement.logs.items()}
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
        for tag, value in scalars.items():
            writer.add_scalar(tag, value, epoch)
        for record in measurement.all_records:
            values = np.asarray(record.spectrum.values)
            if record.spectrum.finite and np.any(values):
                _add_spectrum(writer, record.weight, values, epoch)
        writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()


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


# Eight buckets to a decade, down to where a spectrum is no longer resolved.
_EDGES = np.logspace(-7, 0, 57)


def _add_spectrum(writer, weight: str, values: np.ndarray, epoch: int) -> None:
    relative = values / values[0]
    counts, _ = np.histogram(np.clip(relative, _EDGES[0], 1.0), _EDGES)
    writer.add_histogram_raw(
        tag=f"spectrum/{weight}",
        min=float(relative[-1]),
        max=1.0,
        num=len(relative),
        sum=float(np.sum(relative)),
        sum_squares=float(np.sum(relative**2)),
        bucket_limits=_EDGES[1:].tolist(),
        bucket_counts=counts.tolist(),
        global_step=epoch,
    )
