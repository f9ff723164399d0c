import functools
import math
import os
import shutil
import sqlite3
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from keras_lowrank import Spectrum
from keras_lowrank import as_measures
from keras_lowrank import numerical_rank
from keras_lowrank import stable_rank
from keras_lowrank.records import Measurement
from keras_lowrank.records import Record
from keras_lowrank.records import Recording
from keras_lowrank.records import Store
from keras_lowrank.records import measure_all
from keras_lowrank.records import open_run
from keras_lowrank.records.store import FILE_NAME

pytestmark = pytest.mark.once

MEASURES = as_measures(["rank", "stable_rank", "condition_number"])


def measurement(epoch, measures=MEASURES, logs=None, scale=1.0):
    spectra = {
        "dense/kernel": Spectrum(
            scale * np.geomspace(1, 10.0 ** -(epoch + 1), 4), (4, 9), 1e-7
        ),
        "dense_1/kernel": Spectrum(np.zeros(3), (9, 3)),
    }
    return Measurement(
        epoch=epoch,
        step=10 * epoch,
        records=tuple(
            Record(name, spectrum, measure_all(measures, spectrum))
            for name, spectrum in spectra.items()
        ),
        logs={"loss": 1.0 / (epoch + 1)} if logs is None else logs,
        learning_rate=0.1,
        batch_size=32,
        steps_per_epoch=10,
        seconds=0.01,
        time=1000.0 + epoch,
    )


def written(run_dir, epochs, first_epoch=0, measures=MEASURES):
    store = Store(run_dir)
    earlier = store.start_fit(first_epoch, measures, {"note": "a test"})
    for epoch in epochs:
        store.write(measurement(epoch, measures))
    store.close()
    return earlier


class TestRecording:
    def recording(self):
        return Recording(MEASURES, {}, [measurement(epoch) for epoch in (0, 2)])

    def test_history_has_series_of_equal_length(self):
        history = self.recording().history
        assert {len(series) for series in history.values()} == {2}
        assert history["epoch"] == [0, 2]
        assert history["step"] == [0, 20]
        assert history["rank_mean"] == [2.0, 1.5]
        assert history["rank/dense/kernel"] == [4.0, 3.0]
        assert history["loss"] == [1.0, 1 / 3]

    def test_rows_can_be_measured_anew(self):
        loose = functools.partial(numerical_rank, tolerance=0.2)
        rows = self.recording().rows({"loose": loose})
        assert [row["loose"] for row in rows] == [2.0, 0.0, 1.0, 0.0]
        assert "rank" not in rows[0]

    def test_frame(self):
        frame = self.recording().to_frame()
        assert len(frame) == 4
        assert set(frame["weight"]) == {"dense/kernel", "dense_1/kernel"}

    def test_epochs_must_increase(self):
        recording = self.recording()
        with pytest.raises(ValueError, match="epoch=2 after epoch=2"):
            recording.append(measurement(2))

    def test_unknown_weight(self):
        with pytest.raises(ValueError, match="Recorded: dense/kernel"):
            self.recording().spectra("conv/kernel")

    def test_table_flags_what_collapsed(self):
        text = self.recording().table().render(100)
        assert "collapsed" in text and "4 -> 3" in text
        assert "stable_rank()" in text

    def test_nothing_measured(self):
        recording = Recording(MEASURES)
        assert recording.history["rank_mean"] == []
        assert "Nothing was measured" in recording.table().render(80)

    def test_mean_of_nothing_is_nan(self):
        empty = Measurement(epoch=0, step=None, records=())
        assert math.isnan(empty.mean("rank"))


class TestStore:
    def test_round_trip(self, tmp_path):
        written(tmp_path, range(3))
        read = open_run(tmp_path)
        assert read.epochs == [0, 1, 2]
        assert read.info["note"] == "a test" and read.info["fits"] == 1
        assert [item.definition for item in read.measures] == [
            item.definition for item in MEASURES
        ]
        for epoch, found in enumerate(read.measurements):
            expected = measurement(epoch)
            for record, wanted in zip(
                found.records, expected.records, strict=True
            ):
                np.testing.assert_array_equal(
                    record.spectrum.values, wanted.spectrum.values
                )
                assert record.spectrum.shape == wanted.spectrum.shape
                assert record.spectrum.resolution == wanted.spectrum.resolution
                assert record.values == wanted.values
            assert found.logs == expected.logs
            assert found.step == expected.step
            assert found.learning_rate == 0.1 and found.batch_size == 32

    def test_read_by_file_as_by_directory(self, tmp_path):
        written(tmp_path, range(2))
        assert open_run(tmp_path / FILE_NAME).epochs == [0, 1]

    def test_other_thresholds_afterwards(self, tmp_path):
        written(tmp_path, range(2))
        loose = functools.partial(numerical_rank, tolerance=0.2)
        rows = open_run(tmp_path).rows({"loose": loose, "stable": stable_rank})
        assert rows[0]["loose"] == 2.0
        assert rows[0]["stable"] == stable_rank(
            measurement(0).records[0].spectrum
        )

    def test_nan_and_infinity_survive(self, tmp_path):
        store = Store(tmp_path)
        store.start_fit(0, MEASURES, {})
        broken = Spectrum([math.nan] * 2, (2, 2), reason="1 NaN of 4 entries")
        singular = Spectrum([1.0, 0.0], (2, 2))
        store.write(
            Measurement(
                0,
                0,
                (
                    Record("a", broken, measure_all(MEASURES, broken)),
                    Record("b", singular, measure_all(MEASURES, singular)),
                ),
                {"loss": math.nan, "big": math.inf},
            )
        )
        store.close()
        (found,) = open_run(tmp_path).measurements
        assert math.isnan(found.logs["loss"]) and found.logs["big"] == math.inf
        assert found.records[0].spectrum.reason == "1 NaN of 4 entries"
        assert math.isnan(found.records[0].values["rank"])
        assert found.records[1].values["condition_number"] == math.inf

    def test_a_new_fit_overwrites_nothing(self, tmp_path):
        written(tmp_path, range(4))
        written(tmp_path, range(2))
        assert open_run(tmp_path).epochs == [0, 1]
        assert open_run(tmp_path, fit=1).epochs == [0, 1, 2, 3]

    def test_a_resumed_fit_has_each_epoch_once(self, tmp_path):
        written(tmp_path, range(4))
        earlier = written(tmp_path, range(3, 6), first_epoch=2)
        assert earlier.epochs == [0, 1, 2]
        assert open_run(tmp_path).epochs == [0, 1, 2, 3, 4, 5]
        earlier = written(tmp_path, range(5, 7), first_epoch=4)
        assert earlier.epochs == [0, 1, 2, 3, 4]
        assert open_run(tmp_path).epochs == [0, 1, 2, 3, 4, 5, 6]

    def test_resuming_with_other_measures(self, tmp_path):
        written(tmp_path, range(3))
        loose = functools.partial(numerical_rank, tolerance=0.2)
        measures = as_measures({"rank": loose, "energy_rank": "energy_rank"})
        earlier = written(tmp_path, [3], first_epoch=2, measures=measures)
        for recording in (earlier, open_run(tmp_path)):
            assert recording.measurements[0].records[0].values["rank"] == 2.0
            assert "energy_rank" in recording.measurements[0].records[0].values

    def test_a_users_measure_is_kept_by_value_and_definition(self, tmp_path):
        def tail(spectrum, index=-1):
            return spectrum.values[index]

        measures = as_measures([tail])
        written(tmp_path, range(2), measures=measures)
        read = open_run(tmp_path)
        assert read.measures[0].definition == "tail(index=-1)"
        assert read.history["tail/dense/kernel"] == [
            measurement(epoch, measures).records[0].values["tail"]
            for epoch in range(2)
        ]
        assert math.isnan(read.measures[0](Spectrum([1.0], (1, 1))))

    def test_read_while_written(self, tmp_path):
        store = Store(tmp_path)
        store.start_fit(0, MEASURES, {})
        for epoch in range(3):
            store.write(measurement(epoch))
            assert open_run(tmp_path).epochs == list(range(epoch + 1))
        store.close()

    def test_closed_store_is_one_plain_file(self, tmp_path):
        written(tmp_path, range(2))
        assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]

    def test_two_runs_in_one_directory(self, tmp_path):
        first, second = Store(tmp_path), Store(tmp_path)
        first.start_fit(0, MEASURES, {})
        second.start_fit(0, MEASURES, {})
        first.write(measurement(0))
        second.write(measurement(0))
        first.write(measurement(1))
        first.close()
        second.close()
        assert open_run(tmp_path, fit=1).epochs == [0, 1]
        assert open_run(tmp_path, fit=2).epochs == [0]

    def test_a_measurement_is_written_whole_or_not_at_all(self, tmp_path):
        store = Store(tmp_path)
        store.start_fit(0, MEASURES, {})
        twice = measurement(0)
        broken = Measurement(0, 0, twice.records + twice.records)
        with pytest.raises(ValueError, match="UNIQUE"):
            store.write(broken)
        store.write(twice)
        store.close()
        assert len(open_run(tmp_path).measurements[0].records) == 2

    def test_sqlite_tools_can_read_it(self, tmp_path):
        written(tmp_path, range(2))
        with sqlite3.connect(tmp_path / FILE_NAME) as connection:
            rows = connection.execute(
                "SELECT epoch, json_extract(spectra.measures, '$.rank') "
                "FROM spectra JOIN measurements "
                "ON spectra.measurement = measurements.id "
                "WHERE weight = 'dense/kernel'"
            ).fetchall()
        assert rows == [(0, 4.0), (1, 4.0)]


class TestBadStores:
    def test_nothing_there(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="no recorded run"):
            open_run(tmp_path / "nowhere")

    @pytest.mark.parametrize("use", [open_run, Store])
    def test_not_a_database(self, tmp_path, use):
        (tmp_path / FILE_NAME).write_bytes(b"not a database " * 100)
        with pytest.raises(ValueError, match="damaged or not a store"):
            use(tmp_path)
        content = (tmp_path / FILE_NAME).read_bytes()
        assert content == b"not a database " * 100

    @pytest.mark.parametrize("use", [open_run, Store])
    def test_somebody_elses_database(self, tmp_path, use):
        with sqlite3.connect(tmp_path / FILE_NAME) as connection:
            connection.execute("CREATE TABLE theirs (x)")
        with pytest.raises(ValueError, match="not one that keras_lowrank"):
            use(tmp_path)

    @pytest.mark.parametrize("use", [open_run, Store])
    def test_a_newer_format(self, tmp_path, use):
        written(tmp_path, range(2))
        with sqlite3.connect(tmp_path / FILE_NAME) as connection:
            connection.execute("PRAGMA user_version = 99")
        with pytest.raises(ValueError, match=r"format 99.*Upgrade"):
            use(tmp_path)

    def test_truncated(self, tmp_path):
        written(tmp_path, range(30))
        path = tmp_path / FILE_NAME
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(ValueError, match="damaged"):
            open_run(tmp_path)

    def test_no_such_fit(self, tmp_path):
        written(tmp_path, range(2))
        with pytest.raises(ValueError, match=r"has 1 fits.*fit=2"):
            open_run(tmp_path, fit=2)

    def test_a_file_where_the_directory_should_be(self, tmp_path):
        (tmp_path / "taken").write_text("")
        with pytest.raises(OSError, match="Choose another `run_dir`"):
            Store(tmp_path / "taken")

    def test_a_directory_that_cannot_be_written(self):
        # Not even root can make a directory here.
        with pytest.raises(OSError, match="Choose another `run_dir`"):
            Store("/proc/keras_lowrank")

    @pytest.mark.skipif(
        not hasattr(os, "fork") or shutil.which("sh") is None,
        reason="needs POSIX resource limits",
    )
    def test_a_full_disk_loses_nothing_recorded(self, tmp_path):
        # A limit on the size of files stands in for a full disk.
        script = """
            import resource, signal, sys
            from keras_lowrank.records import Store
            from tests.test_records import MEASURES, measurement
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            store = Store(sys.argv[1])
            store.start_fit(0, MEASURES, {})
            store.write(measurement(0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
            for epoch in range(1, 1000):
                try:
                    store.write(measurement(epoch))
                except OSError as error:
                    print(epoch, error)
                    break
            else:
                sys.exit("never full")
        """
        process = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)],
            capture_output=True,
            text=True,
            check=True,
        )
        epoch = int(process.stdout.split()[0])
        assert "disk not full" in process.stdout
        assert open_run(tmp_path).epochs == list(range(epoch))
