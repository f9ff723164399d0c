"""Which optimizers a `WeightDecay` can be given to."""

import keras


def check_inner(optimizer) -> None:
    """Refuse optimizers that would not decay as a `WeightDecay` says."""
    kind = type(optimizer).__name__
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise TypeError(
            "`optimizer` must be a Keras optimizer or its name. "
            f"Received: {optimizer!r} (of type {kind})."
        )
    wraps = [
        n for n in ("inner_optimizer", "optimizers") if hasattr(optimizer, n)
    ]
    if wraps and hasattr(optimizer, "policy"):
        raise ValueError(
            "The optimizer has a `WeightDecay` already, and variables would "
            f"decay twice. Received: '{optimizer.name}' with "
            f"{optimizer.policy}. Wrap its `inner_optimizer` in a new one."
        )
    if wraps:
        raise ValueError(
            "`WeightDecay` wraps an optimizer that makes the update itself. "
            f"Received: {kind}, which leaves that to others. Wrap each of "
            "those before giving them to it."
        )
    for name in ("weight_decay", "adam_weight_decay"):
        value = getattr(optimizer, name, None)
        if value:
            raise ValueError(
                "The optimizer decays by itself, and variables would decay "
                f"twice. Received: {kind} with {name}={value}. Use "
                f"`{kind}(..., {name}=0.0)`, and give the rate to "
                '`WeightDecay`, in the convention "keras".'
            )
