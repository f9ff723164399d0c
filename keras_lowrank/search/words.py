"""What a search found, in words: a table of its trials, and its gain."""

from typing import TYPE_CHECKING

from keras_lowrank.search.trials import DEFAULT_TRIAL
from keras_lowrank.search.trials import Trial
from keras_lowrank.tables import Column
from keras_lowrank.tables import Table

if TYPE_CHECKING:
    from keras_lowrank.search.results import SearchResults


def trials_table(results: "SearchResults", count: int | None = None) -> Table:
    """The trials by score, with their goals as means and intervals."""
    names = list(dict.fromkeys(n for t in results.trials for n in t.values))
    front = {trial.id for trial in results.pareto()}
    ranked = sorted(results.trials, key=results.order)
    columns = [
        Column("trial", "Trial"),
        *(Column(name, _heading(name), _value) for name in names),
        *(
            Column(name, _heading(name), str)
            for name, _ in results.objective.goals
        ),
        Column("size", "Size", lambda value: f"{value:.0f}"),
        Column("state", "State", justify="left"),
    ]
    rows = [
        {
            "trial": trial.id,
            **trial.values,
            **{
                name: trial.interval(name)
                for name, _ in results.objective.goals
                if name in trial.metrics
            },
            "size": trial.metrics.get("size"),
            "state": _state(results, trial, trial.id in front),
            "reason": trial.reason,
            "score": trial.score(results.objective),
        }
        for trial in ranked[:count]
    ]
    notes = [
        f"Objective: {results.objective}. Values at the end of training, "
        f"means over {len(results.settings.seeds)} seeds"
        + (
            " ± half the width of the 95 % interval (Student's t)."
            if len(results.settings.seeds) > 1
            else "."
        ),
        "Size: numbers to keep the weight matrices, each in two factors "
        "of its rank where that is less.",
    ]
    return Table("Trials, the best first", columns, rows, notes)


def gain(results: "SearchResults", level: float) -> list[str]:
    """What the search gained over its default, in sentences."""
    default = next(
        (trial for trial in results.trials if trial.id == DEFAULT_TRIAL), None
    )
    found = [trial for trial in results.best() if trial is not default]
    if default is None or not found:
        return ["No trial is better than the default."]
    (best,) = found
    if not results.objective.meets(best.metrics):
        return [f"No trial keeps the constraint: {results.objective}."]
    told = ", ".join(
        f"{name} {best.interval(name, level)} against "
        f"{default.interval(name, level)}"
        for name, _ in results.objective.goals
    )
    values = ", ".join(f"{k} {_value(v)}" for k, v in best.values.items())
    lines = [f"Best is trial {best.id} ({values}): {told}."]
    if default.status != "complete":
        return [*lines, f"The default {default.status}: {default.reason}."]
    gains = results.dominates(best, default, level)
    better = {n for n, gain in gains.items() if gain.mean >= 0}
    verdict = "dominates" if better == set(gains) else "does not dominate"
    told = ", ".join(f"{n} better by {g}" for n, g in gains.items())
    lines.append(f"It {verdict} the default: seed by seed, {told}.")
    return lines


def _state(results: "SearchResults", trial: Trial, on_front: bool) -> str:
    if trial.status != "complete":
        return trial.status
    words = [] if results.objective.meets(trial.metrics) else ["misses"]
    return ", ".join([*words, *(["front"] if on_front else [])])


def _heading(name: str) -> str:
    words = name.removesuffix("_mean").replace("val_", "test ")
    return words.replace("_", "\n").replace(" ", "\n").capitalize()


def _value(value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
