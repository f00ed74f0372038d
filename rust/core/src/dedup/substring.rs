//! Repeated substrings: windows of `length` units that came before, found exactly.
//!
//! Few windows are looked at closely. Of the shorter windows inside each window one is its anchor, the one with the
//! least hash (minimizers; Roberts et al., "Reducing storage requirements for biological sequence comparison", 2004):
//! equal windows have equal anchors, and a run of neighbours shares one. So a window whose anchor came once in
//! the corpus came once itself, and is done with. The others are hashed whole; those whose hash recurs are looked
//! up in reading order, compared, and extended to the maximal match.

use super::windows::{AHEAD, Recurring, Table, Token, Windows, check_length, common_end, common_start};
use crate::Ragged;
use crate::error::{Error, Result};
use crate::par::{map_rows, map_tasks};
use crate::room::with_room;
use crate::simd::{self, Level};

/// Units in one task.
const GRAIN: usize = 1 << 18;

/// Units of a batch: of fewer than 2^32 different windows two can lie in it.
const MOST: usize = 1 << 33;

/// Which occurrences of a window go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occurrence {
    /// All but the first.
    First,
    /// All of a window that occurs more than once.
    None,
}

/// What repeats: column by column, one entry a span.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repeats {
    /// The row.
    pub row: Vec<i64>,
    /// First unit of the span in its row.
    pub start: Vec<i64>,
    /// First unit after it.
    pub end: Vec<i64>,
    /// The row that the span repeats.
    pub source_row: Vec<i64>,
    /// Where in that row.
    pub source_start: Vec<i64>,
    /// For each unit 1, or 0 if it goes.
    pub mask: Vec<u8>,
}

/// Finds what repeats.
///
/// Reading order is row by row. Row by row, from left to right: at a window that occurred before, a span starts that
/// repeats the first occurrence; it goes on to the right for as long as both agree, and to the left as well, though not
/// past the window at which the span before it was found; the next window looked at is the first one not inside. So spans cover
/// exactly the units of the windows that occurred before. Linear for a given `length`.
///
/// # Errors
/// If `length` is out of range, or there are more than 2^33 units.
pub fn substring<T: Token>(rows: Ragged<'_, T>, length: usize, keep: Occurrence) -> Result<Repeats> {
    substring_at(rows, length, keep, simd::level())
}

fn substring_at<T: Token>(rows: Ragged<'_, T>, length: usize, keep: Occurrence, level: Level) -> Result<Repeats> {
    check_length("length", length)?;
    let units = rows.values().len();
    if units > MOST {
        return Err(Error::invalid(format!(
            "substring takes up to {MOST} units at once (they are {units}): give it parts"
        )));
    }
    let parts = map_rows(rows.offsets(), GRAIN, |range| runs(rows, range, length, level));
    let anchors = Recurring::new(parts.iter().map(Vec::len).sum());
    map_tasks(parts.len(), |i| parts[i].iter().for_each(|run| anchors.add(run.hash)));
    let stretches = map_tasks(parts.len(), |i| stretches(rows, &parts[i], &anchors, length, level));
    drop((parts, anchors));
    let recurring = Recurring::new(stretches.iter().map(|part| part.hashes.len()).sum());
    map_tasks(stretches.len(), |i| stretches[i].hashes.iter().for_each(|&hash| recurring.add(hash)));
    let stretches = map_tasks(stretches.len(), |i| stretches[i].those_in(&recurring));
    let mut finder = Finder::new(rows, length, keep);
    for part in &stretches {
        finder.look_up(part);
    }
    Ok(finder.found)
}

/// Windows side by side that have the same anchor.
#[derive(Debug, Clone, Copy)]
struct Run {
    /// Of the anchor.
    hash: u32,
    windows: u32,
    /// The first window's place among all units.
    start: u64,
}

/// Units of an anchor.
fn anchor_length(length: usize) -> usize {
    1 << (length * 2 / 3).max(1).ilog2()
}

fn runs<T: Token>(rows: Ragged<'_, T>, range: std::ops::Range<usize>, length: usize, level: Level) -> Vec<Run> {
    let anchor = anchor_length(length);
    let anchors = length - anchor + 1;
    let mut hasher = Windows::new(anchor, level);
    let block = hasher.block().max(2 * length);
    let mut out = Vec::new();
    for r in range {
        let (row, place) = (rows.row(r), rows.range(r).start);
        let windows = (row.len() + 1).saturating_sub(length);
        for first in (0..windows).step_by(block) {
            let count = block.min(windows - first);
            let hashes = hasher.hashes(&row[first..first + count + length - 1]);
            each_run(hashes, anchors, |from, to, hash| {
                out.push(Run { hash, windows: (to - from) as u32, start: (place + first + from) as u64 });
            });
        }
    }
    out
}

/// Calls `visit(from, to, least)` on the runs of windows of `width` hashes that have the same least one, the last of equals.
#[inline]
fn each_run(hashes: &[u32], width: usize, mut visit: impl FnMut(usize, usize, u32)) {
    let last_least = |from: usize| {
        let window = &hashes[from..from + width];
        window.iter().enumerate().fold(from, |best, (i, &hash)| if hash <= hashes[best] { from + i } else { best })
    };
    let windows = hashes.len() + 1 - width;
    let mut from = 0;
    let mut best = last_least(0);
    loop {
        let least = hashes[best];
        // The run ends where a hash as low comes in, or where the lowest drops out.
        let end = (best + width).min(hashes.len());
        let next = hashes[from + width..end].iter().position(|&hash| hash <= least);
        let to = next.map_or(end - width + 1, |i| from + 1 + i);
        visit(from, to, least);
        if to >= windows {
            return;
        }
        best = if next.is_some() { to + width - 1 } else { last_least(to) };
        from = to;
    }
}

/// Windows that have to be looked at, as runs of neighbours, with their hashes one after another.
#[derive(Debug, Default)]
struct Stretches {
    /// First window and number of windows.
    runs: Vec<(u64, usize)>,
    hashes: Vec<u32>,
}

impl Stretches {
    /// The windows whose hashes recur.
    fn those_in(&self, recurring: &Recurring) -> Stretches {
        let mut out = Stretches::default();
        let mut hashes = &self.hashes[..];
        for &(start, windows) in &self.runs {
            let (mine, rest) = hashes.split_at(windows);
            for (place, &hash) in (start..).zip(mine).filter(|&(_, &hash)| recurring.has(hash)) {
                out.add(place, 1);
                out.hashes.push(hash);
            }
            hashes = rest;
        }
        out
    }

    /// Takes windows, as part of the last run where they come right after it.
    fn add(&mut self, start: u64, windows: usize) {
        match self.runs.last_mut() {
            Some((first, count)) if *first + *count as u64 == start => *count += windows,
            _ => self.runs.push((start, windows)),
        }
    }
}

fn stretches<T: Token>(
    rows: Ragged<'_, T>,
    runs: &[Run],
    anchors: &Recurring,
    length: usize,
    level: Level,
) -> Stretches {
    let mut out = Stretches::default();
    for run in runs.iter().filter(|run| anchors.has(run.hash)) {
        out.add(run.start, run.windows as usize);
    }
    let mut hasher = Windows::new(length, level);
    let block = hasher.block();
    for &(start, windows) in &out.runs {
        for first in (0..windows).step_by(block) {
            let (start, count) = (start as usize + first, block.min(windows - first));
            out.hashes.extend_from_slice(hasher.hashes(&rows.values()[start..start + count + length - 1]));
        }
    }
    out
}

/// Looks windows up in reading order.
struct Finder<'a, T> {
    rows: Ragged<'a, T>,
    length: usize,
    keep: Occurrence,
    table: Table,
    found: Repeats,
    /// The row of the window that is looked at.
    row: usize,
    /// The first window that is in no span yet.
    next: u64,
    /// The window at which the last span was found.
    before: u64,
}

impl<'a, T: Token> Finder<'a, T> {
    fn new(rows: Ragged<'a, T>, length: usize, keep: Occurrence) -> Self {
        let mut mask = with_room(rows.values().len());
        mask.resize(rows.values().len(), 1);
        let found = Repeats { mask, ..Repeats::default() };
        Finder { rows, length, keep, table: Table::default(), found, row: 0, next: 0, before: 0 }
    }

    fn look_up(&mut self, part: &Stretches) {
        let mut hashes = &part.hashes[..];
        for &(start, windows) in &part.runs {
            let mut i = (self.next.saturating_sub(start) as usize).min(windows);
            while i < windows {
                if let Some(&ahead) = hashes.get(i + AHEAD) {
                    self.table.prefetch(ahead);
                }
                if self.visit(start + i as u64, hashes[i]) {
                    i = ((self.next - start) as usize).min(windows);
                } else {
                    i += 1;
                }
            }
            hashes = &hashes[windows..];
        }
    }

    /// Whether the window at `place` repeats an earlier one, which then makes a span.
    #[inline]
    fn visit(&mut self, place: u64, hash: u32) -> bool {
        let values = self.rows.values();
        let window = &values[place as usize..][..self.length];
        let equal = |other: u64| values[other as usize..][..self.length] == *window;
        let (number, there) = self.table.find_or_insert(hash, place, equal);
        if there {
            self.span(place as usize, self.table.places()[number as usize] as usize);
        }
        there
    }

    #[cold]
    #[inline(never)]
    fn span(&mut self, place: usize, source: usize) {
        let (values, offsets) = (self.rows.values(), self.rows.offsets());
        while offsets[self.row + 1] as usize <= place {
            self.row += 1;
        }
        let source_row = offsets.partition_point(|&offset| offset as usize <= source) - 1;
        let (row, source_range) = (self.rows.range(self.row), self.rows.range(source_row));
        let back = row.start.max(self.before as usize)..place;
        let left = common_end(&values[back], &values[source_range.start..source]);
        let right = common_start(&values[place..row.end], &values[source..source_range.end]);
        let (start, end, from) = (place - left, place + right, source - left);
        self.found.row.push(self.row as i64);
        self.found.start.push((start - row.start) as i64);
        self.found.end.push((end - row.start) as i64);
        self.found.source_row.push(source_row as i64);
        self.found.source_start.push((from - source_range.start) as i64);
        self.found.mask[start..end].fill(0);
        if self.keep == Occurrence::None {
            self.found.mask[from..from + (end - start)].fill(0);
        }
        self.before = place as u64;
        self.next = (end - self.length + 1) as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RaggedBuf;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn pack<T: Token>(rows: &[Vec<T>]) -> RaggedBuf<T> {
        let mut buf = RaggedBuf::default();
        for row in rows {
            buf.values.extend_from_slice(row);
            buf.end_row();
        }
        buf
    }

    /// The definition, window by window.
    fn oracle(rows: &[Vec<u32>], length: usize, keep: Occurrence) -> Repeats {
        let mut firsts: HashMap<&[u32], (usize, usize)> = HashMap::new();
        let mut masks: Vec<Vec<u8>> = rows.iter().map(|row| vec![1; row.len()]).collect();
        let mut counts: HashMap<&[u32], usize> = HashMap::new();
        for (r, row) in rows.iter().enumerate() {
            for (i, window) in row.windows(length).enumerate() {
                firsts.entry(window).or_insert((r, i));
                *counts.entry(window).or_insert(0) += 1;
            }
        }
        let mut out = Repeats::default();
        for (r, row) in rows.iter().enumerate() {
            let (mut i, mut before) = (0, 0);
            while i + length <= row.len() {
                let window = &row[i..i + length];
                let (q, j) = firsts[window];
                if (q, j) == (r, i) {
                    i += 1;
                    continue;
                }
                let right = row[i..].iter().zip(&rows[q][j..]).take_while(|(a, b)| a == b).count();
                let left =
                    row[before..i].iter().rev().zip(rows[q][..j].iter().rev()).take_while(|(a, b)| a == b).count();
                out.row.push(r as i64);
                out.start.push((i - left) as i64);
                out.end.push((i + right) as i64);
                out.source_row.push(q as i64);
                out.source_start.push((j - left) as i64);
                before = i;
                i += right - length + 1;
            }
            for (i, window) in row.windows(length).enumerate() {
                if firsts[window] != (r, i) || (keep == Occurrence::None && counts[window] > 1) {
                    masks[r][i..i + length].fill(0);
                }
            }
        }
        out.mask = masks.concat();
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn spans_are_those_of_the_definition(
            rows in prop::collection::vec(prop::collection::vec(0u32..3, 0..40), 0..12),
            again in prop::collection::vec((any::<prop::sample::Index>(), 0usize..40), 0..6),
            length in 1usize..12,
            keep in prop::sample::select(vec![Occurrence::First, Occurrence::None]),
        ) {
            let mut rows = rows;
            for (index, cut) in again {
                if !rows.is_empty() {
                    let copy = rows[index.index(rows.len())].clone();
                    rows.push(copy[cut.min(copy.len())..].to_vec());
                }
            }
            let expected = oracle(&rows, length, keep);
            let buf = pack(&rows);
            let wide = pack(&rows.iter().map(|row| row.iter().map(|&u| u64::from(u) << 33).collect()).collect::<Vec<Vec<u64>>>());
            for level in Level::available() {
                prop_assert_eq!(&substring_at(buf.view(), length, keep, level).unwrap(), &expected);
                prop_assert_eq!(&substring_at(wide.view(), length, keep, level).unwrap(), &expected);
            }
        }

        #[test]
        fn runs_are_those_of_the_least_hash(hashes in prop::collection::vec(0u32..6, 1..60), width in 1usize..20) {
            let width = width.min(hashes.len());
            let mut found = vec![];
            each_run(&hashes, width, |from, to, least| {
                assert!(to > from);
                found.extend((from..to).map(|i| (i, least)));
            });
            let expected: Vec<_> = hashes.windows(width).map(|w| *w.iter().min().unwrap()).enumerate().collect();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn long_rows_and_crowds_take_linear_time() {
        let level = simd::level();
        let equal = pack(&[vec![7u32; 3_000_000]]);
        let found = substring_at(equal.view(), 50, Occurrence::First, level).unwrap();
        assert_eq!((found.start, found.end, found.source_start), (vec![1], vec![3_000_000], vec![0]));
        let mut words = crate::rng::Stream::new(1, 0, 0).words(0);
        let one: Vec<u32> = (0..200).map(|_| words.next_word()).collect();
        let copies = pack(&vec![one; 20_000]);
        let found = substring_at(copies.view(), 50, Occurrence::First, level).unwrap();
        assert!(found.row.iter().copied().eq(1..20_000) && found.source_row.iter().all(|&row| row == 0));
        let long: Vec<u32> = (0..3_000_000).map(|_| words.next_word()).collect();
        assert!(substring_at(pack(&[long]).view(), 50, Occurrence::None, level).unwrap().row.is_empty());
    }

    #[test]
    fn a_length_out_of_range_is_refused() {
        for length in [0, 65537] {
            let error = substring(pack(&[vec![1u32]]).view(), length, Occurrence::First).unwrap_err();
            assert_eq!(error.to_string(), format!("length must lie in 1 to 65536 (it is {length})"));
        }
    }
}
