"""Second moments of what layers multiply, over calibration data."""

import keras
import numpy as np

from keras_lowrank.calls import watch_calls
from keras_lowrank.compress.candidates import unbuilt_form
from keras_lowrank.compress.data import batches
from keras_lowrank.linalg import host_array


def second_moments(model, layers, forms, data, batch_size: int = 32) -> dict:
    """Second moments `E[x x^T]` of what the left factors would multiply.

    Args:
        model: Built Keras model, which is run in inference mode.
        layers: Dict from names to layers of the model.
        forms: Iterable of pairs, the name of a layer and a scheme.
        data: Inputs: an array, a list or dict of arrays, or batches.
        batch_size: Int, how many samples are run at once.

    Returns:
        Dict from the pairs to float64 arrays of shape `(m, m)`, or
        `(b, m, m)`. Embeddings, which multiply nothing, have none, nor have
        layers that were not called.
    """
    around = {
        id(layer.layer): layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.TimeDistributed)
    }
    sums: dict = {}
    watched: dict[int, list] = {}
    places = []
    for name, scheme in forms:
        layer = layers[name]
        if isinstance(layer, keras.layers.Embedding):
            continue
        form = unbuilt_form(layer, scheme)
        # What is inside may be called once for all steps, without values.
        place = around.get(id(layer), layer)
        watched.setdefault(id(place), []).append((form, (name, scheme)))
        places.append(place)

    def record(place, inputs, outputs):
        for form, key in watched[id(place)]:
            seen = inputs
            if isinstance(place, keras.layers.TimeDistributed):
                seen = keras.ops.reshape(inputs, (-1, *inputs.shape[2:]))
            vectors = host_array(form.vectors(seen)).astype(np.float64)
            outer = np.swapaxes(vectors, -1, -2) @ vectors
            total, count = sums.get(key, (0.0, 0))
            sums[key] = total + outer, count + vectors.shape[-2]

    with watch_calls({id(place): place for place in places}.values(), record):
        for x, _ in batches(data, batch_size, labels=False):
            model(x, training=False)
    return {key: total / count for key, (total, count) in sums.items()}
