"""Pages that follow the code: the table of all public functions, and links that lead to the line
of a function."""

import ast
import re
from functools import lru_cache

LINK = re.compile(r"\[(`?)(\w+)\1\]\(([\w./]+\.py)(?:#L\d+)?\)")
PLACES = re.compile(  # as docstrings name the places of a paper
    r"(?:Eq\.|Def(?:\.|inition)|Theorem|Lemma|Corollary|Proposition|Algorithm|Fig(?:\.|ure)|Table"
    r"|[Ss]ection)s? [A-Z]?\.?\d\w*(?:[.-]\w+)*(?:\([a-z]\))?"
    r"(?:(?:,| and| to) \d\w*)*|Appendix [A-Z](?:\.\d)*|[Ff]ootnote \d+|Assumption \d"
)
PAPERS = {  # as docstrings name them -> as the other pages do
    "Achille et al": "Achille et al.", "[Rr]evisiting": "Revisiting",
    "[Ll]earning phases": "Phases", "[Ss]parse(-training)? paper|and memorization": "Sparse",
    "[Ff]eature diversity": "Diversity", "Golatkar": "Golatkar et al.",
    "Ash & Adams": "Ash & Adams", "Kleinman": "Kleinman et al.",
}


@lru_cache
def definitions(path):
    """{name: node} of the functions and classes at the top of a Python file."""
    kinds = ast.FunctionDef, ast.ClassDef
    return {node.name: node for node in ast.parse(path.read_text()).body if isinstance(node, kinds)}


def linked(text, folder):
    """The text of a page in ``folder``, in which every link whose words are the name of a function
    of the file that it leads to leads to its line. ValueError: there is no such file, or words in
    code type that are no name of a function in it."""

    def renewed(match):
        tick, name, target = match.groups()
        if not (folder / target).exists():
            raise ValueError(f"a page links to {target}, which is not there")
        found = definitions(folder / target).get(name)
        if tick and not found:
            raise ValueError(f"a page links to {name} in {target}, which has no such function")
        line = f"#L{found.lineno}" if found else ""
        return f"[{tick}{name}{tick}]({target}{line})"

    return LINK.sub(renewed, text)


def function_table(root, folder):
    """Every public function and class of clp_min and theory: a link from ``folder`` to its line,
    what it says of itself first, its formulas, and the papers and places that it names (without a
    paper's name those of its module's)."""
    up, lines = "../" * len(folder.resolve().relative_to(root.resolve()).parts), []
    for path in sorted([*root.glob("clp_min/**/*.py"), *root.glob("theory/*.py")]):
        rows, module = [], ast.get_docstring(ast.parse(path.read_text()))
        papers = ", ".join(dict.fromkeys(paper for _, paper in _papers(module)))
        for name, node in definitions(path).items():
            text = ast.get_docstring(node)
            if not name.startswith("_") and text:
                link = f"[`{name}`]({up}{path.relative_to(root)}#L{node.lineno})"
                rows.append(f"| {link} | {_beginning(text)} | {_places(text, papers)} |")
        if rows:
            lines += [f"### {path.relative_to(root)}", "", _beginning(module), "",
                      "| function | what it is | in the papers |", "|---|---|---|", *rows, ""]
    return "\n".join(lines)


def _places(docstring, papers):
    """"paper: places; paper: …". A place is of the paper that "of" joins to it, else of the last
    one named before it, else of the first one after it, else of ``papers``."""
    text, named = " ".join(docstring.split()), _papers(docstring)
    found = {paper: {} for _, paper in named}
    for match in PLACES.finditer(text):
        joined = [p for i, p in named if text[match.end() : i] in (" of ", ' of "', " of the ")]
        before = [paper for i, paper in named if i < match.start()]
        paper = (joined + before[::-1] + [paper for _, paper in named] + [papers])[0]
        found.setdefault(paper, {})[match[0]] = None
    return "; ".join(": ".join(filter(None, (p, ", ".join(own)))) for p, own in found.items())


def _papers(docstring):
    """[(where, paper)] that it names, in its order."""
    text = " ".join(docstring.split())
    return sorted((m.start(), p) for words, p in PAPERS.items() for m in re.finditer(words, text))


def _beginning(docstring):
    """Its first paragraph, then its formulas: lines with an equals sign, indented or alone."""
    first, *rest = docstring.split("\n\n")
    formulas = [
        f"`{line.strip()}`" for part in rest for line in part.splitlines()
        if " = " in line and (line == part or line.startswith("    ") and '"' not in line)
    ]
    return "<br>".join([" ".join(first.split()), *formulas]).replace("|", "\\|")
