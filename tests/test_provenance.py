import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import examples
from variegate import provenance
from variegate.errors import InvalidInput
from variegate.provenance import licenses


def ragged(cells):
    offsets = np.cumsum([0, *map(len, cells)]).astype(np.int64)
    return np.frombuffer(b"".join(cells), np.uint8), offsets


def plain(*fields):
    """SHA-256 over fields that are each preceded by their length."""
    return hashlib.sha256(b"".join(len(f).to_bytes(8, "little") + f for f in fields)).digest()


def number(value):
    return int(value).to_bytes(8, "little")


@given(st.lists(st.tuples(st.binary(max_size=9), st.binary(max_size=20)), max_size=6), st.text(max_size=5))
@examples(60)
def test_source_identities_are_plain_hashes(records, name):
    keys, contents = ragged([key for key, _ in records]), ragged([content for _, content in records])
    rows = np.arange(len(records), dtype=np.int64) + 3
    keyed = provenance.source_record_ids(name, keys, content=contents, file="f.jsonl", row=rows)
    loose = provenance.source_record_ids(name, None, content=contents, file="f.jsonl", row=rows)
    ids = provenance.source_ids(name, keys)
    for i, (key, content) in enumerate(records):
        assert keyed[i].tobytes() == plain(name.encode(), key)[:16]
        assert loose[i].tobytes() == plain(name.encode(), content, b"f.jsonl", number(rows[i]))[:16]
        assert int(ids[i]) == int.from_bytes(plain(name.encode(), key)[:8], "little")


def test_derived_identities_are_plain_hashes():
    rng = np.random.default_rng(5)
    parents = rng.integers(0, 256, (4, 16), dtype=np.uint8)
    ids = rng.integers(0, 2**64, 4, dtype=np.uint64)
    k = np.array([0, 1, 2, 2**40], np.int64)
    made = provenance.child_record_ids(parents, spec=b"\x07" * 32, seed=2**64 - 1, k=k)
    derived = provenance.child_ids(ids, stage="augment", k=k)
    for i in range(4):
        assert made[i].tobytes() == plain(parents[i].tobytes(), b"\x07" * 32, number(2**64 - 1), number(k[i]))[:16]
        assert int(derived[i]) == int.from_bytes(plain(number(ids[i]), b"augment", number(k[i]))[:8], "little")


def merkle(entries):
    """The definition of RFC 6962, section 2.1."""
    if not entries:
        return hashlib.sha256(b"").digest()
    if len(entries) == 1:
        return hashlib.sha256(b"\0" + entries[0]).digest()
    k = 1
    while k * 2 < len(entries):
        k *= 2
    return hashlib.sha256(b"\1" + merkle(entries[:k]) + merkle(entries[k:])).digest()


@given(st.lists(st.binary(min_size=32, max_size=32), max_size=20))
@examples(60)
def test_merkle_roots_are_those_of_rfc_6962(entries):
    hashes = np.frombuffer(b"".join(entries), np.uint8).reshape(-1, 32)
    assert provenance.merkle_root(hashes) == merkle(entries)


def test_record_hashes_tell_every_field_apart():
    hashes = {
        provenance.record_hashes([ragged([a]), ragged([b])])[0].tobytes()
        for a, b in [(b"ab", b"c"), (b"a", b"bc"), (b"", b"abc"), (b"abc", b"")]
    }
    assert len(hashes) == 4
    assert plain(b"ab", b"c") in hashes


@pytest.mark.parametrize(
    ("given_licenses", "together"),
    [
        (["MIT", "MIT"], "MIT"),
        (["MIT", "Apache-2.0"], "Apache-2.0 AND MIT"),
        (["Apache-2.0 AND MIT", "MIT", "ISC"], "Apache-2.0 AND ISC AND MIT"),
        (["MIT OR ISC", "Zlib"], "(MIT OR ISC) AND Zlib"),
        (["MIT OR ISC", "MIT OR ISC"], "MIT OR ISC"),
        (["GPL-2.0-only WITH Classpath-exception-2.0"], "GPL-2.0-only WITH Classpath-exception-2.0"),
        (["MIT", "NOASSERTION"], "NOASSERTION"),
    ],
)
def test_licenses_combine(given_licenses, together):
    assert provenance.combine(given_licenses) == together
    assert provenance.combine(reversed(given_licenses)) == together


@pytest.mark.parametrize(
    ("given_licenses", "message"),
    [
        (
            ["Apache-2.0", "GPL-2.0-only"],
            "licences Apache-2.0 and GPL-2.0-only cannot be combined: "
            "the patent terms of Apache-2.0 are further restrictions under GPL-2.0",
        ),
        (
            ["GPL-3.0-or-later", "GPL-2.0-only"],
            "licences GPL-2.0-only and GPL-3.0-or-later cannot be combined: "
            "version 2 only and version 3 of the GPL exclude each other",
        ),
        (
            ["CC-BY-NC-4.0", "CC-BY-SA-4.0"],
            "licences CC-BY-NC-4.0 and CC-BY-SA-4.0 cannot be combined: "
            "share-alike allows no further ban on commercial use",
        ),
        ([], "combine needs at least one licence"),
        (["MIT AND"], "'MIT AND' is not an SPDX expression: it ends too early"),
        (["(MIT"], "'(MIT' is not an SPDX expression: a ')' is missing"),
        (["MIT ISC"], "'MIT ISC' is not an SPDX expression: 'ISC' is not expected there"),
        (["MIT; ISC"], "'MIT; ISC' is not an SPDX expression: unexpected character at 4"),
        (["A WITH"], "'A WITH' is not an SPDX expression: WITH needs the name of an exception"),
        ([""], "'' is not an SPDX expression: it ends too early"),
    ],
)
def test_what_cannot_be_combined_is_said(given_licenses, message):
    with pytest.raises(InvalidInput) as caught:
        provenance.combine(given_licenses)
    assert str(caught.value) == message


def test_no_derivatives_means_no_derivatives():
    assert provenance.combine(["CC-BY-ND-4.0"]) == "CC-BY-ND-4.0"
    for license in ("CC-BY-ND-4.0", "CC-BY-NC-ND-3.0 AND MIT"):
        with pytest.raises(InvalidInput, match="forbids derived works"):
            provenance.derive([license])


@given(st.text(alphabet="MITAND ORWH()+-.:;é\t", max_size=30))
@examples(300)
def test_any_text_is_an_expression_or_refused(text):
    try:
        normal = licenses.parse(text)
    except InvalidInput:
        return
    assert licenses.parse(normal) == normal
