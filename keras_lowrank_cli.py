"""The command `keras-lowrank`: chooses a backend, then runs.

Outside the package, since importing that imports Keras, which reads its
backend when it is imported and cannot change it after.
"""

import importlib.util
import json
import os
import pathlib
import signal
import sys

BACKENDS = ("jax", "torch", "tensorflow")
# Commands in which Keras imports TensorFlow, where it is installed, whatever
# the backend: to seed it, and to read a saved model.
WITH_TENSORFLOW = ("demo", "compress")


def main() -> int:
    """Run the command line of `sys.argv`, and give its exit status."""
    alone = "keras_lowrank" not in sys.modules
    if alone:
        without_keras()
    # Help and slips of the pen end here, before Keras is imported for seconds.
    from keras_lowrank import cli

    options = cli.parse()
    command = options.command
    if command == "inspect" and not (options.load or options.backend):
        status = _status_of_child()
        return cli.execute(options) if status is None else status
    try:
        backend = choose_backend(options.backend)
    except ValueError as error:
        print(f"keras-lowrank: {error}", file=sys.stderr)
        return 1
    if command == "demo":
        # Its network is too small to gain from threads, which on a busy
        # machine wait for each other: torch took minutes instead of one.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    if command in ("run", "reproduce", "search"):
        # Many small networks in one program on JAX, spread over its devices.
        flags = os.environ.get("XLA_FLAGS", "")
        if "host_platform_device_count" not in flags:
            count = os.cpu_count() or 1
            os.environ["XLA_FLAGS"] = (
                f"{flags} --xla_force_host_platform_device_count={count}"
            ).strip()
    # TensorFlow greets every process with messages about missing GPUs.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if backend == "tensorflow" or command in WITH_TENSORFLOW:
        import_tensorflow_quietly()
    if alone:
        with_keras()
    return cli.execute(options)


def _status_of_child() -> int | None:
    """Go on in a child process, and give its exit status to the parent.

    HDF5 is read by a library in C that some damaged files crash. No library
    is loaded and no thread runs yet, so that a fork is cheap and safe.

    Returns:
        Exit status, 2 where the child was killed; in the child, and where
        there is no fork, `None`.
    """
    if not hasattr(os, "fork"):
        return None
    child = os.fork()
    if not child:
        return None
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status >= 0:
        return status
    print(
        f"keras-lowrank: reading the file was ended by signal {-status} "
        f"({signal.strsignal(-status)}). It is damaged or hostile, or needs "
        "more memory than there is: copy or save it again, or use fewer jobs.",
        file=sys.stderr,
    )
    return 2


def without_keras() -> None:
    """Let rooms of the package be imported that need no Keras.

    The package itself is entered without being run, since it imports all of
    its rooms, and Keras with them. For a process that only inspects a file.
    """
    spec = importlib.util.find_spec("keras_lowrank")
    if spec is None:
        raise ImportError("`keras_lowrank` is not installed beside its command")
    package = importlib.util.module_from_spec(spec)
    sys.modules["keras_lowrank"] = package


def with_keras() -> None:
    """Run the package that was entered `without_keras`."""
    importlib.reload(sys.modules["keras_lowrank"])


def import_tensorflow_quietly() -> None:
    """Import TensorFlow, where it is installed, before Keras does.

    Part of its greeting goes to the standard error of the process whatever the
    log level, and would stand between the lines of a table.
    """
    if importlib.util.find_spec("tensorflow") is None:
        return
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        importlib.import_module("tensorflow")
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def choose_backend(name: str | None) -> str:
    """Set `KERAS_BACKEND` to `name`, or to one that is installed.

    Args:
        name: String, or `None` for what Keras would choose, where that is
            installed, and the first that is installed otherwise.

    Returns:
        String, the backend that Keras will run on.

    Raises:
        ValueError: when `name` is not installed, or no backend is.
    """
    installed = [item for item in BACKENDS if importlib.util.find_spec(item)]
    if not installed:
        raise ValueError(
            "No backend of Keras is installed. Install one with "
            '`pip install "keras-lowrank[jax]"` (or torch, or tensorflow).'
        )
    if name is None:
        configured = os.environ.get("KERAS_BACKEND") or _configured()
        if configured not in BACKENDS or configured in installed:
            return configured
        name = installed[0]
    if name not in installed:
        raise ValueError(
            f"The backend {name} is not installed. Install it with "
            f'`pip install "keras-lowrank[{name}]"`, or choose one of: '
            f"{', '.join(installed)}."
        )
    os.environ["KERAS_BACKEND"] = name
    return name


def _configured() -> str:
    """The backend of Keras' configuration file, or Keras' own default."""
    home = os.environ.get("KERAS_HOME", pathlib.Path.home() / ".keras")
    try:
        config = json.loads((pathlib.Path(home) / "keras.json").read_text())
        return config["backend"]
    except (OSError, ValueError, KeyError):
        return "tensorflow"


if __name__ == "__main__":
    sys.exit(main())
