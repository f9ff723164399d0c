"""Run the tests on every installed backend: `python -m tests [pytest args]`.

The backend is fixed when Keras is imported, so each has a process of its own.
Tests marked `once` do not depend on it and run with the first only. Each core
runs a share of the tests, on one thread; `-n 0` runs them one after another.
"""

import importlib.util
import os
import subprocess
import sys
import tempfile
import time

from keras_lowrank_cli import BACKENDS


def main(arguments: list[str]) -> int:
    installed = [name for name in BACKENDS if importlib.util.find_spec(name)]
    for name in BACKENDS:
        if name not in installed:
            print(f"== {name}: not installed, not tested")
    if not installed:
        print("No backend is installed. Install jax, torch or tensorflow.")
        return 1
    workers = ["-n", str(os.cpu_count()), "--dist", "worksteal"]
    outcomes = {}
    cache = tempfile.TemporaryDirectory(prefix="keras-lowrank-tests-")
    for index, name in enumerate(installed):
        print(f"== {name}", flush=True)
        command = [sys.executable, "-m", "pytest", *workers, *arguments]
        if index:
            command += ["--not-once"]
        began = time.perf_counter()
        environment = os.environ | {
            "KERAS_BACKEND": name,
            # Threads of two workers would spin for each other's cores.
            "OMP_NUM_THREADS": "1",
            # Most of the time on JAX is that of LLVM, for steps that run once.
            "XLA_FLAGS": (
                f"{os.environ.get('XLA_FLAGS', '')} "
                "--xla_backend_optimization_level=0"
            ).strip(),
            # Many tests compile the same small steps there.
            "JAX_COMPILATION_CACHE_DIR": cache.name,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
            "TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "3"),
        }
        outcomes[name] = subprocess.call(command, env=environment)
        print(f"== {name}: {time.perf_counter() - began:.0f} s", flush=True)
    cache.cleanup()
    failed = [name for name, status in outcomes.items() if status]
    print(f"== failed on {', '.join(failed)}" if failed else "== all passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
