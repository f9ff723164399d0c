"""`compression_plan`: ranks by energy, error, measure, budget or accuracy."""

import math
from typing import Any

from keras_lowrank.compress.allocate import allocate
from keras_lowrank.compress.calibration import second_moments
from keras_lowrank.compress.candidates import SCHEMES
from keras_lowrank.compress.candidates import Candidates
from keras_lowrank.compress.candidates import find_candidates
from keras_lowrank.compress.candidates import kernel_layers
from keras_lowrank.compress.candidates import layer_names
from keras_lowrank.compress.candidates import schemes_of
from keras_lowrank.compress.compress import compress
from keras_lowrank.compress.layer_plan import LayerPlan
from keras_lowrank.compress.plan import CompressionPlan
from keras_lowrank.compress.scores import sample_scores
from keras_lowrank.layers import low_rank_class
from keras_lowrank.measures import as_measure
from keras_lowrank.measures import energy_rank

CRITERIA = ("energy", "tolerance", "rank", "parameters", "flops", "accuracy")
# How often a budget is halved to meet a floor of accuracy.
HALVINGS = 10


def compression_plan(
    model,
    *,
    energy: float | None = None,
    tolerance: float | None = None,
    rank=None,
    parameters: float | None = None,
    flops: float | None = None,
    accuracy: float | None = None,
    data=None,
    score=None,
    layers=None,
    scheme: str = "channel",
    calibration=None,
    clone=None,
    x=None,
) -> CompressionPlan:
    """Which layers of a model get which rank, and what that should gain.

    Ranks are chosen by one of:

    - `energy`: the smallest rank that holds this share of the squared
      singular values of each matrix, as `energy_rank` counts it;
    - `tolerance`: the smallest whose relative error, of each matrix, is at
      most this: the same as an energy of `1 - tolerance**2`;
    - `rank`: what a measure says of each matrix, rounded up; or a number, for
      all layers or by name;
    - `parameters`: a budget for the whole model, shared out so that the
      product of the energies that its matrices keep is largest;
    - `flops`: the same for the floating-point operations of the listed
      layers, for one sample;
    - `accuracy`: the smallest budget of parameters, of those that bisection
      tries, whose model scores at least this on `data`.

    A layer stays as it is, with the reason, where its factors would have no
    fewer weights than its kernel (or cost no less, under a budget of
    `flops`), and where it has no low-rank form.

    Args:
        model: Built Keras model, which is not changed.
        energy: Float in (0, 1].
        tolerance: Float in [0, 1).
        rank: A measure, as `as_measure` takes it; an int; or a dict from
            names of layers to ints, in which case the others stay.
        parameters: Float in (0, 1), the share of the model's parameters to
            keep, or an int, their number.
        flops: Float in (0, 1), the share of the FLOPs of the listed layers, or
            an int, their number.
        accuracy: Float, the mean score to keep.
        data: Validation data for `accuracy`: a tuple `(x, y)` of arrays, or
            a data set that gives batches of them each time it is asked.
        score: Function from targets and outputs, NumPy arrays, to one number
            for each sample, larger for better. Whether a sample is classified
            correctly, by default.
        layers: Which layers: a regular expression searched in their names, a
            name, a layer, or a list of these. All by default.
        scheme: How 2D convolutions are factored: `"channel"`, `"spatial"` (see
            `LowRankConv2D`), or `"auto"`, whichever costs less.
        calibration: Inputs (a few hundred are usually enough), so that the
            errors of the *outputs* for such inputs are made small rather than
            those of the kernels. `compress` needs them as well. Embeddings
            are truncated by themselves all the same.
        clone: As for `compress`, where `accuracy` needs it.
        x: One sample or more, for models whose input shapes do not say how
            often each kernel is used.

    Returns:
        A `CompressionPlan`: print it, edit it, save it, `compress` with it.

    Raises:
        ValueError: unless there is exactly one criterion, and it can be kept.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((64,)),
    ...     keras.layers.Dense(64, use_bias=False, name="hidden"),
    ... ])
    >>> model.set_weights([np.diag([3.0, 2.0, 1.0] + 61 * [0.0])])
    >>> plan = compression_plan(model, tolerance=0.5)
    >>> plan["hidden"].rank, round(plan["hidden"].error, 4)
    (2, 0.2673)
    """
    given = {
        name: value
        for name, value in zip(
            CRITERIA,
            (energy, tolerance, rank, parameters, flops, accuracy),
            strict=True,
        )
        if value is not None
    }
    if len(given) != 1:
        raise ValueError(
            f"A plan has one criterion of {CRITERIA}. Received: "
            f"{list(given) or 'none'}."
        )
    if scheme not in SCHEMES:
        raise ValueError(
            f"`scheme` must be one of {SCHEMES}. Received: scheme={scheme!r}."
        )
    if (data is None) != (accuracy is None):
        raise ValueError(
            "`accuracy` and `data` belong together. Received: "
            f"accuracy={accuracy}, data={'none' if data is None else 'some'}."
        )
    (criterion, value) = next(iter(given.items()))
    moments = None
    if calibration is not None:
        moments = _moments(model, layers, scheme, calibration)
    candidates = find_candidates(model, layers, scheme, x, moments)
    maker = _Maker(model, candidates, moments is not None)
    if criterion == "accuracy":
        return _for_accuracy(maker, value, data, score, calibration, clone)
    return getattr(maker, f"by_{criterion}")(value)


def _moments(model, selected, scheme, calibration):
    layers = kernel_layers(model)
    chosen = layer_names(layers, selected)
    forms = [
        (name, one)
        for name, layer in layers.items()
        if name in chosen
        and (form := low_rank_class(layer))
        and not form.reason_against(layer)
        for one in schemes_of(layer, scheme)
    ]
    return second_moments(model, layers, forms, calibration)


def quick_plan(model, criterion: str, value, layers=None, scheme="channel"):
    """A plan without FLOPs, its spectra as exact as those of `RankTracker`.

    Args:
        model: Built Keras model.
        criterion: String, `"energy"`, `"tolerance"` or `"rank"`.
        value: As for `compression_plan`.
        layers: As for `compression_plan`.
        scheme: As for `compression_plan`.

    Returns:
        A `CompressionPlan`.
    """
    candidates = find_candidates(
        model, layers, scheme, method="auto", count_flops=False
    )
    maker = _Maker(model, candidates, calibrated=False)
    return getattr(maker, f"by_{criterion}")(value)


class _Maker:
    """Plans of one model, by one criterion or another."""

    def __init__(self, model, candidates: Candidates, calibrated: bool):
        self.model = model
        self.forms = candidates.forms
        self.notes = candidates.notes
        self.calibrated = calibrated

    @property
    def free(self) -> dict[str, list[LayerPlan]]:
        """The layers that have a low-rank form."""
        return {
            name: forms for name, forms in self.forms.items() if forms[0].values
        }

    def kept(self, reason: str) -> dict[str, LayerPlan]:
        """These layers, left as they are for a reason."""
        return {
            name: forms[0].kept(reason) for name, forms in self.free.items()
        }

    def plan(self, chosen: dict[str, LayerPlan], criterion: str):
        """A plan with these layers in the places of the candidates."""
        layers = [
            chosen.get(name, forms[0]) for name, forms in self.forms.items()
        ]
        return CompressionPlan(
            layers,
            self.model.name,
            self.model.count_params(),
            criterion,
            self.calibrated,
            self.notes,
        )

    def by_energy(self, energy):
        if not 0 < energy <= 1:
            raise ValueError(
                f"`energy` must be in (0, 1]. Received: energy={energy}."
            )
        return self._each(
            lambda form: energy_rank(form.spectrum, energy),
            f"energy_rank(energy={energy:g})",
        )

    def by_tolerance(self, tolerance):
        if not 0 <= tolerance < 1:
            raise ValueError(
                "`tolerance` must be in [0, 1), a relative error. "
                f"Received: tolerance={tolerance}."
            )

        def smallest(form):
            ranks = range(1, form.full_rank + 1)
            return next(r for r in ranks if form.error_at(r) <= tolerance)

        return self._each(smallest, f"relative error at most {tolerance:g}")

    def by_rank(self, rank):
        if isinstance(rank, dict):
            return self._named(rank)
        if isinstance(rank, int) and not isinstance(rank, bool):
            if rank < 1:
                raise ValueError(
                    f"`rank` must be 1 or more. Received: rank={rank}."
                )
            return self._each(
                lambda form: min(rank, form.full_rank), f"rank {rank}"
            )
        measure = as_measure(rank)
        return self._each(
            lambda form: measure(form.spectrum), measure.definition
        )

    def by_parameters(self, parameters):
        total = self.model.count_params()
        budget = _budget("parameters", parameters, total)
        fixed = total - sum(forms[0].parameters for forms in self.free.values())
        return self._allocated(self.free, budget, fixed, "parameters")

    def by_flops(self, flops):
        listed = [forms[0].flops for forms in self.forms.values()]
        free = {
            name: forms
            for name, forms in self.free.items()
            if forms[0].flops is not None
        }
        if not free:
            raise ValueError(
                "The FLOPs of no layer are known. "
                f"{' '.join(self.notes) or 'Give a sample as `x=`.'}"
            )
        total = sum(one for one in listed if one is not None)
        budget = _budget("flops", flops, total)
        fixed = total - sum(forms[0].flops or 0 for forms in free.values())
        return self._allocated(free, budget, fixed, "flops")

    def _allocated(self, free, budget, fixed, cost):
        layers = allocate(list(free.values()), budget - fixed, cost)
        chosen = {layer.name: layer for layer in layers}
        return self.plan(chosen, f"a budget of {budget:,.0f} {cost}")

    def _each(self, rank_of, criterion):
        """Every layer at the rank that is right for it."""
        chosen = {}
        for name, forms in self.free.items():
            found = [
                form.with_rank(min(max(1, _up(rank_of(form))), form.full_rank))
                for form in forms
            ]
            chosen[name] = min(found, key=lambda one: one.parameters_after)
        return self.plan(chosen, criterion)

    def _named(self, ranks: dict[str, Any]):
        chosen = self.kept("no rank was given")
        known = self.plan(chosen, "")
        chosen |= {
            name: known[name].with_rank(rank) for name, rank in ranks.items()
        }
        return self.plan(chosen, "ranks that were given")


def _up(rank: float) -> int:
    # A count that rounding made a little larger is the count.
    return math.ceil(rank - 1e-9)


def _budget(name: str, value, total: float) -> float:
    """A budget as a number, from a share or a number."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if whole and value >= 1:
        return float(value)
    if isinstance(value, float) and 0 < value < 1:
        return value * total
    raise ValueError(
        f"`{name}` must be a share in (0, 1) of the {total:,.0f} there are, or "
        f"a whole number of them. Received: {name}={value!r}."
    )


def _for_accuracy(maker, floor, data, score, calibration, clone):
    """The smallest budget, of those tried, that keeps the floor."""
    model = maker.model

    def mean_score(plan):
        small = compress(model, plan, calibration, clone)
        return float(sample_scores(small, data, score).mean())

    whole = float(sample_scores(model, data, score).mean())
    if whole < floor:
        raise ValueError(
            "The model itself must reach the floor. Received: "
            f"accuracy={floor} for a model that scores {whole:.4f} on `data`."
        )
    free = maker.free.values()
    total = model.count_params()
    fixed = total - sum(forms[0].parameters for forms in free)
    least = fixed + sum(
        min(
            form.parameters_per_rank
            if form.largest_paying_rank
            else form.parameters
            for form in forms
        )
        for forms in free
    )
    best, reached = maker.kept("the floor allows no less"), whole
    low, high = least, total
    for _ in range(HALVINGS):
        # The logarithm, since what matters is the factor.
        middle = int(math.sqrt(low * high))
        if middle <= low or high <= low + 1:
            break
        plan = maker.by_parameters(middle)
        found = mean_score(plan)
        if found >= floor:
            best = {layer.name: layer for layer in plan.layers}
            reached, high = found, middle
        else:
            low = middle
    criterion = (
        f"the smallest budget found with a score of at least {floor:g} "
        f"({reached:.4f}; {whole:.4f} before)"
    )
    return maker.plan(best, criterion)
