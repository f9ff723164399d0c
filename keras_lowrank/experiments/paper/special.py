"""Claims about whole spectra and whole runs, rather than final ranks."""

import dataclasses

import numpy as np

from keras_lowrank.experiments.paper.claims import Claim
from keras_lowrank.experiments.paper.claims import Verdict
from keras_lowrank.experiments.paper.curves import HALF_RANK
from keras_lowrank.experiments.paper.curves import clock
from keras_lowrank.experiments.paper.curves import norm_ratios
from keras_lowrank.experiments.paper.figure import label
from keras_lowrank.experiments.paper.points import Study
from keras_lowrank.measures import numerical_rank
from keras_lowrank.theory import closed_form_rank
from keras_lowrank.theory import epsilon_rank


@dataclasses.dataclass(frozen=True, kw_only=True)
class RatiosComeTo(Claim):
    """At each learning rate but the first, norm ratios come to a value.

    Theorem 3.3 assumes that norms come to rest, so that ratios tend to 1.
    Where gradients vanish they tend to what decay leaves, which is less. For
    each learning rate after the first cut this takes the median over the
    later half of its intervals, and asks which of the two is nearer.

    Args:
        decay: Boolean: to what decay leaves, rather than to 1.
    """

    decay: bool

    def judge(self, study: Study) -> Verdict:
        """As for every claim."""
        told, holds = [], []
        for point in self.points(study):
            for outcome in point.alive:
                ratios = norm_ratios(outcome.spec, outcome.recording)
                # As text, since float32 rates differ in their last digits.
                rates = np.array([f"{rate:.4g}" for rate in ratios.rates])
                for rate in dict.fromkeys(rates[rates != rates[0]]):
                    chosen = np.flatnonzero(rates == rate)
                    chosen = chosen[len(chosen) // 2 :]
                    ratio = float(np.median(ratios.values[chosen]))
                    left = float(np.median(ratios.decay[chosen]))
                    near = abs(ratio - left) < abs(ratio - 1)
                    holds.append(near == self.decay)
                    told.append(
                        f"{label(point.key)}, seed {outcome.spec.seed}, cut "
                        f"to {rate}: {ratio:.4f}, decay alone {left:.4f}"
                    )
        if not holds:
            return self.verdict(
                None, "no network alive that was measured after a cut"
            )
        return self.verdict(
            all(holds), f"{sum(holds)} of {len(holds)}: {'; '.join(told)}"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class BoundHolds(Claim):
    """Ranks are below the bound of Theorem 3.3, with the real constants.

    The lambda of the theorem is half of torch's weight decay. It is about a
    constant learning rate, so this looks at the last measurement before the
    first cut.

    Args:
        epsilons: Tuple of floats, distances from a matrix of that rank.
    """

    epsilons: tuple[float, ...]

    def judge(self, study: Study) -> Verdict:
        """As for every claim."""
        told, holds = [], []
        for point in self.points(study):
            for outcome in point.alive:
                spec = outcome.spec
                last = [
                    item
                    for item in outcome.recording.measurements
                    if np.isclose(item.learning_rate or 0.0, spec.learning_rate)
                ][-1]
                for epsilon in self.epsilons:
                    bound = closed_form_rank(
                        1,
                        spec.batch_size,
                        spec.learning_rate,
                        spec.weight_decay / 2,
                        epsilon,
                    )
                    matrices = [
                        record.spectrum
                        for record in last.records
                        if min(record.spectrum.shape) > bound
                    ]
                    said = f"epsilon {epsilon:g}: bound {bound:.0f}"
                    if not matrices:
                        told.append(f"{said}, which says nothing")
                        continue
                    ranks = [epsilon_rank(item, epsilon) for item in matrices]
                    holds.append(max(ranks) <= bound)
                    told.append(f"{said}, epsilon-rank up to {max(ranks)}")
                told.append(f"at epoch {last.epoch}, seed {spec.seed}")
        return self.verdict(
            all(holds) if holds else None,
            "; ".join(told) or "no network that did not collapse",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpectraCross(Claim):
    """Spectra at small and at large batches cross.

    Of the spectra divided by their Frobenius norm, at the smallest batch the
    first value is larger and the second half has less than at the largest.

    Args:
        share: Float, of the weight matrices of which it must be so.
    """

    share: float = 0.75

    def judge(self, study: Study) -> Verdict:
        """As for every claim."""
        alive = sorted(
            (point for point in self.points(study) if point.alive),
            key=lambda point: point.field("batch_size"),
        )
        if len(alive) < 2:
            return self.verdict(None, "fewer than two points are alive")
        small, large = (point.alive[0] for point in (alive[0], alive[-1]))
        crossed = [
            _head(one.spectrum) > _head(other.spectrum)
            and _tail(one.spectrum) < _tail(other.spectrum)
            for one, other in zip(
                *(
                    run.recording.measurements[-1].records
                    for run in (small, large)
                ),
                strict=True,
            )
        ]
        return self.verdict(
            sum(crossed) >= self.share * len(crossed),
            f"so in {sum(crossed)} of {len(crossed)} matrices, batch size "
            f"{small.spec.batch_size} against {large.spec.batch_size}, seed "
            f"{small.spec.seed}",
        )


def _shares(spectrum) -> np.ndarray:
    return spectrum.values / np.linalg.norm(spectrum.values)


def _head(spectrum) -> float:
    return float(_shares(spectrum)[0])


def _tail(spectrum) -> float:
    values = _shares(spectrum)
    return float(np.linalg.norm(values[len(values) // 2 :]))


@dataclasses.dataclass(frozen=True, kw_only=True)
class DropsAtOneClock(Claim):
    """Ranks drop at one decay clock, whatever learning rate and decay.

    Args:
        ratio: Float, the largest ratio of two of the clocks.
    """

    ratio: float = 1.5

    def judge(self, study: Study) -> Verdict:
        """As for every claim."""
        told, clocks = [], []
        for point in self.points(study):
            expected = point.reference.get(HALF_RANK)
            paper = f" (the paper {expected:g})" if expected else ""
            for outcome in point.alive:
                if HALF_RANK not in outcome.values:
                    continue
                epoch = int(outcome.values[HALF_RANK])
                taus = clock(outcome.spec, outcome.recording)
                epochs = outcome.recording.epochs
                clocks.append(float(taus[epochs.index(epoch)]))
                told.append(
                    f"{label(point.key)}, seed {outcome.spec.seed}: epoch "
                    f"{epoch}{paper}, clock {clocks[-1]:.2f}"
                )
        if len(clocks) < 2:
            return self.verdict(
                None, "fewer than two runs lost half their rank"
            )
        return self.verdict(
            max(clocks) <= self.ratio * min(clocks), "; ".join(told)
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class OneTolerance(Claim):
    """Some tolerance gives the paper's ranks, where it does not state one.

    Args:
        low: Float, the smallest tolerance tried.
        high: Float, the largest.
        within: Float, the largest difference of mean ranks.
    """

    low: float
    high: float
    within: float

    def judge(self, study: Study) -> Verdict:
        """As for every claim."""
        if verdict := self.against_numbers(study):
            return verdict
        points = [
            point
            for point in self.points(study)
            if point.alive
            and "rank" in point.reference
            and not point.collapsed_in_paper
        ]
        if not points:
            return self.verdict(None, "no point alive that the paper reports")
        worst = {}
        for tolerance in np.geomspace(self.low, self.high, 40):
            worst[tolerance] = max(
                abs(_mean_rank(point, tolerance) - point.reference["rank"])
                for point in points
            )
        best = min(worst, key=worst.__getitem__)
        return self.verdict(
            worst[best] <= self.within,
            f"{best:.3g} fits {len(points)} points best, with a largest "
            f"difference of {worst[best]:.1f}",
        )


def _mean_rank(point, tolerance: float) -> float:
    return float(
        np.mean(
            [
                numerical_rank(record.spectrum, tolerance)
                for outcome in point.alive
                for record in outcome.recording.measurements[-1].records
            ]
        )
    )
