"""Measures in the configs of Keras objects, as plain values."""

from keras_lowrank.measures.measure import MEASURES
from keras_lowrank.measures.measure import Measure


def measure_config(measure: Measure):
    """A measure as JSON has it: its name, or what it is made of.

    Args:
        measure: `Measure`. A function of your own must be known to Keras, by
            `keras.saving.register_keras_serializable`, to be read again.

    Returns:
        String or dict that `measure_from_config` reads.

    Example:

    >>> measure_config(MEASURES["stable_rank"])
    'stable_rank'
    """
    if MEASURES.get(measure.name) == measure:
        return measure.name
    import keras

    function = measure.function
    names = {known.function: name for name, known in MEASURES.items()}
    return {
        "name": measure.name,
        "function": names.get(function)
        or keras.saving.serialize_keras_object(function),
        "parameters": dict(measure.parameters),
    }


def measure_from_config(config) -> Measure | str:
    """What `measure_config` wrote, for `as_measure`; all else as it is."""
    if not isinstance(config, dict):
        return config
    import keras

    function = config["function"]
    if isinstance(function, str):
        function = MEASURES[function].function
    else:
        function = keras.saving.deserialize_keras_object(function)
    return Measure(config["name"], function, config["parameters"])
