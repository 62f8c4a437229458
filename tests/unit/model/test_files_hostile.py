"""What people mistake for a model, and what is made to hurt: one line, little memory, nothing executed."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import shutil
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from worker.errors import ModelNotStreamable
from worker.model.load import load_program

GOLDENS = Path(__file__).parents[2] / "goldens"
KERAS, HDF5 = GOLDENS / "lstm_flatten.keras", GOLDENS / "lstm_flatten.h5"
GENERATIONS = GOLDENS / "generations"
PEAK_BYTES_MAX = 48 << 20
"""Of everything that Python allocates for a refusal; the files are below 1 MiB."""


class Unpicklable:
    """Leaves a trace when a pickle of it is read."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (open, ("executed", "w"))


def gzip_bomb() -> bytes:
    return gzip.compress(bytes(20 << 20))


def zip_of(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def members_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def keras_with(change: Callable[[Any], object]) -> bytes:
    """The `.keras` file with another configuration."""
    members = members_of(KERAS)
    configuration = json.loads(members["config.json"])
    change(configuration)
    return zip_of(members | {"config.json": json.dumps(configuration).encode()})


def layers(configuration: Any) -> list[Any]:
    return list(configuration["config"]["layers"])


def hdf5_with(change: Callable[[h5py.File], object]) -> bytes:
    buffer = io.BytesIO(HDF5.read_bytes())
    with h5py.File(buffer, "r+") as file:
        change(file)
    return buffer.getvalue()


def kernel_stored_as(**options: Any) -> Callable[[h5py.File], None]:
    """The first kernel as another dataset."""

    def change(file: h5py.File) -> None:
        layer = file["model_weights/lstm"]
        name = layer.attrs["weight_names"][0]
        name = name.decode() if isinstance(name, bytes) else name
        del layer[name]
        layer.create_dataset(name, **options)

    return change


def safetensors(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def keras_1() -> bytes:
    def change(file: h5py.File) -> None:
        entry = {"class_name": "LSTM", "config": {"name": "lstm", "output_dim": 4, "inner_activation": "hard_sigmoid"}}
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": [entry]})
        file.attrs["keras_version"] = "1.2.2"

    return hdf5_with(change)


def registered(configuration: Any) -> None:
    layers(configuration)[1].update(registered_name="mine>LSTM", module="mine")


def contains_itself(file: h5py.File) -> None:
    file["model_weights/lstm/again"] = file["model_weights"]
    file["model_weights/lstm"].attrs["weight_names"] = ["again/lstm/again/lstm/again/lstm/none"]


TENSOR = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "a pickle": (lambda: pickle.dumps(Unpicklable()), "pickle"),
    "a compressed file": (lambda: gzip.compress(HDF5.read_bytes()), "gunzip"),
    "a bomb of gzip": (gzip_bomb, "gunzip"),
    "a pointer": (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "an architecture": (lambda: b'{"class_name": "Sequential"}', "is JSON"),
    "a checkpoint of PyTorch": (lambda: zip_of({"model/data.pkl": pickle.dumps(1)}), "safetensors"),
    "Keras 1": (keras_1, "Keras 1"),
    "a custom class": (lambda: keras_with(registered), "custom class"),
    "a Lambda": (
        lambda: keras_with(lambda c: layers(c)[2].update(class_name="Lambda")),
        "nothing in a file is executed",
    ),
    "a bidirectional layer": (
        lambda: keras_with(lambda c: layers(c)[1].update(class_name="Bidirectional")),
        "the last step first",
    ),
    "no layers": (lambda: keras_with(lambda c: c["config"].update(layers=[])), "no list"),
    "layers as an object": (lambda: keras_with(lambda c: c["config"].update(layers={})), "no list"),
    "a layer that is a number": (lambda: keras_with(lambda c: c["config"].update(layers=[7])), "no class"),
    "two layers of one name": (
        lambda: keras_with(lambda c: layers(c)[3]["config"].update(name="lstm")),
        "",
    ),
    "units beyond all bounds": (
        lambda: keras_with(lambda c: layers(c)[1]["config"].update(units=1 << 60)),
        "",
    ),
    "negative units": (lambda: keras_with(lambda c: layers(c)[1]["config"].update(units=-1)), ""),
    "units as text": (lambda: keras_with(lambda c: layers(c)[1]["config"].update(units="8")), ""),
    "an unknown activation": (
        lambda: keras_with(lambda c: layers(c)[1]["config"].update(activation="__import__")),
        "activation",
    ),
    "a bomb of JSON": (
        lambda: zip_of(members_of(KERAS) | {"config.json": b'{"a": [' + b"[]," * 3_000_000 + b"1]}"}),
        "",
    ),
    "a member compressed in another way": (lambda: zip_of(members_of(KERAS), zipfile.ZIP_LZMA), "method"),
    "many members": (lambda: zip_of({f"{'x' * 200}{n}": b"" for n in range(6_000)}), "member names"),
    "a group within itself": (lambda: hdf5_with(contains_itself), ""),
    "a chunked bomb": (
        lambda: hdf5_with(kernel_stored_as(shape=(1 << 28,), dtype="f4", chunks=(1 << 20,), compression="gzip")),
        "",
    ),
    "too many chunks": (
        lambda: hdf5_with(kernel_stored_as(shape=(1 << 20,), dtype="f4", chunks=(1,), compression="gzip")),
        "chunks",
    ),
    "integers for weights": (lambda: hdf5_with(kernel_stored_as(data=np.zeros((3, 128), np.int32))), "numbers"),
    "text for weights": (lambda: hdf5_with(kernel_stored_as(data=[b"x"] * 4)), "numbers"),
    "tensors without an architecture": (lambda: safetensors({"w": TENSOR}, bytes(8)), "no architecture"),
    "a header beyond the file": (lambda: (1 << 40).to_bytes(8, "little") + b"{}", "neither"),
}
TENSORS: dict[str, tuple[bytes, str]] = {
    "a header that is no object": (safetensors(b"{]"), ""),
    "a tensor outside of the file": (safetensors({"w": {**TENSOR, "data_offsets": [0, 1 << 40]}}), "outside"),
    "a tensor that ends before it begins": (
        safetensors({"w": {**TENSOR, "data_offsets": [8, 0]}}, bytes(8)),
        "outside",
    ),
    "a tensor of another size": (safetensors({"w": {**TENSOR, "shape": [1 << 30]}}, bytes(8)), "other bytes"),
    "a negative shape": (safetensors({"w": {**TENSOR, "shape": [-2]}}, bytes(8)), "without"),
    "a shape of many dimensions": (safetensors({"w": {**TENSOR, "shape": [1] * 60}}, bytes(8)), "outside"),
    "a tensor without a dtype": (safetensors({"w": {"shape": [2], "data_offsets": [0, 8]}}, bytes(8)), "without"),
    "a tensor that is a number": (safetensors({"w": 7}), "no object"),
    "many tensors": (safetensors({f"w{n}": TENSOR for n in range(5_000)}, bytes(8)), "tensors"),
    "a tensor that nobody names": (safetensors({"w": TENSOR}, bytes(8)), ""),
}


def refusal(path: Path) -> str:
    """The one line, after looking at what it cost."""
    tracemalloc.start()
    try:
        with pytest.raises(ModelNotStreamable) as refused:
            load_program(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < PEAK_BYTES_MAX
    assert "\n" not in str(refused.value)
    assert refused.value.hint
    return str(refused.value)


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_file_is_refused_in_one_line_and_within_bounds(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make, said = HOSTILE[kind]
    path = tmp_path / "model.keras"
    path.write_bytes(make())

    assert said in refusal(path)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("kind", TENSORS)
def test_hostile_tensors_are_refused_in_one_line_and_within_bounds(kind, tmp_path):
    content, said = TENSORS[kind]
    (tmp_path / "model.safetensors").write_bytes(content)
    (tmp_path / "model.json").write_text('{"layers": [{"module": "Linear", "name": "fc"}]}')

    assert said in refusal(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("described", "said"),
    [
        ({}, "no list"),
        ({"layers": []}, "no list"),
        ({"layers": [7]}, "no `module`"),
        ({"layers": [{"module": "LSTM"}]}, "without `name`"),
        ({"layers": [{"module": "Transformer", "name": "x"}]}, "not known"),
        ({"layers": [{"module": "LSTM", "name": "x", "code": "1"}]}, "unknown key"),
        ({"layers": [{"module": "Last"}]}, "before any recurrent"),
        ({"layers": [{"module": "Linear", "name": "nothing"}]}, "does not have"),
    ],
)
def test_a_description_of_torch_modules_that_does_not_fit_is_refused(described, said, tmp_path):
    shutil.copy(next(GENERATIONS.glob("torch*.safetensors")), tmp_path / "model.safetensors")
    (tmp_path / "model.json").write_text(json.dumps(described))

    assert said in refusal(tmp_path / "model.safetensors")


def test_a_saved_model_directory_says_how_to_save_it_again(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"")

    assert "SavedModel" in refusal(tmp_path)
    assert "model.h5" in refusal(tmp_path)


def test_the_architecture_of_weights_may_lie_anywhere(tmp_path):
    weights = next(GENERATIONS.glob("keras315_*_alone.weights.h5"))
    architecture = GENERATIONS / weights.name.replace(".weights.h5", ".json")
    shutil.copy(weights, tmp_path / "weights.h5")
    shutil.copy(architecture, tmp_path / "what-it-is.json")

    assert "no architecture" in refusal(tmp_path / "weights.h5")
    found = load_program(tmp_path / "weights.h5", architecture=tmp_path / "what-it-is.json")
    assert found.fingerprint == load_program(weights).fingerprint
