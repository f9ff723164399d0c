"""`.keras` and `.weights.h5`: what Keras saves, named as `rank_report` does."""

import dataclasses
import shutil
import tempfile
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

from keras_lowrank.checkpoints.archive import Archive
from keras_lowrank.checkpoints.description import parse_json
from keras_lowrank.checkpoints.hdf5 import kind_of
from keras_lowrank.checkpoints.hdf5 import open_hdf5
from keras_lowrank.checkpoints.hdf5 import reader
from keras_lowrank.checkpoints.keras_layers import REFERRED
from keras_lowrank.checkpoints.keras_layers import class_inside
from keras_lowrank.checkpoints.keras_layers import class_of_name
from keras_lowrank.checkpoints.keras_layers import place_of_name
from keras_lowrank.checkpoints.keras_layers import quantization
from keras_lowrank.checkpoints.keras_layers import settings
from keras_lowrank.checkpoints.keras_layers import variable_names
from keras_lowrank.checkpoints.keras_tree import LISTS
from keras_lowrank.checkpoints.keras_tree import Node
from keras_lowrank.checkpoints.keras_tree import add_file
from keras_lowrank.checkpoints.low_rank import KERNELS
from keras_lowrank.checkpoints.low_rank import NOT_READ
from keras_lowrank.checkpoints.low_rank import is_low_rank
from keras_lowrank.checkpoints.low_rank import product_tensor
from keras_lowrank.checkpoints.source import Source
from keras_lowrank.checkpoints.stored import Checkpoint
from keras_lowrank.checkpoints.stored import CheckpointError
from keras_lowrank.checkpoints.stored import StoredTensor
from keras_lowrank.checkpoints.stored import closing_on_error
from keras_lowrank.checkpoints.stored import printable
from keras_lowrank.matricize import Skip
from keras_lowrank.matricize import matricize_stored
from keras_lowrank.names import sibling_names
from keras_lowrank.names import snake_case

CONFIG, WEIGHTS = "config.json", "model.weights.h5"

# What is saved beside the weights of a model.
STATES = ("optimizer", "seed_generator", "optimizer_weights")

NO_CONFIG = (
    "The file holds no configuration: axes of kernels follow from the names "
    "of its groups, and convolutions are taken for ones without groups."
)
UNKNOWN = "unknown axes: the file does not say which are rows and columns"


def open_keras(archive: Archive) -> Checkpoint:
    """Open a `.keras` file, whose config is parsed and never deserialized.

    Args:
        archive: `Archive`.

    Returns:
        A `Checkpoint`.
    """
    config = parse_json(archive.text(CONFIG), "`config.json`")
    if archive.stored(WEIGHTS):
        source: Any = archive.part(WEIGHTS)
    else:
        # To be read at any offset it has to be unpacked, but not in memory.
        source = tempfile.TemporaryFile()
        with closing_on_error(source.close), archive.open(WEIGHTS) as packed:
            size = archive.size(WEIGHTS)
            try:
                shutil.copyfileobj(packed, source)
            except (EOFError, OSError, ValueError) as error:
                raise CheckpointError(
                    f"'{WEIGHTS}' cannot be unpacked: {printable(str(error))}. "
                    "The file is damaged: copy or save it again."
                ) from error
            if source.tell() != size:
                raise CheckpointError(
                    f"'{WEIGHTS}' declares {size} bytes and has "
                    f"{source.tell()}. The file is damaged: save it again."
                )
    with closing_on_error(source.close):
        file = open_hdf5(source)

    def close():
        file.close()
        source.close()
        archive.close()

    with closing_on_error(close):
        root = Node()
        add_file(root, file)
        tensors = keras_tensors(root, config)
    return Checkpoint("keras", tensors, "keras", (), close)


def open_keras_weights(paths) -> Checkpoint:
    """Open the HDF5 files of weights without a config.

    Args:
        paths: List of paths, one or the shards of one set of weights.

    Returns:
        A `Checkpoint`.
    """
    opened: list[Any] = []

    def close():
        for item in reversed(opened):
            item.close()

    root = Node()
    with closing_on_error(close):
        for path in paths:
            opened.append(Source(path))
            opened.append(open_hdf5(opened[-1]))
            add_file(root, opened[-1])
        tensors = keras_tensors(root, {})
    notes = (NO_CONFIG,) if root.any_saved else ()
    return Checkpoint("hdf5", tensors, "keras", notes, close)


@dataclasses.dataclass(frozen=True)
class _Layer:
    """An object of the tree, with what is known of it."""

    node: Node
    name: str  # in the process that saved it
    class_name: str | None
    config: Mapping[str, Any]
    keras: bool  # whether the class is one of Keras
    low_rank: bool = False  # whether it is one of our own low-rank layers

    @property
    def rule(self):
        """The class and the settings that its rule is asked with."""
        return settings(self.class_name if self.keras else None, self.config)


def keras_tensors(root: Node, config: Mapping[str, Any]) -> list[StoredTensor]:
    """The variables of a tree under the names of `rank_report`.

    Args:
        root: `Node`.
        config: Dict, the config of the model, or an empty one.

    Returns:
        List of `StoredTensor`.
    """
    model = _described(root, root.name or "model", config)
    tensors = list(_tensors(model, "", ()))
    names = [tensor.name for tensor in tensors]
    if len(set(names)) < len(names):
        # What the layers are called does not tell them apart; paths do.
        tensors = [dataclasses.replace(t, name=t.path) for t in tensors]
    return tensors


def _tensors(layer: _Layer, prefix, around) -> Iterator[StoredTensor]:
    chain = (layer, *around)
    keys = list(layer.node.variables)
    names = variable_names(
        layer.class_name if layer.keras else None, layer.config, len(keys)
    )
    for key, name in zip(keys, names, strict=True):
        if (layer.class_name, name) in REFERRED:
            continue
        dataset = layer.node.variables[key]
        yield _stored(
            dataset,
            prefix + name,
            f"{layer.node.path}/vars/{key}".lstrip("/"),
            _decided(chain, name, tuple(dataset.shape or ())),
            layer.class_name,
        )
    for key, dataset in layer.node.others.items():
        path = f"{layer.node.path}/{key}".lstrip("/")
        yield _stored(dataset, path, path, None, None)
    children = list(_children(layer))
    labels = sibling_names((c.name, c.class_name or "?") for c in children)
    made = None
    if layer.low_rank:
        made = product_tensor(layer.node, layer.class_name, prefix)
    if made is not None:
        yield made
    for child, label in zip(children, labels, strict=True):
        for tensor in _tensors(child, f"{prefix}{label}/", chain):
            if not layer.low_rank or not tensor.path.endswith("/vars/0"):
                yield tensor
            elif made is None:
                yield dataclasses.replace(tensor, how=NOT_READ)
            elif tensor.path != made.path:  # the first one stands for both
                why = Skip(
                    f"factor of `{KERNELS[layer.class_name or '']}`, "
                    "measured as a product"
                )
                yield dataclasses.replace(tensor, how=why)


def _stored(dataset, name, path, how, layer) -> StoredTensor:
    dtype = kind_of(dataset)
    shape = tuple(dataset.shape or ())
    return StoredTensor(
        name, shape, dtype, reader(dataset, dtype), how, layer, path
    )


def _decided(chain, name, shape):
    owner = chain[0]
    mode = quantization(owner.config)
    if mode and name not in ("bias", "0", "1"):
        return Skip(
            f"{mode} layer, which applies another matrix than it stores: "
            "measure the loaded model",
            unsupported=name in ("kernel", "embeddings"),
        )
    try:
        how = matricize_stored([one.rule for one in chain], name, shape)
    except ValueError as error:
        raise CheckpointError(
            f"At '{printable(owner.node.path)}' {printable(str(error))}. The "
            "file is damaged: save the model again."
        ) from error
    if isinstance(how, Skip) and how.unsupported:
        return Skip(UNKNOWN, unsupported=True)
    return how


def _children(layer: _Layer) -> Iterator[_Layer]:
    held: list[_Layer] = []
    for key, node in layer.node.children.items():
        if key in STATES:
            continue
        if not node.is_list(key):
            held.append(_held(layer, key, node))
            continue
        members = _members(node, _list_of(layer.config.get(key)))
        if key in LISTS:  # in an order of their own, and before the others
            yield from members
        else:
            held += members
    # Attributes are in the order of the alphabet: names say who came first.
    yield from sorted(held, key=lambda child: place_of_name(child.name))


def _members(node: Node, configs) -> Iterator[_Layer]:
    """The objects of a list, in its order where a config tells it."""
    used: dict[str, int] = {}
    ordered = {}
    for config in configs:
        stem = snake_case(_class_name(config) or "")
        count = used[stem] = used.get(stem, -1) + 1
        key = f"{stem}_{count}" if count else stem
        if key in node.children:
            ordered[key] = config
    for key, config in ordered.items():
        child = node.children[key]
        yield _described(child, child.name or _config_name(config, key), config)
    for key, child in node.children.items():
        if key in ordered:
            continue
        if child.is_list(key):
            yield from _members(child, [])
            continue
        stem = key.rstrip("0123456789").removesuffix("_")
        known = class_of_name(key)
        yield _Layer(child, child.name or key, known or stem, {}, bool(known))


def _held(layer: _Layer, key: str, node: Node) -> _Layer:
    name = node.name or key
    config = layer.config.get(key)
    if key in ("forward_layer", "backward_layer") and not config:
        config = layer.config.get("layer")
    if _class_name(config):
        return _described(node, name, config)
    first = next(iter(node.variables.values()), None)
    ndim = 0 if first is None else len(first.shape or ())
    inside, told = class_inside(layer.class_name, key, name, ndim)
    if inside:
        if layer.config.get("dtype") is not None:
            told = {**told, "dtype": layer.config["dtype"]}
        return _Layer(node, name, inside, told, True)
    known = class_of_name(name)
    return _Layer(node, name, known, {}, bool(known))


def _described(node: Node, name: str, config) -> _Layer:
    inner = config.get("config") if isinstance(config, Mapping) else None
    module = config.get("module") if isinstance(config, Mapping) else None
    of_keras = isinstance(module, str) and module.split(".")[0] == "keras"
    return _Layer(
        node,
        name,
        _class_name(config),
        inner if isinstance(inner, Mapping) else {},
        of_keras and not config.get("registered_name"),
        is_low_rank(config),
    )


def _class_name(config) -> str | None:
    name = config.get("class_name") if isinstance(config, Mapping) else None
    return name if isinstance(name, str) else None


def _config_name(config, key: str) -> str:
    inner = config.get("config")
    name = inner.get("name") if isinstance(inner, Mapping) else None
    return name if isinstance(name, str) else key


def _list_of(value) -> list[Any]:
    return value if isinstance(value, list) else []
