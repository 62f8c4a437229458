"""Files damaged anywhere: each is refused in one line that names the file and the way out, or it is read."""

from __future__ import annotations

import contextlib
import io
import shutil
from pathlib import Path

import h5py
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.model.hostile_files import HDF5, KERAS, members_of, zip_of
from worker.errors import ModelNotStreamable
from worker.model.files import weights as weights_module
from worker.model.load import load_program


def refusal(path: Path) -> str:
    with pytest.raises(ModelNotStreamable) as refused:
        load_program(path)
    text = str(refused.value)
    assert "\n" not in text
    assert str(path) in text or "layer" in text
    assert refused.value.hint
    return text


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


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
@given(st.sampled_from(sorted(members_of(KERAS))), st.integers(0, 35_000), st.binary(min_size=1, max_size=8))
def test_a_zip_with_wrong_bytes_is_refused_or_read_but_never_a_traceback(tmp_path, name, at, damage):
    content = members_of(KERAS)
    part = bytearray(content[name])
    part[at % len(part) : at % len(part) + len(damage)] = damage

    with contextlib.suppress(ModelNotStreamable):
        load_program(written(tmp_path / "model.keras", zip_of(content | {name: bytes(part)})))


def test_the_bound_holds_for_all_weights_of_a_file_together(tmp_path, monkeypatch):
    monkeypatch.setattr(weights_module, "WEIGHT_BYTES_MAX", 300)

    assert "need more than" in refusal(shutil.copy(HDF5, tmp_path / "model.h5"))


@pytest.mark.parametrize("where", ["layers", "layers/lstm", "layers/lstm/cell/vars", "layers/lstm/cell/vars/0"])
@pytest.mark.parametrize("what", ["link", "number", "nothing"])
def test_the_weights_of_a_zip_are_read_as_carefully(tmp_path, where, what):
    content = members_of(KERAS)
    buffer = io.BytesIO(content["model.weights.h5"])
    with h5py.File(buffer, "r+") as file:
        del file[where]
        if what == "link":
            file[where] = h5py.ExternalLink("/nowhere", "/x")
        if what == "number":
            file[where] = 7

    refusal(written(tmp_path / "model.keras", zip_of(content | {"model.weights.h5": buffer.getvalue()})))


def test_the_file_can_be_replaced_after_it_was_loaded(tmp_path):
    path = Path(shutil.copy(HDF5, tmp_path / "model.h5"))
    compiled = load_program(path)

    with h5py.File(path, "w") as file:
        file.attrs["other"] = 1

    assert compiled.state_size == 15
