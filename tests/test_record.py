"""The log, the statistics, the files."""

import json
import math

import numpy as np
import pytest

from clp_min.record import Log, headline, mean_and_error, write_atomically, write_json


def test_log__same_point_twice_is_one_point(tmp_path):
    log = Log(tmp_path / "log.jsonl")
    log.add(0, ["a", "b"], 1, accuracy=50.0)
    log.add(0, ["a"], 2, accuracy=60.0, layers={"0": 1.0})
    log.add(0, ["a"], 2, accuracy=60.0)
    again = Log(tmp_path / "log.jsonl")
    assert again.series(0, "a", "accuracy") == ([1, 2], [50.0, 60.0]) and again.last(0, "b", "accuracy") == 50.0
    assert again.at(0, "a", 2, "layers") == {"0": 1.0} and again.series(1, "a", "accuracy") == ([], [])


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


def test_mean_and_error__is_the_textbook():
    mean, error, n = mean_and_error([1.0, 2.0, 6.0])
    assert (mean, n) == (3.0, 3) and math.isclose(error, math.sqrt((4 + 1 + 9) / 2 / 3))
    assert math.isnan(mean_and_error([1.0])[1])
    assert headline([1.0, 3.0], "points") == {"mean": 2.0, "standard_error": 1.0, "n": 2, "unit": "points"}


def test_write_json__is_readable_by_anyone(tmp_path):
    write_json(tmp_path / "deep" / "x.json", {"a": math.nan, "b": [np.float32(1.5), (1, 2)], 3: np.int64(4)})
    assert json.loads((tmp_path / "deep" / "x.json").read_text()) == {"a": None, "b": [1.5, [1, 2]], "3": 4}


def test_write_atomically__keeps_the_old_file_if_writing_fails(tmp_path):
    path = tmp_path / "x"
    write_atomically(path, "old")
    with pytest.raises(TypeError):
        write_atomically(path, 5)
    assert path.read_text() == "old"
