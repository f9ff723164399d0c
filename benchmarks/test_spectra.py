"""What exact spectra cost, against the ways they are taken elsewhere.

Every library is timed in a process of its own (`sides.py`), on one core, with
every pool of threads held to one on both sides; a ratio is the median over
rounds in which the sides took turns. Tables are those of `results/spectra_*`.
"""

import pytest
import threadpoolctl

from benchmarks import checkpoints
from benchmarks import machine
from benchmarks import matrices
from benchmarks import rivals
from benchmarks import sides
from benchmarks.results import Target
from keras_lowrank import linalg
from keras_lowrank.tables import Column
from keras_lowrank.tables import Table
from keras_lowrank.tables import number

# What stops a target, beside the numbers.
PRECISION = (
    "SVDs are the libraries' own, in float32, which moves and multiplies half "
    "the bits; they err by 1e-7 of the largest value, ours by 1e-8 of each "
    "above 1e-4 of it. Of a random square the smallest values need refining."
)
HOW = (
    "One core, every thread pool held to one thread on both sides; ratios are "
    "medians over rounds in which the sides took turns in one process. Ours "
    "is handed what Keras stores, a rival the tall view in its own tensor."
)
TIMES = number(3)
ALL = list(matrices.SETS)
REDUCTION = (
    "half of the reduction to tridiagonal form is matrix-vector products, "
    "which run at the speed of memory, not of matrix products; see profiles"
)


@pytest.fixture(scope="module")
def by_library():
    """Every shape of every set by every library that is installed."""
    return {
        library: {
            tuple(row["shape"]): row
            for row in machine.alone(
                "sides",
                "shapes",
                library,
                backend=rivals.BACKENDS.get(library, library),
            )
        }
        for library in rivals.LIBRARIES
        if machine.installed(library)
    }


def rival_ratios(by_library, shape) -> dict[str, float]:
    """Ratios of all calls to ours, for one shape."""
    return {
        name: side["ratio"]
        for rows in by_library.values()
        for name, side in rows[shape]["sides"].items()
        if name not in ("ours", "gram products", "paper")
    }


def set_ratios(by_library, name) -> dict[str, float]:
    """Ratios of all calls to ours, for the sum of the matrices of a set."""
    count = matrices.counts(name)
    found = {}
    for rows in by_library.values():
        calls = next(iter(rows.values()))["sides"]
        total = {
            call: sum(
                times * rows[shape]["sides"][call]["seconds"]
                for shape, times in count.items()
            )
            for call in calls
        }
        found |= {
            call: seconds / total["ours"] for call, seconds in total.items()
        }
    return found


def is_svd(call: str) -> bool:
    return "gram" not in call and call not in ("ours", "paper")


def best(ratios: dict[str, float], wanted) -> tuple[float, str]:
    """The least ratio, of the rival that comes closest, and its name."""
    return min((r, call) for call, r in ratios.items() if wanted(call))


def floor_ratio(rows, count) -> float:
    """Our seconds over those of the floor, for shapes with their counts."""
    mine = sum(
        n * rows[shape]["sides"]["ours"]["seconds"]
        for shape, n in count.items()
    )
    least = sum(
        n
        * (
            rows[shape]["sides"]["gram products"]["seconds"]
            + rows[shape]["reduction"]
        )
        for shape, n in count.items()
    )
    return mine / least


def test_by_shape(by_library, keep, targets):
    """Table, and the target that no call of a library is faster."""
    rows = []
    numpy_rows = by_library["numpy"]
    for shape in numpy_rows:
        ratios = rival_ratios(by_library, shape)
        svd, svd_name = best(ratios, is_svd)
        gram, gram_name = best(ratios, lambda call: "gram64" in call)
        rows.append(
            {
                "shape": f"{shape[0]} x {shape[1]}",
                "side": min(shape),
                "ms": 1e3 * numpy_rows[shape]["sides"]["ours"]["seconds"],
                "svd": svd,
                "svd_name": svd_name,
                "gram": gram,
                "gram_name": gram_name,
                "floor": floor_ratio(numpy_rows, {shape: 1}),
                **ratios,
            }
        )
    columns = [
        Column("shape", "matrix"),
        Column("ms", "ours, ms", TIMES),
        Column("svd", "best SVD / ours", TIMES),
        Column("svd_name", "which", justify="left"),
        Column("gram", "best gram64 / ours", TIMES),
        Column("gram_name", "which", justify="left"),
        Column("floor", "ours / floor", TIMES),
        *(
            Column(call, f"{call} / ours", TIMES)
            for call in ratios
            if is_svd(call)
        ),
    ]
    keep(
        Table(
            "Exact spectra, matrix by matrix", columns, rows, [HOW, PRECISION]
        ),
        "spectra_shapes",
    )
    for title, wanted, promised in (
        ("1024", lambda side: side <= 1024, 1.0),
        ("over 1024", lambda side: side > 1024, 1 / 1.1),
    ):
        chosen = [row for row in rows if wanted(row["side"])]
        if not chosen:
            continue  # sets without any
        for key, what in (
            ("svd", "best SVD call"),
            ("gram", "the same method by hand in the best library"),
        ):
            worst = min(chosen, key=lambda row: row[key])
            slower = [row["shape"] for row in chosen if row[key] < promised]
            targets.append(
                Target(
                    f"{what} / ours, worst of the shapes with short sides "
                    f"{'up to ' if title == '1024' else ''}{title}",
                    worst[key],
                    # Promised against calls, not against our own method.
                    at_least=promised if key == "svd" else None,
                    limit=f"{worst['shape']} by {worst[f'{key}_name']}, where "
                    f"ours takes {worst['ms']:.3g} ms, of which the method by "
                    f"hand, without checks and refinement, takes "
                    f"{worst['gram']:.2f}; {len(slower)} of {len(chosen)} "
                    f"shapes are slower: {', '.join(slower)}",
                )
            )


def test_by_network(by_library, keep, targets):
    """Sums over all matrices of a network."""
    rows = []
    for name in ALL:
        ratios = set_ratios(by_library, name)
        count = matrices.counts(name)
        svd, svd_name = best(ratios, is_svd)
        gram, gram_name = best(ratios, lambda call: "gram64" in call)
        mine = by_library["numpy"]
        rows.append(
            {
                "name": name,
                "matrices": sum(count.values()),
                "ms": 1e3
                * sum(
                    n * mine[shape]["sides"]["ours"]["seconds"]
                    for shape, n in count.items()
                ),
                "paper": ratios.get("paper"),
                "svd": svd,
                "svd_name": svd_name,
                "gram": gram,
                "gram_name": gram_name,
                "floor": floor_ratio(mine, count),
            }
        )
    columns = [
        Column("name", "network"),
        Column("matrices"),
        Column("ms", "ours, ms", TIMES),
        Column("paper", "(a) the paper's way / ours", TIMES),
        Column("svd", "(b) best SVD call / ours", TIMES),
        Column("svd_name", "which", justify="left"),
        Column("gram", "best gram64 / ours", TIMES),
        Column("gram_name", "which", justify="left"),
        Column("floor", "ours / (d) floor", TIMES),
    ]
    notes = [
        HOW,
        "Sums of the times of the shapes, each times its count. The floor is "
        "the bare float64 Gram products and 4/3 n^3 at this machine's rate of "
        "float64 matrix products. gram64: the same method by hand, in the "
        "library that does it fastest.",
    ]
    keep(Table("Exact spectra of networks", columns, rows, notes), "spectra")
    for row in rows:
        promised = row["name"] in ("ResNet-18", "VGG-16-BN")
        targets.append(
            Target(
                f"ours / floor, {row['name']}",
                row["floor"],
                at_most=1.5 if promised else None,
                limit=REDUCTION,
            )
        )


def wholes():
    random = [(name, kind) for name in ALL for kind in matrices.KINDS]
    heavy = {"GPT-2 small", "wide", "ViT-S/16"}
    chosen = [pair for pair in random if pair[0] not in heavy]
    return [*chosen, *((name, "trained") for name in checkpoints.TRAINED)]


def test_whole_networks(keep, targets):
    """All matrices in one call: the paper's way and WeightWatcher."""
    rows, notes = [], [HOW]
    for name, kind in wholes():
        if kind == "trained":
            if not checkpoints.at_hand(name):
                notes.append(f"{name}, trained: {checkpoints.NO_CIFAR10}.")
                continue
            checkpoints.ensure(name)
            notes.append(f"Trained: {checkpoints.told(name)}.")
        found = machine.alone("sides", "whole", name, kind, backend="torch")
        taken = found["sides"]
        rows.append(
            {
                "name": name,
                "kind": kind,
                "ms": 1e3 * taken["ours"]["seconds"],
                "paper": taken["paper"]["ratio"],
                "weightwatcher": taken.get("weightwatcher", {}).get("ratio"),
                "floor": taken["ours"]["seconds"]
                / (taken["gram products"]["seconds"] + found["reduction"]),
            }
        )
    if not machine.installed("weightwatcher"):
        notes.append(
            "WeightWatcher is not installed: `pip install weightwatcher`."
        )
    notes.append(
        "WeightWatcher also fits power laws, and takes convolutions as "
        "slices, one for each position of the window."
    )
    columns = [
        Column("name", "network"),
        Column("kind", "weights", justify="left"),
        Column("ms", "ours, ms", TIMES),
        Column("paper", "(a) the paper's way / ours", TIMES),
        Column("weightwatcher", "(c) WeightWatcher / ours", TIMES),
        Column("floor", "ours / (d) floor", TIMES),
    ]
    keep(
        Table("Whole networks, ours on torch tensors", columns, rows, notes),
        "spectra_whole",
    )
    for row in rows:
        if row["name"] != "ResNet-18":
            continue
        promised = row["kind"] != "long tail"
        for key, least, what in (
            ("paper", 15, "the paper's way"),
            ("weightwatcher", 10, "WeightWatcher.analyze"),
        ):
            if row[key] is not None:
                targets.append(
                    Target(
                        f"{what} / ours, ResNet-18, {row['kind']} weights",
                        row[key],
                        at_least=least if promised else None,
                        limit=REDUCTION,
                    )
                )


def test_profiles(keep):
    """Where the time goes, beside what this machine can do."""
    rows = []
    for name in ("ResNet-18", "VGG-16-BN"):
        found = machine.alone("sides", "profile", name)
        seconds = found["seconds"]
        parts = ("cast", "product", "eigenvalues")
        seconds["rest"] = seconds["ours"] - sum(seconds[p] for p in parts)
        for part in ("ours", *parts, "rest"):
            flop = found["flop"].get(part)
            rate = flop / seconds[part] if flop else None
            rows.append(
                {
                    "name": name,
                    "part": "the whole of ours" if part == "ours" else part,
                    "ms": 1e3 * seconds[part],
                    "share": seconds[part] / seconds["ours"],
                    "rate": rate and rate / 1e9,
                    "of": rate and rate / found["rate"],
                }
            )
    columns = [
        Column("name", "network"),
        Column("part", justify="left"),
        Column("ms", "ms", TIMES),
        Column("share", "share", "{:.0%}".format),
        Column("rate", "GFLOP/s", TIMES),
        Column("of", "of the rate of products", "{:.0%}".format),
    ]
    # A multiplication and an addition for each 8 bytes that are read.
    bound = found["bandwidth"] / 4
    half = 2 / (1 / found["rate"] + 1 / bound)
    notes = [
        HOW,
        "Parts are timed bare, in NumPy, in turn with the whole: `cast` to "
        "float64, `product` the Gram products, `eigenvalues` of these. `rest` "
        "is what ours takes beyond them (checks, scaling, copies, Python); "
        "below zero where ours has a faster way for a part.",
        f"Products of float64 matrices run at {found['rate'] / 1e9:.3g} "
        f"GFLOP/s, products with a vector from memory at "
        f"{found['bandwidth'] / 1e9:.3g} GB/s, which is {bound / 1e9:.3g} "
        "GFLOP/s. Half of the 4/3 n^3 of the reduction to tridiagonal form "
        "are such products, so that matrices too large for the cache reach "
        f"{half / 1e9:.3g} GFLOP/s in it at the most.",
    ]
    keep(Table("Profiles", columns, rows, notes), "spectra_profiles")


@pytest.mark.parametrize("kind", matrices.KINDS)
@pytest.mark.parametrize("name", ["MLP-BN-10-100", "ResNet-18", "VGG-16-BN"])
def test_ours(benchmark, name, kind):
    """The plain times, for pytest-benchmark to compare from run to run."""
    given = rivals.matrices_of(matrices.kernels(name, kind))
    benchmark.group = f"linalg.spectra, {kind}"
    with threadpoolctl.threadpool_limits(1):
        benchmark.pedantic(
            lambda: list(linalg.spectra(given)), rounds=5, warmup_rounds=1
        )


def test_sides_agree():
    """What is compared are the same singular values."""
    given = [matrices.random_matrix((64, 32), 0)]
    expected = rivals.ours("numpy")(given)()
    found = {
        name: side(given)() for name, side in rivals.calls("numpy").items()
    }
    sides.check(found, expected)
    with pytest.raises(AssertionError, match="other singular values"):
        sides.check({"wrong": [2 * expected[0]]}, expected)
