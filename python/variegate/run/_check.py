"""Checking a finished run: every file against the manifest, the manifest against the journal, the sums."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq

from variegate import provenance
from variegate.errors import CorruptRun, InvalidInput
from variegate.run import _engine as engine
from variegate.run import _records as records
from variegate.run import _store as store
from variegate.run._journal import replay

__all__ = ["CheckResult", "check", "finished", "read_lines"]


@dataclass(frozen=True)
class CheckResult:
    """What was checked and found right.

    Attributes:
        files: Data files.
        rows: Records in them.
        bytes: Their size.
        rejected: Records in the ledger.
        parts: Committed files of the stages and the ledger.
        merkle_root: Recomputed from the records, in hexadecimal.
    """

    files: int
    rows: int
    bytes: int
    rejected: int
    parts: int
    merkle_root: str


def check(out: str | os.PathLike[str]) -> CheckResult:
    """Verifies a finished run: journal, manifest, every file's SHA-256, the Merkle root, and the ledger's sums.

    Raises:
        InvalidInput: There is no run in the directory.
        CorruptRun: Names the file and what is wrong with it.
    """
    folder = Path(out)
    journal, manifest = finished(folder)
    parts = [record for record in journal if record["record"] == "part"]
    data_files = {record["path"]: record for record in parts if record["path"] and record["path"].startswith("data/")}
    listed = {item["path"] for item in manifest["files"]}
    if listed != data_files.keys():
        raise CorruptRun(f"{folder / 'manifest.json'} and journal.log disagree about the files of the set")
    others: dict[str, Any] = {}
    for record in parts:
        for item in (record, record["rejects"]):
            if item and item["path"] and item["path"] not in data_files:
                others[item["path"]] = item
    for name in sorted(p.relative_to(folder).as_posix() for p in (folder / "data").rglob("*") if not p.is_dir()):
        if name not in data_files:
            raise CorruptRun(f"{folder / name} does not belong to the set: the manifest does not list it")
    for name, item in {**data_files, **others}.items():
        engine.verify_file(folder, name, item)
    roots = [_root(folder, record) for record in sorted(data_files.values(), key=lambda record: record["part"])]
    root = provenance.merkle_root(np.frombuffer(b"".join(roots), np.uint8)).hex()
    if root != manifest["merkle_root"]:
        raise CorruptRun(f"{folder / 'manifest.json'}: merkle_root is not that of the records")
    _sums(folder, manifest, parts)
    return CheckResult(
        files=len(data_files),
        rows=manifest["rows"],
        bytes=manifest["bytes"],
        rejected=sum(stage["rejected"] for stage in manifest["stages"]),
        parts=len(others),
        merkle_root=root,
    )


def finished(folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The journal and the manifest of a finished run.

    Raises:
        InvalidInput: There is no run in the directory.
        CorruptRun: The run is not finished, or its journal or manifest is damaged.
    """
    path = folder / "journal.log"
    if not path.is_file():
        raise InvalidInput(f"{folder} holds no run: there is no journal.log")
    data = path.read_bytes()
    journal, whole = replay(data)
    if whole < len(data) or not journal:
        raise CorruptRun(f"{path} is torn or altered at byte {whole}")
    if journal[0].get("record") != "start":
        raise CorruptRun(f"{path} does not begin with the start of a run")
    finish = journal[-1]
    if finish.get("record") != "finish":
        raise CorruptRun(f"{folder} is not finished: run the same command again to continue")
    return journal, _manifest(folder, finish)


def _manifest(folder: Path, finish: dict[str, Any]) -> dict[str, Any]:
    path = folder / "manifest.json"
    if not path.is_file():
        raise CorruptRun(f"{path} is missing")
    if store.sha256_file(path) != finish["manifest"]:
        raise CorruptRun(f"{path} was altered: its SHA-256 is not the one in the journal")
    manifest: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return manifest


def _root(folder: Path, record: dict[str, Any]) -> bytes:
    """The Merkle root of one data file, recomputed from its records."""
    path = folder / record["path"]
    root = provenance.merkle_root(records.output_hashes(read_data(path)))
    if root.hex() != record["merkle_root"]:
        raise CorruptRun(f"{path}: its records do not hash to the Merkle root of the journal")
    return root


def read_data(path: Path) -> pa.Table:
    """The records of a data file, text and provenance."""
    if path.suffix == ".parquet":
        return pq.read_table(path, columns=["text", "provenance"])
    with pa.CompressedInputStream(pa.OSFile(str(path)), "zstd") as stream:
        return read_lines(stream.read())


def read_lines(data: bytes) -> pa.Table:
    """The records of whole lines of JSON, text and provenance."""
    types = {"parents": pa.list_(pa.string()), "generation": pa.int32(), "seed": pa.uint64()}
    struct = pa.struct([pa.field(name, types.get(name, pa.string())) for name in provenance.FIELDS])
    wanted = pa.schema([("text", pa.string()), ("provenance", struct)])
    options = pyarrow.json.ParseOptions(explicit_schema=wanted, unexpected_field_behavior="ignore")
    reading = pyarrow.json.ReadOptions(block_size=max(1 << 20, len(data)))
    return pyarrow.json.read_json(pa.BufferReader(data), parse_options=options, read_options=reading)


def _sums(folder: Path, manifest: dict[str, Any], parts: list[dict[str, Any]]) -> None:
    """The ledger: every stage by itself, from one stage to the next, and against the rejects that are there."""
    before = None
    for index, stage in enumerate(manifest["stages"]):
        engine.check_sum(folder, stage, before)
        before = stage
        written = sum(r["rejects"]["rows"] for r in parts if r["stage"] == index and r["rejects"])
        if written != stage["rejected"] or sum(stage["reasons"].values()) != written:
            message = f"{stage['rejected']} rejected, but the ledger holds {written}"
            raise CorruptRun(f"{folder}: the ledger of stage '{stage['name']}' does not add up: {message}")
    if before is not None and before["out"] != manifest["rows"]:
        message = f"{before['out']} records left the last stage, but the manifest counts {manifest['rows']}"
        raise CorruptRun(f"{folder}: {message}")
