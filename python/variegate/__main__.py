"""`python -m variegate` is the command line."""

from __future__ import annotations

from variegate.cli import main

if __name__ == "__main__":
    main()
