"""`switch_to_low_rank`: a model that goes on training at low rank."""

from keras_lowrank.compress.compress import check_plan
from keras_lowrank.compress.plan import CompressionPlan
from keras_lowrank.rewrite import make_low_rank


def switch_to_low_rank(model, plan: CompressionPlan) -> None:
    """Give layers of a model the ranks of a plan, where they are.

    Unlike `compress`, which makes a copy: the model, its metrics and what it
    was compiled with stay, and the state of its optimizer is carried from the
    kernels to their factors, so that the next `fit` goes on where the last
    one stopped. `SwitchToLowRank` does it within one `fit`.

    Two things differ from then on. A weight decay acts on each factor; that of
    their product, as a decay of the kernel was, is the
    `kernel_regularizer=L2(...)` of a low-rank layer. And a step moves the
    product by `G B^T B + A A^T G` times the learning rate, where it moved the
    kernel by `G`: by up to twice its largest singular value as far. Lower the
    rate of plain SGD where that is much larger than 1.

    Args:
        model: Built Keras model; changed in place.
        plan: `CompressionPlan` of this model.

    Raises:
        TypeError: when `plan` is no plan.
        ValueError: when it is of another model.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((64,)),
    ...     keras.layers.Dense(64, name="hidden"),
    ... ])
    >>> switch_to_low_rank(model, compression_plan(model, rank=4))
    >>> model.layers[0].rank
    4
    """
    check_plan(model, plan)
    make_low_rank(
        model, {layer.name: layer.options for layer in plan.compressed}
    )
