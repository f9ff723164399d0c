import math
import textwrap

import keras
import numpy as np
import pytest

from keras_lowrank.records import write_experiment
from keras_lowrank.records import write_hparams
from tests.test_imports import BACKENDS
from tests.test_imports import run

pytestmark = pytest.mark.once

# What the HParams tab asks of TensorBoard, which is not told of TensorFlow.
READ = """
    from google.protobuf import json_format
    from tensorboard import context
    from tensorboard.backend.event_processing import data_provider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import (
        EventMultiplexer,
    )
    from tensorboard.plugins import base_plugin
    from tensorboard.plugins.hparams import api_pb2
    from tensorboard.plugins.hparams import backend_context
    from tensorboard.plugins.hparams import get_experiment
    from tensorboard.plugins.hparams import list_session_groups

    def tab(directory):
        events = EventMultiplexer().AddRunsFromDirectory(directory).Reload()
        provider = data_provider.MultiplexerDataProvider(events, directory)
        plugin = backend_context.Context(
            base_plugin.TBContext(data_provider=provider)
        )
        where = context.RequestContext(), plugin, ""
        statuses = [api_pb2.STATUS_SUCCESS, api_pb2.STATUS_FAILURE]
        groups = api_pb2.ListSessionGroupsRequest(
            start_index=0, slice_size=99, allowed_statuses=statuses
        )
        answers = [
            list_session_groups.Handler(*where, groups).run(),
            get_experiment.Handler(
                *where, api_pb2.GetExperimentRequest()
            ).run(),
        ]
        options = {"preserving_proto_field_name": True}
        return [json_format.MessageToDict(a, **options) for a in answers]
"""
# One process for all tests: it is slow to start.
WRITE = """
    from keras_lowrank.records import EventWriter
    from keras_lowrank.records import Measurement
    from keras_lowrank.records import write_experiment
    from keras_lowrank.records import write_hparams
    import math
    import numpy as np

    root = {root!r}
    values = {{"batch_size": np.int64(32), "optimizer": "sgd",
              "weight_decay": 0.01, "nesterov": False}}
    columns = {{"batch_size": [8, 32], "weight_decay": (1e-4, 0.1),
               "optimizer": ["sgd", "adam"], "nesterov": [True, False]}}
    metrics = ["rank_mean", "val_accuracy"]
    for name in "search", "again":
        write_experiment(f"{{root}}/{{name}}", columns, metrics)
    write_experiment(f"{{root}}/again", {{"old": [1]}}, ["old"])
    write_experiment(f"{{root}}/again", columns, metrics * 2)
    for name in "search", "again", "bare":
        for seed, rank in enumerate([10.0, 13.0]):
            where = f"{{root}}/{{name}}/trial_0/seed_{{seed}}"
            results = {{"rank_mean": rank, "val_accuracy": 0.75}}
            if name == "again":
                write_hparams(where, {{"old": 1}}, {{"old": 2.0}})
            if seed == 0:
                with_events = EventWriter(where)
                for epoch in range(3):
                    logs = {{"rank_mean": 40.0}}
                    with_events.write(Measurement(epoch, None, (), logs))
                with_events.close()
            write_hparams(where, values, results, step=7, group="trial_0")
        where = f"{{root}}/{{name}}/trial_1"
        write_hparams(
            where,
            values | {{"optimizer": "adam", "nesterov": True}},
            {{"rank_mean": math.nan}},
            status="failure",
        )
    print(json.dumps({{
        name: tab(f"{{root}}/{{name}}") for name in ("search", "again", "bare")
    }} | {{"tensorflow": "tensorflow" in sys.modules}}))
"""


@pytest.fixture(scope="module")
def tabs(tmp_path_factory):
    others = [name for name in BACKENDS if name != keras.backend.backend()]
    root = str(tmp_path_factory.mktemp("hparams"))
    script = textwrap.indent(READ + WRITE.format(root=root), "    ")
    return run(script, *others)


def rows(tab):
    groups, _ = tab
    return {group["name"]: group for group in groups["session_groups"]}


class TestTab:
    def test_needs_no_tensorflow(self, tabs):
        needed = keras.backend.backend() == "tensorflow"
        assert tabs["tensorflow"] == needed

    @pytest.mark.parametrize("name", ["search", "again", "bare"])
    def test_a_row_for_each_trial_with_its_hyperparameters(self, tabs, name):
        trials = rows(tabs[name])
        assert set(trials) == {"trial_0", "trial_1"}
        assert trials["trial_0"]["hparams"] == {
            "batch_size": 32.0,
            "optimizer": "sgd",
            "weight_decay": 0.01,
            "nesterov": False,
        }
        assert trials["trial_1"]["hparams"]["nesterov"] is True

    @pytest.mark.parametrize("name", ["search", "again"])
    def test_metrics_are_final_ones_and_their_means_over_seeds(
        self, tabs, name
    ):
        trial = rows(tabs[name])["trial_0"]
        means = {
            metric["name"]["tag"]: metric["value"]
            for metric in trial["metric_values"]
        }
        assert means == {"rank_mean": 11.5, "val_accuracy": 0.75}
        ranks = {
            session["name"]: (metric["value"], metric["training_step"])
            for session in trial["sessions"]
            for metric in session["metric_values"]
            if metric["name"]["tag"] == "rank_mean"
        }
        assert ranks == {
            "trial_0/seed_0": (10.0, 7),
            "trial_0/seed_1": (13.0, 7),
        }

    def test_how_sessions_ended(self, tabs):
        trials = rows(tabs["search"])
        statuses = {
            session["name"]: session["status"]
            for trial in trials.values()
            for session in trial["sessions"]
        }
        assert statuses == {
            "trial_0/seed_0": "STATUS_SUCCESS",
            "trial_0/seed_1": "STATUS_SUCCESS",
            "trial_1": "STATUS_FAILURE",
        }
        (metric,) = trials["trial_1"]["metric_values"]
        assert metric["value"] == "NaN"

    def test_columns_have_types_and_domains(self, tabs):
        _, experiment = tabs["search"]
        columns = {}
        for info in experiment["hparam_infos"]:
            column = dict(info)
            columns[column.pop("name")] = column
        assert columns == {
            "batch_size": {
                "type": "DATA_TYPE_FLOAT64",
                "domain_discrete": [8.0, 32.0],
            },
            "weight_decay": {
                "type": "DATA_TYPE_FLOAT64",
                "domain_interval": {"min_value": 1e-4, "max_value": 0.1},
            },
            "optimizer": {
                "type": "DATA_TYPE_STRING",
                "domain_discrete": ["sgd", "adam"],
            },
            "nesterov": {
                "type": "DATA_TYPE_BOOL",
                "domain_discrete": [True, False],
            },
        }
        assert [info["name"]["tag"] for info in experiment["metric_infos"]] == [
            "rank_mean",
            "val_accuracy",
        ]

    def test_writing_again_replaces_and_doubles_nothing(self, tabs):
        _, first = tabs["search"]
        _, again = tabs["again"]
        assert again["hparam_infos"] == first["hparam_infos"]
        assert again["metric_infos"] == first["metric_infos"]

    def test_sessions_alone_give_columns_too(self, tabs):
        _, experiment = tabs["bare"]
        names = {info["name"] for info in experiment["hparam_infos"]}
        assert names == {"batch_size", "optimizer", "weight_decay", "nesterov"}


class TestFiles:
    def test_one_whole_file_and_no_other(self, tmp_path):
        for rank in (3.0, 4.0):
            path = write_hparams(tmp_path / "a/b", {}, {"rank_mean": rank})
        assert list((tmp_path / "a/b").iterdir()) == [path]
        assert path.name.startswith("events.out.tfevents")

    def test_a_bad_value_leaves_what_was_there(self, tmp_path):
        path = write_hparams(tmp_path, {"batch_size": 8}, {})
        before = path.read_bytes()
        with pytest.raises(ValueError, match="Received: batch_size=None"):
            write_hparams(tmp_path, {"batch_size": None}, {})
        assert path.read_bytes() == before

    @pytest.mark.parametrize(
        "value", [None, math.inf, np.float32("nan"), [1], 1j], ids=str
    )
    def test_values(self, tmp_path, value):
        with pytest.raises(ValueError, match=r"finite number.*Received: x="):
            write_hparams(tmp_path, {"x": value}, {})
        with pytest.raises(ValueError, match=r"finite number.*Received: x="):
            write_experiment(tmp_path, {"x": [value]}, [])

    @pytest.mark.parametrize(
        "domain", [(2, 1), (1, 2, 3), ("a", "b"), (0,), ()], ids=str
    )
    def test_intervals(self, tmp_path, domain):
        with pytest.raises(ValueError, match=r"\(low, high\).*Use a list"):
            write_experiment(tmp_path, {"x": domain}, [])

    @pytest.mark.parametrize(
        "domain", [[], [1, "a"], [1, True], "sgd"], ids=str
    )
    def test_mixed_values(self, tmp_path, domain):
        with pytest.raises(ValueError, match=r"not be mixed\. Received: x="):
            write_experiment(tmp_path, {"x": domain}, [])

    def test_other_errors(self, tmp_path):
        with pytest.raises(ValueError, match=r"Received: status='done'"):
            write_hparams(tmp_path, {}, {}, status="done")
        with pytest.raises(ValueError, match=r"Use \['rank'\]"):
            write_experiment(tmp_path, {}, "rank")
        assert not list(tmp_path.iterdir())


def test_without_tensorboardx_it_says_what_to_install(tmp_path):
    script = f"""
        from keras_lowrank.records import hparams

        messages = []
        for write in hparams.write_hparams, hparams.write_experiment:
            try:
                write({str(tmp_path)!r}, {{}}, {{}})
            except ImportError as error:
                messages.append(str(error))
        print(json.dumps(messages))
    """
    messages = run(script, "tensorboardX")
    assert len(messages) == 2
    for message in messages:
        assert 'pip install "keras-lowrank[tensorboard]"' in message
