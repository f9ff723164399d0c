"""Which side leaves what rounding explains, at which step, by which weight."""

import dataclasses
import itertools
import math
from collections.abc import Iterable
from collections.abc import Mapping

from keras_lowrank.experiments.compare.snapshot import ALL_WEIGHTS
from keras_lowrank.experiments.compare.snapshot import LOSS
from keras_lowrank.experiments.compare.snapshot import OPTIMIZER
from keras_lowrank.experiments.compare.snapshot import SPECTRUM

# A side leaves beyond this multiple of the largest shadow. Shadows err by many
# units in the last place already; this is for what is random in the largest of
# a few, and for backends that sum in other orders. Over fourteen experiments
# correct ones came to 0.55 of it at most, in a bias before a batch
# normalization, and to 0.12 in any other variable but those of Adam.
MARGIN = 4.0
# Less than this is never a difference: a few roundings of a float32.
FLOOR = 4 * 2.0**-23
Moment = tuple[int, int]
Differences = Mapping[str, float]
Pair = tuple[str, str]


@dataclasses.dataclass(frozen=True)
class Excess:
    """One quantity that has left its band.

    Args:
        name: String, the name of a variable, or `"spectrum of ..."`, `"loss"`
            or `"all weights"`.
        difference: Float, relative.
        band: Float, the largest difference that rounding explains.
    """

    name: str
    difference: float
    band: float

    @property
    def ratio(self) -> float:
        """How many times the band the difference is."""
        if math.isinf(self.band):
            return 0.0
        return self.difference / self.band if self.band else math.inf


@dataclasses.dataclass(frozen=True)
class Divergence:
    """Where one side leaves the reference.

    Args:
        side: String, the label of the side.
        start: Int, the step at which the leg starts: 0, or one from which the
            side went on with the state of the reference.
        step: Int, the first traced step at which it has left.
        excesses: Tuple of `Excess`, weights before what the optimizer keeps
            and that before what follows from both, the largest ratio first.
        single_step: Tuple of strings, groups of the variables that one step
            from the same state gives otherwise, those it does most often and
            clearest first.
        odd: String, the label of the one side that differs from all others,
            which agree; `None` where there is not one.
    """

    side: str
    start: int
    step: int
    excesses: tuple[Excess, ...]
    single_step: tuple[str, ...] = ()
    odd: str | None = None

    def describe(self) -> str:
        """What happened, in a sentence or two."""
        worst = self.excesses[0]
        where = f"{self.side} leaves at step {self.step}"
        if self.start:
            where += f", from the state of the reference at step {self.start}"
        text = (
            f"{where}: {worst.name} differs by {worst.difference:.2g}, "
            f"{worst.ratio:.3g} times what rounding explains."
        )
        if self.single_step:
            text += (
                " One step from the same state changes otherwise: "
                f"{'; '.join(self.single_step)}."
            )
        if self.odd:
            text += f" The odd one out is {self.odd}."
        return text


def allowed(
    shadows: Mapping[Moment, Differences],
    expected: Mapping[Moment, Differences],
    tolerance: float = 0.0,
    lost: float = 1e-3,
) -> dict[Moment, dict[str, float]]:
    """The largest difference of everything that rounding explains.

    Any difference is, of what consists of rounding itself. The gradient of a
    bias before a batch normalization is one such: 0, but for what each backend
    loses in its sums.

    Args:
        shadows: Dict from `(start, step)` to the largest differences of the
            shadows, as `Trace.shadows` gives it.
        expected: The same of shadows that err by one unit in the last place.
        tolerance: Float >= 0, differences that are accepted in any case.

        lost: Float, the share of itself by which one unit moves what consists
            of rounding.

    Returns:
        Dict from `(start, step)` to a dict from names to floats, infinite for
        what consists of rounding.
    """
    least = max(FLOOR, tolerance)

    def limit(moment, name, value):
        if expected[moment][name] >= lost:
            return math.inf
        return max(least, MARGIN * value)

    return {
        moment: {
            name: limit(moment, name, value) for name, value in values.items()
        }
        for moment, values in shadows.items()
    }


def find_divergences(
    pairs: Mapping[Pair, Mapping[Moment, Differences]],
    band: Mapping[Moment, Mapping[str, float]],
    layers: Mapping[str, str],
) -> list[Divergence]:
    """Every side that leaves the reference, and where it does so first.

    Args:
        pairs: Dict from two labels, with the reference first where it is one
            of them, to the differences at every moment. The reference is the
            first side of the first pair.
        band: As `allowed` gives it.
        layers: Dict from the name of every variable to the class of its
            layer.

    Returns:
        List of `Divergence`, one for each side that leaves.
    """
    reference = next(iter(pairs))[0]
    sides = list(dict.fromkeys(itertools.chain.from_iterable(pairs)))
    found = []
    for side in sides:
        if side == reference:
            continue
        left = {
            moment: excess
            for moment in band
            if (
                excess := _excesses(
                    pairs[reference, side].get(moment, {}), band[moment]
                )
            )
        }
        if not left:
            continue
        # Of two legs at one step, the one that started later says more.
        start, step = min(left, key=lambda moment: (moment[1], -moment[0]))
        found.append(
            Divergence(
                side,
                start,
                step,
                tuple(left[start, step]),
                tuple(_single_steps(left, layers)),
                _odd_one(pairs, (start, step), band[start, step], sides),
            )
        )
    return found


def _excesses(values: Differences, band: Mapping[str, float]) -> list[Excess]:
    found = [
        Excess(name, value, band[name])
        for name, value in values.items()
        if name in band and value > band[name]
    ]
    return sorted(found, key=lambda item: (_rank(item.name), -item.ratio))


def _rank(name: str) -> int:
    """Weights first, then the optimizer's own, then what follows from them."""
    if name in (LOSS, ALL_WEIGHTS) or name.startswith(SPECTRUM):
        return 2
    return 1 if name.startswith(OPTIMIZER) else 0


def _odd_one(pairs, moment, band, sides) -> str | None:
    """The side that differs from all others where these agree."""
    if len(sides) < 3:
        return None
    differing = [
        pair
        for pair, values in pairs.items()
        if _excesses(values.get(moment, {}), band)
    ]
    for side in sides:
        with_it = [pair for pair in pairs if side in pair]
        if sorted(differing) == sorted(with_it):
            return side
    return None


def _single_steps(left, layers: Mapping[str, str]) -> list[str]:
    """Groups of variables that a single step gives otherwise."""
    times: dict[str, int] = {}
    ratios: dict[str, float] = {}
    for (start, step), excesses in left.items():
        if step != start + 1:
            continue
        for item in excesses:
            if item.name in layers:
                times[item.name] = times.get(item.name, 0) + 1
                ratios[item.name] = max(ratios.get(item.name, 0.0), item.ratio)
    clearest = sorted(
        times, key=lambda name: (_rank(name), -times[name], -ratios[name])
    )
    return group(clearest, layers)


def group(names: Iterable[str], layers: Mapping[str, str]) -> list[str]:
    """Names as few words: `gamma of every BatchNormalization (5)`.

    Args:
        names: Names of variables, the most telling first.
        layers: Dict from the name of every variable to the class of its
            layer, `"optimizer"` for what the optimizer keeps.

    Returns:
        List of strings, in the order of the first name of each.
    """
    sizes: dict[tuple[str, str], int] = {}
    for name in layers:
        kind = _kind(name, layers[name])
        sizes[kind] = sizes.get(kind, 0) + 1
    members: dict[tuple[str, str], list[str]] = {}
    for name in names:
        members.setdefault(_kind(name, layers[name]), []).append(name)
    texts = []
    for (role, layer), found in members.items():
        count = sizes[role, layer]
        if len(found) == count > 1:
            texts.append(f"{role} of every {layer} ({count})")
        elif count > 1:
            more = f" and {len(found) - 3} more" if len(found) > 3 else ""
            texts.append(
                f"{', '.join(found[:3])}{more} ({len(found)} of {count}: "
                f"{role} of a {layer})"
            )
        else:
            texts += found
    return texts


def _kind(name: str, layer: str) -> tuple[str, str]:
    """What a variable is to its layer, and the layer."""
    last = name.split("/")[-1]
    if not name.startswith(OPTIMIZER):
        return last, layer
    # `hidden_0_kernel_momentum`: the last word says what it is.
    return last.rsplit("_", 1)[-1], "weight, kept by the optimizer"


def is_variable(name: str) -> bool:
    """Whether a quantity is a variable, not what follows from them."""
    return _rank(name) < 2
