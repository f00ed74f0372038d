"""Which module may import which, and what `import variegate` costs: asked in fresh interpreters, and of the sources."""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

import variegate

PACKAGE = Path(variegate.__file__).parent
LEAVES = ("variegate.__main__", "variegate.cli", "variegate.report", "variegate.loaders")
HEAVY = ("torch", "triton", "pyarrow", "pydantic", "yaml", "rich", "typer", "tokenizers", "transformers", "gigatoken")
HEAVY += ("ctranslate2", "datasets", "ray", "pandas", "awkward")


def within(name: str, tops: tuple[str, ...]) -> bool:
    return any(name == top or name.startswith(f"{top}.") for top in tops)


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name, those of the kernels' link included."""
    found = {}
    for path in [*PACKAGE.rglob("*.py"), *(PACKAGE / "kernels").rglob("*.py")]:
        parts = ("variegate", *path.relative_to(PACKAGE).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(name: str, path: Path) -> set[str]:
    """Dotted names that a module imports when it runs, in functions too; `from a import b` counts as a and a.b."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    tree = ast.parse(path.read_text("utf-8"))
    tree.body = [
        node for node in tree.body if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    ]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return found


def loaded_by(statement: str) -> set[str]:
    script = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_import_variegate_loads_numpy_and_nothing_heavier():
    loaded = loaded_by("import variegate")
    assert "numpy" in loaded
    assert not {name for name in loaded if within(name, HEAVY)}


def test_import_of_the_kernels_loads_neither_torch_nor_triton():
    assert not {name for name in loaded_by("import variegate.kernels") if within(name, HEAVY)}


@pytest.mark.parametrize("name", sorted(set(variegate.__all__)))
def test_every_public_name_is_there(name):
    assert getattr(variegate, name) is not None
    assert name in dir(variegate)


@pytest.mark.parametrize("name", [name for name in modules() if not within(name, LEAVES)])
def test_the_library_never_imports_a_leaf(name):
    assert not {target for target in imports(name, modules()[name]) if within(target, LEAVES)}


@pytest.mark.parametrize("name", [name for name in modules() if within(name, ("variegate.kernels",))])
def test_kernels_stand_alone(name):
    targets = {target for target in imports(name, modules()[name]) if within(target, ("variegate",))}
    assert all(within(target, ("variegate.kernels",)) for target in targets)


def test_the_walk_sees_what_it_should():
    """The tests above pass on an empty list, so here is proof that it is not empty."""
    found = modules()
    assert {"variegate", "variegate.errors", "variegate.kernels._philox"} <= found.keys()
    assert {"torch", "triton", "triton.language"} <= imports(
        "variegate.kernels._philox", found["variegate.kernels._philox"]
    )
