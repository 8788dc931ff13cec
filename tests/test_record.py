"""The log, the statistics, the files."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from clp_min.study.record import Log, Results, write_atomically, write_json


def test_log__same_point_twice_is_one_point(tmp_path):
    log = Log(tmp_path / "log.jsonl")
    log.add(0, ["a", "b"], 1, accuracy=50.0)
    log.add(0, ["a"], 2, accuracy=60.0, layers=[1.0])
    log.add(0, ["a"], 2, accuracy=60.0)
    again = Log(tmp_path / "log.jsonl")
    assert again.series(0, "a", "accuracy") == ([1, 2], [50.0, 60.0])
    assert again.series(0, "a", "layers") == ([2], [[1.0]])
    assert again.series(1, "a", "accuracy") == ([], [])


def test_log__cut_last_line_is_dropped_and_written_past(tmp_path):
    path = tmp_path / "log.jsonl"
    log = Log(path)
    for epoch in range(3):
        log.add(0, ["a"], epoch, accuracy=float(epoch))
    path.write_bytes(path.read_bytes()[:-7])
    log = Log(path)
    assert log.series(0, "a", "accuracy")[0] == [0, 1]
    log.add(0, ["a"], 2, accuracy=2.0)
    assert Log(path).series(0, "a", "accuracy") == ([0, 1, 2], [0.0, 1.0, 2.0])


@pytest.fixture
def results():
    """Two seeds, two schedules; accuracy = 10 seed + epoch, and 5 more along "b"; layers a list."""
    log = Log()
    for seed in (10, 11):
        for epoch in (3, 0, 1):  # in any order
            log.add(seed, ["a"], epoch, accuracy=10.0 * seed + epoch, layers=[1.0, epoch])
            log.add(seed, ["b"], epoch, accuracy=10.0 * seed + epoch + 5)
    return Results(log, [10, 11])


def test_results__seeds_first(results):
    assert results.points("accuracy", "a") == [0, 1, 3]
    assert results.values("accuracy", "a").tolist() == [[100, 101, 103], [110, 111, 113]]
    assert results.values("layers", "a").shape == (2, 3, 2)
    assert results.at("accuracy", "a", 1).tolist() == [101, 111]
    assert results.at("accuracy", "a", [3, 0]).tolist() == [[103, 100], [113, 110]]
    assert results.at("accuracy", "a", range(2)).tolist() == [[100, 101], [110, 111]]
    assert results.final("accuracy", "b").tolist() == [108, 118]
    assert results.final("accuracy", ["a", "b"]).tolist() == [[103, 108], [113, 118]]
    assert results.final("layers", "a").tolist() == [[1, 3], [1, 3]]
    x, values = results.curve("accuracy", "a", low=1, high=2)
    assert x == [1] and values.tolist() == [[101], [111]]


def test_results__what_is_missing_is_named(results):
    for call in (
        lambda: results.values("loss", "a"), lambda: results.at("accuracy", "a", [0, 2]),
        lambda: results.final("accuracy", "c"),
    ):
        with pytest.raises(ValueError, match="was not measured"):
            call()
    results.log.add(10, ["a"], 7, accuracy=0.0)  # one seed has more than the other
    with pytest.raises(ValueError, match="for all 2 seeds"):
        results.values("accuracy", "a")


def test_write_json__one_array_per_line_for_any_reader(tmp_path):
    content = {"a": math.nan, "b": [np.float32(1.5), (1, 2)], 3: np.int64(4), "c": {}, "d": []}
    path = tmp_path / "deep" / "x.json"
    write_json(path, content | {"rows": np.arange(6.0).reshape(2, 3)})
    expected = {"a": None, "b": [1.5, [1, 2]], "3": 4, "c": {}, "d": []}
    assert json.loads(path.read_text()) == expected | {"rows": [[0, 1, 2], [3, 4, 5]]}
    assert "\n  [0.0, 1.0, 2.0],\n" in path.read_text()


def test_write_atomically__keeps_the_old_file_if_writing_fails(tmp_path):
    path = tmp_path / "x"
    write_atomically(path, "old")
    with pytest.raises(TypeError):
        write_atomically(path, 5)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["x"]


def test_write_atomically__what_cannot_be_written_is_named_and_leaves_nothing(tmp_path):
    (tmp_path / "x").mkdir()  # a folder stands in its place
    with pytest.raises(OSError, match="x cannot be written"):
        write_atomically(tmp_path / "x", "new")
    assert [file.name for file in tmp_path.iterdir()] == ["x"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux that is always full")
def test_log__a_full_disk_is_named():
    log = Log()
    log.path = Path("/dev/full")
    with pytest.raises(OSError, match="/dev/full cannot be written .No space left"):
        log.add(0, ["a"], 1, accuracy=5.0)
