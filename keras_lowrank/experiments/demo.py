"""Twins, with and without weight decay: ranks fall before one's eyes."""

import dataclasses
import pathlib

import keras
import rich.console
import rich.live

from keras_lowrank.callbacks import RankTracker
from keras_lowrank.decay import WeightDecay
from keras_lowrank.experiments.data import Data
from keras_lowrank.experiments.data import digits
from keras_lowrank.experiments.models import mlp
from keras_lowrank.plots import draw_panels
from keras_lowrank.plots import measure_curves
from keras_lowrank.plots import spectrum_overlay
from keras_lowrank.records import Recording
from keras_lowrank.tables import Column
from keras_lowrank.tables import Table
from keras_lowrank.tables import number

HIDDEN = r"^hidden_"
MEASURES = ("rank", "stable_rank")


@dataclasses.dataclass(frozen=True)
class Demo:
    """Settings of the demo.

    Args:
        rate: Float, weight decay of the second twin, in Keras' convention:
            `lambda = rate / 2` in the objective of the paper.
        learning_rate: Float, up to 70 % of the updates; a fifth of it up to
            85 %, a twenty-fifth of it after.
        batch_size: Int.
        epochs: Int.
        depth: Int, hidden layers.
        width: Int, units in each.
        every: Int, epochs between measurements.
        seed: Int, of data order and weights, the same for both twins.
    """

    rate: float = 0.05
    learning_rate: float = 0.1
    batch_size: int = 64
    epochs: int = 150
    depth: int = 5
    width: int = 100
    every: int = 5
    seed: int = 0


@dataclasses.dataclass(frozen=True, eq=False)
class Twin:
    """One trained network of the pair."""

    label: str
    run_dir: pathlib.Path
    recording: Recording
    accuracy: float
    overhead: float


def run_demo(
    out_dir, settings: Demo | None = None, console=None
) -> tuple[Twin, Twin]:
    """Train both twins with a live table, and leave records and a figure.

    Args:
        out_dir: Path of a directory for the two run directories and
            `ranks.png`.
        settings: A `Demo`; the defaults if `None`.
        console: A `rich.console.Console` to print to.

    Returns:
        Tuple of the `Twin` without and the `Twin` with weight decay.
    """
    settings = settings or Demo()
    console = console or rich.console.Console()
    out_dir = pathlib.Path(out_dir)
    data = digits(settings.seed)
    console.print(
        f"MLP-BN-{settings.depth}-{settings.width} on {data.name} "
        f"({len(data.x_train)} images), SGD with learning rate "
        f"{settings.learning_rate:g} and batch size {settings.batch_size}, on "
        f"{keras.backend.backend()}; twice from one seed, without and with "
        f"weight decay {settings.rate:g} of the hidden and last kernels "
        f"(Keras' convention; lambda = {settings.rate / 2:g} in the paper's)."
    )
    live = LiveTable(console, ("without decay", "with decay"))
    with live:
        without = _train(
            "without decay",
            0.0,
            out_dir / "without-decay",
            data,
            settings,
            live,
        )
        with_decay = _train(
            "with decay",
            settings.rate,
            out_dir / "with-decay",
            data,
            settings,
            live,
        )
    twins = without, with_decay
    figure = comparison_figure(twins)
    figure.savefig(out_dir / "ranks.png", dpi=150)
    return twins


def _train(label, rate, run_dir, data: Data, settings: Demo, live) -> Twin:
    keras.utils.set_random_seed(settings.seed)
    model = mlp(
        data.x_train.shape[1:],
        data.classes,
        depth=settings.depth,
        width=settings.width,
        seed=settings.seed,
    )
    steps = -(-len(data.x_train) // settings.batch_size) * settings.epochs
    optimizer = keras.optimizers.SGD(
        keras.optimizers.schedules.PiecewiseConstantDecay(
            [round(0.7 * steps), round(0.85 * steps)],
            [settings.learning_rate * factor for factor in (1, 0.2, 0.04)],
        )
    )
    if rate:
        optimizer = WeightDecay(rate).wrap(optimizer)
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    tracker = RankTracker(
        measures=MEASURES,
        weights=HIDDEN,
        every=settings.every,
        run_dir=run_dir,
        tensorboard=True,
    )
    history = model.fit(
        data.x_train,
        data.y_train,
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        validation_data=(data.x_test, data.y_test),
        validation_batch_size=len(data.x_test),
        callbacks=[tracker, _Rows(live, label, settings.every)],
        verbose=0,
    )
    return Twin(
        label,
        run_dir,
        tracker.recording,
        history.history["val_accuracy"][-1],
        tracker.overhead,
    )


class LiveTable:
    """The table that fills while the twins train.

    On a terminal it is redrawn in place; elsewhere (a log) every row is one
    printed line.

    Args:
        console: A `rich.console.Console`.
        labels: Sequence of the labels of the runs, in order.
    """

    def __init__(self, console, labels):
        self.console = console
        self.labels = tuple(labels)
        self.rows: dict[int, dict] = {}
        self._live = rich.live.Live(
            console=console, auto_refresh=False, transient=False
        )

    def __enter__(self):
        if self.console.is_terminal:
            self._live.__enter__()
        return self

    def __exit__(self, *error):
        if self.console.is_terminal:
            self._live.__exit__(*error)

    def update(self, label: str, epoch: int, logs) -> None:
        """Show the state of one run after `epoch` complete epochs."""
        row = self.rows.setdefault(epoch, {"epoch": epoch})
        row.update({f"{label} {key}": value for key, value in logs.items()})
        if self.console.is_terminal:
            self._live.update(self.table().renderable(), refresh=True)
        else:
            self.console.print(
                f"{label:>14}: epoch {epoch:>3}, loss {logs['loss']:.4f}, "
                f"test accuracy {logs['val_accuracy']:.4f}, "
                f"mean rank {logs['rank_mean']:.1f}, "
                f"mean stable rank {logs['stable_rank_mean']:.2f}",
                soft_wrap=True,
            )

    def table(self) -> Table:
        """The rows so far, both runs side by side."""
        columns = [Column("epoch", "Epoch", str)]
        for label in self.labels:
            short = label.removesuffix(" decay")
            columns += [
                Column(f"{label} loss", f"{short}\nloss", "{:.3f}".format),
                Column(f"{label} val_accuracy", "\ntest", "{:.3f}".format),
                Column(f"{label} rank_mean", "\nrank", "{:.1f}".format),
                Column(
                    f"{label} stable_rank_mean", "stable\nrank", "{:.2f}".format
                ),
            ]
        rows = [self.rows[epoch] for epoch in sorted(self.rows)]
        return Table(
            "Means over the hidden layers, without and with decay",
            columns,
            rows,
        )


class _Rows(keras.callbacks.Callback):
    """Hands the logs of some epochs to a `LiveTable`."""

    def __init__(self, live: LiveTable, label: str, every: int):
        super().__init__()
        self.live = live
        self.label = label
        self.every = every

    def on_epoch_end(self, epoch, logs=None):
        complete = epoch + 1
        # Five lines of a table tell as much as fifty, and fit a screen.
        shown = max(self.every, self.params["epochs"] // 15)
        if complete % shown == 0 or complete == self.params["epochs"]:
            self.live.update(self.label, complete, logs or {})


def comparison_table(twins) -> Table:
    """Each hidden layer at the start and at the end of both runs."""
    start = twins[0].recording.measurements[0].records
    columns = [Column("weight", "Weight")]
    rows = [{"weight": record.weight} for record in start]
    rows.append({"weight": "mean"})
    for measure in MEASURES:
        title = measure.replace("_", "\n").capitalize()
        states = {"init": twins[0].recording.measurements[0]} | {
            twin.label: twin.recording.measurements[-1] for twin in twins
        }
        for state, measurement in states.items():
            key = f"{measure} {state}"
            heading = f"{title}\n{state.removesuffix(' decay')}"
            columns.append(Column(key, heading, number(3)))
            values = [item.values[measure] for item in measurement.records]
            values.append(measurement.mean(measure))
            for row, value in zip(rows, values, strict=True):
                row[key] = value
    notes = [
        f"{item.name} = {item.definition}"
        for item in twins[0].recording.measures
    ]
    return Table("Hidden layers", columns, rows, notes)


def comparison_figure(twins):
    """Ranks over epochs and the spectra at the end, as a Matplotlib figure."""
    runs = {twin.label: twin.recording for twin in twins}
    middle = twins[0].recording.weights[len(twins[0].recording.weights) // 2]
    return draw_panels(
        [
            measure_curves(runs, "rank"),
            measure_curves(runs, "stable_rank"),
            spectrum_overlay(runs, middle),
        ]
    )
