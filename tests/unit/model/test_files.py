"""Damaged and hostile files: each refused in one line that names the file and the way out, before it costs anything."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from worker.errors import ModelNotStreamable
from worker.model.files import weights as weights_module
from worker.model.load import load_program

GOLDENS = Path(__file__).parents[2] / "goldens"
KERAS, HDF5 = GOLDENS / "lstm_flatten.keras", GOLDENS / "lstm_flatten.h5"


def refusal(path: Path) -> str:
    with pytest.raises(ModelNotStreamable) as refused:
        load_program(path)
    text = str(refused.value)
    assert "\n" not in text
    assert str(path) in text or "layer" in text
    assert refused.value.hint
    return text


def members() -> dict[str, bytes]:
    with zipfile.ZipFile(KERAS) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_zip(path: Path, content: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, value in content.items():
            archive.writestr(name, value)
    return path


def with_config(path: Path, change) -> Path:
    content = members()
    configuration = json.loads(content["config.json"])
    change(configuration)
    return write_zip(path, content | {"config.json": json.dumps(configuration).encode()})


def changed_hdf5(path: Path, change) -> Path:
    shutil.copy(HDF5, path)
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def kernel_of(file: h5py.File) -> tuple[h5py.Group, str]:
    """The first LSTM's kernel as (group, name), whatever Keras called its parents."""
    layer = file["model_weights/lstm"]
    name = layer.attrs["weight_names"][0]
    parent, _, last = (name.decode() if isinstance(name, bytes) else name).rpartition("/")
    return layer[parent], last


def test_a_missing_file_names_the_setting(tmp_path):
    assert "does not exist: set model.path" in refusal(tmp_path / "none.keras")


@pytest.mark.parametrize(
    ("content", "said"), [(b"", "is empty"), (b"hello", "neither"), (b"P", "neither"), (b"PK\x03\x04", "damaged")]
)
def test_a_file_of_another_kind_is_refused(tmp_path, content, said):
    path = tmp_path / "model.keras"
    path.write_bytes(content)

    assert said in refusal(path)


def test_the_content_decides_and_not_the_name(tmp_path):
    shutil.copy(HDF5, tmp_path / "model.keras")
    shutil.copy(KERAS, tmp_path / "model.h5")

    fingerprints = {load_program(tmp_path / name).fingerprint for name in ("model.keras", "model.h5")}

    assert fingerprints == {load_program(KERAS).fingerprint}


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.7, 0.9, 0.999])
@pytest.mark.parametrize("source", [KERAS, HDF5], ids=["keras", "h5"])
def test_a_truncated_file_is_refused(tmp_path, source, share):
    path = tmp_path / source.name
    path.write_bytes(source.read_bytes()[: int(source.stat().st_size * share)])

    refusal(path)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(sorted(members())), st.integers(0, 35_000), st.binary(min_size=1, max_size=8))
def test_a_zip_with_wrong_bytes_is_refused_or_read_but_never_a_traceback(tmp_path, name, at, damage):
    content = members()
    part = bytearray(content[name])
    part[at % len(part) : at % len(part) + len(damage)] = damage

    with contextlib.suppress(ModelNotStreamable):
        load_program(write_zip(tmp_path / "model.keras", content | {name: bytes(part)}))


@pytest.mark.parametrize("name", ["metadata.json", "config.json", "model.weights.h5"])
def test_a_zip_without_one_of_its_parts_names_the_part(tmp_path, name):
    content = members()
    del content[name]

    assert f"is a zip without {name}" in refusal(write_zip(tmp_path / "model.keras", content))


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b"7", b"null", b"\xff\xfe", b'{"class_name": ' + b"9" * 5000 + b"}"],
    ids=["empty", "open", "list", "number", "null", "not utf-8", "huge number"],
)
def test_a_configuration_that_is_no_json_object_is_refused(tmp_path, text):
    refusal(write_zip(tmp_path / "model.keras", members() | {"config.json": text}))


@pytest.mark.parametrize("levels", [100, 500, 100_000])
def test_deep_json_is_refused(tmp_path, levels):
    deep = b'{"class_name": ' + b"[" * levels + b"]" * levels + b"}"

    refusal(write_zip(tmp_path / "model.keras", members() | {"config.json": deep}))


def test_a_configuration_with_other_units_than_the_weights_names_the_layer(tmp_path):
    def change(configuration):
        configuration["config"]["layers"][1]["config"]["units"] = 5

    text = refusal(with_config(tmp_path / "model.keras", change))

    assert "'lstm' (LSTM)" in text
    assert "(3, 20)" in text


def test_a_model_of_another_class_is_refused(tmp_path):
    def change(configuration):
        configuration["class_name"] = "Mine"

    assert "neither Sequential nor Functional" in refusal(with_config(tmp_path / "model.keras", change))


def test_missing_weights_name_the_layer(tmp_path):
    def change(file):
        del file["model_weights/lstm"]

    assert "'lstm' (LSTM)" in refusal(changed_hdf5(tmp_path / "model.h5", change))


def test_one_missing_array_is_damage(tmp_path):
    def change(file):
        group, name = kernel_of(file)
        del group[name]

    assert "damaged" in refusal(changed_hdf5(tmp_path / "model.h5", change))


@pytest.mark.parametrize("link", ["soft", "external", "dangling"])
def test_weights_behind_a_link_are_refused_and_the_link_is_not_followed(tmp_path, link):
    shutil.copy(HDF5, tmp_path / "other.h5")
    where = "/model_weights/lstm_1"
    links = {
        "soft": h5py.SoftLink(where),
        "external": h5py.ExternalLink(str(tmp_path / "other.h5"), where),
        "dangling": h5py.ExternalLink("/nowhere", "/x"),
    }

    def change(file):
        group, name = kernel_of(file)
        del group[name]
        group[name] = links[link]

    assert "behind a link" in refusal(changed_hdf5(tmp_path / "model.h5", change))


def test_a_layer_behind_a_link_is_refused(tmp_path):
    def change(file):
        del file["model_weights/lstm"]
        file["model_weights/lstm"] = h5py.ExternalLink("/nowhere", "/x")

    assert "behind a link" in refusal(changed_hdf5(tmp_path / "model.h5", change))


def test_all_weights_behind_a_link_are_refused(tmp_path):
    def change(file):
        del file["model_weights"]
        file["model_weights"] = h5py.ExternalLink("/nowhere", "/x")

    assert "behind a link" in refusal(changed_hdf5(tmp_path / "model.h5", change))


def replace_kernel(make):
    def change(file):
        group, name = kernel_of(file)
        shape = group[name].shape
        del group[name]
        make(group, name, shape)

    return change


def test_the_bound_holds_for_all_weights_of_a_file_together(tmp_path, monkeypatch):
    monkeypatch.setattr(weights_module, "WEIGHT_BYTES_MAX", 300)

    assert "need more than" in refusal(shutil.copy(HDF5, tmp_path / "model.h5"))


@pytest.mark.parametrize(
    "values",
    [np.full((3, 16), np.nan, "f4"), np.full((3, 16), np.inf, "f4"), np.full((3, 16), 1e300), np.zeros((3, 16), "i4")],
    ids=["nan", "inf", "beyond float32", "integers"],
)
def test_weights_that_are_no_finite_numbers_are_refused(tmp_path, values):
    def make(group, name, _shape):
        group.create_dataset(name, data=values)

    assert "'lstm'" in refusal(changed_hdf5(tmp_path / "model.h5", replace_kernel(make)))


@pytest.mark.parametrize("value", [b"PK", b"{", 7, np.zeros(3), h5py.Empty("f4")])
def test_an_hdf5_file_with_another_model_config_is_refused(tmp_path, value):
    def change(file):
        file.attrs["model_config"] = value

    refusal(changed_hdf5(tmp_path / "model.h5", change))


@pytest.mark.parametrize("names", [7, np.array([b"x"] * 100), "kernel", np.array([b"../x"]), np.array([b"/"])])
def test_weight_names_of_another_form_are_refused(tmp_path, names):
    def change(file):
        file["model_weights/lstm"].attrs["weight_names"] = names

    refusal(changed_hdf5(tmp_path / "model.h5", change))


@pytest.mark.parametrize("where", ["layers", "layers/lstm", "layers/lstm/cell/vars", "layers/lstm/cell/vars/0"])
@pytest.mark.parametrize("what", ["link", "number", "nothing"])
def test_the_weights_of_a_zip_are_read_as_carefully(tmp_path, where, what):
    content = members()
    buffer = io.BytesIO(content["model.weights.h5"])
    with h5py.File(buffer, "r+") as file:
        del file[where]
        if what == "link":
            file[where] = h5py.ExternalLink("/nowhere", "/x")
        if what == "number":
            file[where] = 7

    refusal(write_zip(tmp_path / "model.keras", content | {"model.weights.h5": buffer.getvalue()}))


def test_the_file_can_be_replaced_after_it_was_loaded(tmp_path):
    path = Path(shutil.copy(HDF5, tmp_path / "model.h5"))
    compiled = load_program(path)

    with h5py.File(path, "w") as file:
        file.attrs["other"] = 1

    assert compiled.state_size == 15
