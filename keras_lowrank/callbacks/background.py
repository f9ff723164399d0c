"""A thread beside the training, for one computation at a time."""

import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import ThreadPoolExecutor
from typing import Any


class Background:
    """Computes in a thread of its own, which begins when it is first asked.

    Attributes:
        seconds: Float, what the computations took so far.
    """

    def __init__(self):
        self.seconds = 0.0
        self._thread: ThreadPoolExecutor | None = None

    def start(self, function: Callable[[], Any]) -> Future:
        """Begin to compute.

        Args:
            function: Function without arguments.

        Returns:
            A future of what it returns, and of the seconds it took.
        """
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "keras_lowrank")
        return self._thread.submit(self._timed, function)

    def close(self) -> None:
        """Wait for what is being computed, and end the thread."""
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None

    def _timed(self, function):
        began = time.perf_counter()
        result = function()
        seconds = time.perf_counter() - began
        self.seconds += seconds
        return result, seconds

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_thread": None}
