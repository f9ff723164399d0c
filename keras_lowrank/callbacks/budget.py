"""How often one can measure at a given share of the time of a fit."""

import math


class Budget:
    """Spaces measurements evenly, so that their cost stays a given share.

    The first state and the last are always measured; between them as many
    measurements are spread over the epochs as the time that the fit will take
    leaves room for. That time is known ever better; from the first epoch, which
    compiles, nothing is concluded on those to come.

    Args:
        share: Float in (0, 1], of the wall time of the fit.
        epochs: Int, the epoch after which the fit ends, or `None`.

    Example:

    Epochs of a second and measurements of 50 ms, at one percent:

    >>> budget = Budget(0.01, epochs=40)
    >>> spent, measured = 0.05, [0]
    >>> for epoch in range(1, 40):
    ...     now = epoch + spent
    ...     if budget.allows(epoch, measured[-1], now, spent, spent, 0.05):
    ...         spent += 0.05
    ...         measured.append(epoch)
    >>> measured
    [0, 6, 12, 18, 24, 30, 35]
    """

    def __init__(self, share: float, epochs: int | None):
        self.share = share
        self.epochs = epochs
        self._first: tuple[int, float, float] | None = None

    def allows(
        self,
        epoch: int,
        measured: int,
        seconds: float,
        spent: float,
        measuring: float,
        cost: float,
    ) -> bool:
        """Whether to measure now, at the end of an epoch.

        To be asked after every epoch, also where the answer is not needed:
        so it learns what an epoch takes.

        Args:
            epoch: Int, epochs complete.
            measured: Int, how many were complete at the last measurement.
            seconds: Float, since the fit began.
            spent: Float, seconds of these that the tracker took.
            measuring: Float, seconds of `spent` that went into measurements;
                the rest goes into being asked after every epoch.
            cost: Float, seconds that a measurement takes.
        """
        trained, asking = seconds - spent, spent - measuring
        if self._first is None:
            self._first = epoch, trained, asking
        first, then, asked = self._first
        if self.epochs is None or epoch == first:
            # Nobody knows how long it goes on, so the last one is kept back.
            return spent + 2 * cost <= self.share * seconds
        of_an_epoch = (trained - then) / (epoch - first)
        total = seconds + (self.epochs - epoch) * of_an_epoch
        to_come = (self.epochs - epoch) * (asking - asked) / (epoch - first)
        left = self.share * total - spent - to_come - cost  # for the last one
        affordable = math.floor(left / cost) if cost > 0 else self.epochs
        if affordable < 1:
            return False
        gap = (self.epochs - measured) / (affordable + 1)
        return epoch - measured >= gap
