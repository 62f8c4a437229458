"""Files that people mistake for a model, broken ones, and ones made to hurt: what → (bytes, what the refusal says)."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import pickle
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np

Make = Callable[[], bytes]

GOLDENS = Path(__file__).parents[2] / "goldens"
KERAS, HDF5 = GOLDENS / "lstm_flatten.keras", GOLDENS / "lstm_flatten.h5"
LAYER = "model_weights/lstm"


class Unpicklable:
    """Leaves a trace when a pickle of it is read."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (open, ("executed", "w"))


def zip_of(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED, twice: str = "") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for name in [*members, *[twice] * bool(twice)]:
            archive.writestr(name, members[name])
    return buffer.getvalue()


def zip_without(part: str) -> Make:
    return lambda: zip_of({name: content for name, content in members_of(KERAS).items() if name != part})


def members_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def tar_of(path: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(path, path.name)
    return buffer.getvalue()


def with_fields(content: bytes, local: int, central: int, value: bytes, member: bytes = b"") -> bytes:
    """A zip with other bytes at these offsets of its local headers and of those of its directory, of all members or of
    one."""
    changed = bytearray(content)
    for signature, offset, name in ((b"PK\x03\x04", local, 30), (b"PK\x01\x02", central, 46)):
        at = content.find(signature)
        while at >= 0:
            if content.startswith(member, at + name):
                changed[at + offset : at + offset + len(value)] = value
            at = content.find(signature, at + 4)
    return bytes(changed)


def configured(change: Callable[[Any], object]) -> bytes:
    """The `.keras` file with another configuration."""
    members = members_of(KERAS)
    configuration = json.loads(members["config.json"])
    change(configuration)
    return zip_of(members | {"config.json": json.dumps(configuration).encode()})


def layers(configuration: Any) -> list[Any]:
    return list(configuration["config"]["layers"])


def lstm_with(**config: Any) -> Make:
    return lambda: configured(lambda c: layers(c)[1]["config"].update(config))


def layer_as(class_name: str, number: int = 2, **config: Any) -> Make:
    def change(configuration: Any) -> None:
        layers(configuration)[number]["class_name"] = class_name
        layers(configuration)[number]["config"].update(config)

    return lambda: configured(change)


def entry_with(number: int = 1, **entry: Any) -> Make:
    return lambda: configured(lambda c: layers(c)[number].update(entry))


def configuration_text(text: bytes) -> Make:
    return lambda: zip_of(members_of(KERAS) | {"config.json": text}, zipfile.ZIP_STORED)


def functional(calls: dict[str, list[Any]], output: str = "last", **inner: dict[str, Any]) -> Any:
    """A functional model of Dense layers: name → the layers that it is called with, in order; `inner` are models."""

    def entry(name: str, given: list[Any]) -> Any:
        config = {"name": name, "units": 3}
        model = inner.get(name, {"class_name": "Dense", "config": config})
        return {**model, "name": name, "inbound_nodes": [[[each, 0, 0, {}] for each in given]]}

    shape = {"name": "input", "batch_shape": [None, 5, 3]}
    start = {"class_name": "InputLayer", "name": "input", "config": shape, "inbound_nodes": []}
    config = {
        "name": "model",
        "layers": [start, *[entry(name, given) for name, given in calls.items()]],
        "input_layers": [["input", 0, 0]],
        "output_layers": [[output, 0, 0]],
    }
    return {"class_name": "Functional", "config": config}


def functional_file(*arguments: Any, **inner: Any) -> Make:
    return lambda: configuration_text(json.dumps(functional(*arguments, **inner)).encode())()


def nested_calls(levels: int, calls: int) -> Any:
    """Each level calls the one below so many times, and none has a layer: calls ** levels calls in little JSON."""
    model = {"class_name": "Functional", "config": functional({}, "input")["config"]}
    for _ in range(levels):
        model["config"]["name"] = "below"
        shape = {"class_name": "InputLayer", "config": {"name": "input", "batch_shape": [None, 5, 3]}}
        nodes = [[[["input", 0, 0, {}]]], *[[[["below", number, 0, {}]]] for number in range(calls - 1)]]
        below = {**model, "name": "below", "inbound_nodes": [node[0] for node in nodes]}
        config = {
            "layers": [shape, below],
            "input_layers": [["input", 0, 0]],
            "output_layers": [["below", calls - 1, 0]],
        }
        model = {"class_name": "Functional", "config": config}
    return model


def slow_to_order(calls: int, width: int) -> Any:
    """Each call waits for the next one in the file, and says so last."""
    names = [f"d{number}" for number in range(calls)]
    return functional(
        {name: [*["input"] * width, after] for name, after in zip(names, [*names[1:], "input"], strict=True)}, "d0"
    )


def mesh(width: int = 40) -> bytes:
    """Weights of which each group is in the one above under many names: width ** 4 ways down in little HDF5."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        below = [file.create_group(name) for name in ("layers/lstm", "b", "c", "d", "e")]
        for above, group in pairwise(below):
            for number in range(width):
                above[str(number)] = group
    return buffer.getvalue()


def hdf5_with(change: Callable[[h5py.File], object]) -> bytes:
    buffer = io.BytesIO(HDF5.read_bytes())
    with h5py.File(buffer, "r+") as file:
        change(file)
    return buffer.getvalue()


def kernel_replaced(make: Callable[[h5py.Group, str], object]) -> Make:
    """The first kernel as something else."""

    def change(file: h5py.File) -> None:
        layer = file[LAYER]
        name = layer.attrs["weight_names"][0]
        name = name.decode() if isinstance(name, bytes) else name
        del layer[name]
        make(layer, name)

    return lambda: hdf5_with(change)


def kernel_stored_as(**options: Any) -> Make:
    return kernel_replaced(lambda group, name: group.create_dataset(name, **options))


def kernel_link(link: Any) -> Make:
    return kernel_replaced(lambda group, name: group.__setitem__(name, link))


def virtual_kernel(group: h5py.Group, name: str) -> None:
    layout = h5py.VirtualLayout((3, 16), "f4")
    layout[...] = h5py.VirtualSource(str(HDF5), "x", (3, 16))
    group.create_virtual_dataset(name, layout)


def root_attribute(name: str, value: Any) -> Make:
    return lambda: hdf5_with(lambda file: file.attrs.__setitem__(name, value))


def names_of_weights(value: Any) -> Make:
    return lambda: hdf5_with(lambda file: file[LAYER].attrs.__setitem__("weight_names", value))


def linked(name: str) -> Callable[[h5py.File], None]:
    """What has this name is behind a link instead."""

    def change(file: h5py.File) -> None:
        del file[name]
        file[name] = h5py.ExternalLink("/nowhere", "/x")

    return change


def contains_itself(file: h5py.File) -> None:
    file["model_weights/lstm/again"] = file["model_weights"]
    file["model_weights/lstm"].attrs["weight_names"] = ["again/lstm/again/lstm/again/lstm/none"]


def keras_1(file: h5py.File) -> None:
    entry = {"class_name": "LSTM", "config": {"name": "lstm", "output_dim": 4, "inner_activation": "hard_sigmoid"}}
    file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": [entry]})
    file.attrs["keras_version"] = "1.2.2"


def without_architecture(file: h5py.File) -> None:
    del file.attrs["model_config"]


def safetensors(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


TENSOR = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
TENSORFLOW_OPERATION = {"class_name": "TensorFlowOpLayer", "config": {"name": "FFT"}}
PARTS = ("metadata.json", "config.json", "model.weights.h5")
GZIP = {"chunks": (1,), "compression": "gzip"}

MISTAKEN: dict[str, tuple[Make, str]] = {
    "a pickle": (lambda: pickle.dumps(Unpicklable()), "pickle"),
    "a checkpoint of PyTorch": (lambda: zip_of({"model/data.pkl": pickle.dumps(1)}), "safetensors"),
    "a compressed file": (lambda: gzip.compress(HDF5.read_bytes()), "gunzip"),
    "a file in another compression": (lambda: bz2.compress(HDF5.read_bytes()), "unpack it"),
    "a tar archive": (lambda: tar_of(HDF5), "tar"),
    "a zip of a model": (lambda: zip_of({"model.h5": HDF5.read_bytes()}), "'model.h5': unpack it"),
    "a zip of a SavedModel": (lambda: zip_of({"m/saved_model.pb": b"", "m/fingerprint.pb": b""}), "SavedModel"),
    "a zip of something else": (lambda: zip_of({"notes.txt": b"hello"}), "a zip without metadata.json"),
    "a pointer": (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "a web page": (lambda: b"\n<!DOCTYPE html><html><body>Sign in", "web page"),
    "an architecture": (lambda: b'{"class_name": "Sequential"}', "is JSON"),
    "ONNX": (lambda: b"\x08\x07\x12\x07pytorch\x1a\x051.9.0:\x80\x01", "ONNX"),
    "TensorFlow Lite": (lambda: b"\x1c\x00\x00\x00TFL3" + bytes(64), "TensorFlow Lite"),
    "the graph of a SavedModel": (lambda: b"\x08\x01\x12\xff\x01\x0a\x02\x10\x01", "SavedModel"),
    "a list of parts": (lambda: b'{"metadata": {"total_size": 9}, "weight_map": {}}', "without max_shard_size"),
    "a zip of parts": (
        lambda: zip_of(
            {name: each for name, each in members_of(KERAS).items() if ".h5" not in name}
            | {"model.weights.json": b"{}"}
        ),
        "in several parts: save the model in one file",
    ),
    "an array of NumPy": (lambda: b"\x93NUMPY\x01\x00v\x00{'descr'", "NumPy"),
    "arrays of NumPy": (lambda: zip_of({"x.npy": b"\x93NUMPY"}), "NumPy"),
    "text": (lambda: b"t,a,b\n1,2,3\n", "neither"),
    "nothing": (lambda: b"", "is empty"),
    "one byte": (lambda: b"P", "neither"),
    "zeros": (lambda: bytes(4096), "neither"),
    "Keras 1": (lambda: hdf5_with(keras_1), "Keras 1"),
    "weights alone": (lambda: hdf5_with(without_architecture), "weights but no architecture"),
    "tensors without an architecture": (lambda: safetensors({"w": TENSOR}, bytes(8)), "no architecture"),
}
ARCHIVES: dict[str, tuple[Make, str]] = {
    "a bomb of gzip": (lambda: gzip.compress(bytes(20 << 20)), "gunzip"),
    "a bomb of weights": (
        lambda: zip_of(members_of(KERAS) | {"model.weights.h5": bytes(8 << 20)}),
        "declares model.weights.h5 of 8388608 bytes",
    ),
    "a bomb that declares little": (
        lambda: with_fields(
            zip_of(members_of(KERAS) | {"config.json": bytes(8 << 20)}), 22, 24, b"\0\x10\0\0", b"config.json"
        ),
        "Bad CRC-32 for file 'config.json'",
    ),
    "a member that declares more than the bound": (
        lambda: with_fields(KERAS.read_bytes(), 22, 24, b"\xf0\xff\xff\xff"),
        "declares",
    ),
    "a bomb of JSON": (
        lambda: zip_of(members_of(KERAS) | {"config.json": b'{"a": [' + b"[]," * 3_000_000 + b"1]}"}),
        "declares config.json of",
    ),
    "a lot of JSON": (configuration_text(b'{"a": [' + b"[]," * 3_000_000 + b"1]}"), "declares config.json of"),
    "a member compressed in another way": (lambda: zip_of(members_of(KERAS), zipfile.ZIP_LZMA), "method"),
    "many members": (lambda: zip_of({f"{'x' * 200}{n}": b"" for n in range(6_000)}), "member names"),
    "a member twice": (lambda: zip_of(members_of(KERAS), twice="config.json"), "config.json twice"),
    "an encrypted zip": (lambda: with_fields(KERAS.read_bytes(), 6, 8, b"\x01"), "encrypted"),
    "members outside of the folder": (
        lambda: zip_of({f"../../{name}": content for name, content in members_of(KERAS).items()}),
        "without the folder",
    ),
    **{f"a zip without {part}": (zip_without(part), f"is a zip without {part}") for part in PARTS},
    "the first bytes of a zip": (lambda: b"PK\x03\x04", "damaged"),
    "a truncated zip": (lambda: KERAS.read_bytes()[:-200], "damaged"),
    "a zip with a wrong checksum": (lambda: with_fields(KERAS.read_bytes(), 14, 16, b"\0\0\0\0"), "damaged"),
    "weights in a zip that are no HDF5": (lambda: zip_of(members_of(KERAS) | {"model.weights.h5": b"x"}), "damaged"),
}
CONFIGURATIONS: dict[str, tuple[Make, str]] = {
    "a configuration that is a list": (configuration_text(b"[]"), "no configuration"),
    "a number for a configuration": (configuration_text(b"7"), "no configuration"),
    "null for a configuration": (configuration_text(b"null"), "no configuration"),
    "an empty configuration": (configuration_text(b""), "no JSON"),
    "JSON of 100 levels": (configuration_text(b'{"class_name": ' + b"[" * 100 + b"]" * 100 + b"}"), "no configuration"),
    "JSON of 500 levels": (configuration_text(b'{"class_name": ' + b"[" * 500 + b"]" * 500 + b"}"), "no configuration"),
    "a model of another class": (lambda: configured(lambda c: c.update(class_name="Mine")), "neither Sequential nor"),
    "a configuration that is no JSON": (configuration_text(b"{"), "no JSON"),
    "a configuration in another encoding": (configuration_text(b"\xff\xfe\x00{"), "no JSON"),
    "deep JSON": (configuration_text(b'{"class_name": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "that is no "),
    "a number of many digits": (configuration_text(b'{"class_name": ' + b"9" * 5000 + b"}"), "no JSON"),
    "a key twice": (configuration_text(b'{"class_name": "Sequential", "class_name": "Mine"}'), "'class_name' twice"),
    "a custom class": (entry_with(registered_name="mine>LSTM", module="mine"), "custom class"),
    "a class in another module": (entry_with(module="os", class_name="system"), "custom class"),
    "a Lambda": (layer_as("Lambda"), "nothing in a file is executed: build the model from Keras' own layers"),
    "a Lambda with code": (layer_as("Lambda", function={"class_name": "__lambda__", "config": {"code": "x"}}), "code"),
    "a class with a path for a name": (layer_as("../../evil"), "no class"),
    "a bidirectional layer": (layer_as("Bidirectional", 1), "the last step first"),
    "no layers": (lambda: configured(lambda c: c["config"].update(layers=[])), "no list"),
    "layers as an object": (lambda: configured(lambda c: c["config"].update(layers={})), "no list"),
    "a layer that is a number": (lambda: configured(lambda c: c["config"].update(layers=[7])), "no class"),
    "many layers": (lambda: configured(lambda c: c["config"].update(layers=layers(c) * 900)), "declares config.json"),
    "two layers of one name": (layer_as("LeakyReLU", 3, name="lstm"), "two layers are called 'lstm'"),
    "a name of two lines": (lstm_with(name="a\nb\x1b[2J"), "'a\\nb\\x1b[2J'"),
    "a name without end": (lstm_with(name="x" * 100_000), f"layer 1 has the name '{'x' * 40}'"),
    "units beyond all bounds": (lstm_with(units=1 << 60), "'lstm'"),
    "negative units": (lstm_with(units=-1), "'lstm'"),
    "units as text": (lstm_with(units="8"), "'lstm'"),
    "units that are no number": (lstm_with(units=float("nan")), "'lstm'"),
    "units of another kernel": (
        lstm_with(units=5),
        "'lstm' (LSTM) cannot be stepped: its configuration implies weights of [(3, 20)",
    ),
    "an unknown activation": (lstm_with(activation="__import__"), "activation"),
    "an activation with code": (lstm_with(activation={"class_name": "function", "config": "eval"}), "activation"),
    "a slope that is no number": (layer_as("LeakyReLU", negative_slope=float("nan")), "a parameter is nan"),
    "a layer called by itself": (functional_file({"last": ["last"]}), "layer 'last' depends on itself"),
    "a cycle": (functional_file({"a": ["b"], "b": ["a"], "last": ["a"]}), "depends on itself"),
    "a layer that is not there": (
        functional_file({"last": ["nowhere"]}),
        "layer 'last' depends on itself or on nothing",
    ),
    "a quantized layer": (
        lstm_with(dtype={"class_name": "QuantizedDTypePolicy", "config": {"mode": "int8", "source_name": "float32"}}),
        "'lstm', which is quantized to int8: save the model before model.quantize",
    ),
    "an operator of Keras 2": (
        functional_file({"op": ["input"], "last": ["op"]}, op={"class_name": "TFOpLambda", "config": {"name": "op"}}),
        "'op' (TFOpLambda) cannot be stepped: operators such as x + y are not read in files of Keras 2",
    ),
    "an operation of TensorFlow": (
        functional_file({"op": ["input"], "last": ["op"]}, op=TENSORFLOW_OPERATION),
        "'op' (TensorFlowOpLayer) cannot be stepped",
    ),
    "an output that is not there": (functional_file({"a": ["input"]}), "the output 'last' is computed by no layer"),
    "calls of calls of calls": (configuration_text(json.dumps(nested_calls(14, 8)).encode()), "more than 1000 times"),
    "calls that wait for one another": (
        configuration_text(json.dumps(slow_to_order(150, 300)).encode()),
        "connects layers more than",
    ),
}
ARRAYS: dict[str, tuple[Make, str]] = {
    "a truncated HDF5 file": (lambda: HDF5.read_bytes()[:-200], "damaged"),
    "an HDF5 file of its first bytes": (lambda: HDF5.read_bytes()[:8] + bytes(500), "damaged"),
    "a group within itself": (lambda: hdf5_with(contains_itself), "damaged"),
    "groups with many ways through them": (lambda: zip_of(members_of(KERAS) | {"model.weights.h5": mesh()}), "damaged"),
    "a chunked bomb": (
        kernel_stored_as(shape=(1 << 28,), dtype="f4", chunks=(1 << 20,), compression="gzip"),
        "512 MiB",
    ),
    "a bomb of one chunk": (kernel_stored_as(data=np.zeros(1 << 20), chunks=(1 << 20,), compression="gzip"), "'lstm'"),
    "chunks beyond the bound": (kernel_stored_as(shape=(1 << 25,), dtype="f4", chunks=(1 << 25,)), "chunks"),
    "too many chunks": (kernel_stored_as(shape=(1 << 20,), dtype="f4", **GZIP), "chunks"),
    "another filter": (kernel_stored_as(data=np.zeros((3, 16), "f4"), compression="lzf"), "filter"),
    "a shape beyond the bound": (kernel_stored_as(shape=(10**6, 10**6), dtype="f4", chunks=(1000, 1000)), "512 MiB"),
    "numbers that are not stored": (kernel_stored_as(shape=(9999, 9999), dtype="f4", chunks=(999, 999)), "hold fewer"),
    "a shape of many dimensions": (kernel_stored_as(data=np.zeros([1] * 32, "f4")), "'lstm'"),
    "no numbers at all": (kernel_stored_as(shape=(0, 16), dtype="f4"), "'lstm'"),
    "nothing where numbers should be": (kernel_stored_as(data=h5py.Empty("f4")), "'lstm'"),
    "integers for weights": (kernel_stored_as(data=np.zeros((3, 16), np.int32)), "numbers"),
    "complex weights": (kernel_stored_as(data=np.zeros((3, 16), np.complex64)), "numbers"),
    "records for weights": (kernel_stored_as(data=np.zeros((3, 16), "f4,f4")), "numbers"),
    "text for weights": (kernel_stored_as(data=[b"x"] * 4), "numbers"),
    "text of any length for weights": (kernel_stored_as(data=["x" * 99] * 4, dtype=h5py.string_dtype()), "numbers"),
    "references for weights": (kernel_stored_as(shape=(3, 16), dtype=h5py.ref_dtype), "numbers"),
    "a type for weights": (kernel_replaced(lambda group, name: group.__setitem__(name, np.dtype("f4"))), "numbers"),
    "a group for weights": (kernel_replaced(lambda group, name: group.create_group(name)), "numbers"),
    "weights that are not numbers": (kernel_stored_as(data=np.full((3, 16), np.nan, "f4")), "'lstm' are not finite"),
    "infinite weights": (kernel_stored_as(data=np.full((3, 16), np.inf, "f4")), "'lstm' are not finite"),
    "weights without end": (kernel_stored_as(data=np.full((3, 16), 1e300)), "'lstm' are not finite"),
    "a kernel on its side": (kernel_stored_as(data=np.zeros((16, 3), "f4")), "'lstm' (LSTM)"),
    "weights behind a soft link": (kernel_link(h5py.SoftLink(f"/{LAYER}_1")), "behind a link"),
    "weights behind a link to a file": (kernel_link(h5py.ExternalLink(str(HDF5), LAYER + "_1")), "behind a link"),
    "weights behind a link to nothing": (kernel_link(h5py.ExternalLink("/nowhere", "/x")), "behind a link"),
    "a layer behind a link": (lambda: hdf5_with(linked(LAYER)), "behind a link"),
    "all weights behind a link": (lambda: hdf5_with(linked("model_weights")), "behind a link"),
    "a layer without weights": (lambda: hdf5_with(lambda file: file.__delitem__(LAYER)), "'lstm' (LSTM)"),
    "a missing array": (kernel_replaced(lambda *_: None), "damaged"),
    "weights in a device": (
        kernel_stored_as(shape=(3, 16), dtype="f4", external=[("/dev/zero", 0, h5py.h5f.UNLIMITED)]),
        "another file",
    ),
    "virtual weights": (kernel_replaced(virtual_kernel), "another file"),
    "an attribute of many texts": (root_attribute("model_config", ["x"] * 500), "declares the shape (500,)"),
    "an attribute of numbers": (root_attribute("model_config", np.zeros(3)), "declares the shape (3,)"),
    "an attribute that is empty": (root_attribute("model_config", h5py.Empty("f4")), "damaged"),
    "an attribute that is a number": (root_attribute("model_config", 7), "model_config is no text"),
    "an attribute that is a zip": (root_attribute("model_config", b"PK"), "model_config that is no JSON"),
    "an attribute that is no JSON": (root_attribute("model_config", b"{"), "model_config that is no JSON"),
    "names that are numbers": (names_of_weights(7), "damaged"),
    "names that are one text": (names_of_weights("kernel"), "damaged"),
    "names that lead upwards": (names_of_weights([b"../../model_weights"]), "damaged"),
    "names that lead to the root": (names_of_weights([b"/"]), "damaged"),
    "more names than arrays": (names_of_weights([b"x"] * 100), "100 arrays"),
    "fewer names than arrays": (names_of_weights([b"x"][:0]), "'lstm'"),
    "a header beyond the file": (lambda: (1 << 40).to_bytes(8, "little") + b"{}", "neither"),
}
