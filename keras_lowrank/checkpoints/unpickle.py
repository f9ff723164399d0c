"""The pickle in a torch file, read by a reader that can call nothing.

A pickle is a program. This one may build containers and describe tensors; the
few functions of torch that it names are played by values of our own, which
cannot be changed, and any other name is refused before it is looked up.
"""

import collections
import io
import pickle
from collections.abc import Callable
from typing import Any
from typing import NamedTuple

from keras_lowrank.checkpoints.source import DTYPES
from keras_lowrank.checkpoints.source import checked_shape
from keras_lowrank.checkpoints.stored import CheckpointError
from keras_lowrank.checkpoints.stored import printable

STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "UntypedStorage": "uint8",
}


class Storage(NamedTuple):
    """A storage that a pickle refers to: a member of the archive."""

    key: str
    dtype: str
    entries: int


class TensorView(NamedTuple):
    """A tensor as a pickle describes it: a view of a storage."""

    storage: Storage
    dtype: str
    offset: int  # in entries
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class _Kind(NamedTuple):
    """What stands for a class or a dtype of torch."""

    name: str
    dtype: str


class _Function(NamedTuple):
    """What stands for a function of torch; a tuple, so nothing changes it."""

    name: str

    def __call__(self, *arguments):
        return _FUNCTIONS[self.name](*arguments)


def _tensor(storage, offset, size, stride, *_):
    return _view(storage, storage.dtype, offset, size, stride)


def _tensor_of_dtype(storage, offset, size, stride, _grad, _hooks, dtype, *__):
    return _view(storage, dtype.dtype, offset, size, stride)


def _view(storage, dtype, offset, size, stride):
    if not isinstance(storage, Storage) or type(offset) is not int:
        raise TypeError("a tensor without a storage")
    shape = checked_shape(size, "a tensor")
    steps = checked_shape(stride, "a tensor")
    if len(shape) != len(steps) or offset < 0:
        raise TypeError("a tensor whose strides do not fit its shape")
    return TensorView(storage, dtype, offset, shape, steps)


def _parameter(data, *_):
    if not isinstance(data, TensorView):
        raise TypeError("a parameter without a tensor")
    return data


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "_rebuild_tensor_v2": _tensor,
    "_rebuild_tensor_v3": _tensor_of_dtype,
    "_rebuild_parameter": _parameter,
    "_rebuild_parameter_with_state": _parameter,
    "Size": lambda sizes=(): tuple(sizes),
    "device": lambda *where: "device",
    "OrderedDict": lambda *items: collections.OrderedDict(*items),
    "set": lambda items=(): tuple(items),
}

_GLOBALS: dict[tuple[str, str], Any] = {
    ("torch._utils", name): _Function(name)
    for name in _FUNCTIONS
    if name.startswith("_")
}
_GLOBALS |= {
    ("collections", "OrderedDict"): _Function("OrderedDict"),
    ("torch", "Size"): _Function("Size"),
    ("torch", "device"): _Function("device"),
    ("builtins", "set"): _Function("set"),
    ("__builtin__", "set"): _Function("set"),
    ("torch.storage", "UntypedStorage"): _Kind("UntypedStorage", "uint8"),
}
_GLOBALS |= {
    ("torch", name): _Kind(name, dtype) for name, dtype in STORAGES.items()
}
_GLOBALS |= {("torch", name): _Kind(name, name) for name in DTYPES}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found = _GLOBALS.get((module, name))
        if found is None:
            raise CheckpointError(
                f"The torch file asks for `{printable(f'{module}.{name}')}`, "
                "which is no part of a tensor. It was refused, since to load "
                "it can execute anything. Save the weights alone, as with "
                "`torch.save(model.state_dict(), path)`."
            )
        return found

    def persistent_load(self, reference: Any) -> Storage:
        good = (
            isinstance(reference, tuple)
            and len(reference) == 5
            and reference[0] == "storage"
            and isinstance(reference[1], _Kind)
            and isinstance(reference[2], str)
            and type(reference[4]) is int
            and reference[4] >= 0
        )
        if not good:
            raise TypeError("a reference to no storage")
        return Storage(reference[2], reference[1].dtype, reference[4])


def read_pickle(text: bytes) -> Any:
    """The value in the pickle of a torch file, its tensors as descriptions.

    Args:
        text: Bytes of `data.pkl`.

    Returns:
        Containers, plain values and `TensorView`.

    Raises:
        CheckpointError: when it names anything but tensors, or is no pickle.
    """
    try:
        return _Reader(io.BytesIO(text)).load()
    except CheckpointError:
        raise
    except (
        pickle.UnpicklingError,
        ArithmeticError,
        AttributeError,
        EOFError,
        ImportError,
        LookupError,
        MemoryError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise CheckpointError(
            "The pickle of the torch file is damaged or hostile: "
            f"{printable(str(error))[:200] or type(error).__name__}. "
            "Save the file again."
        ) from error
