"""Many specs: sweeps, files of them, and what tells them apart."""

import dataclasses
import itertools
import json
import pathlib
import tomllib
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from keras_lowrank.experiments.spec import ExperimentSpec


def sweep(
    spec: ExperimentSpec, axes: Mapping[str, Iterable] | None = None, **more
) -> list[ExperimentSpec]:
    """Every combination of some values of some fields.

    Args:
        spec: `ExperimentSpec` that has the other fields.
        axes: Dict from fields to their values; `"network.width"` reaches an
            option of the network.
        **more: Further fields and their values.

    Returns:
        List of `ExperimentSpec`, the last field varying fastest.

    Raises:
        TypeError: when values are not given as a list.
        ValueError: for an unknown field.

    Example:

    >>> spec = ExperimentSpec("mlp", "digits", epochs=3)
    >>> specs = sweep(spec, batch_size=[16, 32], weight_decay=[0.0, 1e-3])
    >>> [(item.batch_size, item.weight_decay) for item in specs]
    [(16, 0.0), (16, 0.001), (32, 0.0), (32, 0.001)]
    """
    chosen = dict(axes or {}) | more
    for name, values in chosen.items():
        if isinstance(values, (str, Mapping)) or not isinstance(
            values, Iterable
        ):
            raise TypeError(
                f"The values of `{name}` must be a list. "
                f"Received: {name}={values!r}. Use [{values!r}] for one value."
            )
    return [
        _with(spec, dict(zip(chosen, values, strict=True)))
        for values in itertools.product(*chosen.values())
    ]


def read_specs(path) -> list[ExperimentSpec]:
    """The experiments of a TOML or JSON file.

    Beside the fields of an `ExperimentSpec` the file may have a table `sweep`
    of fields and lists of values, of which every combination is taken.

    Args:
        path: Path of a file whose name ends in `.toml` or `.json`.

    Returns:
        List of `ExperimentSpec`.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it cannot be read, or holds no valid experiment.
    """
    values = read_values(path)
    axes = values.pop("sweep", {})
    return sweep(ExperimentSpec.from_dict(values), axes)


def read_values(path) -> dict[str, Any]:
    """The fields of an experiment, and tables beside them, of a file.

    Args:
        path: Path of a file whose name ends in `.toml` or `.json`.

    Returns:
        Dict.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it cannot be read.
    """
    path = pathlib.Path(path)
    if path.suffix not in (".toml", ".json"):
        raise ValueError(
            "An experiment is read from a `.toml` or a `.json` file. "
            f"Received: '{path}'."
        )
    if not path.is_file():
        raise FileNotFoundError(f"There is no file '{path}'.")
    read = tomllib.loads if path.suffix == ".toml" else json.loads
    try:
        values = read(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"'{path}' is not valid: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(
            f"'{path}' must hold the fields of an experiment. "
            f"Received: a {type(values).__name__}."
        )
    return values


def flat(spec: ExperimentSpec) -> dict[str, Any]:
    """The fields of a spec by one name each, options among them.

    Example:

    >>> flat(ExperimentSpec({"name": "mlp", "width": 32}, "digits", epochs=3))[
    ...     "network.width"
    ... ]
    32
    """
    fields = spec.to_dict()
    for name in ("network", "data", "optimizer"):
        for key, value in fields.pop(name).items():
            fields[name if key == "name" else f"{name}.{key}"] = value
    return fields


def labels(specs: Sequence[ExperimentSpec]) -> dict[ExperimentSpec, str]:
    """What tells each of some specs from the others, in few words."""
    fields = [field.name for field in dataclasses.fields(ExperimentSpec)]
    varying = [
        name
        for name in fields
        if len({getattr(spec, name) for spec in specs}) > 1
    ]
    return {
        spec: ", ".join(f"{name} {_value(spec, name)}" for name in varying)
        or spec.id
        for spec in specs
    }


def _value(spec: ExperimentSpec, name: str) -> str:
    value = getattr(spec, name)
    if isinstance(value, float):
        return f"{value:g}"
    options = getattr(value, "options", None)
    if options is None:
        return str(value)
    return " ".join([value.name, *(f"{key}={item}" for key, item in options)])


def _with(spec, changes) -> ExperimentSpec:
    fields: dict[str, Any] = {}
    for name, value in changes.items():
        field, dot, option = name.partition(".")
        if dot and field in ("network", "data", "optimizer"):
            choice = fields.get(field, getattr(spec, field))
            fields[field] = choice.replace(**{option: value})
        else:
            fields[name] = value
    return spec.replace(**fields)
