"""TensorBoard's HParams tab: what was tried and what it gave."""

import math
import numbers
import os
import pathlib
import tempfile
import time
from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_lowrank.records.tensorboard import tensorboardx

# One name, so that writing again replaces what was written before. It sorts
# after the times that other event files are named by: TensorBoard reads it
# last, and shows the last value of a metric.
FILE_NAME = "events.out.tfevents.hparams"
STATUSES = ("success", "failure")


def write_hparams(
    directory,
    values: Mapping[str, Any],
    metrics: Mapping[str, float],
    step: int = 0,
    status: str = "success",
    group: str = "",
) -> pathlib.Path:
    """Write one session of the HParams tab: hyperparameters and metrics.

    A session is a directory, for one trial with one seed; it may hold the
    event files of that `fit` as well. It is written when the session is over,
    whole or not at all. Writing it again replaces it, which a TensorBoard that
    runs already may show only after a restart.

    Args:
        directory: Path of the directory of the session, made if needed.
        values: Dict from the name of a hyperparameter to a finite number, a
            string or a Boolean.
        metrics: Dict from the tag of a scalar to its final number, which may
            be NaN.
        step: Int, the step of those scalars, such as the last epoch.
        status: String, how the session ended: `"success"` or `"failure"`.
        group: String, the name of a trial. Sessions of one group are one row,
            with the means of their metrics; each is its own by default.

    Returns:
        The path of the event file.

    Raises:
        ValueError: for an unknown status, or a hyperparameter that is no
            finite number, string or Boolean.
        ImportError: when tensorboardX is not installed.

    Example:

    >>> import tempfile
    >>> from keras_lowrank.records import write_hparams
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     path = write_hparams(
    ...         f"{directory}/trial_3/seed_0",
    ...         values={"batch_size": 32, "optimizer": "sgd"},
    ...         metrics={"rank_mean": 12.0, "val_accuracy": 0.97},
    ...         step=20,
    ...         group="trial_3",
    ...     )
    ...     path.name
    'events.out.tfevents.hparams'

    Reference:
        [TensorBoard's HParams plugin](https://www.tensorflow.org/tensorboard/hyperparameter_tuning_with_hparams)
    """
    tensorboardx()
    from tensorboardX.proto import api_pb2
    from tensorboardX.proto import plugin_hparams_pb2
    from tensorboardX.proto.summary_pb2 import Summary

    if status not in STATUSES:
        raise ValueError(
            f"`status` must be one of {STATUSES}. Received: status={status!r}."
        )
    now = time.time()
    start = plugin_hparams_pb2.SessionStartInfo(
        hparams={name: _value(name, value) for name, value in values.items()},
        group_name=group,
        start_time_secs=now,
    )
    end = plugin_hparams_pb2.SessionEndInfo(
        status=api_pb2.Status.Value(f"STATUS_{status.upper()}"),
        end_time_secs=now,
    )
    scalars = [
        Summary.Value(tag=tag, simple_value=float(value))
        for tag, value in metrics.items()
    ]
    first = _plugin_value("session_start_info", start)
    last = _plugin_value("session_end_info", end)
    return _replace_file(directory, [first, *scalars, last], step)


def write_experiment(
    directory, hparams: Mapping[str, Any], metrics: Iterable[str]
) -> pathlib.Path:
    """Write the columns of the HParams tab, before or after its sessions.

    The sessions lie in directories below. Without this, the tab shows the
    hyperparameters that it finds, and every scalar there is.

    Args:
        directory: Path of the directory above those of the sessions, made if
            needed. Writing again replaces the columns.
        hparams: Dict from the name of a hyperparameter to what it may be: a
            list of values of one type, or a tuple `(low, high)` of numbers.
        metrics: The tags of the scalars to show.

    Returns:
        The path of the event file.

    Raises:
        ValueError: if the values of a hyperparameter are none or not of one
            type, if `low` is above `high`, or if `metrics` is a string.
        ImportError: when tensorboardX is not installed.

    Example:

    >>> import tempfile
    >>> from keras_lowrank.records import write_experiment
    >>> hparams = {"optimizer": ["sgd", "adam"], "weight_decay": (1e-4, 1e-1)}
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     path = write_experiment(directory, hparams, ["rank_mean"])
    ...     path.stat().st_size > 0
    True
    """
    tensorboardx()
    from tensorboardX.proto import api_pb2

    if isinstance(metrics, str):
        raise ValueError(
            "`metrics` must be a list of the tags of scalars. "
            f"Received: the string {metrics!r}. Use [{metrics!r}]."
        )
    experiment = api_pb2.Experiment(
        hparam_infos=[_hparam_info(*item) for item in hparams.items()],
        metric_infos=[
            api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag))
            for tag in dict.fromkeys(metrics)
        ],
        time_created_secs=time.time(),
    )
    return _replace_file(directory, [_plugin_value("experiment", experiment)])


def _value(name: str, value):
    """A value as protobuf has it."""
    from google.protobuf.struct_pb2 import Value

    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool):  # which is a number, too
        return Value(bool_value=value)
    if isinstance(value, str):
        return Value(string_value=value)
    if isinstance(value, numbers.Real) and math.isfinite(value):
        return Value(number_value=float(value))
    raise ValueError(
        "A hyperparameter must be a finite number, a string or a Boolean. "
        f"Received: {name}={value!r}. TensorBoard would show nothing; leave it "
        "out, or give it as a string."
    )


def _hparam_info(name: str, domain):
    """What a hyperparameter may be, and the type of its column."""
    from tensorboardX.proto import api_pb2

    values = [_value(name, value) for value in domain]
    kinds = {value.WhichOneof("kind") for value in values}
    if isinstance(domain, tuple):
        numeric = len(domain) == 2 and kinds == {"number_value"}
        if not numeric or domain[0] > domain[1]:
            raise ValueError(
                "A tuple must be two numbers `(low, high)` with low <= high. "
                f"Received: {name}={domain!r}. Use a list for single values."
            )
        low, high = map(float, domain)
        interval = api_pb2.Interval(min_value=low, max_value=high)
        choice = {"domain_interval": interval}
    elif isinstance(domain, str) or len(kinds) != 1:
        raise ValueError(
            "The values of a hyperparameter must be a list of numbers, of "
            "strings or of Booleans, and not be mixed. "
            f"Received: {name}={domain!r}."
        )
    else:
        choice = {"domain_discrete": {"values": values}}
    types = {
        "number_value": api_pb2.DATA_TYPE_FLOAT64,
        "string_value": api_pb2.DATA_TYPE_STRING,
        "bool_value": api_pb2.DATA_TYPE_BOOL,
    }
    return api_pb2.HParamInfo(name=name, type=types[kinds.pop()], **choice)


def _plugin_value(kind: str, message):
    """A message of the plugin, in the metadata of a summary without a value."""
    from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData
    from tensorboardX.proto.summary_pb2 import Summary
    from tensorboardX.proto.summary_pb2 import SummaryMetadata

    plugin = SummaryMetadata.PluginData(
        plugin_name="hparams",
        content=HParamsPluginData(**{kind: message}).SerializeToString(),
    )
    return Summary.Value(
        tag=f"_hparams_/{kind}", metadata=SummaryMetadata(plugin_data=plugin)
    )


def _replace_file(directory, values: list, step: int = 0) -> pathlib.Path:
    """Write one event file with summaries, in place of the last one."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.summary_pb2 import Summary
    from tensorboardX.record_writer import RecordWriter

    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    now = time.time()
    events = [
        Event(wall_time=now, file_version="brain.Event:2"),
        Event(wall_time=now, step=step, summary=Summary(value=values)),
    ]
    # Written beside it under a name that TensorBoard does not read.
    with tempfile.TemporaryDirectory(prefix=".hparams-", dir=directory) as new:
        writer = RecordWriter(os.path.join(new, "events"))
        try:
            for event in events:
                writer.write(event.SerializeToString())
            writer.flush()
        finally:
            writer.close()
        return pathlib.Path(new, "events").replace(directory / FILE_NAME)
