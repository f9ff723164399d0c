"""Train a small transformer on text made here, and watch its heads.

    python examples/text_transformer.py

The text are sums such as `47+85=132`, character by character, and the network
learns to go on after the `=`. Of attention, queries and keys of each head are
measured by themselves (`views={"heads": "split"}`): a matrix of all heads
hides that some have died.
"""

import argparse

import keras
import numpy as np

import keras_lowrank as kl

layers = keras.layers

LETTERS = "0123456789+= "
LENGTH = 10  # of "99+99=198" with a space


def sums(count, seed):
    """Sums as numbers of letters, of shape `(count, LENGTH)`."""
    rng = np.random.default_rng(seed)
    pairs = rng.integers(0, 100, size=(count, 2))
    texts = [f"{a}+{b}={a + b}".ljust(LENGTH) for a, b in pairs.tolist()]
    return np.array([[LETTERS.index(c) for c in text] for text in texts])


def positions(batch):
    """The numbers 0, 1, ... for each letter but the last."""
    return np.broadcast_to(np.arange(LENGTH - 1), (batch, LENGTH - 1))


def make_model(width, heads, depth):
    """A decoder: each letter from those before it."""
    letters = keras.Input((LENGTH - 1,), dtype="int32", name="letters")
    places = keras.Input((LENGTH - 1,), dtype="int32", name="places")
    x = layers.Embedding(len(LETTERS), width, name="embedding")(letters)
    x += layers.Embedding(LENGTH, width, name="position")(places)
    for block in range(depth):
        name = f"block_{block}"
        y = layers.LayerNormalization(name=f"{name}_norm")(x)
        x += layers.MultiHeadAttention(
            heads, width // heads, name=f"{name}_attention"
        )(y, y, use_causal_mask=True)
        y = layers.LayerNormalization(name=f"{name}_norm_2")(x)
        y = layers.Dense(4 * width, "gelu", name=f"{name}_expand")(y)
        x += layers.Dense(width, name=f"{name}_reduce")(y)
    x = layers.LayerNormalization(name="norm")(x)
    return keras.Model(
        [letters, places], layers.Dense(len(LETTERS), name="logits")(x)
    )


def main():
    """Train, and print the ranks of every head."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--decay", type=float, default=0.1)
    parser.add_argument("--smoke", action="store_true", help="one small epoch")
    arguments = parser.parse_args()
    smoke = arguments.smoke

    keras.utils.set_random_seed(0)
    text = sums(64 if smoke else 8000, seed=0)
    width, heads, depth = (16, 2, 1) if smoke else (64, 4, 2)
    model = make_model(width, heads, depth)
    # The decay of AdamW reaches other variables on each backend. This one is
    # decoupled as well, and of kernels and embeddings alone on all of them.
    decay = kl.WeightDecay(arguments.decay, covers=["kernel", "embedding"])
    model.compile(
        decay.wrap(keras.optimizers.Adam(1e-3)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    tracker = kl.RankTracker(["rank", "stable_rank"], views={"heads": "split"})
    model.fit(
        [text[:, :-1], positions(len(text))],
        text[:, 1:],
        batch_size=64,
        epochs=1 if smoke else arguments.epochs,
        callbacks=[tracker],
        verbose=2,
    )
    tracker.summary()


if __name__ == "__main__":
    main()
