"""What the benchmarks say is computed as they say; they run by `make bench`."""

import math

import numpy as np
import pytest

from keras_lowrank import weight_matrices
from keras_lowrank.experiments import models
from keras_lowrank.tables import Column
from keras_lowrank.tables import Table

# They are beside the package, not in what is installed.
pytest.importorskip("benchmarks")

from benchmarks import machine
from benchmarks import matrices
from benchmarks import results
from benchmarks.results import Target

pytestmark = pytest.mark.once


@pytest.mark.parametrize(
    ("name", "network", "shape", "options"),
    [
        ("MLP-BN-10-100", "mlp", (32, 32, 3), {}),
        ("ResNet-18", "resnet18", (32, 32, 3), {}),
        ("VGG-16-BN", "vgg16", (32, 32, 3), {}),
        (
            "ViT-S/16",
            "vit",
            (224, 224, 3),
            {
                "patch": 16,
                "width": 384,
                "heads": 6,
                "depth": 12,
                "mlp_width": 1536,
            },
        ),
    ],
)
def test_sets_are_those_of_the_networks(name, network, shape, options):
    classes = 1000 if network == "vit" else 10
    model = models.build(network, shape, classes, **options)
    expected = sorted(one.shape for one in weight_matrices(model))
    assert sorted(one.shape for one in matrices.SETS[name]) == expected
    assert sum(matrices.counts(name).values()) == len(expected)


def test_gpt2_small_has_its_parameters():
    # 124 million, less the biases and layer norms, which are no matrices.
    sizes = [math.prod(one.shape) for one in matrices.SETS["GPT-2 small"]]
    assert sum(sizes) == 50257 * 768 + 1024 * 768 + 12 * 12 * 768**2


def test_long_tail():
    kernel = matrices.random_matrix((3, 3, 8, 16), 0)
    tail = matrices.as_matrix(matrices.long_tailed(kernel))
    values = np.linalg.svd(tail.astype(np.float64), compute_uv=False)
    assert values / values[0] == pytest.approx(
        np.geomspace(1, 1e-5, 16), rel=2e-2
    )


@pytest.mark.parametrize(
    ("target", "promise", "verdict"),
    [
        (Target("a", 15.0, at_least=15, unit="x"), ">= 15x", "met"),
        (Target("a", 14.9, at_least=15, unit="x"), ">= 15x", "missed"),
        (Target("a", 1.0, at_most=1, unit=" %"), "<= 1 %", "met"),
        (Target("a", 1.1, at_most=1, unit=" %"), "<= 1 %", "missed"),
        (Target("a", math.nan, at_most=1), "<= 1", "no figure"),
        (Target("a", 3.0), "none", "told"),
    ],
)
def test_verdicts(target, promise, verdict):
    assert (target.promise, target.verdict) == (promise, verdict)


def test_a_limit_is_told_where_a_target_was_missed():
    made = {"at_most": 1, "limit": "memory"}
    assert Target("a", 2.0, **made).row()["limit"] == "memory"
    assert Target("a", 1.0, **made).row()["limit"] == ""


def test_new_figures_take_the_place_of_old_ones(tmp_path):
    results.write_targets(
        [Target("first", 1.0, at_least=2), Target("second", 5.0)], tmp_path
    )
    table = results.write_targets([Target("first", 3.0, at_least=2)], tmp_path)
    assert [(row["name"], row["verdict"]) for row in table.rows] == [
        ("first", "met"),
        ("second", "told"),
    ]
    text = (tmp_path / "targets.md").read_text()
    assert "| first | >= 2 | 3 | met |" in text


def test_tables_name_machine_and_versions(tmp_path):
    table = Table("Title", [Column("a"), Column("b")], [{"a": 1, "b": 2.5}])
    results.write_table(table, "one", tmp_path)
    text = (tmp_path / "one.md").read_text()
    assert "| 1 | 2.5 |" in text
    assert f"numpy {np.__version__}" in text
    assert f"{machine.cores()} cores" in text
    assert (tmp_path / "one.csv").read_text() == "a,b\n1,2.5\n"


def test_a_process_that_fails_says_why():
    with pytest.raises(RuntimeError, match=r"(?s)no_such_module.*failed"):
        machine.alone("no_such_module")
