"""Track ranks in a training loop of one's own, on any backend.

    KERAS_BACKEND=torch python examples/custom_training_loop.py

A loop needs three things of a callback list: to be told of the model, of the
beginning and the end of training, and of the epochs. Then every callback works
as in `fit`, and so does the tracker. The step is that of the backend.
"""

import argparse

import keras
import numpy as np

import keras_lowrank as kl

BATCH = 64


def torch_step(model, loss_fn):
    """A step in torch: gradients by `backward`, the update by Keras."""
    import torch

    weights = model.trainable_weights

    def step(x, y):
        model.zero_grad()
        loss = loss_fn(y, model(x, training=True))
        loss.backward()
        with torch.no_grad():
            gradients = [weight.value.grad for weight in weights]
            model.optimizer.apply(gradients, weights)
        return float(loss.detach())

    return step


def tensorflow_step(model, loss_fn):
    """A step in TensorFlow, compiled."""
    import tensorflow as tf

    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape:
            loss = loss_fn(y, model(x, training=True))
        weights = model.trainable_weights
        model.optimizer.apply(tape.gradient(loss, weights), weights)
        return loss

    return lambda x, y: float(step(x, y))


def jax_step(model, loss_fn):
    """A step in JAX, compiled and without state; the state is kept here."""
    import jax

    def compute(trainable, others, x, y):
        outputs, others = model.stateless_call(
            trainable, others, x, training=True
        )
        return loss_fn(y, outputs), others

    @jax.jit
    def update(state, x, y):
        trainable, others, slots = state
        grad = jax.value_and_grad(compute, has_aux=True)
        (loss, others), gradients = grad(trainable, others, x, y)
        trainable, slots = model.optimizer.stateless_apply(
            slots, gradients, trainable
        )
        return (trainable, others, slots), loss

    variables = (
        model.trainable_variables,
        model.non_trainable_variables,
        model.optimizer.variables,
    )
    state = tuple([v.value for v in group] for group in variables)

    def step(x, y):
        nonlocal state
        state, loss = update(state, x, y)
        return float(loss)

    def write_back():
        """Bring the variables up to date, for whoever reads them."""
        for group, values in zip(variables, state, strict=True):
            for variable, value in zip(group, values, strict=True):
                variable.assign(value)

    step.write_back = write_back
    return step


STEPS = {"torch": torch_step, "tensorflow": tensorflow_step, "jax": jax_step}


def main():
    """Train on the digits, and print the ranks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--smoke", action="store_true", help="two epochs")
    arguments = parser.parse_args()
    from sklearn.datasets import load_digits

    keras.utils.set_random_seed(0)
    x, y = load_digits(return_X_y=True)
    x, y = (x / 16).astype("float32"), y.astype("int32")
    if arguments.smoke:
        x, y = x[:256], y[:256]
    epochs = 2 if arguments.smoke else arguments.epochs
    model = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(100, activation="relu", name="hidden_1"),
            keras.layers.Dense(100, activation="relu", name="hidden_2"),
            keras.layers.Dense(10, name="logits"),
        ]
    )
    optimizer = kl.WeightDecay(0.02).wrap(keras.optimizers.SGD(0.1))
    model.compile(optimizer)  # callbacks find the optimizer at the model
    optimizer.build(model.trainable_variables)
    loss_fn = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    tracker = kl.RankTracker()
    steps = len(x) // BATCH
    callbacks = keras.callbacks.CallbackList(
        [tracker], model=model, epochs=epochs, steps=steps, batch_size=BATCH
    )
    step = STEPS[keras.backend.backend()](model, loss_fn)
    order = np.random.default_rng(0)
    callbacks.on_train_begin()
    for epoch in range(epochs):
        callbacks.on_epoch_begin(epoch)
        batches = order.permutation(len(x))[: steps * BATCH]
        losses = [step(x[i], y[i]) for i in batches.reshape(steps, BATCH)]
        if hasattr(step, "write_back"):
            step.write_back()
        loss = float(np.mean(losses))
        callbacks.on_epoch_end(epoch, {"loss": loss})
        rank = tracker.history["rank_mean"][-1]
        print(f"epoch {epoch + 1}: loss {loss:.4f}, last mean rank {rank:.1f}")
    callbacks.on_train_end()
    tracker.summary()


if __name__ == "__main__":
    main()
