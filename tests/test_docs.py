"""The documentation is true: its Python snippets run, its recipes load, its links lead somewhere."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from quote import BLOCK, markdown, newest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^\n]*)\n(?P<body>.*?)^(?P=indent)```$", re.M | re.S)


def snippets(page: Path, language: str) -> list[tuple[int, str]]:
    """(line, text) of the page's fences in a language, in order."""
    text = page.read_text("utf-8")
    found = (match for match in FENCE.finditer(text) if match["info"] == language)
    return [(text.count("\n", 0, match.start()) + 1, match["body"]) for match in found]


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


def test_the_readme_quotes_what_was_measured_and_nothing_else():
    blocks = list(BLOCK.finditer((ROOT / "README.md").read_text("utf-8")))
    assert len(blocks) == 2
    for figures in blocks:
        results = figures["file"]
        assert figures["table"] == markdown(newest(ROOT / results)), f"run python benches/quote.py {results}"
