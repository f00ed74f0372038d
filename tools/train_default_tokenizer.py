"""Trains the tokenizer that ships with variegate, on the text and code of Python's standard library without its tests.

    python tools/train_default_tokenizer.py

Deterministic: the same Python version gives the same file. It is run once; another tokenizer would make runs
incomparable, so a new one is a breaking change.
"""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

from variegate.tokenizer import Tokenizer

TARGET = Path(__file__).parents[1] / "python" / "variegate" / "data" / "default_tokenizer.json"
VOCAB_SIZE = 8192
SPECIAL_TOKENS = [
    "<|endoftext|>",
    "<|pad|>",
    "<|mask|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    *(f"<extra_id_{i}>" for i in range(100)),
]
TESTS = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "__phello__"}


def main() -> None:
    """Trains, saves, and says what came out."""
    library = Path(sysconfig.get_path("stdlib"))
    texts = []
    for path in sorted(library.rglob("*.py")):
        if TESTS.isdisjoint(path.relative_to(library).parts[:-1]):
            texts.append(path.read_text(encoding="utf-8", errors="replace"))
    tokenizer = Tokenizer.train(texts, VOCAB_SIZE, special_tokens=SPECIAL_TOKENS)
    TARGET.parent.mkdir(exist_ok=True)
    tokenizer.save(TARGET)
    size = sum(map(len, texts))
    print(f"Python {sys.version.split()[0]}: {len(texts)} files, {size} characters -> {tokenizer!r} in {TARGET}")


if __name__ == "__main__":
    main()
