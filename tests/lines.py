"""Counts lines of code: without blank lines, docstrings and comments. ``python tests/lines.py``"""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
BUDGETS = {"clp_min": 4390, "theory": 600, "examples": 5320, "tests": 10400}  # assignments apart


def docstring_lines(tree):
    """Line numbers of all docstrings."""
    lines = set()
    for node in ast.walk(tree):
        documented = isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        if documented and ast.get_docstring(node) is not None:
            lines |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return lines


def code_lines(path):
    """Number of lines of code in a Python file."""
    text = path.read_text()
    left_out = docstring_lines(ast.parse(text))
    return sum(
        bool(line.strip()) and not line.lstrip().startswith("#") and number not in left_out
        for number, line in enumerate(text.splitlines(), 1)
    )


def count(folder):
    """{path: lines} of a folder with its subfolders, assignments with their solutions apart."""
    files = sorted((ROOT / folder).rglob("*.py"))
    apart = {"mutants", "right", "assignments"}
    return {path: code_lines(path) for path in files if not apart & set(path.parts)}


if __name__ == "__main__":
    for folder, budget in BUDGETS.items():
        files = count(folder)
        for path, lines in files.items():
            print(f"{lines:6} {path.relative_to(ROOT)}")
        print(f"{sum(files.values()):6} {folder}, of at most {budget}\n")
