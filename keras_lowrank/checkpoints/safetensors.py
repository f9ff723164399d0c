"""`.safetensors`: a length, a header in JSON, and the bytes of tensors.

https://huggingface.co/docs/safetensors. Not by the library of that name, which
maps the whole file.
"""

import functools

from keras_lowrank.checkpoints.description import parse_json
from keras_lowrank.checkpoints.source import MAX_DESCRIPTION
from keras_lowrank.checkpoints.source import Source
from keras_lowrank.checkpoints.source import byte_count
from keras_lowrank.checkpoints.source import checked_shape
from keras_lowrank.checkpoints.source import read_array
from keras_lowrank.checkpoints.source import truncated
from keras_lowrank.checkpoints.stored import Checkpoint
from keras_lowrank.checkpoints.stored import CheckpointError
from keras_lowrank.checkpoints.stored import StoredTensor
from keras_lowrank.checkpoints.stored import closing_on_error
from keras_lowrank.checkpoints.stored import printable

NAMES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
    "C64": "complex64",
}


def open_safetensors(path) -> Checkpoint:
    """Open a `.safetensors` file.

    Args:
        path: String or path.

    Returns:
        A `Checkpoint`.

    Raises:
        CheckpointError: for a header that is not what the format says.
    """
    source = Source(path)
    with closing_on_error(source.close):
        length = int.from_bytes(source.at(0, 8), "little")
        if length > MAX_DESCRIPTION:
            raise CheckpointError(
                f"The header of a safetensors file has at most "
                f"{MAX_DESCRIPTION} bytes. Received: one of {length}. The "
                "file is damaged or no safetensors file."
            )
        if 8 + length > source.size:
            raise truncated(path, 8 + length, source.size)
        header = parse_json(source.at(8, length), "The safetensors header")
        header.pop("__metadata__", None)
        begin = 8 + length
        tensors, spans = [], []
        for name, entry in header.items():
            tensor, span = _tensor(source, begin, name, entry)
            tensors.append(tensor)
            spans.append((*span, name))
        _check_spans(path, sorted(spans), begin, source.size)
    return Checkpoint("safetensors", tensors, "torch", close=source.close)


def _tensor(source, begin, name, entry):
    if not isinstance(entry, dict) or entry.get("dtype") is None:
        raise _bad(name, "it has no dtype")
    shape = checked_shape(entry.get("shape"), name)
    dtype = NAMES.get(entry["dtype"]) if _is_text(entry["dtype"]) else None
    if dtype is None:
        known = ", ".join(NAMES)
        kind = printable(repr(entry["dtype"])[:40])
        raise _bad(name, f"its dtype is {kind}, not one of {known}")
    span = entry.get("data_offsets")
    if not (
        isinstance(span, list)
        and len(span) == 2
        and all(type(item) is int for item in span)
        and 0 <= span[0] <= span[1]
    ):
        raise _bad(name, "its `data_offsets` are not a beginning and an end")
    wanted = byte_count(shape, dtype)
    if span[1] - span[0] != wanted:
        raise _bad(
            name,
            f"shape {shape} of {dtype} takes {wanted} bytes and it has "
            f"{span[1] - span[0]}",
        )
    read = functools.partial(read_array, source, begin + span[0], shape, dtype)
    return StoredTensor(name, shape, dtype, read), span


def _is_text(value) -> bool:
    return isinstance(value, str)


def _check_spans(path, spans, begin, size):
    end = 0
    for first, last, name in spans:
        if begin + last > size:
            raise truncated(path, begin + last, size)
        if first < end:
            raise _bad(name, "it overlaps the tensor before it")
        end = max(end, last)


def _bad(name: str, why: str) -> CheckpointError:
    return CheckpointError(
        f"The tensor '{printable(name)[:200]}' of the safetensors file is not "
        f"as the format has it: {why}. The file is damaged: save it again."
    )
