"""The claims ledger holds what the tests, the results and PANELS.md hold."""

import ast

import pytest

import ledger


def test_ledger__identifiers_of_a_table():
    assert ledger.identifiers("sparse_fig1a, 1b, 1c") == [f"sparse_fig1{k}" for k in "abc"]
    assert ledger.identifiers("revisiting_fig6, fig7, finding2") == [
        "revisiting_fig6", "revisiting_fig7", "revisiting_finding2"
    ]
    assert ledger.identifiers("diversity_fig4") == ["diversity_fig4"]
    assert ledger.identifiers("statements") == [] == ledger.identifiers("Every panel has one")


def test_ledger__every_leaf_has_a_paper_a_judge_and_one_verdict():
    rows, names = ledger.leaves(), {}
    for row in rows:
        assert row.judge and (row.verdict or "built" in row.judge or "no panel" in row.judge), row
        names.setdefault(row.name, set()).add(row.verdict)
    assert len(rows) > 150 and all(len(verdicts) == 1 for verdicts in names.values())
    papers = {row.paper for row in rows if row.verdict}
    assert set(ledger.PAPERS) <= papers


def test_ledger__what_is_built_is_listed_and_has_a_result():
    rows = {row.name: row for row in ledger.leaves()}
    for name in ledger.results():
        assert rows[name].verdict == ledger.results()[name]["verdict"], name
    assert not [name for name, row in rows.items() if row.judge == "built, no result"]


@pytest.mark.parametrize("paper", ledger.PAPERS)
def test_ledger__shares_are_counts_of_its_rows(paper):
    ours = ledger.listed("Ours, no claim")
    built, run, proved, as_printed, n = ledger.shares(ledger.leaves(), paper, ours)
    assert 0 < as_printed <= run + proved <= built <= n


def test_ledger__its_lists_hold_all_markers_and_name_panels():
    """A marker that goes, or comes without an entry, fails here."""
    assert ledger.listed("Statements that tests bear") == sorted(
        {row.name for row in ledger.statements()}
    )
    assert set(ledger.listed("Ours, no claim")) <= set(ledger.built())


def test_ledger__every_statement_has_a_number_that_its_test_computes():
    rows = ledger.statements()
    numbers = {row.name for row in rows if row.number}
    wanted = ("holds", "fails as printed", "does not follow", "holds as corrected")
    assert {row.name for row in rows if row.verdict in wanted} == numbers
    for path in sorted(ledger.ROOT.glob("tests/test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            for mark in getattr(node, "decorator_list", ()):
                text = ast.unparse(mark)
                if text.startswith("pytest.mark.claim(") and "number=" in text:
                    calls = [ast.unparse(call) for call in ast.walk(node)
                             if isinstance(call, ast.Call) and ast.unparse(call.func) == "number"]
                    several = ast.unparse(node).count("number=") > 1
                    own = ast.unparse(mark.args[0]) if several else ""
                    assert any(own in call for call in calls), text
                    assert not [one for one in ast.walk(node) if isinstance(one, ast.If)
                                and "number(" in ast.unparse(one)], f"not in every case: {text}"
