"""What layers are called with while a model runs."""

import contextlib
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator


@contextlib.contextmanager
def watch_calls(layers: Iterable, record: Callable) -> Iterator[None]:
    """Tell of every call of some layers in a `with` block.

    Only a model that is called for real enters them: a symbolic call asks
    layers for the shapes of their outputs.

    Args:
        layers: Iterable of Keras layers.
        record: Function of a layer, its first input and its first output.

    Yields:
        Nothing.
    """
    import keras

    def watched(layer):
        call = layer.call

        def recorded(*args, **kwargs):
            outputs = call(*args, **kwargs)
            inputs = keras.tree.flatten((args, kwargs))[0]
            record(layer, inputs, keras.tree.flatten(outputs)[0])
            return outputs

        return recorded

    layers = list(layers)
    # One who watches already goes on watching.
    before = [vars(layer).get("call") for layer in layers]
    for layer in layers:
        object.__setattr__(layer, "call", watched(layer))
    try:
        yield
    finally:
        for layer, call in zip(layers, before, strict=True):
            if call is None:
                object.__delattr__(layer, "call")
            else:
                object.__setattr__(layer, "call", call)
