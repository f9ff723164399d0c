"""What a callback takes of `fit`, in a process of its own.

    python -m benchmarks.fits share NETWORK [full]
    python -m benchmarks.fits pairs NETWORK rank|theory

prints one line of JSON. Threads are as a user finds them. What is compiled is
compiled before the clock runs.
"""

import concurrent.futures
import json
import statistics
import sys
import threading
import time

import keras

from benchmarks import checkpoints
from keras_lowrank import RankTracker
from keras_lowrank import TheoryTracker
from keras_lowrank.experiments import Batches
from keras_lowrank.experiments.training import build_model

NETWORKS = tuple(checkpoints.TRAINED)
CIFAR10_IMAGES = 50_000

# Epochs of the `fit` whose share is taken, and of the pairs; images of those
# epochs that are not full ones, the same as the first of the data set.
EPOCHS = {"demo MLP": 150, "MLP-BN-10-100": 3, "ResNet-18": 2}
PAIRS = {"demo MLP": 120, "MLP-BN-10-100": 30, "ResNet-18": 6}
PART = {"ResNet-18": 640}
PART_OF_PAIRS = {"MLP-BN-10-100": 3200, "ResNet-18": 256}

TRACKERS = {
    "rank": RankTracker,
    "theory": lambda: TheoryTracker(tolerance=0.3),
}


class Training:
    """A network and its data, ready for one `fit` after another."""

    def __init__(self, name: str, images: int | None = None):
        self.spec = checkpoints.spec(name)
        if "train_samples" in self.spec.data.keywords or images:
            data = self.spec.data.replace(train_samples=images)
            self.spec = self.spec.replace(data=data)
        self.data = checkpoints.load_data(self.spec)

    def batches(self, images: int | None = None):
        x, y = self.data.x_train[:images], self.data.y_train[:images]
        return Batches(x, y, self.spec.batch_size)

    def fit(self, callbacks, epochs: int, model=None):
        model = model or build_model(self.spec, self.data)
        self.batches().fit(model, callbacks, epochs=epochs, verbose=0)
        return model


def share(name: str, full: bool) -> dict:
    """`RankTracker`'s share of a `fit`: by default, and of every epoch."""
    images = None if full else PART.get(name)
    epochs = 1 if full and name in PART else EPOCHS[name]
    training = Training(name, images)
    model = build_model(training.spec, training.data)
    # Compiles and imports, on as few batches as tell: a full one and the rest.
    rest = len(training.data.x_train) % training.spec.batch_size
    first = RankTracker()
    training.batches(training.spec.batch_size + rest).fit(
        model, [first], epochs=1, verbose=0
    )
    steps = len(training.batches())
    found = {
        "backend": keras.backend.backend(),
        "network": name,
        "images": len(training.data.x_train),
        "epochs": epochs,
        "steps": steps,
        "full": images is None,
        "first": first.own_seconds,
    }
    for key, settings in (("default", {}), ("every", {"every": 1})):
        if key == "every" and full and name in PART:
            continue  # one epoch is measured at both ends by either
        tracker = RankTracker(**settings)
        training.fit([tracker], epochs, model)
        measured = len(tracker.recording)
        found[key] = {
            "overhead": tracker.overhead,
            "own": tracker.own_seconds,
            "fit": tracker.fit_seconds,
            "measured": measured,
            "epoch": (tracker.fit_seconds - tracker.own_seconds) / epochs,
        }
    return found


class First(keras.callbacks.Callback):
    """Begins an epoch when it is its turn; sees the end of its last step."""

    def __init__(self, turn):
        super().__init__()
        self.turn = turn
        self.began = self.stepped = 0.0
        self.processor = 0.0

    def on_epoch_begin(self, epoch, logs=None):
        self.turn.acquire()
        self.began = time.perf_counter()
        self.processor = time.process_time()

    def on_epoch_end(self, epoch, logs=None):
        self.stepped = time.perf_counter()


class Last(keras.callbacks.Callback):
    """Keeps the seconds of an epoch, and hands over the turn."""

    def __init__(self, first, other):
        super().__init__()
        self.first, self.other = first, other
        self.steps, self.wall, self.processor = [], [], []

    def on_epoch_end(self, epoch, logs=None):
        first = self.first
        self.steps.append(first.stepped - first.began)
        self.wall.append(time.perf_counter() - first.began)
        self.processor.append(time.process_time() - first.processor)
        self.other.release()


def pairs(name: str, tracker: str) -> dict:
    """Epochs of one `fit` with a tracker and of one without, in turn.

    `steps` are the epochs up to the end of their last step, `wall` with what
    the tracker does after it, `processor` the seconds of all cores. What they
    take more is that of the fastest quarters of either side, since whatever
    disturbs an epoch only makes it longer; beside it the quartiles of pairs.
    """
    training = Training(name, PART_OF_PAIRS.get(name))
    turns = threading.Semaphore(1), threading.Semaphore(0)
    watches = [
        Last(First(mine), other) for mine, other in (turns, reversed(turns))
    ]
    epochs = PAIRS[name] + 1  # the first compiles

    def train(watch, callbacks):
        training.fit([watch.first, *callbacks, watch], epochs)

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        jobs = [
            pool.submit(train, watches[0], []),
            pool.submit(train, watches[1], [TRACKERS[tracker]()]),
        ]
        for done in concurrent.futures.as_completed(jobs):
            if done.exception():
                for turn in turns:  # so that the other does not wait for ever
                    turn.release(epochs)
            done.result()
    plain, watched = watches
    found = {
        "backend": keras.backend.backend(),
        "network": name,
        "tracker": tracker,
        "pairs": PAIRS[name],
        "steps": len(training.batches()),
        "step_ms": 1e3
        * statistics.median(plain.steps[1:])
        / len(training.batches()),
    }
    for key in ("steps", "wall", "processor"):
        mine, bare = getattr(watched, key)[1:], getattr(plain, key)[1:]
        ratios = [a / b for a, b in zip(mine, bare, strict=True)]
        low, _, high = statistics.quantiles(ratios, n=4)
        fastest = [statistics.quantiles(one, n=4)[0] for one in (mine, bare)]
        more = fastest[0] / fastest[1]
        found[f"{key}_more"] = [low - 1, more - 1, high - 1]
    return found


def main(command: str, name: str, *options: str) -> None:
    if command == "share":
        found = share(name, "full" in options)
    else:
        found = pairs(name, *options)
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
