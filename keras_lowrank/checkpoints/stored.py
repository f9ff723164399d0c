"""What a file of weights is to those who measure it."""

import contextlib
import dataclasses
from collections.abc import Callable
from collections.abc import Sequence

import numpy as np

from keras_lowrank.linalg import Product
from keras_lowrank.matricize import Matricization
from keras_lowrank.matricize import Skip


class CheckpointError(ValueError):
    """A file of weights that cannot be read, and why.

    It is truncated, hostile, of another format than its name says, or of one
    that is not read here.
    """


@dataclasses.dataclass(frozen=True, eq=False)
class StoredTensor:
    """One tensor of a file, which is read when asked for and not before.

    Args:
        name: String, unique in the file.
        shape: Tuple of ints.
        dtype: String, as the file has it.
        read: Function without arguments that gives a NumPy array of `shape`,
            or the `linalg.Product` that makes one.
        how: `Matricization` or `Skip` where the file says what the tensor is
            to its layer, `None` where the layout of the file decides.
        layer: String, the class of the layer, or `None`.
        path: String, where in the file the tensor is; `name` by default.
        note: String that says how the matrix differs from what is stored.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], np.ndarray | Product] = dataclasses.field(repr=False)
    how: Matricization | Skip | None = None
    layer: str | None = None
    path: str = ""
    note: str = ""


@dataclasses.dataclass(eq=False)
class Checkpoint:
    """The tensors of an open file, and what is to be said of them.

    Args:
        format: String, such as `"safetensors"`.
        tensors: Sequence of `StoredTensor`.
        layout: String, `"keras"` where the last axis of a kernel is its
            output and `"torch"` where the first one is.
        notes: Sequence of strings.
        close: Function without arguments that closes the file.
    """

    format: str
    tensors: Sequence[StoredTensor]
    layout: str
    notes: Sequence[str] = ()
    close: Callable[[], None] = lambda: None

    def __post_init__(self):
        seen: set[str] = set()
        for tensor in self.tensors:
            if tensor.name in seen:
                raise CheckpointError(
                    f"The file names two tensors '{printable(tensor.name)}'. "
                    "Expected names that differ. Save the file again."
                )
            seen.add(tensor.name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()


def printable(text: str) -> str:
    r"""A name from a file, safe to print.

    Args:
        text: String.

    Returns:
        String in which control characters, which a terminal would obey, and
        marks that turn the direction of text are written as escapes.

    Example:

    >>> printable("kernel\x1b[2J")
    'kernel\\x1b[2J'
    """
    return "".join(
        letter
        if letter.isprintable()
        else letter.encode("unicode_escape", "surrogatepass").decode()
        for letter in text
    )


@contextlib.contextmanager
def damage_as_error(what: str):
    """Say of any error of a parser that the file is damaged.

    HDF5, zip and NumPy's formats are parsed by libraries that fail in many
    ways on bytes they did not write; the error of each is kept as the cause.

    Args:
        what: String, what is read.
    """
    try:
        yield
    except (CheckpointError, MemoryError):
        raise
    except OSError as error:
        if error.errno is not None:  # the system's: no file, no permission
            raise
        raise _damaged(what, error) from error
    except Exception as error:
        raise _damaged(what, error) from error


def _damaged(what: str, error: Exception) -> CheckpointError:
    text = printable(" ".join(str(error).split()))[:200]
    return CheckpointError(
        f"'{what}' cannot be read: {text or 'no reason given'} "
        f"({type(error).__name__}). The file is truncated or damaged: copy or "
        "save it again."
    )


@contextlib.contextmanager
def closing_on_error(close: Callable[[], None]):
    """Close what was opened when what follows fails."""
    try:
        yield
    except BaseException:
        close()
        raise
