"""`compress`: a model and a plan to a smaller model."""

from keras_lowrank.compress.calibration import second_moments
from keras_lowrank.compress.candidates import kernel_layers
from keras_lowrank.compress.candidates import kernel_of
from keras_lowrank.compress.plan import CompressionPlan
from keras_lowrank.rewrite import check_copy
from keras_lowrank.rewrite import compile_like
from keras_lowrank.rewrite import copy_model
from keras_lowrank.rewrite import make_low_rank


def compress(model, plan: CompressionPlan, calibration=None, clone=None):
    """A copy of a model in which layers have the ranks of a plan.

    Weights are carried: kernels are truncated by their singular value
    decomposition and split into two, everything else is copied. The model
    itself stays as it is. The copy is a plain Keras model: save it as
    `.keras`, and `import keras_lowrank` is all that loading it needs.

    Functional and sequential models, nested and with shared layers, are
    rewired; attention and blocks of one's own keep their classes, and are
    saved with the low-rank layers in them. **Subclassed models** are compressed
    likewise if `from_config` makes them from their `get_config`; for others
    pass `clone`, keep the plan beside the weights, and load both:

    ```python
    plan.save("plan.json")
    compress(model, plan, clone=my_clone).save_weights("small.weights.h5")
    # Later, in another process:
    plan = CompressionPlan.load("plan.json")
    small = compress(make_model(), plan, clone=my_clone)
    small.load_weights("small.weights.h5")
    ```

    Args:
        model: Built Keras model.
        plan: `CompressionPlan` from `compression_plan`.
        calibration: Inputs, as for `compression_plan`. Needed by a plan that
            was made with some.
        clone: Function from `model` to a built copy of it with the same
            weights, for models that Keras cannot save whole.

    Returns:
        A Keras model, compiled as `model` is, with an optimizer that begins
        anew.

    Raises:
        TypeError: when `plan` is no plan.
        ValueError: when the plan is of another model, or the model cannot be
            copied.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((64,)),
    ...     keras.layers.Dense(64, name="hidden"),
    ... ])
    >>> small = compress(model, compression_plan(model, rank=4))
    >>> small.count_params(), model.count_params()
    (576, 4160)
    """
    check_plan(model, plan)
    if plan.calibrated and calibration is None:
        raise ValueError(
            "The plan was made with calibration data, which the truncation "
            "needs as well. Received: calibration=None. Pass the same inputs."
        )
    copy = copy_model(model) if clone is None else clone(model)
    check_copy(model, copy)
    options = {layer.name: layer.options for layer in plan.compressed}
    if plan.calibrated:
        layers = kernel_layers(copy)
        forms = {(name, given.get("scheme")) for name, given in options.items()}
        moments = second_moments(copy, layers, forms, calibration)
        for (name, _), moment in moments.items():
            options[name]["second_moment"] = moment
    make_low_rank(copy, options)
    if model.compiled and not copy.compiled:
        compile_like(copy, model)
    return copy


def check_plan(model, plan) -> None:
    """Raise unless a plan is one for this model."""
    if not isinstance(plan, CompressionPlan):
        raise TypeError(
            "`plan` must be a `CompressionPlan`, as `compression_plan(model)` "
            f"makes it. Received: {plan!r} (of type {type(plan)})."
        )
    layers = kernel_layers(model)
    for layer in plan.compressed:
        found = layers.get(layer.name)
        kernel = kernel_of(found)
        shape = None if kernel is None else tuple(kernel.shape)
        if type(found).__name__ != layer.kind or shape != layer.kernel_shape:
            have = (
                "no such layer"
                if found is None
                else f"a {type(found).__name__} with a kernel of shape {shape}"
            )
            raise ValueError(
                f"The plan is of another model: it has a {layer.kind} "
                f"'{layer.name}' with a kernel of shape "
                f"{layer.kernel_shape}. Received: a model with {have}. "
                "Make a plan of this model with `compression_plan`."
            )
