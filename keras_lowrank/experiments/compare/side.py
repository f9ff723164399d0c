"""The sides of a comparison: a backend, as it is or with a change."""

import dataclasses
import importlib
import importlib.util
import pathlib
import re
import sys
import zlib
from collections.abc import Sequence

from keras_lowrank.experiments.runs import Run
from keras_lowrank.experiments.runs import find_run
from keras_lowrank.experiments.spec import ExperimentSpec
from keras_lowrank.experiments.training import Change
from keras_lowrank_cli import BACKENDS


@dataclasses.dataclass(frozen=True)
class Side:
    """What is compared with others: a backend, and a change of the model.

    Args:
        backend: String, `"jax"`, `"torch"` or `"tensorflow"`.
        change: String `module:function`, or empty. The function is given the
            compiled model before training, in the process of this side alone.
            It changes the model in place or returns another.
    """

    backend: str
    change: str = ""

    @classmethod
    def of(cls, text: "str | Side") -> "Side":
        """A side from `"jax"` or `"jax+module:function"`.

        Raises:
            ValueError: for another backend, or a change of another form.
        """
        if isinstance(text, Side):
            return text
        backend, plus, change = text.strip().partition("+")
        if backend not in BACKENDS:
            raise ValueError(
                f"`backends` must be of {', '.join(BACKENDS)}, each alone or "
                f"as `jax+module:function`. Received: {text!r}."
            )
        if plus and not re.fullmatch(r"[\w.]+:[\w.]+", change):
            raise ValueError(
                "A change of a model is written `module:function`, as in "
                f"`{backend}+my_layers:install`. Received: {text!r}."
            )
        return cls(backend, change)

    @property
    def label(self) -> str:
        """What a report calls the side."""
        return f"{self.backend}+{self.change}" if self.change else self.backend

    @property
    def installed(self) -> bool:
        """Whether the backend is there."""
        return importlib.util.find_spec(self.backend) is not None

    def run(self, spec: ExperimentSpec, runs_dir) -> Run:
        """The run of this side; one that is changed has its own directory."""
        runs_dir = pathlib.Path(runs_dir)
        if self.change:
            name = re.sub(r"\W+", "-", self.change)
            name = f"{name}-{zlib.crc32(self.change.encode()):08x}"
            runs_dir = runs_dir / "changed" / name
        return find_run(spec, runs_dir, self.backend)

    def load_change(self) -> Change | None:
        """The function that changes the model, imported from where we are.

        Raises:
            ValueError: when there is no such module or function.
        """
        if not self.change:
            return None
        module, _, path = self.change.partition(":")
        sys.path.insert(0, "")  # as `python -m` looks in the directory we are
        try:
            found = importlib.import_module(module)
            for name in path.split("."):
                found = getattr(found, name)
        except (ImportError, AttributeError) as error:
            raise ValueError(
                f"The change '{self.change}' cannot be had: {error}. Its "
                "module must lie on the path of Python, or in this directory."
            ) from error
        finally:
            sys.path.remove("")
        return found  # type: ignore[return-value]


def as_sides(backends: Sequence[str | Side] | None) -> list[Side]:
    """What is to be compared; by default, every backend that is installed.

    Raises:
        ValueError: for less than two sides, or one that is there twice.
    """
    if backends is None:
        return [Side(name) for name in BACKENDS]
    if isinstance(backends, str):
        backends = backends.split(",")
    sides = [Side.of(item) for item in backends]
    if len(set(sides)) < max(2, len(sides)):
        raise ValueError(
            "A comparison needs two backends or more, each of them once; one "
            "with a change counts as another. Received: "
            f"backends={[side.label for side in sides]}."
        )
    return sides
