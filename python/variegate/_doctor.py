"""Whether this installation works: each check does the thing that it is about, and says one line."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["examine"]

Finding = tuple[bool | None, str, str]  # right, wrong, or None for what is only missing; what; details

# The known answers that come with Random123: counter, key, words.
_PHILOX = (
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
)
# Packages beyond the required ones: extra, distribution, what it is for.
_EXTRAS = (
    ("fast", "gigatoken", "faster encoding"),
    ("hf", "tokenizers", "tokenizers other than byte-level BPE, and training them"),
    ("hf", "datasets", "Hugging Face datasets"),
    ("torch", "torch", "loaders for torch"),
    ("translate", "ctranslate2", "back-translation by models that CTranslate2 converted"),
    ("gpu", "triton", "sampling on a GPU"),
)
_RECIPE = """\
version: 1
sources: [{name: probe, path: probe.jsonl, id: id, license: CC0-1.0, kind: human}]
stages:
  - augment: {ops: [{TokenDropout: {rate: 0.2}}]}
  - dedup: {threshold: 0.9}
"""


def examine(say: Callable[[str], None]) -> int:
    """Runs every check, gives `say` a line for each, and returns how many found something wrong.

    A check that raises is a finding like another, so that the ones after it still run. Takes a few seconds.
    """
    wrong = 0
    for check in (_versions, _required, _extras, _threads, _philox, _stream, _tokenizer, _small_run):
        try:
            findings = list(check())
        except Exception as error:
            findings = [(False, check.__name__.strip("_").replace("_", " "), f"{type(error).__name__}: {error}")]
        for right, what, details in findings:
            mark = {True: "ok ", False: "bad", None: "-  "}[right]
            say(f"{mark}  {what:<14}  {details}")
            wrong += right is False
    return wrong


def _versions() -> Iterator[Finding]:
    import variegate

    yield True, "variegate", f"{variegate.__version__} in {Path(variegate.__file__).parent}"
    yield True, "python", f"{platform.python_version()} at {sys.executable}"
    yield True, "system", f"{platform.system()} {platform.release()}, {platform.machine()}"


def _required() -> Iterator[Finding]:
    for name in ("numpy", "pyarrow", "pydantic", "pyyaml", "rich", "typer"):
        version = _installed(name)
        yield version is not None, name, version or f"is not installed: pip install {name}"


def _extras() -> Iterator[Finding]:
    for extra, name, purpose in _EXTRAS:
        version = _installed(name)
        about = f"{version} ({purpose})" if version else f"not installed ({purpose}): pip install 'variegate[{extra}]'"
        yield version is not None or None, name, about


def _threads() -> Iterator[Finding]:
    from variegate import _core

    level, available = _core.simd_levels()
    lowered = "" if level == available[-1] else f", lowered from {available[-1]} by VARIEGATE_SIMD"
    yield True, "instructions", f"{level} (of {', '.join(available)}){lowered}"
    yield True, "threads", f"{_core.get_num_threads()} of {os.cpu_count()} processors"


def _philox() -> Iterator[Finding]:
    from variegate import _core

    wrong = [counter for counter, key, words in _PHILOX if tuple(_core.philox(counter, key)) != words]
    if wrong:
        yield False, "philox", f"{len(wrong)} of {len(_PHILOX)} known answers are wrong, first for counter {wrong[0]}"
    else:
        yield True, "philox", f"{len(_PHILOX)} of {len(_PHILOX)} known answers"


def _stream() -> Iterator[Finding]:
    """The vectorised stream of this processor against single blocks."""
    from variegate import _core

    key, epoch, row, lane, count = 0x299F31D0A4093822, 3, 0x0370734413198A2E, 5, 4099
    words = _core.stream_words(key, epoch, row, lane, count)
    halves = (key & 0xFFFFFFFF, key >> 32)
    block = [
        _core.philox((lane << 28 | at, epoch, row & 0xFFFFFFFF, row >> 32), halves) for at in range(-(-count // 4))
    ]
    expected = [word for four in block for word in four][:count]
    level = _core.simd_levels()[0]
    if words == expected:
        yield True, "streams", f"{count:,} words with {level} equal those drawn one by one"
    else:
        at = next(at for at in range(count) if words[at] != expected[at])
        yield False, "streams", f"word {at} with {level} is {words[at]:#010x} and should be {expected[at]:#010x}"


def _tokenizer() -> Iterator[Finding]:
    from variegate import Tokenizer

    tokenizer = Tokenizer.default()
    texts = ["def f(x):\n    return x + 1\n", "naïve 漢字 👩‍👩‍👧\t\x00", ""]
    back = tokenizer.decode(tokenizer.encode(texts)).texts
    about = f"{tokenizer.vocab_size:,} entries, encoded by {tokenizer.engine} ({tokenizer.engine_reason})"
    if list(back) == texts:
        yield True, "tokenizer", about
    else:
        yield False, "tokenizer", f"texts do not come back: {back!r} instead of {texts!r}; {about}"


def _small_run() -> Iterator[Finding]:
    """A run into a temporary directory, its check, and a check that must fail."""
    from variegate import recipe, run
    from variegate.errors import CorruptRun

    with tempfile.TemporaryDirectory(prefix="variegate-doctor-") as name:
        folder = Path(name)
        lines = (
            json.dumps({"id": str(row), "text": f"Record {row} says that {row} times two is {2 * row}."})
            for row in range(50)
        )
        (folder / "probe.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        (folder / "recipe.yaml").write_text(_RECIPE, encoding="utf-8")
        result = run.run(recipe.load(folder / "recipe.yaml"), folder / "out")
        run.check(folder / "out")
        yield True, "run", f"{result.rows} records through {tempfile.gettempdir()}, checked, in {result.seconds:.1f} s"
        shard = next(path for path in sorted((folder / "out" / "data").iterdir()) if path.is_file())
        data = bytearray(shard.read_bytes())
        data[len(data) // 2] ^= 1
        shard.write_bytes(data)
        try:
            run.check(folder / "out")
        except CorruptRun:
            yield True, "check", "refuses a file with one flipped bit"
        else:
            yield False, "check", "accepts a file with one flipped bit: do not trust it on this machine"


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
