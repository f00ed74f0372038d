"""The documentation is true: its Python snippets run, its recipes load, its links lead somewhere."""

from __future__ import annotations

import html
import os
import re
import subprocess
from pathlib import Path

import pytest

import docs_examples
import variegate as vg
from quote import BLOCK, markdown, newest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
KINDS = [
    name
    for name in vg.ops.__all__
    if isinstance(getattr(vg.ops, name), type) and issubclass(getattr(vg.ops, name), vg.ops.Op) and name != "Op"
]
FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^\n]*)\n(?P<body>.*?)^(?P=indent)```$", re.M | re.S)


def snippets(page: Path, language: str) -> list[tuple[int, str]]:
    """(line, text) of the page's fences in a language, in order."""
    text = page.read_text("utf-8")
    found = (match for match in FENCE.finditer(text) if match["info"] == language)
    return [(text.count("\n", 0, match.start()) + 1, match["body"]) for match in found]


def plain(row: str) -> str:
    """The text of a row of HTML."""
    return html.unescape(re.sub("<.*?>", "", row))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_snippets_run(page, tmp_path, monkeypatch):
    """The Python of a page runs top to bottom in one namespace; a block that opens with `# name.ext` is that file."""
    monkeypatch.chdir(tmp_path)
    for language in ("yaml", "json", "text", "txt"):
        for _, body in snippets(page, language):
            if name := re.match(r"# ([\w.-]+\.\w+)\n", body):
                Path(name[1]).write_text(body, "utf-8")
    namespace: dict[str, object] = {"__name__": "__main__"}
    for line, body in snippets(page, "python"):
        padded = "\n" * line + body
        exec(compile(padded, str(page), "exec"), namespace)


def test_there_are_snippets():
    """The test above passes on a page without snippets, so here is proof that they are found."""
    assert all(snippets(ROOT / page, "python") for page in ("README.md", "docs/batches.md", "docs/reproducibility.md"))


def test_the_pages_build_and_every_link_leads_somewhere(tmp_path):
    done = subprocess.run(
        ["mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "api" / "batch.html").stat().st_size > 10_000
    page, reference = ((tmp_path / name).read_text("utf-8") for name in ("ops.html", "api/ops.html"))
    linked = set(re.findall(r'href="api/ops\.html#([\w.]+)"', page))
    assert {f"variegate.ops.{kind}" for kind in KINDS} <= linked
    assert all(f'id="{anchor}"' in reference for anchor in linked)
    shown = (tmp_path / "objectives.html").read_text("utf-8").count('output highlight"')
    assert shown == (ROOT / "docs" / "objectives.md").read_text("utf-8").count(docs_examples.OUTPUT)


def test_every_op_has_an_example_and_every_family_is_on_the_page():
    assert {type(example.op).__name__ for example in docs_examples.EXAMPLES} == set(KINDS)
    families = {example.family for example in docs_examples.EXAMPLES}
    assert sorted(docs_examples.FAMILY.findall((ROOT / "docs" / "ops.md").read_text("utf-8"))) == sorted(families)


@pytest.mark.parametrize(
    "example", docs_examples.EXAMPLES, ids=lambda example: f"{example.family}-{type(example.op).__name__}"
)
def test_an_example_shows_what_the_op_does(example):
    """The rows of the table hold the texts, and without what is struck out and marked they are the same."""
    out = example.run()
    shown = docs_examples.table(example.family)
    rows = dict(docs_examples._lines(example.batch, out))
    assert all(f"<div>{row}</div>" in shown for lines in rows.values() for row in lines)
    if isinstance(out, vg.TextBatch):
        assert [plain(row) for row in rows["before"]] == example.batch.texts
        assert [plain(row) for row in rows["after"]] == out.texts
        left = [re.sub("<del>.*?</del>", "", row) for row in rows["before"]]
        assert left == [re.sub("<mark>.*?</mark>", "", row) for row in rows["after"]]
        assert rows["before"] != rows["after"]
    else:
        after = rows.get("after") or rows["input"]
        decoded = [text.replace("\n", "↵") for text in out.tokenizer.decode(out).texts]
        assert [plain(row).lstrip(" ") for row in after] == [text.lstrip(" ") for text in decoded]
        assert "labels" in rows or after != rows["before"]


def test_a_family_without_examples_is_an_error():
    with pytest.raises(ValueError, match="no example of the family 'sounds'"):
        docs_examples.on_page_markdown("<!-- examples: sounds -->")


def test_output_is_what_was_printed_since_the_last_one():
    page = "```python\nx = 1\nprint(x)\n```\n\n<!-- output -->\n\n```python\nprint(x + 1)\n```\n<!-- output -->\n"
    assert re.findall(r"\.output }\n(.*?)```", docs_examples.outputs(page), re.S) == ["1\n", "2\n"]


def test_the_readme_quotes_what_was_measured_and_nothing_else():
    blocks = list(BLOCK.finditer((ROOT / "README.md").read_text("utf-8")))
    assert len(blocks) == 2
    for figures in blocks:
        results = figures["file"]
        assert figures["table"] == markdown(newest(ROOT / results)), f"run python benches/quote.py {results}"
