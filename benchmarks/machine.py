"""What a figure depends on: the machine, its threads, versions of libraries.

Every library is timed in a process of its own, in which all thread pools are
held to one thread before they start and the process to one core, so that both
sides of a ratio have the same.
"""

import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
LIBRARIES = (
    "keras",
    "numpy",
    "scipy",
    "jax",
    "torch",
    "tensorflow",
    "weightwatcher",
)

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "XLA_FLAGS": (
        "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    ),
}


def installed(library: str) -> str | None:
    """The version of a library, or `None`."""
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None


def processor() -> str:
    """What the system calls its processor."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    names = [line.split(":")[1] for line in lines if "model name" in line]
    return names[0].strip() if names else platform.machine()


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def description() -> list[str]:
    """Machine, versions and date, as the lines under a table."""
    versions = [
        f"{library} {version}"
        for library in LIBRARIES
        if (version := installed(library))
    ]
    return [
        f"{processor()}, {cores()} cores, {platform.system()}; "
        f"Python {platform.python_version()}, {', '.join(versions)}; "
        f"{datetime.date.today().isoformat()}."
    ]


def hold_to_one_core() -> None:
    """Keep this process, and threads that it starts later, on one core."""
    if hasattr(os, "sched_setaffinity"):
        # The last one: the first is where a system does its own work.
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def alone(module: str, *arguments, backend: str = "jax", one_thread=True):
    """What a module of ours prints, run in a process of its own.

    Args:
        module: String, a module of `benchmarks` that prints JSON last.
        *arguments: What its command line is given.
        backend: String, the backend of Keras.
        one_thread: Boolean, whether all thread pools are held to one thread;
            else they are as a user finds them.

    Returns:
        What the last line that it printed says.

    Raises:
        RuntimeError: when it fails, with what it said.
    """
    environment = os.environ | {
        "KERAS_BACKEND": backend,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "PYTHONPATH": os.pathsep.join(
            [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        ),
    }
    environment.pop("XLA_FLAGS", None)
    if one_thread:
        environment |= ONE_THREAD
    command = [sys.executable, "-m", f"benchmarks.{module}"]
    done = subprocess.run(
        [*command, *map(str, arguments)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(
            f"`python -m benchmarks.{module} {' '.join(map(str, arguments))}` "
            f"on {backend} failed:\n{done.stderr[-3000:]}"
        )
    return json.loads(done.stdout.splitlines()[-1])
