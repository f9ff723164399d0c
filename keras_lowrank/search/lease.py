"""Oracles of KerasTuner that survive the death of a worker, and their own."""

import json
import pathlib
import time
from typing import Any

from keras_lowrank.experiments.runs import write_whole
from keras_lowrank.search.engines import keras_tuner


def leased(kind: Any, seconds: float) -> Any:
    """An oracle that takes a trial back from a worker that went silent.

    KerasTuner's own waits for such a worker for ever, and so does its chief.
    This one hears of workers when they ask for a trial, and while they train
    one when they ask after it (`get_trial`). It also writes its files whole or
    not at all, and loses nothing to a kill between two of them.

    Args:
        kind: Class of an oracle.
        seconds: Float, the silence after which a trial is another's.

    Returns:
        A subclass of `kind`, with a method `take_back` to be called now and
        then.
    """

    class Leased(kind):
        _retry_queue: list[str]

        def __init__(self, **options):
            super().__init__(**options)
            self._heard: dict[str, float] = {}

        def create_trial(self, tuner_id):
            self._heard[tuner_id] = time.monotonic()
            trial = super().create_trial(tuner_id)
            if trial.status == "STOPPED" and self.ongoing_trials:
                # One of those may come back, and is then this worker's.
                self.tuner_ids.add(tuner_id)
                trial.status = "IDLE"
            return trial

        def get_trial(self, trial_id):
            for tuner_id, trial in list(self.ongoing_trials.items()):
                if trial.trial_id == trial_id:
                    self._heard[tuner_id] = time.monotonic()
            return super().get_trial(trial_id)

        def end_trial(self, trial):
            if trial.trial_id not in self.end_order:
                super().end_trial(trial)
                if trial.trial_id in self._retry_queue:
                    self._retry_queue.remove(trial.trial_id)
                return
            # Two had it, and the other was faster.
            for tuner_id, ongoing in list(self.ongoing_trials.items()):
                if ongoing.trial_id == trial.trial_id:
                    del self.ongoing_trials[tuner_id]

        @keras_tuner().synchronized
        def take_back(self) -> None:
            """Put the trials of silent workers where others find them."""
            now = time.monotonic()
            for tuner_id in list(self.tuner_ids):
                heard = self._heard.setdefault(tuner_id, now)
                if now - heard <= seconds:
                    continue
                self.tuner_ids.discard(tuner_id)
                trial = self.ongoing_trials.pop(tuner_id, None)
                if trial is not None and trial.trial_id not in self.end_order:
                    self._retry_queue.append(trial.trial_id)
                    self.save()

        def save(self):
            # KerasTuner writes in place, and a kill leaves half a file.
            write_whole(
                pathlib.Path(self._get_oracle_fname()),
                json.dumps(self.get_state()),
            )

        def _save_trial(self, trial):
            directory = pathlib.Path(self._get_trial_dir(trial.trial_id))
            write_whole(directory / "trial.json", json.dumps(trial.get_state()))

        def reload(self):
            super().reload()
            # It saves a trial before its own state when one begins, and its
            # own state before it lets go of one that ended.
            ended = set(self.end_order)
            waiting = [item for item in self._retry_queue if item not in ended]
            waiting += [
                item
                for item in self.trials
                if item not in ended and item not in waiting
            ]
            self._retry_queue = list(reversed(waiting))

    return Leased
