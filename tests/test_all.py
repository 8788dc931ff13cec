"""examples/all.py: the order of its scripts, its words, and that it goes on."""

import pytest

import all as everything


def result(mean, error, verdict="reproduced"):
    return {"headline": {"mean": mean, "standard_error": error, "n": 8, "unit": "points"},
            "verdict": verdict}


def test_all__words():
    word = everything.against_ours
    assert word(result(5.0, 0.3), result(5.0, 0.3)) == "equal"
    assert word(result(5.5, 0.3), result(5.0, 0.4)) == "within the interval (1.0 standard errors)"
    assert word(result(6.6, 0.3), result(5.0, 0.4)) == "different (3.2 standard errors)"
    turned = word(result(5.5, 0.3, "undecided"), result(5.0, 0.4))
    assert turned == "within the interval (1.0 standard errors, another verdict)"
    assert word(result(1.0, None), result(1.0, None)) == "equal"
    assert word(result(1.0, None), result(1.5, None)) == "different"


def test_all__another_sets_result_has_a_row_where_there_is_one(tmp_path):
    name = "cifar10.quick.cut/achille_blur"
    (tmp_path / name).parent.mkdir()
    (tmp_path / f"{name}.json").write_text((everything.OURS / f"{name}.json").read_text())
    text, words = everything.page({}, tmp_path)
    assert f"| {name} |" in text and words == ["equal"]


def test_all__every_script_the_longest_first():
    found = everything.panels()
    seconds = [everything.took(names) for names in found.values()]
    assert seconds == sorted(seconds, reverse=True) and seconds[0] > 1000
    assert "achille_blur" in found["blur_deficit"] and len(found) > 25


@pytest.mark.slow
def test_all__the_same_command_goes_on_and_writes_the_page(tmp_path, capsys):
    arguments = ["--out", str(tmp_path), "--scripts", "softmax_theory", "sgd_theory"]
    everything.everything(arguments)
    page = (tmp_path / "all.md").read_text()
    assert page.count("| equal |") + page.count("within the interval") == 3, page
    capsys.readouterr()
    everything.everything(arguments)
    assert capsys.readouterr().out.count("there already") == 2
    assert (tmp_path / "all.md").read_text() == page
