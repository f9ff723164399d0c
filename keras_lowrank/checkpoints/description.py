"""JSON from a file that nobody vouches for."""

import json
from typing import Any

from keras_lowrank.checkpoints.stored import CheckpointError
from keras_lowrank.checkpoints.stored import printable


def parse_json(text: bytes, what: str) -> dict[str, Any]:
    """A JSON object, parsed and never executed.

    Args:
        text: Bytes.
        what: String that says what it is, for messages.

    Returns:
        Dict.

    Raises:
        CheckpointError: for what is no JSON object in UTF-8, is nested too
            deep, or names something twice.
    """
    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=_once)
    except UnicodeDecodeError as error:
        raise _error(what, f"it is not UTF-8 ({error.reason})") from error
    except RecursionError as error:
        raise _error(what, "it is nested too deep") from error
    except ValueError as error:
        raise _error(what, printable(str(error))[:200]) from error
    if not isinstance(value, dict):
        raise _error(what, f"it is a {type(value).__name__}")
    return value


def _once(pairs):
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        double = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"'{double[:80]}' is there twice")
    return found


def _error(what: str, why: str) -> CheckpointError:
    return CheckpointError(
        f"{what} is no JSON object as expected: {why}. The file is damaged: "
        "copy it or save it again."
    )
