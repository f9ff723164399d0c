"""Track ranks while torch trains in several processes, on one host or more.

    python examples/distributed/torch_processes.py     # two processes, here

On several hosts leave the starting to torchrun, on each host with

    torchrun --nnodes=2 --nproc-per-node=8 --rdzv-backend=c10d \
        --rdzv-endpoint=10.0.0.1:29500 examples/distributed/torch_processes.py

Keras' `fit` does not know of `DistributedDataParallel`, so the loop is one's
own; `keras.callbacks.CallbackList` calls the trackers in it.

Run so far: two processes on the CPU of one machine, with gloo.
"""

import argparse
import os
import socket

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import torch
from sklearn.datasets import load_digits
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from torch.utils.data import DistributedSampler
from torch.utils.data import TensorDataset

import keras_lowrank as kl

BATCH = 64


def make_model():
    """A network of three layers for the digits."""
    model = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(128, activation="relu", name="hidden_1"),
            keras.layers.Dense(128, activation="relu", name="hidden_2"),
            keras.layers.Dense(10, name="logits"),
        ]
    )
    model.compile(
        kl.WeightDecay(0.02).wrap(keras.optimizers.SGD(0.2, momentum=0.5)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model


def train(epochs, run_dir):
    """Train in this process, one of those that torch knows of."""
    cuda = torch.cuda.is_available()
    local = int(os.environ["LOCAL_RANK"])
    if cuda:
        torch.cuda.set_device(local)
    distributed.init_process_group("nccl" if cuda else "gloo")
    count = distributed.get_world_size()

    digits = load_digits()
    data = TensorDataset(
        torch.as_tensor(digits.data / 16, dtype=torch.float32),
        torch.as_tensor(digits.target),
    )
    sampler = DistributedSampler(data, seed=0)
    loader = DataLoader(data, BATCH // count, sampler=sampler)

    model = make_model()
    replica = DistributedDataParallel(model)
    tracker = kl.RankTracker(run_dir=run_dir)  # the first process writes
    callbacks = keras.callbacks.CallbackList(
        [tracker],
        model=replica,
        epochs=epochs,
        steps=len(loader),
        batch_size=BATCH,  # of all processes together
    )
    callbacks.on_train_begin()
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        callbacks.on_epoch_begin(epoch)
        for images, labels in loader:
            if cuda:
                images, labels = images.cuda(), labels.cuda()
            model.zero_grad()
            # Through the replica, which averages the gradients.
            loss = model.loss(labels, replica(images))
            loss.backward()
            variables = model.trainable_variables
            with torch.no_grad():
                model.optimizer.apply(
                    [variable.value.grad for variable in variables], variables
                )
        callbacks.on_epoch_end(epoch, {"loss": float(loss.detach())})
    callbacks.on_train_end()
    if distributed.get_rank() == 0:
        print(f"Trained in {count} processes.")
        tracker.summary()
    distributed.destroy_process_group()


def _process(index, count, port, epochs, run_dir):
    """What torchrun would tell a process."""
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "RANK": str(index),
        "LOCAL_RANK": str(index),
        "WORLD_SIZE": str(count),
    }
    train(epochs, run_dir)


def main():
    """Train, and print the ranks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--run-dir", help="of the first process alone")
    parser.add_argument("--smoke", action="store_true", help="one epoch")
    arguments = parser.parse_args()
    epochs = 1 if arguments.smoke else arguments.epochs
    if "LOCAL_RANK" in os.environ:  # started by torchrun
        train(epochs, arguments.run_dir)
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    count = max(2, torch.cuda.device_count())
    torch.multiprocessing.spawn(
        _process, (count, port, epochs, arguments.run_dir), nprocs=count
    )


if __name__ == "__main__":
    main()
