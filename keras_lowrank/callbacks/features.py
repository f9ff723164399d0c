"""The spectra of the features that passed through a model."""

from keras_lowrank.layers import FeatureRank
from keras_lowrank.spectrum import Spectrum
from keras_lowrank.weights import locate_layers


def feature_spectra(model) -> dict[str, Spectrum]:
    """What the `FeatureRank` layers of a model have seen since their reset.

    Args:
        model: Keras model.

    Returns:
        Dict from `features/` and the name of the layer, relative to the model
        as those of weights, to its `Spectrum`. Layers without samples are left
        out.
    """
    found = {
        f"features/{name}": layer.spectrum()
        for name, layer in locate_layers(model, FeatureRank).items()
    }
    return {name: one for name, one in found.items() if one is not None}
