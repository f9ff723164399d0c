"""What is known of the paper's data sets, to see what runs are worth."""

# The share of the largest class, which is what a network has that knows
# nothing; of sets that are not here, that of equal classes.
CHANCE = {
    "digits": 0.11,
    "mnist": 0.114,
    "svhn": 0.196,
    "cifar100": 0.01,
    "food101": 1 / 101,
    "places365": 1 / 365,
}

# An accuracy is at chance up to this much above, since classes are not equal.
ABOVE = 1.15

# Training samples, of the sets that are the same everywhere.
SAMPLES = {
    "cifar10": 50000,
    "mnist": 60000,
    "fashion_mnist": 60000,
    "svhn": 73257,
}


def chance_of(name: str) -> float:
    """The accuracy on a data set of a network that knows nothing.

    >>> chance_of("cifar10")
    0.1
    """
    return CHANCE.get(name, 0.1)
