"""Training in a process of its own, that tells of every epoch."""

import collections
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

import keras

_DEVICES = "--xla_force_host_platform_device_count"

# Lines that are kept of what a process said before it failed.
_LINES = 20

# What is told of an epoch: id of the spec, epoch, epochs, logs.
Tell = Callable[[dict[str, Any]], None]


class ProcessError(RuntimeError):
    """Raised when a process ended otherwise than well.

    Args:
        what: String, what it was doing.
        status: Int, its exit status; negative, the signal that killed it.
        said: String, the end of its output.
    """

    def __init__(self, what: str, status: int, said: str):
        super().__init__(
            f"{what} failed with status {status}, and said: {said or 'nothing'}"
        )
        self.status = status
        self.said = said


class Processes:
    """Processes that train, each with its share of the cores.

    Args:
        workers: Int >= 1, how many there are at once.
    """

    def __init__(self, workers: int):
        threads = str(max(1, (os.cpu_count() or 1) // workers))
        flags = [
            flag
            for flag in os.environ.get("XLA_FLAGS", "").split()
            if not flag.startswith(_DEVICES)
        ]
        self._environment = os.environ | {
            "KERAS_BACKEND": keras.backend.backend(),
            # Runs of one program are spread over the devices of the CPU.
            "XLA_FLAGS": " ".join([*flags, f"{_DEVICES}={threads}"]),
            "OMP_NUM_THREADS": threads,
            "TF_NUM_INTRAOP_THREADS": threads,
            "TF_NUM_INTEROP_THREADS": "1",
        }
        self._running: list[subprocess.Popen] = []
        self._lock = threading.Lock()

    def train(
        self,
        path,
        out_dir,
        tell: Tell,
        checkpoint_seconds: float,
        what: str,
        keep_model: bool = False,
    ) -> None:
        """Train the experiments of a file, and wait for them.

        Args:
            path: Path of a file as `read_specs` takes it.
            out_dir: As for `run`.
            tell: `Tell`, called for every epoch, by one thread at a time. What
                it raises ends the process.
            checkpoint_seconds: As for `run`.
            what: String, what is trained, for errors.
            keep_model: As for `run`.

        Raises:
            ProcessError: when the process ends otherwise than well.
        """
        command = [
            *(sys.executable, "-m", "keras_lowrank_cli", "run"),
            *(str(path), "--out", str(out_dir), "--json"),
            *("--workers", "1"),
            *("--checkpoint-seconds", str(checkpoint_seconds)),
            *(["--keep-model"] if keep_model else []),
        ]

        def hear(line: str) -> bool:
            told = _told(line)
            if told is None:
                return False
            with self._lock:
                tell(told)
            return True

        status, said = listen(
            command, self._environment, hear, self._running.append
        )
        if status:
            raise ProcessError(what, status, "".join(said))

    def kill(self) -> None:
        """End all of them at once."""
        for process in self._running:
            process.kill()


def listen(
    command: list[str],
    environment: Mapping[str, str],
    hear: Callable[[str], bool],
    started: Callable[[subprocess.Popen], None] | None = None,
) -> tuple[int, list[str]]:
    """Run a process to its end, and hear each line that it says.

    Args:
        command: List of strings.
        environment: Dict of its environment variables.
        hear: Function of a line, whether it is taken; what is not is kept.
            Whatever it raises ends the process.
        started: Function told of the process, or `None`.

    Returns:
        Tuple of its exit status, negative for the signal that killed it, and
        of the last lines that were kept.
    """
    process = subprocess.Popen(
        command,
        env=dict(environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if started is not None:
        started(process)
    try:
        lines = (line for line in process.stdout or () if not hear(line))
        said = list(collections.deque(lines, maxlen=_LINES))
        return process.wait(), said
    finally:
        # What it has done is in its checkpoints.
        process.kill()
        process.wait()


def _told(line: str) -> dict[str, Any] | None:
    """What a line says of an epoch, `None` where it says something else."""
    try:
        told = json.loads(line)
    except ValueError:
        return None
    known = {"id", "epoch", "epochs", "logs"}
    return told if isinstance(told, dict) and known <= set(told) else None
