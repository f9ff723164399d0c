"""`CompressionPlan`: which layer gets which rank, and what that should gain."""

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from keras_lowrank.compress.layer_plan import LayerPlan
from keras_lowrank.tables import Column
from keras_lowrank.tables import Table
from keras_lowrank.tables import number
from keras_lowrank.tables import shape_text

FORMAT = 1


class CompressionPlan(Table):
    """Which layer of a model gets which rank, and what that should gain.

    Made by `compression_plan`; print it, edit it, save it, and hand it to
    `compress`. A plan never changes: edits give another.

    Args:
        layers: Sequence of `LayerPlan`.
        model_name: String.
        total_parameters: Int, all parameters of the model.
        criterion: String, what ranks were chosen by.
        calibrated: Boolean, whether errors are those of the outputs for some
            data rather than those of the kernels.
        notes: Sequence of strings.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((64,)),
    ...     keras.layers.Dense(64, name="hidden"),
    ...     keras.layers.Dense(10, name="head"),
    ... ])
    >>> plan = compression_plan(model, energy=0.9, layers="hidden")
    >>> plan = plan.with_rank("hidden", 8)
    >>> plan["hidden"].rank, plan["head"].reason
    (8, 'not selected by `layers`')
    >>> plan.parameters, plan.parameters_after
    (4810, 1738)
    """

    def __init__(
        self,
        layers: Sequence[LayerPlan],
        model_name: str,
        total_parameters: int,
        criterion: str = "",
        calibrated: bool = False,
        notes: Sequence[str] = (),
    ):
        self.layers = tuple(layers)
        self.model_name = model_name
        self.parameters = total_parameters
        self.criterion = criterion
        self.calibrated = calibrated
        self.own_notes = tuple(notes)
        columns = [
            Column("name"),
            Column("layer", justify="left"),
            Column("matrix", format=shape_text),
            Column("rank_text", "rank"),
            Column("parameters_text", "weights"),
            Column("flops_text", "FLOPs"),
            Column("error", format=number(3)),
        ]
        if all(layer.flops is None for layer in self.layers):
            columns = [c for c in columns if c.key != "flops_text"]
        super().__init__(
            self._title(), columns, map(_row, self.layers), self._lines()
        )

    # What it says -----------------------------------------------------------

    @property
    def parameters_after(self) -> int:
        """Parameters of the model that `compress` makes."""
        return self.parameters + sum(
            layer.parameters_after - layer.parameters for layer in self.layers
        )

    @property
    def flops(self) -> float | None:
        """FLOPs of the listed layers for one sample, or `None`."""
        return _total(layer.flops for layer in self.layers)

    @property
    def flops_after(self) -> float | None:
        """The same after compression."""
        return _total(layer.flops_after for layer in self.layers)

    @property
    def compressed(self) -> tuple[LayerPlan, ...]:
        """The layers that get a rank."""
        return tuple(one for one in self.layers if one.rank is not None)

    def __getitem__(self, name: str) -> LayerPlan:
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(
            f"No layer of the plan is named {name!r}. Names: "
            f"{[layer.name for layer in self.layers]}."
        )

    def _title(self) -> str:
        gain = self.parameters / max(self.parameters_after, 1)
        return (
            f"Compression of '{self.model_name}': {len(self.compressed)} of "
            f"{len(self.layers)} layers, {self.parameters:,} -> "
            f"{self.parameters_after:,} parameters ({gain:.2f}x fewer)"
        )

    def _lines(self) -> list[str]:
        what = (
            "outputs for the calibration data" if self.calibrated else "kernel"
        )
        lines = [
            f"error: relative error of the {what}, "
            "sqrt(sum_{i>rank} sigma_i^2 / sum_i sigma_i^2)"
        ]
        if self.criterion:
            lines.insert(0, f"ranks: {self.criterion}")
        reasons: dict[str, list[str]] = {}
        for layer in self.layers:
            if layer.reason:
                reasons.setdefault(layer.reason, []).append(layer.name)
        lines += [
            f"as it is: {', '.join(names)}: {reason}"
            for reason, names in reasons.items()
        ]
        if self.flops is not None and self.flops_after is not None:
            lines.append(
                f"FLOPs of these layers for one sample: {_count(self.flops)} "
                f"-> {_count(self.flops_after)}"
            )
        return [*lines, *self.own_notes]

    # Editing ----------------------------------------------------------------

    def with_rank(self, name: str, rank: int) -> "CompressionPlan":
        """The plan with another rank for a layer.

        Args:
            name: String, the name of a layer.
            rank: Int from 1 to its `full_rank`. One that does not pay is
                refused: the layer stays as it is, with the reason.

        Returns:
            A `CompressionPlan`.
        """
        return self._with(self[name].with_rank(rank))

    def without(self, *names: str) -> "CompressionPlan":
        """The plan with some layers left as they are.

        Args:
            *names: Names of layers.

        Returns:
            A `CompressionPlan`.
        """
        return self._with(*(self[name].kept("left out") for name in names))

    def _with(self, *changed: LayerPlan) -> "CompressionPlan":
        new = {layer.name: layer for layer in changed}
        layers = [new.get(layer.name, layer) for layer in self.layers]
        criterion = self.criterion
        if criterion and not criterion.endswith(", edited"):
            criterion += ", edited"
        return CompressionPlan(
            layers,
            self.model_name,
            self.parameters,
            criterion,
            self.calibrated,
            self.own_notes,
        )

    # Files ------------------------------------------------------------------

    def get_config(self) -> dict[str, Any]:
        """The plan as plain values."""
        return {
            "format": FORMAT,
            "model": self.model_name,
            "total_parameters": self.parameters,
            "criterion": self.criterion,
            "calibrated": self.calibrated,
            "notes": list(self.own_notes),
            "layers": [dataclasses.asdict(layer) for layer in self.layers],
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "CompressionPlan":
        """The plan of `get_config`.

        Args:
            config: Dict; ranks in it may have been edited.

        Raises:
            ValueError: when it is none, or a rank is out of range.
        """
        if not isinstance(config, dict) or config.get("format") != FORMAT:
            found = config.get("format") if isinstance(config, dict) else config
            raise ValueError(
                f"A plan is a dict of format {FORMAT}, as "
                f"`CompressionPlan.get_config` gives it. Received: {found!r}."
            )
        return cls(
            [_layer_from_config(item) for item in config["layers"]],
            config["model"],
            config["total_parameters"],
            config["criterion"],
            config["calibrated"],
            config["notes"],
        )

    def save(self, path) -> None:
        """Write the plan as JSON, in which ranks may be edited by hand.

        Args:
            path: Path of a file.
        """
        pathlib.Path(path).write_text(json.dumps(self.get_config(), indent=2))

    @classmethod
    def load(cls, path) -> "CompressionPlan":
        """Read a plan that `save` wrote.

        Args:
            path: Path of a file.
        """
        text = pathlib.Path(path).read_text()
        try:
            config = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"`{path}` holds no plan: {error}. Write one with `plan.save`."
            ) from error
        return cls.from_config(config)


def _layer_from_config(item: dict[str, Any]) -> LayerPlan:
    fields: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in item.items()
    }
    layer = LayerPlan(**fields | {"rank": None})
    if fields["rank"] is None:
        return layer
    return layer.with_rank(fields["rank"])


def _row(layer: LayerPlan) -> dict[str, Any]:
    texts = {
        "parameters_text": _change(layer.parameters, layer.parameters_after),
        "flops_text": _change(layer.flops, layer.flops_after),
    }
    if layer.values:
        texts["rank_text"] = f"{layer.rank or 'all'} of {layer.full_rank}"
    return layer.to_row() | texts


def _change(before: float | None, after: float | None) -> str | None:
    if before is None or after is None:
        return None
    if before == after:
        return _count(before)
    return f"{_count(before)} -> {_count(after)}"


def _total(values) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _count(value: float) -> str:
    """A count with a unit: `1.2 M`."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e4, " k")):
        if value >= size:
            shown = value / (1e3 if unit == " k" else size)
            return f"{shown:.3g}{unit}"
    return f"{value:.0f}"
