"""A recorded run as TensorBoard shows it, after the fact."""

import pathlib
from collections.abc import Iterable

from keras_lowrank.callbacks.theory_sinks import certified_scalars
from keras_lowrank.records import Certificates
from keras_lowrank.records import EventWriter
from keras_lowrank.records import Recording
from keras_lowrank.records import layout_of
from keras_lowrank.records import theorem_layout
from keras_lowrank.theory import epsilon_rank

EVENT_FILES = "*tfevents*"


def write_events(
    recording: Recording, log_dir, certificates: Certificates | None = None
) -> None:
    """Write a recording as event files for TensorBoard; needs no TensorFlow.

    What `RankTracker(tensorboard=)` writes while it trains, from what is kept:
    scalars, histograms of the spectra, an image of each over time, and the
    charts that the tab of custom scalars opens on.

    Args:
        recording: `Recording` with a measurement, as `open_run` reads it.
        log_dir: Path of the directory for the event files, made if needed.
        certificates: `Certificates` of the same run. Certified ranks are then
            beside `epsilon_rank/<weight>`, measured at the same tolerance.

    Raises:
        FileExistsError: when there are event files in `log_dir` already.
        ImportError: when tensorboardX is not installed.

    Example:

    ```python
    write_events(open_run("runs/first"), "tensorboard/first")
    ```
    """
    check_free(log_dir, pathlib.Path(log_dir).glob(EVENT_FILES))
    layout = layout_of(recording)
    writer = EventWriter(log_dir)
    try:
        for measurement in recording.measurements:
            writer.write(measurement)
        writer.write_images(recording)
        if certificates is not None:
            _write_certificates(writer, recording, certificates)
            layout |= theorem_layout(certificates.weights)
        writer.write_layout(layout)
    finally:
        writer.close()


def check_free(log_dir, event_files: Iterable[pathlib.Path]) -> None:
    """Raise `FileExistsError` where TensorBoard would mix runs."""
    if any(True for _ in event_files):
        raise FileExistsError(
            f"There are event files in '{log_dir}' already, and TensorBoard "
            "would mix them with new ones. Choose another directory, or move "
            "them away."
        )


def _write_certificates(
    writer: EventWriter, recording: Recording, certificates: Certificates
) -> None:
    """Certified ranks, and the measured ones that they bound."""
    times = {item.epoch: item.time or None for item in recording.measurements}
    for epoch in certificates.epochs:
        rows = (row for row in certificates.rows if row["epoch"] == epoch)
        scalars = certified_scalars(rows)
        if scalars:
            writer.write_scalars(scalars, epoch, times.get(epoch))
    for item in recording.measurements:
        measured = {
            f"epsilon_rank/{record.weight}": epsilon_rank(
                record.spectrum, certificates.tolerance
            )
            for record in item.records
        }
        writer.write_scalars(measured, item.epoch, times[item.epoch])
