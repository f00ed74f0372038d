"""The exceptions that Variegate raises on purpose; each message says what, where, and what to do next."""

from __future__ import annotations

__all__ = [
    "CorruptRun",
    "EngineFailed",
    "InvalidInput",
    "MissingExtra",
    "RecipeError",
    "RunConflict",
    "SandboxUnavailable",
    "VariegateError",
]


class VariegateError(Exception):
    """The base of all others: catch this to catch them all."""


class InvalidInput(VariegateError, ValueError):
    """An argument or a value in the data is wrong.

    Attributes:
        line: Line of a syntax error, from 1, or None.
        column: Column of a syntax error, from 1, or None.
    """

    line: int | None = None
    column: int | None = None


class RecipeError(VariegateError):
    """A recipe does not say what it must.

    Attributes:
        file: The recipe's path, or None for one made in Python.
        line: Line from 1, or None.
        column: Column from 1, or None.
        suggestion: What the author may have meant, or None.
    """

    def __init__(
        self,
        message: str,
        *,
        file: str | None = None,
        line: int | None = None,
        column: int | None = None,
        suggestion: str | None = None,
    ) -> None:
        where = ":".join(str(part) for part in (file, line, column) if part is not None)
        hint = f" (did you mean '{suggestion}'?)" if suggestion else ""
        super().__init__(f"{where}: {message}{hint}" if where else f"{message}{hint}")
        self.file, self.line, self.column, self.suggestion = file, line, column, suggestion


class SandboxUnavailable(VariegateError):
    """The isolation that a verifier needs is not there."""


class RunConflict(VariegateError):
    """A run directory belongs to another recipe, or to a run that is still going."""


class CorruptRun(VariegateError):
    """A file of a run directory is missing, altered or torn."""


class EngineFailed(VariegateError):
    """A program or model that the library drives stopped, took too long, or gave no answer that fits."""


class MissingExtra(VariegateError, ImportError):
    """A feature needs a package that is not installed; the message has the pip command."""
