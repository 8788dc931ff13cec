"""Plausible wrong solutions as edits of our own source (mutants/edits.txt), beside those written
out in mutants/: what a student might get wrong, in words, and the test that must fail."""

from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent


class Edit(NamedTuple):
    module: str
    function: str
    test: str
    mistake: str
    old: str
    new: str


def _read(text):
    """[Edit] of the table: a heading, the mistake, lines that go ("- "), lines that come ("+ ")."""
    found = []
    for block in text.split("\n\n")[1:]:  # the first is a comment
        heading, mistake, *lines = block.splitlines()
        old, new = ("\n".join(one[2:] for one in lines if one[0] == sign) for sign in "-+")
        module, function, test = heading.split()
        test = test if "__" in test else f"{function}__{test}"
        found.append(Edit(module, function, test, mistake, old, new))
    return found


EDITS = _read((ROOT / "tests" / "mutants" / "edits.txt").read_text().strip("\n"))


def wrong(edit):
    """Source of the module with the edit in it. ValueError: it does not fit any more."""
    text = (ROOT / edit.module).read_text()
    if text.count(edit.old) != 1:
        raise ValueError(f"{edit.function}, {edit.mistake}: {text.count(edit.old)} places")
    return text.replace(edit.old, edit.new)
