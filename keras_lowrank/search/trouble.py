"""Why a training ended badly, in words that help."""

import signal

from keras_lowrank.experiments.process import ProcessError

# What the backends say of a device or a host that is full.
_FULL = ("out of memory", "resource_exhausted", "oom when allocating")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on whatever backend.

    That belongs to a point of the space, as too large a batch, and not to the
    search.
    """
    kind = type(error).__name__
    if isinstance(error, ProcessError) and error.status == -signal.SIGKILL:
        return True  # nobody else does that, as a rule
    return (
        isinstance(error, MemoryError)
        or kind in ("OutOfMemoryError", "ResourceExhaustedError")
        or any(word in str(error).lower() for word in _FULL)
    )


def reason_of(error: BaseException) -> str:
    """One line that says what an error was."""
    if isinstance(error, ProcessError):
        return _reason_of_exit(error.status, error.said)
    said = " ".join(str(error).split())
    what = f"{type(error).__name__}: {said}" if said else type(error).__name__
    return f"out of memory: {what}" if is_out_of_memory(error) else what


def _reason_of_exit(status: int, said: str) -> str:
    """One line that says how a process ended.

    Args:
        status: Int, its exit status; negative, the signal that killed it.
        said: String, the end of its output.
    """
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    told = f" It said: {lines[-1]}" if lines else ""
    if status >= 0:
        return f"the process ended with status {status}.{told}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    hint = ""
    if name == "SIGKILL":
        hint = ", as a system does when memory runs out"
    return f"the process was killed by {name}{hint}.{told}"
