"""Checking a finished run: every file against the manifest, the manifest against the journal, the sums."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq

from variegate import _store as store
from variegate import provenance
from variegate.errors import CorruptRun, InvalidInput
from variegate.run import _engine as engine
from variegate.run import _records as records
from variegate.run._journal import replay

__all__ = ["CheckResult", "check", "finished", "line_blocks", "read_lines"]


LINES_BYTES = 8 << 20
"""How much of a file of lines is parsed at once."""


@dataclass(frozen=True)
class CheckResult:
    """What was checked and found right.

    Attributes:
        files: Data files.
        rows: Records in them.
        bytes: Their size.
        rejected: Records in the ledger.
        ledgers: Files of the ledger.
        merkle_root: Recomputed from the records, in hexadecimal.
    """

    files: int
    rows: int
    bytes: int
    rejected: int
    ledgers: int
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
    shards = {record["file"]["path"]: record for record in parts if "merkle_root" in record}
    listed = {item["path"] for item in manifest["files"]}
    if listed != shards.keys():
        raise CorruptRun(f"{folder / 'manifest.json'} and journal.log disagree about the files of the set")
    ledgers = {name: file for name, file in engine.committed_files(journal).items() if name.startswith("rejects/")}
    for top, known, what in (("data", shards, "set"), ("rejects", ledgers, "ledger")):
        for path in sorted(path for path in (folder / top).rglob("*") if not path.is_dir()):
            if path.relative_to(folder).as_posix() not in known:
                raise CorruptRun(f"{path} does not belong to the {what}: the journal does not list it")
    for name, file in [*((name, record["file"]) for name, record in shards.items()), *ledgers.items()]:
        engine.verify_file(folder, name, file)
    roots = [_root(folder, record) for record in sorted(shards.values(), key=lambda record: record["part"])]
    root = provenance.merkle_root(np.frombuffer(b"".join(roots), np.uint8)).hex()
    if root != manifest["merkle_root"]:
        raise CorruptRun(f"{folder / 'manifest.json'}: merkle_root is not that of the records")
    _sums(folder, manifest, parts)
    return CheckResult(
        files=len(shards),
        rows=manifest["rows"],
        bytes=manifest["bytes"],
        rejected=sum(stage["rejected"] for stage in manifest["stages"]),
        ledgers=len(ledgers),
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
    for name, digest in finish["sha256"].items():
        if not (folder / name).is_file():
            raise CorruptRun(f"{folder / name} is missing")
        if store.sha256_file(folder / name) != digest:
            raise CorruptRun(f"{folder / name} was altered: its SHA-256 is not the one in the journal")
    return journal, json.loads((folder / "manifest.json").read_text("utf-8"))


def _root(folder: Path, record: dict[str, Any]) -> bytes:
    """The Merkle root of one data file, recomputed from its records."""
    path = folder / record["file"]["path"]
    tree = provenance.MerkleTree()
    for rows in read_data(path):
        tree.update(records.output_hashes(rows))
    if tree.root().hex() != record["merkle_root"]:
        raise CorruptRun(f"{path}: its records do not hash to the Merkle root of the journal")
    return tree.root()


def read_data(path: Path) -> Iterator[pa.Table]:
    """The records of a data file, text and provenance, some megabytes at a time."""
    if path.suffix == ".parquet":
        with pq.ParquetFile(path, pre_buffer=False) as file:
            for group in range(file.num_row_groups):
                yield file.read_row_group(group, columns=["text", "provenance"], use_threads=False)
        return
    yield from map(read_lines, line_blocks(path, LINES_BYTES))


def line_blocks(path: Path, size: int) -> Iterator[bytes]:
    """A compressed file of lines in blocks of whole lines."""
    with pa.CompressedInputStream(pa.OSFile(str(path)), "zstd") as stream:
        rest = b""
        while block := stream.read(size):
            cut = block.rfind(b"\n") + 1
            if cut:
                yield rest + block[:cut]
                rest = b""
            rest += block[cut:]
        if rest:
            yield rest + b"\n"


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
        entries = [record["stages"][str(index)] for record in parts if str(index) in record.get("stages", {})]
        written = sum(entry["rejects"]["rows"] for entry in entries if entry["rejects"])
        if written != stage["rejected"] or sum(stage["reasons"].values()) != written:
            message = f"{stage['rejected']} rejected, but the ledger holds {written}"
            raise CorruptRun(f"{folder}: the ledger of stage '{stage['name']}' does not add up: {message}")
    if before is not None and before["out"] != manifest["rows"]:
        message = f"{before['out']} records left the last stage, but the manifest counts {manifest['rows']}"
        raise CorruptRun(f"{folder}: {message}")
