"""What Keras does not tell a callback about the `fit` that calls it."""

import inspect
from collections.abc import Mapping
from typing import Any

import keras

from keras_lowrank.processes import batches_per_update


def enclosing_fit(
    params: Mapping[str, Any] | None,
) -> tuple[list[keras.callbacks.Callback], int | None]:
    """The callbacks of the running `fit`, in order, and its batch size.

    A callback knows neither its neighbours nor the batch size, and Keras has
    no call to ask for them; they stand in the frames of `CallbackList` and of
    `fit`, from which the hook is called. To be called from a hook.

    Args:
        params: Dict of what the callback was told. A loop of one's own can
            say its batch size there: `CallbackList(..., batch_size=256)`.

    Returns:
        Tuple of the list of callbacks, empty when no `CallbackList` calls,
        and of the samples of a step on all processes together, `None` where
        `fit` does not know them (a generator of unequal batches) and nobody
        says so.
    """
    callbacks, iterator = _enclosing_frames()
    if iterator is None:
        return callbacks, (params or {}).get("batch_size")
    adapter = getattr(iterator, "data_adapter", None)
    size = getattr(adapter, "batch_size", None)
    if size is None:  # of a `PyDataset`, which says it itself or not at all
        dataset = getattr(adapter, "py_dataset", None)
        size = getattr(dataset, "batch_size", None)
    return callbacks, None if size is None else size * batches_per_update()


def build_as_fit_will(model) -> bool:
    """Create the weights of a model that `fit` would build at its first step.

    TensorFlow's `fit` leaves that to the first step, which changes the weights
    at once; the other backends build before the first hook. The shapes come
    from the description of the data set of `fit`: no batch is drawn.

    Args:
        model: Keras model, built or not.

    Returns:
        Whether the model is built now. `False` where no `fit` calls that
        describes its data.
    """
    if not model.built:
        _, iterator = _enclosing_frames()
        dataset = getattr(iterator, "_distributed_dataset", None)
        spec = getattr(dataset, "element_spec", None)
        if spec is not None:
            inputs, _, _ = keras.utils.unpack_x_y_sample_weight(spec)
            # A call on symbols runs nothing, and builds as `model.build` does.
            model(
                keras.tree.map_structure(
                    lambda spec: keras.KerasTensor(
                        tuple(spec.shape), spec.dtype.name
                    ),
                    inputs,
                )
            )
    return model.built


def _enclosing_frames():
    """The callbacks of the `CallbackList` and the iterator of the `fit`."""
    callbacks: list[keras.callbacks.Callback] = []
    frame = inspect.currentframe()
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, keras.callbacks.CallbackList):
            callbacks = list(caller.callbacks)
        elif (
            frame.f_code.co_name == "fit" and "epoch_iterator" in frame.f_locals
        ):
            return callbacks, frame.f_locals["epoch_iterator"]
        frame = frame.f_back
    return callbacks, None
