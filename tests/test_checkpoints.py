"""Files that other libraries write, and files that nobody should."""

import io
import json
import os
import pickle
import struct
import zipfile

import h5py
import keras
import ml_dtypes
import numpy as np
import pytest

from keras_lowrank import inspect_file
from keras_lowrank.checkpoints import CheckpointError
from keras_lowrank.checkpoints import open_checkpoint
from keras_lowrank.checkpoints import printable

MATRIX = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
KERNEL = np.random.default_rng(1).normal(size=(5, 4, 3, 3)).astype("float32")
MEASURES = ["nuclear_norm", "spectral_norm"]

KINDS = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "I32": np.int32,
}


def numbers(row):
    return [row["nuclear_norm"], row["spectral_norm"]]


def expected(matrix):
    values = np.linalg.svd(np.asarray(matrix, "float64"), compute_uv=False)
    return pytest.approx([values.sum(), values[0]], rel=1e-7)


def write_safetensors(path, tensors, **changes):
    """A file by the published format; `changes` of the header's entries."""
    header, data = {}, b""
    for name, array in tensors.items():
        kind = next(k for k, v in KINDS.items() if array.dtype == v)
        entry = {
            "dtype": kind,
            "shape": list(array.shape),
            "data_offsets": [len(data), len(data) + array.nbytes],
        }
        header[name] = entry | changes.get(name, {})
        data += array.tobytes()
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def write_zip(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def refused(path, match):
    with pytest.raises(CheckpointError, match=match) as caught:
        inspect_file(path)
    assert "\n" not in str(caught.value)


@pytest.mark.once
class TestSafetensors:
    @pytest.mark.parametrize("kind", [k for k in KINDS if k != "I32"])
    def test_every_float_is_widened_exactly(self, tmp_path, kind):
        array = MATRIX.astype(KINDS[kind])
        path = write_safetensors(tmp_path / "x.safetensors", {"w": array})
        row = inspect_file(path, MEASURES)["w"]
        assert row["matrix_shape"] == (6, 4)
        assert numbers(row) == expected(array)

    def test_layouts_and_what_is_skipped(self, tmp_path):
        path = write_safetensors(
            tmp_path / "x.safetensors",
            {
                "conv.weight": KERNEL,
                "conv.bias": np.ones(5, "float32"),
                "steps": np.ones((2, 2), "int32"),
                "scale": np.float32(1).reshape(()),
            },
        )
        report = inspect_file(path, MEASURES)
        assert report["conv.weight"]["matrix_shape"] == (5, 36)
        assert numbers(report["conv.weight"]) == expected(KERNEL.reshape(5, 36))
        assert "first axis is the output" in report.notes[-1]
        assert {n: report[n]["reason"] for n in ("conv.bias", "steps")} == {
            "conv.bias": "vector",
            "steps": "int32 entries, no weights",
        }
        assert report["scale"]["reason"] == "scalar"
        other = inspect_file(path, MEASURES, layout="keras")["conv.weight"]
        assert numbers(other) == expected(KERNEL.reshape(60, 3))

    @pytest.mark.parametrize(
        "change, match",
        [
            ({"dtype": "F31"}, "its dtype is 'F31', not one of F64"),
            ({"shape": [6, 5]}, "takes 120 bytes and it has 96"),
            ({"shape": [6, -4]}, "no shape that an array can have"),
            ({"shape": [2**40, 2**40]}, "takes 4835703278458516698824704"),
            ({"data_offsets": [96, 0]}, "not a beginning and an end"),
            ({"data_offsets": [9000, 9096]}, "describes 9.* bytes and has"),
        ],
    )
    def test_a_header_that_lies(self, tmp_path, change, match):
        path = tmp_path / "x.safetensors"
        refused(write_safetensors(path, {"w": MATRIX}, w=change), match)

    def test_overlap(self, tmp_path):
        tensors = {"a": MATRIX, "b": MATRIX}
        path = tmp_path / "x.safetensors"
        change = {"data_offsets": [4, 100]}
        refused(write_safetensors(path, tensors, b=change), "overlaps")

    @pytest.mark.parametrize(
        "header, match",
        [
            (b'{"a":' * 100_000, "nested too deep"),
            (b'{"\xff": 1}', "not UTF-8"),
            (b'{"a": {}, "a": {}}', "'a' is there twice"),
            (b'{"a": 1}', "it has no dtype"),
            (b"{nonsense}", "no JSON object"),
        ],
    )
    def test_a_hostile_header(self, tmp_path, header, match):
        path = tmp_path / "x.safetensors"
        path.write_bytes(struct.pack("<Q", len(header)) + header)
        refused(path, match)

    def test_lengths(self, tmp_path):
        path = tmp_path / "x.safetensors"
        path.write_bytes(struct.pack("<Q", 2**60) + b"{}")
        refused(path, "at most 100000000 bytes")
        path.write_bytes(struct.pack("<Q", 900) + b"{}")
        refused(path, "truncated or damaged: it describes 908 bytes")
        write_safetensors(path, {"w": MATRIX})
        path.write_bytes(path.read_bytes()[:-1])
        refused(path, "truncated or damaged")

    def test_names_cannot_reach_the_terminal(self, tmp_path):
        name = "w\x1b[2J\u202e\n"
        path = write_safetensors(tmp_path / "x.safetensors", {name: MATRIX})
        report = inspect_file(path, MEASURES)
        assert report.rows[0]["name"] == r"w\x1b[2J\u202e\n" == printable(name)
        assert "\x1b" not in report.render() + report.to_html()

    def test_shards(self, tmp_path):
        for number in (1, 2):
            write_safetensors(
                tmp_path / f"m-{number}.safetensors",
                {f"w{number}": MATRIX * number},
            )
        files = {"w2": "m-2.safetensors", "w1": "m-1.safetensors"}
        index = tmp_path / "m.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": files}))
        report = inspect_file(index, MEASURES)
        assert [row["name"] for row in report.rows] == ["w2", "w1"]
        assert numbers(report["w2"]) == expected(2 * MATRIX)

    @pytest.mark.parametrize(
        "index, match",
        [
            ({"w": "../m-1.safetensors"}, "lead elsewhere and is refused"),
            ({"w": "/etc/passwd"}, "lead elsewhere and is refused"),
            ({"w": 3}, "lead elsewhere and is refused"),
            ({"w": "m-3.safetensors"}, r"'m-3.safetensors' .* is missing"),
            ({"v": "m-1.safetensors"}, "lacks 1 of the tensors .* 'v'"),
            ({}, "no `weight_map`"),
        ],
    )
    def test_a_wrong_index(self, tmp_path, index, match):
        write_safetensors(tmp_path / "m-1.safetensors", {"w": MATRIX})
        path = tmp_path / "m.safetensors.index.json"
        path.write_text(json.dumps({"weight_map": index}))
        refused(path, match)

    def test_an_index_of_itself(self, tmp_path):
        path = tmp_path / "m.index.json"
        path.write_text('{"weight_map": {"w": "m.index.json"}}')
        refused(path, "an index")


@pytest.mark.once
class TestNumPy:
    @pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
    def test_arrays_of_every_arrangement(self, tmp_path, save):
        arrays = {
            "plain": MATRIX,
            "fortran": np.asfortranarray(MATRIX),
            "big": MATRIX.astype(">f8"),
            "conv": KERNEL,
            "text": np.array(["a", "b"]),
        }
        save(tmp_path / "x.npz", **arrays)
        report = inspect_file(tmp_path / "x.npz", MEASURES)
        for name in ("plain", "fortran", "big"):
            assert numbers(report[name]) == expected(MATRIX)
        assert numbers(report["conv"]) == expected(KERNEL.reshape(60, 3))
        assert report["text"]["status"] == "skipped"

    def test_an_array_by_itself(self, tmp_path):
        np.save(tmp_path / "x.npy", MATRIX)
        report = inspect_file(tmp_path / "x.npy", MEASURES)
        assert numbers(report["array"]) == expected(MATRIX)

    def test_objects_are_refused(self, tmp_path):
        np.savez(tmp_path / "x.npz", w=np.array([{}], object))
        refused(tmp_path / "x.npz", "holds Python objects")

    @pytest.mark.parametrize(
        "header, match",
        [
            (
                "{'descr': '<f4', 'fortran_order': False, 'shape': (9, 9)}",
                "trunc",
            ),
            (
                "{'descr': '<f4', 'fortran_order': False, 'shape': (-9,)}",
                "shape",
            ),
            ("__import__('os').system('true')", "no array in NumPy's format"),
            ("[" * 5000, "no array in NumPy's format"),
            (" " * 20000, "no array in NumPy's format"),
        ],
    )
    def test_a_hostile_header(self, tmp_path, header, match):
        text = f"{header}\n".encode()
        array = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text
        refused(write_zip(tmp_path / "x.npz", {"w.npy": array}), match)

    def test_truncated(self, tmp_path):
        np.savez(tmp_path / "x.npz", w=MATRIX)
        data = (tmp_path / "x.npz").read_bytes()
        for cut in (len(data) - 10, len(data) // 2, 30):
            (tmp_path / "x.npz").write_bytes(data[:cut])
            refused(tmp_path / "x.npz", "truncated or damaged")

    def test_compressed_and_damaged(self, tmp_path):
        path = tmp_path / "x.npz"
        np.savez_compressed(path, w=MATRIX)
        data = bytearray(path.read_bytes())
        data[60:120] = bytes(60)
        path.write_bytes(data)
        refused(path, "damaged")


@pytest.mark.once
class TestTorch:
    @pytest.fixture
    def torch(self):
        return pytest.importorskip("torch", reason="torch is not installed")

    def test_values_views_and_kinds(self, torch, tmp_path):
        tensor = torch.from_numpy(MATRIX)
        state = {
            "plain": tensor,
            "parameter": torch.nn.Parameter(tensor),
            "turned": tensor.T,
            "part": torch.from_numpy(KERNEL)[1:3, ::2],
            "half": tensor.bfloat16(),
            "eight": tensor.to(torch.float8_e4m3fn),
            "ids": torch.arange(4).reshape(2, 2),
        }
        torch.save(state, tmp_path / "x.pt")
        report = inspect_file(tmp_path / "x.pt", MEASURES)
        for name in ("plain", "parameter", "turned"):
            assert numbers(report[name]) == expected(MATRIX)
        assert numbers(report["part"]) == expected(
            KERNEL[1:3, ::2].reshape(2, -1)
        )
        assert numbers(report["half"]) == expected(
            MATRIX.astype(ml_dtypes.bfloat16)
        )
        assert numbers(report["eight"]) == expected(
            MATRIX.astype(ml_dtypes.float8_e4m3fn)
        )
        assert report["ids"]["reason"] == "int64 entries, no weights"

    def test_a_state_of_training(self, torch, tmp_path):
        model = torch.nn.Sequential(
            torch.nn.Linear(3, 4), torch.nn.Linear(4, 2)
        )
        optimizer = torch.optim.Adam(model.parameters())
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
        torch.save(
            {
                "epoch": 3,
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
            },
            tmp_path / "x.pth",
        )
        report = inspect_file(tmp_path / "x.pth", MEASURES)
        names = ["0.weight", "0.bias", "1.weight", "1.bias"]
        assert [row["name"] for row in report.rows] == names
        assert numbers(report["0.weight"]) == expected(
            model[0].weight.detach().numpy()
        )
        assert any("epoch, optimizer" in note for note in report.notes)

    def test_a_pickled_model_is_not_loaded(self, torch, tmp_path):
        torch.save(torch.nn.Linear(2, 2), tmp_path / "x.pt")
        refused(tmp_path / "x.pt", "asks for `torch.nn.modules.linear.Linear`")

    def test_the_old_format(self, torch, tmp_path):
        torch.save(
            {"w": torch.ones(2, 2)},
            tmp_path / "x.pt",
            _use_new_zipfile_serialization=False,
        )
        refused(tmp_path / "x.pt", "written by torch before 1.6")

    def test_an_expanded_tensor(self, torch, tmp_path):
        torch.save({"w": torch.ones(1).expand(9, 9)}, tmp_path / "x.pt")
        refused(tmp_path / "x.pt", "repeats 1 entries")

    def test_no_weights(self, torch, tmp_path):
        torch.save({"epoch": 3}, tmp_path / "x.pt")
        refused(tmp_path / "x.pt", "a dict with the keys: epoch")

    @staticmethod
    def archive(tmp_path, text, **members):
        files = {"x/data.pkl": text, "x/data/0": MATRIX.tobytes()}
        return write_zip(tmp_path / "x.pt", files | members)

    def test_nothing_is_executed(self, tmp_path):
        class Evil:
            def __reduce__(self):
                return os.mkdir, (str(tmp_path / "made"),)

        path = self.archive(tmp_path, pickle.dumps({"w": Evil()}))
        refused(path, "asks for `posix.mkdir`.*can execute anything")
        assert not (tmp_path / "made").exists()

    @pytest.mark.parametrize(
        "name",
        ["builtins\neval", "os\nsystem", "torch.hub\nload", "torch\nload"],
    )
    def test_names_that_are_refused(self, tmp_path, name):
        path = self.archive(tmp_path, f"c{name}\n(S'1'\ntR.".encode())
        refused(path, f"asks for `{name.replace(chr(10), '.')}`")

    @pytest.mark.parametrize(
        "text",
        [
            b"",
            b"\x80\x02}",
            b"(" * 10_000 + b".",
            b"ctorch._utils\n_rebuild_tensor_v2\n(I1\ntR.",
            b"ctorch._utils\n_rebuild_tensor_v2\n}S'name'\nS'x'\nsb.",
            b"ctorch._utils\n_rebuild_tensor_v2\n(N}S'name'\nS'x'\nstb.",
            b"(S'storage'\nI1\nS'0'\nS'cpu'\nI3\ntQ.",
            b"ccollections\nOrderedDict\n(I1\ntR.",
        ],
    )
    def test_damaged_pickles(self, tmp_path, text):
        refused(self.archive(tmp_path, text), "damaged or hostile")

    def tensor(self, shape, stride, offset=0, key="0"):
        return (
            b"ctorch._utils\n_rebuild_tensor_v2\n((S'storage'\n"
            + f"ctorch\nFloatStorage\nS'{key}'\nS'cpu'\nI24\ntQI{offset}\n"
            f"{self.ints(shape)}{self.ints(stride)}I00\nNtR".encode()
        )

    @staticmethod
    def ints(values):
        return "(" + "".join(f"I{value}\n" for value in values) + "t"

    def state(self, tensor):
        return b"(dS'w'\n" + tensor + b"s."

    def test_the_tensor_of_these_tests(self, tmp_path):
        text = self.state(self.tensor((6, 4), (4, 1)))
        path = self.archive(tmp_path, text)
        assert numbers(inspect_file(path, MEASURES)["w"]) == expected(MATRIX)
        big = {"x/data/0": MATRIX.astype(">f4").tobytes(), "x/byteorder": "big"}
        path = self.archive(tmp_path, text, **big)
        assert numbers(inspect_file(path, MEASURES)["w"]) == expected(MATRIX)

    @pytest.mark.parametrize(
        "shape, stride, offset, match",
        [
            ((6, 4), (4, 1), 1, "reaches entry 25 of a storage of 24"),
            ((6, 5), (5, 1), 0, "reaches entry 30 of a storage of 24"),
            ((10**9, 10**9), (0, 0), 0, "repeats 1 entries"),
            ((6, 4), (-4, 1), 0, "no shape that an array can have"),
        ],
    )
    def test_views_beyond_their_storage(
        self, tmp_path, shape, stride, offset, match
    ):
        text = self.state(self.tensor(shape, stride, offset))
        refused(self.archive(tmp_path, text), match)

    def test_a_storage_that_is_not_there(self, tmp_path):
        text = self.state(self.tensor((2, 2), (2, 1), key="../../x"))
        refused(self.archive(tmp_path, text), "has no member 'x/data/../../x'")

    def test_a_dict_inside_itself(self, tmp_path):
        refused(self.archive(tmp_path, b"(dp0\nS'w'\ng0\ns."), "or in itself")


@pytest.mark.once
class TestHDF5:
    @pytest.fixture
    def path(self, tmp_path):
        return tmp_path / "x.weights.h5"

    def test_arrays_of_others(self, path):
        with h5py.File(path, "w") as file:
            file["model_weights/dense/dense/kernel:0"] = MATRIX
            file["optimizer_weights/m"] = MATRIX
        report = inspect_file(path, MEASURES)
        (row,) = report.rows
        assert row["name"] == "model_weights/dense/dense/kernel:0"
        assert numbers(row) == expected(MATRIX)

    @pytest.mark.parametrize(
        "link", [h5py.SoftLink("/a"), h5py.ExternalLink("/etc/x", "/a")]
    )
    def test_links(self, path, link):
        with h5py.File(path, "w") as file:
            file["layers/dense/vars/0"] = link
        refused(path, f"a {type(link).__name__} at")

    def test_groups_inside_themselves(self, path):
        with h5py.File(path, "w") as file:
            file["layers/dense/vars/0"] = MATRIX
            file["layers/dense/again"] = file["layers"]
        refused(path, "in itself")

    def test_entries_in_another_file(self, path):
        with h5py.File(path, "w") as file:
            file.create_dataset(
                "a", (6, 4), "float32", external=[("other.bin", 0, 96)]
            )
        refused(path, "lie in another file")

    def test_entries_that_are_nowhere(self, path):
        with h5py.File(path, "w") as file:
            file.create_dataset("a", (10**6, 10**6), "float32")
            file.create_dataset("b", (10**6, 10**6), "float32", chunks=(9, 9))
        refused(path, "declares 4000000000000 bytes and has 0")

    def test_compressed_arrays_are_read(self, path):
        with h5py.File(path, "w") as file:
            file.create_dataset("a", data=MATRIX, compression="gzip")
        assert numbers(inspect_file(path, MEASURES)["a"]) == expected(MATRIX)

    def test_truncated(self, path):
        with h5py.File(path, "w") as file:
            file["layers/dense/vars/0"] = np.ones((100, 100))
        path.write_bytes(path.read_bytes()[:-1000])
        refused(path, "truncated or damaged")


def small_model():
    return keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(4, name="first")]
    )


@pytest.mark.once
class TestKerasArchive:
    @pytest.fixture
    def members(self, tmp_path):
        small_model().save(tmp_path / "good.keras")
        with zipfile.ZipFile(tmp_path / "good.keras") as archive:
            return {name: archive.read(name) for name in archive.namelist()}

    def test_compressed(self, tmp_path, members):
        path = write_zip(tmp_path / "x.keras", members, zipfile.ZIP_DEFLATED)
        report = inspect_file(path, MEASURES)
        good = inspect_file(tmp_path / "good.keras", MEASURES)
        assert report.rows == good.rows
        assert [row["name"] for row in good.rows] == [
            "first/kernel",
            "first/bias",
        ]

    def test_config_is_parsed_only(self, tmp_path, members):
        config = json.loads(members["config.json"])
        layer = config["config"]["layers"][1]
        layer["module"], layer["class_name"] = "os", "system"
        members["config.json"] = json.dumps(config)
        report = inspect_file(write_zip(tmp_path / "x.keras", members))
        assert len(report.measured) == 1

    def test_a_config_that_does_not_fit(self, tmp_path, members):
        config = json.loads(members["config.json"])
        layer = config["config"]["layers"][1]
        layer["class_name"] = "Conv1D"
        layer["config"]["groups"] = 0
        data = io.BytesIO()
        with h5py.File(data, "w") as file:
            file["layers/conv1d/vars/0"] = np.ones((3, 4, 2))
        members |= {
            "config.json": json.dumps(config),
            "model.weights.h5": data.getvalue(),
        }
        path = write_zip(tmp_path / "x.keras", members)
        refused(path, "config of a `Conv1D` does not fit its `kernel`")

    @pytest.mark.parametrize(
        "config", [b"[1]", b'{"config":' * 10_000, b"\xff", b"{"]
    )
    def test_a_hostile_config(self, tmp_path, members, config):
        members["config.json"] = config
        refused(write_zip(tmp_path / "x.keras", members), "`config.json` is no")

    def test_a_config_of_other_types(self, tmp_path, members):
        for config in (
            {"config": 3},
            {"config": {"layers": 3}},
            {"config": {"layers": [3, {"class_name": 3}]}},
            {"class_name": [], "module": {}, "config": {"layers": [[]]}},
        ):
            members["config.json"] = json.dumps(config)
            report = inspect_file(write_zip(tmp_path / "x.keras", members))
            assert len(report.measured) == 1

    def test_a_bomb(self, tmp_path, members):
        members["model.weights.h5"] = bytes(300 << 20)
        path = tmp_path / "x.keras"
        write_zip(path, members, zipfile.ZIP_DEFLATED)
        refused(path, "taken for a zip bomb")


@pytest.mark.once
class TestWhatAFileIs:
    def test_mislabelled(self, tmp_path):
        np.savez(tmp_path / "a.npz", w=MATRIX)
        data = (tmp_path / "a.npz").read_bytes()
        for name in ("b.safetensors", "b.keras", "b.h5", "b.pt"):
            (tmp_path / name).write_bytes(data)
            refused(tmp_path / name, "is a npz file by what is in it")
        (tmp_path / "b.bin").write_bytes(data)
        assert inspect_file(tmp_path / "b.bin")["w"]["rank"] == 4

    @pytest.mark.parametrize(
        "data, match",
        [
            (b"", "It is empty"),
            (b"hello there", "It begins with b'hello there'"),
            (b"PK\x05\x06" + bytes(18), "holds no weights .* nothing"),
            (b"PK\x03\x04" + bytes(40), "no directory of its members"),
            (b"\x89HDF\r\n\x1a\n" + bytes(50), "HDF5 file cannot be opened"),
        ],
    )
    def test_no_weights_at_all(self, tmp_path, data, match):
        (tmp_path / "x").write_bytes(data)
        refused(tmp_path / "x", match)

    def test_a_directory_and_nothing(self, tmp_path):
        refused(tmp_path, "is a directory")
        with pytest.raises(FileNotFoundError):
            inspect_file(tmp_path / "none.npz")

    @pytest.mark.parametrize("form", ["npy", "npz", "safetensors"])
    def test_no_damage_is_another_error(self, tmp_path, form):
        path = tmp_path / f"x.{form}"
        if form == "safetensors":
            write_safetensors(path, {"w": MATRIX})
        elif form == "npz":
            np.savez_compressed(path, w=MATRIX)
        else:
            np.save(path, MATRIX)
        good, rng = path.read_bytes(), np.random.default_rng(0)
        found = 0
        for _ in range(150):
            data = bytearray(good)
            for place in rng.integers(len(data), size=3):
                data[place] = rng.integers(256)
            path.write_bytes(data[: rng.integers(len(data) // 2, len(data))])
            try:
                inspect_file(path)
            except CheckpointError:
                found += 1
        assert found > 100

    def test_a_zip_of_other_things(self, tmp_path):
        path = write_zip(tmp_path / "x", {"a.txt": "a"})
        refused(path, r"Received an archive of: a.txt")

    def test_files_are_closed(self, tmp_path):
        np.savez(tmp_path / "a.npz", w=MATRIX)
        with open_checkpoint(tmp_path / "a.npz") as file:
            assert file.format == "npz"
            np.testing.assert_array_equal(file.tensors[0].read(), MATRIX)
        before = len(os.listdir("/proc/self/fd"))
        inspect_file(tmp_path / "a.npz")
        (tmp_path / "b.npz").write_bytes(b"PK\x03\x04")
        refused(tmp_path / "b.npz", "directory")
        assert len(os.listdir("/proc/self/fd")) == before
