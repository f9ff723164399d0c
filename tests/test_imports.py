"""What imports what, and what importing the library does."""

import ast
import json
import os
import pathlib
import subprocess
import sys
import textwrap

import keras
import pytest

import keras_lowrank

PACKAGE = pathlib.Path(keras_lowrank.__file__).parent

# A module imports from floors below its own. ARCHITECTURE.md draws the house.
FLOORS = {
    "version": 1,
    "tables": 1,
    "names": 1,
    "images": 1,
    "thinning": 1,
    "spectrum": 1,
    "matricize": 1,
    "roles": 1,
    "calls": 1,
    "processes": 1,
    "measures": 2,
    "linalg": 2,
    "records": 3,
    "layers": 3,
    "weights": 3,
    "baselines": 3,
    "theory": 3,
    "regularizers": 3,
    "rewrite": 4,
    "gradients": 4,
    "decay": 4,
    "plots": 4,
    "channels": 4,
    "report": 5,
    "compress": 5,
    "callbacks": 6,
    "checkpoints": 6,
    "experiments": 7,
    "search": 8,
    "pages": 8,
    "cli": 9,
}

PUBLIC = """
    Certificate CompressionPlan DecayedOptimizer EffectiveRank Factored
    FeatureRank GradientRank GradientRanks KerasLowrankWarning LogDet
    LowRankConv1D LowRankConv2D LowRankDense LowRankEinsumDense
    LowRankEmbedding MEASURES Matricization Measure MeasurePenalty
    NuclearNorm RankReport RankTracker Recording SchattenNorm
    SingularValueThreshold Skip SpectralNorm Spectrum SquaredFrobeniusNorm
    StableRank SwitchToLowRank TheoryTracker TorchSGD Uses Verification
    WeightDecay WeightDecayScheduler WeightMatrix Window as_measure
    as_measures closed_form_rank compress compress_and_verify
    compression_plan condition_number convert_weight_decay dead_channels
    decay_clock distance_to_rank effective_rank energy_rank epsilon_rank
    explain_weight_decay frobenius_norm gradient_spectra initial_baseline
    initial_spectra inspect_file log_det log_spaced marchenko_pastur_count
    nuclear_norm numerical_rank open_run participation_ratio rank_report
    register_factored register_matricization register_uses schatten_norm
    spectral_gap spectral_norm stable_rank switch_to_low_rank
    weight_matrices weight_uses
""".split()


def room(path: pathlib.Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: pathlib.Path):
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} has a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "keras_lowrank":
                yield parts[1]


@pytest.mark.once
class TestFloors:
    modules = [path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE]
    modules += [p for p in PACKAGE.glob("*.py") if p.name != "__init__.py"]

    def test_every_room_has_a_floor(self):
        assert {room(path) for path in self.modules} == set(FLOORS)

    @pytest.mark.parametrize(
        "path", modules, ids=lambda path: str(path.relative_to(PACKAGE))
    )
    def test_imports_go_down(self, path):
        own = room(path)
        for other in imported_rooms(path):
            assert other == own or FLOORS[other] < FLOORS[own], other

    def test_architecture_says_the_same(self):
        text = (PACKAGE.parent / "ARCHITECTURE.md").read_text()
        drawn = {}
        for line in text.splitlines():
            head, _, rest = line.partition(" · ")
            if head.startswith("floor "):
                floor = int(head.split()[1])
                drawn |= dict.fromkeys(rest.replace("`", "").split(), floor)
        assert drawn == FLOORS


@pytest.mark.once
def test_public_names():
    public = {
        name
        for name, value in vars(keras_lowrank).items()
        if not name.startswith("_")
        and getattr(value, "__name__", "") != f"keras_lowrank.{name}"
    }
    assert public == set(PUBLIC)
    for name in PUBLIC:
        if name not in ("MEASURES",):
            assert getattr(keras_lowrank, name).__doc__, name


def run(script: str, *blocked: str):
    """Run a script in a new process where some modules do not exist."""
    prelude = f"""
        import json, os, sys

        class Hiding:
            def __init__(self, finder):
                self.finder = finder

            def __getattr__(self, name):
                return getattr(self.finder, name)

            def find_spec(self, name, *where):
                if name.split(".")[0] in {blocked!r}:
                    return None
                return self.finder.find_spec(name, *where)

        sys.meta_path = [Hiding(finder) for finder in sys.meta_path]
    """
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(prelude + script)],
        capture_output=True,
        text=True,
        env=os.environ
        | {
            "KERAS_BACKEND": keras.backend.backend(),
            "TF_CPP_MIN_LOG_LEVEL": "3",
        },
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1])


EXTRAS = (
    "tensorboardX",
    "tensorboard",
    "pandas",
    "matplotlib",
    "keras_tuner",
    "optuna",
)
BACKENDS = ("tensorflow", "jax", "torch")


def test_import_changes_nothing_and_brings_no_extra():
    script = """
        import logging, random, warnings
        import keras
        import numpy as np

        def settings():
            state = {
                "environment": dict(os.environ),
                "floatx": keras.config.floatx(),
                "policy": keras.config.dtype_policy().name,
                "seeds": str(random.getstate()) + str(np.random.get_state()),
                "logging": len(logging.getLogger().handlers),
                "warnings": str(warnings.filters),
                "errors": str(np.geterr()),
            }
            if keras.backend.backend() == "jax":
                import jax
                state["x64"] = jax.config.jax_enable_x64
            if keras.backend.backend() == "torch":
                import torch
                state["grad"] = torch.is_grad_enabled()
                state["tf32"] = torch.backends.cuda.matmul.allow_tf32
                state["threads"] = torch.get_num_threads()
            return state

        before, modules = settings(), set(sys.modules)
        import keras_lowrank
        same = settings() == before
        new = {name.split(".")[0] for name in set(sys.modules) - modules}
        print(json.dumps([same, sorted(new)]))
    """
    same, new = run(script)
    assert same
    unwanted = set(new) & {*EXTRAS, *BACKENDS, "scipy", "sklearn"}
    assert not unwanted


def test_a_tracked_fit_without_any_extra_or_other_backend(tmp_path):
    """FIELD: users of one backend install no other, and no TensorBoard."""
    others = [name for name in BACKENDS if name != keras.backend.backend()]
    script = f"""
        import keras
        import numpy as np
        import keras_lowrank as kl

        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        optimizer = kl.WeightDecay(0.1).wrap(keras.optimizers.SGD(0.1))
        model.compile(optimizer, "mse")
        x = np.ones((8, 4), "float32")
        tracker = kl.RankTracker(every=1, run_dir={str(tmp_path)!r})
        theory = kl.TheoryTracker()
        callbacks = [tracker, theory]
        model.fit(x, x[:, :3], epochs=2, verbose=0, callbacks=callbacks)
        tracker.summary(print_fn=lambda text: None)
        kl.explain_weight_decay(model).render()
        kl.rank_report(model).render()
        messages = []
        for call in (
            tracker.to_frame,
            lambda: kl.RankTracker(every=1, tensorboard="events"),
            theory.plot,
        ):
            try:
                call()
            except Exception as error:
                messages.append(str(error))
        print(json.dumps([kl.open_run({str(tmp_path)!r}).epochs, messages]))
    """
    epochs, messages = run(script, *EXTRAS, *others)
    assert epochs == [0, 1, 2]
    frame, events, figure = messages
    assert 'pip install "keras-lowrank[plots]"' in frame
    assert 'pip install "keras-lowrank[plots]"' in figure
    assert 'pip install "keras-lowrank[tensorboard]"' in events


def test_event_files_need_no_tensorflow(tmp_path):
    others = [name for name in BACKENDS if name != keras.backend.backend()]
    script = f"""
        import keras
        import numpy as np
        import keras_lowrank as kl

        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        model.compile("sgd", "mse")
        x = np.ones((8, 4), "float32")
        tracker = kl.RankTracker(every=1, tensorboard={str(tmp_path)!r})
        model.fit(x, x[:, :3], verbose=0, callbacks=[tracker])
        print(json.dumps(os.listdir({str(tmp_path)!r})))
    """
    # Images are drawn without a library for them, too.
    (file,) = run(script, "tensorboard", "PIL", "matplotlib", *others)
    assert "tfevents" in file
    content = (tmp_path / file).read_bytes()
    assert b"rank/dense/kernel" in content
    assert b"spectrum_over_time/dense/kernel" in content
    assert b"custom_scalars__config__" in content


def test_a_search_without_another_backend_or_tensorboard(tmp_path):
    """FIELD: KerasTuner on one backend alone, and no Optuna."""
    others = [name for name in BACKENDS if name != keras.backend.backend()]
    script = f"""
        import keras
        import keras_tuner
        import numpy as np
        from keras_lowrank.search import LowestRank, OptunaObjective
        from keras_lowrank.search import RankHyperModel, read_search

        def build(hp):
            model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            model.compile("sgd", loss, metrics=["accuracy"])
            return model

        x, y = np.ones((8, 4), "float32"), np.zeros(8, "int32")
        hypermodel = RankHyperModel(
            build, {{"weight_decay": [0.1]}}, LowestRank(0.1), seeds=2
        )
        tuner = keras_tuner.RandomSearch(
            hypermodel, objective=hypermodel.objective, max_trials=1,
            directory={str(tmp_path)!r},
        )
        tuner.search(x, y, validation_data=(x, y), verbose=0)
        results = read_search(tuner.project_dir)
        try:
            OptunaObjective(build, {{"weight_decay": [0.1]}}, LowestRank(0.1))
        except ImportError as error:
            message = str(error)
        print(json.dumps([len(results.complete), len(results.rows()), message]))
    """
    blocked = set(EXTRAS) - {"keras_tuner"}
    if keras.backend.backend() == "tensorflow":
        blocked -= {
            "tensorboard"
        }  # KerasTuner asks for it there, and there only
    complete, rows, message = run(script, *blocked, *others)
    assert (complete, rows) == (1, 2 * 2)
    assert 'pip install "keras-lowrank[optuna]"' in message


@pytest.mark.once
def test_without_a_tuner_it_says_what_to_install():
    script = """
        from keras_lowrank.search import SearchSpace
        try:
            from keras_lowrank.search import RankHyperModel
        except ImportError as error:
            print(json.dumps(str(error)))
    """
    assert 'pip install "keras-lowrank[tuner]"' in run(script, "keras_tuner")
