"""What Keras does not tell a callback about the `fit` that calls it."""

import inspect

import keras


def enclosing_fit() -> tuple[list[keras.callbacks.Callback], int | None]:
    """The callbacks of the running `fit`, in order, and its batch size.

    A callback knows neither its neighbours nor the batch size, and Keras has
    no call to ask for them; they stand in the frames of `CallbackList` and of
    `fit`, from which the hook is called. To be called from `on_train_begin`.

    Returns:
        Tuple of the list of callbacks, empty when no `CallbackList` calls,
        and of the batch size, `None` when no `fit` calls or when it does not
        know it (a generator of unequal batches).
    """
    callbacks: list[keras.callbacks.Callback] = []
    frame = inspect.currentframe()
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, keras.callbacks.CallbackList):
            callbacks = list(caller.callbacks)
        elif (
            frame.f_code.co_name == "fit" and "epoch_iterator" in frame.f_locals
        ):
            iterator = frame.f_locals["epoch_iterator"]
            return callbacks, _batch_size(iterator)
        frame = frame.f_back
    return callbacks, None


def _batch_size(epoch_iterator) -> int | None:
    adapter = getattr(epoch_iterator, "data_adapter", None)
    size = getattr(adapter, "batch_size", None)
    return None if size is None else int(size)
