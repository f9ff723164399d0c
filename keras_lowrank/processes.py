"""Which one this is of the processes that train a model together.

Every one of them runs the same callbacks: each measures for itself, since all
wait for each other at the next step anyway, and only the first, the *chief*,
writes files.
"""

from collections.abc import Callable

import keras


def process_index() -> int:
    """Which of the processes that train together this is, counted from 0."""
    return _place()[0]


def process_count() -> int:
    """How many processes train together; 1 where there is only this one."""
    return _place()[1]


def is_chief() -> bool:
    """Whether this process is the one that writes files."""
    return process_index() == 0


def batches_per_update() -> int:
    """How many batches of `fit`, each of another process, make an update.

    On JAX every process hands over its share of the batch, unless it shares a
    replica of the model with others, which hand over the same. TensorFlow's
    strategies are given the whole batch and divide it themselves. On torch
    `fit` knows nothing of other processes, so each gives a batch of its own,
    and something else averages their gradients.

    Returns:
        Int, 1 or larger.
    """
    distribution = keras.distribution.distribution()
    if distribution is not None:
        processes = distribution.num_processes
        return min(processes, distribution.num_model_replicas)
    return process_count() if keras.backend.backend() == "torch" else 1


def _place() -> tuple[int, int]:
    """Index and count of the processes, asked of the backend in use."""
    ask = _PLACES.get(keras.backend.backend())
    return (0, 1) if ask is None else ask()


def _jax() -> tuple[int, int]:
    import jax

    return jax.process_index(), jax.process_count()


def _torch() -> tuple[int, int]:
    from torch import distributed

    if not (distributed.is_available() and distributed.is_initialized()):
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def _tensorflow() -> tuple[int, int]:
    import tensorflow as tf

    # The cluster as `TF_CONFIG` describes it; without one this is alone.
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    cluster = resolver.cluster_spec().as_dict()
    trainers = [
        (kind, index)
        for kind in ("chief", "worker")
        for index in range(len(cluster.get(kind, ())))
    ]
    if not trainers:
        return 0, 1
    task = (resolver.task_type, resolver.task_id)
    # An evaluator trains nothing, and writes nothing of the training.
    index = trainers.index(task) if task in trainers else len(trainers)
    return index, len(trainers)


_PLACES: dict[str, Callable[[], tuple[int, int]]] = {
    "jax": _jax,
    "torch": _torch,
    "tensorflow": _tensorflow,
}
