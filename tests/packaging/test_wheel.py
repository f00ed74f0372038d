"""What the wheel and the sdist carry: every file of the package, the kernels behind their link included."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "python" / "variegate"


def run(*command: str | Path, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def folder(root: Path) -> dict[str, bytes]:
    """Name -> content of the files that belong in a package: no bytecode, no built extension."""
    files = (path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {
        path.relative_to(root).as_posix(): path.read_bytes() for path in files if path.suffix not in (".so", ".pyd")
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    run("maturin", "build", "--release", "--out", out)
    [path] = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def in_wheel(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_link_leads_to_the_kernels():
    link = PACKAGE / "kernels"
    assert link.is_symlink(), "this checkout has no symbolic links: a wheel built from it would lack the kernels"
    assert link.resolve() == ROOT / "kernels"


def test_the_wheel_has_the_kernels_and_nothing_stale(in_wheel):
    prefix = "variegate/kernels/"
    packed = {name.removeprefix(prefix): data for name, data in in_wheel.items() if name.startswith(prefix)}
    assert packed == folder(ROOT / "kernels")
    assert "_philox.py" in packed


def test_the_wheel_has_every_file_of_the_package(in_wheel):
    extension = [name for name in in_wheel if re.fullmatch(r"variegate/_core\.(abi3\.so|pyd)", name)]
    assert len(extension) == 1
    packed = {name: data for name, data in in_wheel.items() if ".dist-info/" not in name and name not in extension}
    ours = {f"variegate/{name}": data for name, data in folder(PACKAGE).items() if not name.startswith("kernels/")}
    kernels = {f"variegate/kernels/{name}": data for name, data in folder(ROOT / "kernels").items()}
    assert packed == ours | kernels


def test_the_wheel_has_the_data_file_of_the_default_tokenizer(in_wheel):
    [name] = [name for name in in_wheel if name.startswith("variegate/data/")]
    assert len(in_wheel[name]) > 10_000


def test_one_wheel_serves_python_3_11_and_later(wheel, in_wheel):
    assert "-cp311-abi3-" in wheel.name
    assert "variegate/py.typed" in in_wheel
    [metadata] = [data for name, data in in_wheel.items() if name.endswith(".dist-info/METADATA")]
    assert "\nRequires-Python: >=3.11\n" in metadata.decode()
    assert any(name.endswith("LICENSE") for name in in_wheel)


def test_the_installed_wheel_imports_from_where_it_was_installed(wheel, tmp_path):
    run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--target", tmp_path, wheel)
    script = "import variegate, variegate.kernels as k; print(variegate.__version__, variegate.__file__, k.__file__)"
    version, package, kernels = run(sys.executable, "-c", script, PYTHONPATH=str(tmp_path)).split()
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    assert Path(package) == tmp_path / "variegate" / "__init__.py"
    assert Path(kernels) == tmp_path / "variegate" / "kernels" / "__init__.py"


def test_the_sdist_has_the_kernels_and_the_rust_sources(tmp_path):
    run("maturin", "sdist", "--out", tmp_path)
    [path] = tmp_path.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {member.name.split("/", 1)[1]: member for member in archive.getmembers() if member.isfile()}
        kernels = {
            name.removeprefix("python/variegate/kernels/"): archive.extractfile(member).read()
            for name, member in names.items()
            if name.startswith("python/variegate/kernels/")
        }
    assert kernels == folder(ROOT / "kernels")
    sources = [path.relative_to(ROOT).as_posix() for path in (ROOT / "rust").rglob("*.rs")]
    assert set(sources) <= names.keys()
    assert {"Cargo.toml", "Cargo.lock", "pyproject.toml", "README.md", "LICENSE"} <= names.keys()
