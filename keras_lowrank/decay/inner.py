"""Which optimizers a `WeightDecay` can act through."""

import keras


def check_inner(optimizer, decay) -> None:
    """Refuse optimizers that would not decay as `decay` says."""
    kind = type(optimizer).__name__
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise TypeError(
            "`optimizer` must be a Keras optimizer or its name. Received: "
            f"{optimizer!r} (of type {kind})."
        )
    if hasattr(optimizer, "inner_optimizer") or hasattr(
        optimizer, "optimizers"
    ):
        raise ValueError(
            "`WeightDecay` wraps the optimizer that makes the update. "
            f"Received: {kind}, which wraps others itself. Wrap what is inside "
            "it, as in `LossScaleOptimizer(decay.wrap(optimizer))`; one "
            "optimizer takes one `WeightDecay`."
        )
    for name in ("weight_decay", "adam_weight_decay"):
        value = getattr(optimizer, name, None)
        if value:
            hint = "Use `Adam`, which is `AdamW` without it, or pass"
            raise ValueError(
                f"The optimizer decays by itself: {kind}({name}={value}). "
                "Together with a `WeightDecay` every weight would decay "
                f"twice. {hint if kind == 'AdamW' else 'Pass'} `{name}=0.0`, "
                "and give the rate to `WeightDecay` (convention 'keras')."
            )
    if not hasattr(optimizer, "_backend_update_step"):
        raise ValueError(
            f"{kind} has no `_backend_update_step`, where Keras optimizers "
            "make their update and `WeightDecay` acts. Received an optimizer "
            f"of Keras {keras.__version__}; derive it from "
            "`keras.optimizers.Optimizer` and override `update_step`."
        )
    if "_backend_update_step" in vars(optimizer):
        raise ValueError(
            f"The optimizer '{optimizer.name}' belongs to another "
            "`DecayedOptimizer` already. Create a new one for each."
        )
    is_sgd = isinstance(optimizer, keras.optimizers.SGD)
    if decay.rescale_velocity and not (is_sgd and optimizer.momentum):
        raise ValueError(
            "`rescale_velocity=True` follows torch's SGD with momentum. "
            f"Received: {kind} with momentum="
            f"{getattr(optimizer, 'momentum', None)}. Use `SGD` with a "
            "momentum above 0, or leave `rescale_velocity` out."
        )
