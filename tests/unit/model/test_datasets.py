"""Recordings from CSV and npz files, and what a CSV file that cannot be used gets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from worker.errors import ConfigError
from worker.model.datasets import Recording, is_class, is_positive, of_split, read_csv, read_recordings, sequences_of

GOOD = """recording,split,activity,step,x,y
a,train,walking,1,0.5,1
b,test,running,1,-1e-3,2
a,train,walking,2,0.25,3
"""


def written(directory: Path, text: str) -> Path:
    path = directory / "data.csv"
    path.write_text(text, encoding="utf-8")
    return path


def recording_of(steps: int, name: str = "r", label: str = "walking") -> Recording:
    return Recording(name, "train", [label] * steps, np.arange(steps * 2, dtype=np.float32).reshape(steps, 2))


def test_rows_are_gathered_by_recording_in_file_order(tmp_path: Path) -> None:
    first, second = read_csv(written(tmp_path, GOOD))
    assert (first.name, first.split, first.label) == ("a", "train", "walking")
    np.testing.assert_array_equal(first.features, np.array([[0.5, 1], [0.25, 3]], np.float32))
    assert first.features.dtype == np.float32
    assert (second.name, second.label, second.features.shape) == ("b", "running", (1, 2))


def test_named_feature_columns_are_taken_in_the_given_order(tmp_path: Path) -> None:
    assert read_csv(written(tmp_path, GOOD), features=["y", "x"])[0].features[0].tolist() == [1, 0.5]


def test_a_numeric_label_is_the_column_called_label_or_the_named_one(tmp_path: Path) -> None:
    path = written(tmp_path, "recording,label,kind,x\na,1,7,0.5\n")
    assert read_csv(path)[0].label == "1"
    assert read_csv(path, label="kind", features=["x"])[0].label == "7"


def test_split_step_and_label_may_be_absent(tmp_path: Path) -> None:
    (recording,) = read_csv(written(tmp_path, "recording,x\na,1\na,2\n"))
    assert (recording.split, recording.label, len(recording.features)) == ("", "", 2)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "has no rows"),
        ("recording,x\n", "has no rows"),
        ("name,x\na,1\n", "no column 'recording'"),
        ("recording,x,x\na,1,1\n", "two columns of one name"),
        ("recording,x\na,1,2\n", "line 2 has 3 fields"),
        (
            "recording,x\na,1\na,one\n",
            "line 3: x is 'one', no number: mend the row, or name the feature columns with --f",
        ),
        ("recording,x\na,1\na,\n", "line 3: x is '', no number"),
        ("recording,time,label,x\na,12:30,1,1\n", "line 2: time is '12:30', no number: mend the row, or name the feat"),
        ("recording,x\na,nan\n", "line 2: x is 'nan', no finite number of float32: mend the row or leave it out"),
        ("recording,x\na,1e999\n", "line 2: x is '1e999'"),
        ("recording,x\na,1e39\n", "line 2: x is '1e39'"),
        ("recording,step,x\na,1,5\na,3,5\n", "line 3: step 3 of recording a, expected 2"),
        ("recording,kind,place,x\na,run,wood,1\n", "kind, place are not numeric"),
        ("recording,split,x\na,train,1\na,test,1\n", "line 3: recording a changes its split"),
        ("recording,step\na,1\n", "no feature columns"),
        ('recording,x\na,"1\n', "no CSV file"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_naming_line_and_column(
    tmp_path: Path, text: str, complaint: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        read_csv(written(tmp_path, text))
    assert complaint in str(refused.value)


def test_a_missing_file_a_directory_and_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00recording")
    np.save(tmp_path / "array.npy", np.ones((2, 3)))
    for path in (tmp_path / "absent.csv", tmp_path, tmp_path / "bytes.csv", tmp_path / "array.npy"):
        with pytest.raises(ConfigError, match=rf"{path.name}.*give a CSV file, or an npz with x and y"):
            read_recordings(path)


def test_recordings_are_cut_into_consecutive_sequences_and_the_rest_is_dropped() -> None:
    sequences = sequences_of(
        [recording_of(7, "a", "walking"), recording_of(2, "b"), recording_of(3, "c", "running")], 3
    )
    assert sequences.recordings == ["a", "a", "c"]
    assert sequences.labels == ["walking", "walking", "running"]
    np.testing.assert_array_equal(sequences.features[1], recording_of(7).features[3:6])


def test_a_sequence_has_the_label_of_its_last_sample(tmp_path: Path) -> None:
    labels = ["sit", "run", "run", "run", "sit", "sit", "sit"]
    rows = "".join(f"a,{label},1\n" for label in labels)
    (recording,) = read_csv(written(tmp_path, f"recording,label,x\n{rows}"))
    assert list(recording.labels) == labels
    assert sequences_of([recording], 2).labels == ["run", "run", "sit"]
    assert sequences_of([recording], 7).labels == [recording.label] == ["sit"]


def test_windows_of_one_recording_are_streams_of_their_own_and_sequences_of_one_recording(tmp_path: Path) -> None:
    x = np.arange(5 * 4 * 2, dtype=np.float32).reshape(5, 4, 2)
    np.savez(tmp_path / "data.npz", x=x, y=[0, 1, 0, 1, 0], recording=["a", "b", "a", "a", "a/1"])
    recordings = read_recordings(tmp_path / "data.npz")
    assert [each.name for each in recordings] == ["a/1", "b/1", "a/2", "a/3", "a/1/1"]
    assert [len(each.features) for each in recordings] == [4] * 5
    sequences = sequences_of(recordings, 3)
    assert sequences.recordings == ["a", "b", "a", "a", "a/1"]
    assert sequences.labels == ["0", "1", "0", "1", "0"]
    np.testing.assert_array_equal(sequences.features, x[:, :3])


def test_sequences_of_an_npz_file_are_called_after_their_recordings_or_numbered(tmp_path: Path) -> None:
    np.savez(tmp_path / "named.npz", x=np.ones((2, 3, 1)), recording=["b", "a"])
    np.savez(tmp_path / "plain.npz", x=np.ones((2, 3, 1)))
    for name, expected in (("named", ["b", "a"]), ("plain", ["row-0", "row-1"])):
        recordings = read_recordings(tmp_path / f"{name}.npz")
        assert [each.name for each in recordings] == expected
        assert sequences_of(recordings, 3).recordings == expected


def test_recordings_shorter_than_a_sequence_give_none() -> None:
    sequences = sequences_of([recording_of(2)], 3)
    assert sequences.features.shape == (0, 3, 2)
    assert len(sequences) == 0


def test_an_absent_split_is_refused_naming_those_there_are() -> None:
    assert of_split([recording_of(1)], "train")
    with pytest.raises(ConfigError, match=r"'dev'.*train"):
        of_split([recording_of(1)], "dev")
    with pytest.raises(ConfigError, match="they have none"):
        of_split([Recording("a", "", [""], np.ones((1, 1), np.float32))], "dev")


def test_a_positive_label_that_separates_nothing_is_refused_naming_the_labels() -> None:
    assert is_positive(["a", "b"], "b").tolist() == [False, True]
    for labels in (["a", "b"], ["c", "c"]):
        with pytest.raises(ConfigError, match=", ".join(sorted(set(labels)))):
            is_positive(labels, "c")


def test_missing_labels_are_refused_with_how_many_there_are_and_where_the_first_is() -> None:
    labels = ["a", "b", "", "a", "nan", "b"]
    for ask in (lambda: is_positive(labels, "a"), lambda: is_class(labels, ["a", "b"])):
        with pytest.raises(ConfigError, match="2 of 6 sequences have no label, the first is number 3: ") as refused:
            ask()
        assert "\n" not in str(refused.value)


def test_a_label_that_is_asked_for_is_not_missing_whatever_its_name() -> None:
    assert is_positive(["nan", "b"], "nan").tolist() == [True, False]
    assert is_class(["nan", "b"], ["b", "nan"]).tolist() == [[False, True], [True, False]]


def test_an_empty_cell_and_a_number_that_is_none_are_missing_labels_where_a_sequence_ends(tmp_path: Path) -> None:
    table = read_csv(written(tmp_path, "recording,label,x\na,,1\na,run,1\nb,run,1\nb, ,1\nc,sit,1\nc,sit,1\n"))
    np.savez(tmp_path / "data.npz", x=np.ones((3, 2, 1)), y=[1.0, np.nan, 0.0])
    for recordings, label in ((table, "run"), (read_recordings(tmp_path / "data.npz"), "1")):
        with pytest.raises(ConfigError, match=r"1 of 3 sequences have no label, the first is number 2"):
            is_positive(sequences_of(recordings, 2).labels, label)
