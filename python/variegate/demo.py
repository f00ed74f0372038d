"""The demo: the main job on the text and code that every Python carries, without network, GPU or download.

`prepare` writes a corpus (`stdlib.jsonl`), a grammar and a recipe into a folder; `variegate demo -o OUT` does that in
`OUT-input` and runs the recipe into `OUT`. The corpus is the standard library of the running Python: its sources cut
into functions, classes and blocks, its longer docstrings as texts of their own, and the language reference that
`help()` shows. Tests are left out. The same Python gives the same bytes.
"""

from __future__ import annotations

import ast
import inspect
import json
import os
import sysconfig
import textwrap
import tokenize
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from variegate.errors import InvalidInput

__all__ = ["GRAMMAR", "RECIPE", "Prepared", "prepare", "records"]

GRAMMAR = """\
# Questions whose answers the grammar computes; an answer is a span, so that a checker need not search for it.
task       = ({opening} )?{question}
opening    = Here is a question. | Try this one. | Work it out in your head.
question   = {sum} :: 2 | {difference} :: 2 | {product} :: 2 | {division} | {story} :: 3
ask        = What is | How much is
sum        = {ask} {a=int 2..999} plus {b=int 2..999}? <answer>{=a+b}</answer>
           | Add {b=int 2..999} to {a=int 2..999}. <answer>{=a+b}</answer>
difference = {ask} {a=int 500..999} minus {b=int 2..499}? <answer>{=a-b}</answer>
product    = {ask} {a=int 2..99} times {b=int 2..99}? <answer>{=a*b}</answer>
division   = Divide {a=int 50..999} by {b=int 3..19}. {parts}
parts      = The quotient is <quotient>{=a//b}</quotient>, the remainder <remainder>{=a%b}</remainder>.
story      = {who} {got} {a=int 2..99} {what} and then {b=int 2..99} more, {now} <answer>{=a+b}</answer>.
who        = Ada | Bao | Chidi | Dolores | Emre | Fatou
got        = has | buys | finds | is given
what       = apples | books | coins | stamps | tickets
now        = which makes | in all | together
"""

RECIPE = """\
# The main job on the standard library of this Python. Paths are relative to this file.
version: 1
seed: 7
sources:
  - {name: stdlib, path: stdlib.jsonl, text: text, id: id, license: PSF-2.0, kind: human}
stages:
  - augment:
      variants: 1
      ops:
        - Sometimes: {p: 0.5, op: {KeyboardTypo: {rate: 0.03}}}
        - TokenDropout: {rate: 0.05}
  - templates: {path: questions.txt, count: 20000, license: CC0-1.0}
  - measure: {name: enlarged, reference: stdlib}
  - dedup: {threshold: 0.8, ngram: 5}
  - measure: {name: deduplicated, reference: stdlib}
mix: {max_synthetic: 0.5, retain_real: 0.9}
output: {format: parquet, rows_per_shard: 20000}
"""

_LEFT_OUT = frozenset({"test", "tests", "idle_test", "site-packages", "dist-packages", "ensurepip"})
_LEAST, _MOST = 240, 3000  # characters of a record: shorter neighbours are joined, longer ones cut between lines
_DOC = 200  # a docstring of at least this many characters is a text of its own
_MODULE = "<module>"
_SCRAP = 20  # a text below this many characters says nothing


@dataclass(frozen=True)
class Prepared:
    """What `prepare` wrote: the recipe, and how large the corpus is (bytes of text, not of JSON)."""

    recipe: Path
    rows: int
    bytes: int


def prepare(folder: Path, *, only: Collection[str] | None = None) -> Prepared:
    """Writes corpus, grammar and recipe into `folder`; `only` limits the corpus to top-level modules of these names.

    Takes about 5 seconds for the whole library (12 MB).

    Raises:
        InvalidInput: This Python carries no sources.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = size = 0
    with (folder / "stdlib.jsonl").open("w", encoding="utf-8", newline="\n") as file:
        for key, text in records(only=only):
            file.write(json.dumps({"id": key, "text": text}, ensure_ascii=False) + "\n")
            rows, size = rows + 1, size + len(text.encode())
    if not rows:
        root = sysconfig.get_path("stdlib")
        raise InvalidInput(f"this Python carries no library sources in {root}: run the demo with one that does")
    (folder / "questions.txt").write_text(GRAMMAR, encoding="utf-8", newline="\n")
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE, encoding="utf-8", newline="\n")
    return Prepared(recipe=recipe, rows=rows, bytes=size)


def records(*, only: Collection[str] | None = None) -> Iterator[tuple[str, str]]:
    """Yields `(key, text)` of the standard library of the running Python, in order of module names.

    A key reads `module:qualified.name:code:0` or `module:qualified.name:doc:0` and is unique; what stands outside of
    functions and classes is called `<module>`. Scraps of less than 20 characters are left out.

    Example:
        >>> keys = [key for key, _ in records(only=["json"])]
        >>> keys[0], len(keys) == len(set(keys))
        ('json:<module>:doc:0', True)
    """
    root = Path(sysconfig.get_path("stdlib"))
    modules: dict[str, Path] = {}
    for folder, inner, files in os.walk(root):
        # What is left out is not walked either: site-packages may be large. config-* holds the build's own files.
        inner[:] = [name for name in inner if name not in _LEFT_OUT and not name.startswith("config-")]
        parts = Path(folder).relative_to(root).parts
        for name in files:
            if name.endswith(".py"):
                modules[".".join((*parts, name[:-3])).removesuffix(".__init__")] = Path(folder, name)
    for module in sorted(modules):
        if only is not None and module.partition(".")[0] not in only:
            continue
        try:
            with tokenize.open(modules[module]) as file:
                source = file.read()
            tree = ast.parse(source)
        except (SyntaxError, UnicodeDecodeError):
            continue  # a few files of lib2to3 and the like hold bad code on purpose
        count: Counter[str] = Counter()
        pieces = _topics(tree) if module == "pydoc_data.topics" else _pieces(tree, source)
        for name, text in pieces:
            if len(text) >= _SCRAP:
                yield f"{module}:{name}:{count[name]}", text
                count[name] += 1


def _pieces(tree: ast.Module, source: str) -> Iterator[tuple[str, str]]:
    """`(name:doc or name:code, text)` of one module: its docstrings, then its code without them."""
    lines = source.split("\n")
    kept = [True] * len(lines)
    for node, name in _documented(tree):
        doc = node.body[0]
        text = inspect.cleandoc(ast.get_docstring(node, clean=False) or "")
        if len(text) >= _DOC:
            for part in _cut(text.split("\n\n"), "\n\n"):
                yield f"{name}:doc", part
            for at in range(doc.lineno - 1, doc.end_lineno or doc.lineno):
                kept[at] = False
    chunk, chunk_name = "", _MODULE
    for name, first, last in [*_units(tree.body, "", 1, len(lines)), ("", 0, -1)]:
        text = "\n".join(line for at, line in enumerate(lines[first - 1 : last], first - 1) if kept[at]) if name else ""
        if chunk and (not name or len(chunk) >= _LEAST or len(chunk) + len(text) > _MOST):
            for part in _cut(textwrap.dedent(chunk).strip("\n").split("\n"), "\n"):
                yield f"{chunk_name}:code", part
            chunk = ""
        if not chunk.strip():
            chunk, chunk_name = text, name
        else:
            chunk += "\n" + text


def _units(body: list[ast.stmt], name: str, first: int, last: int) -> Iterator[tuple[str, int, int]]:
    """Lines `first` to `last` as `(qualified name, first line, last line)`, a large class by its members.

    What stands before a statement (comments, blank lines, the head of a class) goes with it.
    """
    for node in body:
        end = node.end_lineno or node.lineno
        if end < first:
            continue
        if isinstance(node, ast.ClassDef) and end - node.lineno > 60:
            yield from _units(node.body, _inside(name, node.name), first, end)
        elif isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield _inside(name, node.name), first, end
        else:
            yield name or _MODULE, first, end
        first = end + 1
    if first <= last:
        yield name or _MODULE, first, last


def _documented(tree: ast.Module) -> Iterator[tuple[ast.Module | ast.ClassDef | ast.FunctionDef, str]]:
    """Every module, class and function that has a docstring on lines of its own, from top to bottom."""
    stack: list[tuple[ast.AST, str]] = [(tree, "")]
    while stack:
        node, name = stack.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node, clean=False):
            alone = len(node.body) == 1 or node.body[1].lineno > (node.body[0].end_lineno or 0)
            if alone and (isinstance(node, ast.Module) or node.body[0].lineno > node.lineno):
                yield node, name or _MODULE
        inner = [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]
        stack.extend(
            (child, _inside(name, child.name) if hasattr(child, "name") else name) for child in reversed(inner)
        )


def _inside(name: str, member: str) -> str:
    return f"{name}.{member}" if name else member


def _topics(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """The language reference behind `help("if")`, a record for every few paragraphs of a topic."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            for key, value in sorted(ast.literal_eval(node).items()):
                for part in _cut(value.strip("\n").split("\n\n"), "\n\n"):
                    yield f"{key}:doc", part


def _cut(pieces: list[str], glue: str) -> Iterator[str]:
    """Joins pieces to texts of at most `_MOST` characters (a single longer piece stays whole), none of them blank."""
    group: list[str] = []
    size = 0
    for piece in pieces:
        if group and size + len(piece) > _MOST:
            yield glue.join(group).strip("\n")
            group, size = [], 0
        group.append(piece)
        size += len(piece) + len(glue)
    text = glue.join(group).strip("\n")
    if text.strip():
        yield text
