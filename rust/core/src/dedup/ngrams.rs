//! Where rows contain parts of known items: evaluation questions, or a protected corpus.
//!
//! Every n-gram of the items is held exactly. A pass over the rows hashes each n-gram and asks a set of bits whether it may
//! be one of them; the few that may are looked up and compared, so nothing is found that is not there.

use std::sync::atomic::{AtomicBool, Ordering};

use super::windows::{AHEAD, BLOCK, Bits, Table, Token, Windows, check_length, common_end, common_start};
use crate::error::{Error, Result};
use crate::par::fold_rows;
use crate::room::with_room;
use crate::simd::{self, Level};
use crate::{Ragged, RaggedBuf};

/// Units in one task.
const GRAIN: usize = 1 << 18;

/// Units whose matches are held together.
const GROUP: usize = 1 << 14;

/// Of the occurrences of an n-gram in one item, how many are tried for the longest match.
pub const TRIED: usize = 16;

/// The items, by their n-grams.
#[derive(Debug)]
pub struct Ngrams<T> {
    items: RaggedBuf<T>,
    grams: Vec<Grams>,
    /// Items that are too short to be looked for.
    short: usize,
    level: Level,
}

/// N-grams of one length: items with fewer units than that are looked for whole.
#[derive(Debug)]
struct Grams {
    length: usize,
    bits: Bits,
    table: Table,
    /// Postings of n-gram `g`: from `posted[g]` up to `posted[g + 1]`.
    posted: Vec<u32>,
    postings: Vec<Posting>,
    /// First and next-to-last unit of what the occurrences of an n-gram in an item cover, among the units of all items.
    covers: Vec<(u32, u32)>,
    /// Where n-grams lie among the units of all items.
    places: Vec<u32>,
    /// Which were seen in any row.
    seen: Vec<AtomicBool>,
}

/// An n-gram in an item.
#[derive(Debug, Clone, Copy)]
struct Posting {
    item: u32,
    /// Into `places`, and how many.
    place: u32,
    places: u32,
    /// Into `covers`, and how many.
    cover: u32,
    covers: u32,
}

/// What rows share with items: column by column, one entry a span.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hits {
    /// The row.
    pub row: Vec<i64>,
    /// First unit of the span in its row.
    pub start: Vec<i64>,
    /// First unit after it.
    pub end: Vec<i64>,
    /// The item.
    pub item: Vec<i64>,
    /// First unit of the span in its item, where it is as long.
    pub item_start: Vec<i64>,
    /// How many units of the item lie in n-grams that are in the row.
    pub covered: Vec<i64>,
}

impl Hits {
    fn append(&mut self, other: &mut Hits) {
        self.row.append(&mut other.row);
        self.start.append(&mut other.start);
        self.end.append(&mut other.end);
        self.item.append(&mut other.item);
        self.item_start.append(&mut other.item_start);
        self.covered.append(&mut other.covered);
    }
}

impl<T: Token> Ngrams<T> {
    /// Takes the n-grams of items. Those of fewer than `ngram` units are looked for whole, if they have `shortest`;
    /// n-grams that are in more than `most` items are not looked for, if that is not 0.
    ///
    /// # Errors
    /// If `ngram` or `shortest` is out of range, or there are 2^32 units or more.
    pub fn new(items: RaggedBuf<T>, ngram: usize, shortest: usize, most: usize) -> Result<Self> {
        Ngrams::at(items, ngram, shortest, most, simd::level())
    }

    fn at(items: RaggedBuf<T>, ngram: usize, shortest: usize, most: usize, level: Level) -> Result<Self> {
        check_length("ngram", ngram)?;
        check_length("shortest", shortest)?;
        if items.values.len() >= u32::MAX as usize || items.offsets.len() > u32::MAX as usize {
            return Err(Error::invalid(format!(
                "the items to look for must have fewer than 2^32 units (they have {}): look for them in parts",
                items.values.len()
            )));
        }
        let view = items.view();
        let mut by_length: Vec<(usize, u32)> = (0..view.rows())
            .map(|item| (view.range(item).len().min(ngram), item as u32))
            .filter(|&(length, _)| length >= shortest.min(ngram))
            .collect();
        by_length.sort_unstable();
        let short = view.rows() - by_length.len();
        let grams = by_length.chunk_by(|a, b| a.0 == b.0).map(|group| Grams::new(view, group, most, level)).collect();
        Ok(Ngrams { items, grams, short, level })
    }

    /// How many items are too short to be looked for.
    pub fn short(&self) -> usize {
        self.short
    }

    /// How many different n-grams there are, those of items that are looked for whole among them.
    pub fn count(&self) -> usize {
        self.grams.iter().map(|grams| grams.table.places().len()).sum()
    }

    /// For each item how many of its units lie in n-grams that any row had so far.
    pub fn covered(&self) -> Vec<i64> {
        let mut inside = vec![false; self.items.values.len()];
        for grams in &self.grams {
            for g in (0..grams.seen.len()).filter(|&g| grams.seen[g].load(Ordering::Relaxed)) {
                for &(start, end) in grams.postings(g as u32).iter().flat_map(|posting| grams.covers(posting)) {
                    inside[start as usize..end as usize].fill(true);
                }
            }
        }
        let items = self.items.view();
        (0..items.rows())
            .map(|item| inside[items.range(item)].iter().filter(|&&inside| inside).count() as i64)
            .collect()
    }

    /// Finds the items in rows; `covered` says whether to count what of an item is in a row (else 0).
    ///
    /// From left to right in a row, for each item: at an n-gram of the item a span starts. Of the first [`TRIED`] occurrences
    /// in the item it takes the one that agrees furthest to the right, the first of equals; it goes on to the left as
    /// well, though not past the n-gram at which the span before it was found. The next n-gram looked at is the first one
    /// not inside. So spans cover exactly the units of the n-grams that are in the item. Spans are in the order of
    /// row, start, item.
    pub fn scan(&self, rows: Ragged<'_, T>, covered: bool) -> Hits {
        let parts = fold_rows(
            rows.offsets(),
            GRAIN,
            || (Scan::new(self, covered), vec![]),
            |(scan, out), part, range| {
                out.push((part, scan.rows(rows, range)));
                true
            },
        );
        let mut parts: Vec<(usize, Hits)> = parts.into_iter().flat_map(|(_, out)| out).collect();
        parts.sort_unstable_by_key(|&(part, _)| part);
        let mut all = Hits::default();
        for (_, mut part) in parts {
            all.append(&mut part);
        }
        all
    }
}

impl Grams {
    fn new<T: Token>(items: Ragged<'_, T>, group: &[(usize, u32)], most: usize, level: Level) -> Self {
        let length = group[0].0;
        let mut hasher = Windows::new(length, level);
        let values = items.values();
        let count = group.iter().map(|&(_, item)| items.range(item as usize).len() + 1 - length).sum();
        let mut table = Table::with_room(count);
        let mut known = vec![];
        // Number, item and place of every occurrence, item by item.
        let mut all: Vec<(u32, u32, u32)> = with_room(count);
        for &(_, item) in group {
            let range = items.range(item as usize);
            let windows = range.len() + 1 - length;
            for first in (0..windows).step_by(hasher.block()) {
                let count = hasher.block().min(windows - first);
                let units = &values[range.start + first..][..count + length - 1];
                let hashes = hasher.hashes(units);
                for (i, (&hash, window)) in hashes.iter().zip(units.windows(length)).enumerate() {
                    if let Some(&ahead) = hashes.get(i + AHEAD) {
                        table.prefetch(ahead);
                    }
                    let place = range.start + first + i;
                    let equal = |other: u64| values[other as usize..][..length] == *window;
                    let (number, there) = table.find_or_insert(hash, place as u64, equal);
                    if !there {
                        known.push(hash);
                    }
                    all.push((number, item, place as u32));
                }
            }
        }
        // A stable sort: occurrences stay in the order of items and places.
        let mut starts = vec![0u32; table.places().len() + 1];
        all.iter().for_each(|&(g, ..)| starts[g as usize + 1] += 1);
        (0..table.places().len()).for_each(|g| starts[g + 1] += starts[g]);
        let mut sorted = vec![(0, 0); all.len()];
        let mut next = starts.clone();
        for (g, item, place) in all {
            sorted[next[g as usize] as usize] = (item, place);
            next[g as usize] += 1;
        }
        let mut grams = Grams {
            length,
            bits: Bits::new(known.len()),
            seen: known.iter().map(|_| AtomicBool::new(false)).collect(),
            table,
            posted: vec![0],
            postings: vec![],
            covers: vec![],
            places: vec![],
        };
        for (&hash, range) in known.iter().zip(starts.windows(2)) {
            let occurrences = &sorted[range[0] as usize..range[1] as usize];
            if most == 0 || occurrences.chunk_by(|a, b| a.0 == b.0).count() <= most {
                grams.bits.add(hash);
                occurrences.chunk_by(|a, b| a.0 == b.0).for_each(|places| grams.post(places));
            }
            grams.posted.push(grams.postings.len() as u32);
        }
        grams
    }

    /// Adds the occurrences of the last n-gram in an item.
    fn post(&mut self, occurrences: &[(u32, u32)]) {
        let (place, cover) = (self.places.len() as u32, self.covers.len() as u32);
        self.places.extend(occurrences.iter().take(TRIED).map(|&(_, place)| place));
        for &(_, start) in occurrences {
            let end = start + self.length as u32;
            match self.covers.get_mut(cover as usize..).and_then(<[_]>::last_mut) {
                Some((_, last)) if *last >= start => *last = end,
                _ => self.covers.push((start, end)),
            }
        }
        self.postings.push(Posting {
            item: occurrences[0].0,
            place,
            places: self.places.len() as u32 - place,
            cover,
            covers: self.covers.len() as u32 - cover,
        });
    }

    #[inline]
    fn postings(&self, gram: u32) -> &[Posting] {
        &self.postings[self.posted[gram as usize] as usize..self.posted[gram as usize + 1] as usize]
    }

    fn covers(&self, posting: &Posting) -> &[(u32, u32)] {
        &self.covers[posting.cover as usize..][..posting.covers as usize]
    }

    fn places(&self, posting: &Posting) -> &[u32] {
        &self.places[posting.place as usize..][..posting.places as usize]
    }
}

/// An n-gram of an item in a row.
#[derive(Debug, Clone, Copy)]
struct Match {
    row: usize,
    /// Among the units of all rows.
    place: usize,
    /// Which of [`Ngrams::grams`].
    grams: u32,
    gram: u32,
}

/// How far an item was found in a row.
#[derive(Debug, Clone, Copy)]
struct Reach {
    /// The row, plus one.
    row: u64,
    /// The first n-gram that is in no span yet.
    next: usize,
    /// The n-gram at which the last span was found.
    before: usize,
}

#[derive(Debug, Clone, Copy)]
struct Span {
    start: usize,
    end: usize,
    item: u32,
    /// Among the units of all items.
    from: usize,
}

/// What one thread holds while it scans.
struct Scan<'a, T> {
    ngrams: &'a Ngrams<T>,
    hashers: Vec<Windows>,
    reach: Vec<Reach>,
    /// For each n-gram the row, plus one, in which it was last seen; empty where nobody counts what is covered.
    last: Vec<Vec<u64>>,
    matches: Vec<Match>,
    spans: Vec<Span>,
    covers: Vec<(u32, u32)>,
    /// How many units of an item are in the row, by item.
    counts: Vec<(u32, i64)>,
}

impl<'a, T: Token> Scan<'a, T> {
    fn new(ngrams: &'a Ngrams<T>, covered: bool) -> Self {
        let fresh = Reach { row: 0, next: 0, before: 0 };
        let counted = if covered { &ngrams.grams[..] } else { &[] };
        Scan {
            hashers: ngrams.grams.iter().map(|grams| Windows::new(grams.length, ngrams.level)).collect(),
            reach: vec![fresh; ngrams.items.view().rows()],
            last: counted.iter().map(|grams| vec![0; grams.seen.len()]).collect(),
            matches: vec![],
            spans: vec![],
            covers: vec![],
            counts: vec![],
            ngrams,
        }
    }

    fn rows(&mut self, rows: Ragged<'_, T>, range: std::ops::Range<usize>) -> Hits {
        let mut out = Hits::default();
        let mut first = range.start;
        while first < range.end {
            let (start, mut last) = (rows.offsets()[first], first + 1);
            while last < range.end && rows.offsets()[last] - start < GROUP as i64 {
                last += 1;
            }
            self.matches.clear();
            for which in 0..self.hashers.len() {
                self.find(rows, first..last, which);
            }
            if self.hashers.len() > 1 {
                self.matches.sort_unstable_by_key(|found| (found.place, found.grams));
            }
            let matches = std::mem::take(&mut self.matches);
            for matches in matches.chunk_by(|a, b| a.row == b.row) {
                self.row(rows, matches, &mut out);
            }
            self.matches = matches;
            first = last;
        }
        out
    }

    /// Collects the n-grams of one length that are in rows.
    fn find(&mut self, rows: Ragged<'_, T>, range: std::ops::Range<usize>, which: usize) {
        let (grams, hasher) = (&self.ngrams.grams[which], &mut self.hashers[which]);
        let (values, offsets, items) = (rows.values(), rows.offsets(), &self.ngrams.items.values);
        let (start, end) = (offsets[range.start] as usize, offsets[range.end] as usize);
        let windows = (end - start + 1).saturating_sub(grams.length);
        let mut row = range.start;
        let mut maybe = [0u32; BLOCK];
        let block = hasher.block();
        for first in (start..start + windows).step_by(block) {
            let count = block.min(start + windows - first);
            let hashes = hasher.hashes(&values[first..first + count + grams.length - 1]);
            for (part, hashes) in hashes.chunks(BLOCK).enumerate() {
                let found = grams.bits.select(self.ngrams.level, hashes, &mut maybe);
                for &i in &maybe[..found] {
                    let (hash, place) = (hashes[i as usize], first + part * BLOCK + i as usize);
                    let window = &values[place..place + grams.length];
                    let equal = |other: u64| items[other as usize..][..grams.length] == *window;
                    let Some(gram) = grams.table.find(hash, equal) else { continue };
                    while offsets[row + 1] as usize <= place {
                        row += 1;
                    }
                    if place + grams.length <= offsets[row + 1] as usize {
                        self.matches.push(Match { row, place, grams: which as u32, gram });
                    }
                }
            }
        }
    }

    /// Makes spans of the matches of a row.
    fn row(&mut self, rows: Ragged<'_, T>, matches: &[Match], out: &mut Hits) {
        let (items, row) = (self.ngrams.items.view(), matches[0].row);
        let range = rows.range(row);
        let stamp = row as u64 + 1;
        self.spans.clear();
        self.covers.clear();
        for &Match { place, grams: which, gram, .. } in matches {
            let grams = &self.ngrams.grams[which as usize];
            let mut again = true;
            if let Some(last) = self.last.get_mut(which as usize) {
                again = last[gram as usize] == stamp;
                last[gram as usize] = stamp;
            }
            let seen = &grams.seen[gram as usize];
            if !seen.load(Ordering::Relaxed) {
                seen.store(true, Ordering::Relaxed);
            }
            for posting in grams.postings(gram) {
                if !again {
                    self.covers.extend_from_slice(grams.covers(posting));
                }
                let reach = &mut self.reach[posting.item as usize];
                if reach.row != stamp {
                    *reach = Reach { row: stamp, next: range.start, before: range.start };
                }
                if place < reach.next {
                    continue;
                }
                let item = items.range(posting.item as usize);
                let (mut right, mut from) = (0, 0);
                for &at in grams.places(posting) {
                    let common = common_start(&rows.values()[place..range.end], &items.values()[at as usize..item.end]);
                    if common > right {
                        (right, from) = (common, at as usize);
                    }
                }
                let left = common_end(&rows.values()[reach.before..place], &items.values()[item.start..from]);
                self.spans.push(Span {
                    start: place - left,
                    end: place + right,
                    item: posting.item,
                    from: from - left,
                });
                (reach.before, reach.next) = (place, place + right + 1 - grams.length);
            }
        }
        self.count();
        self.spans.sort_unstable_by_key(|span| (span.start, span.item, span.end, span.from));
        for span in &self.spans {
            out.row.push(row as i64);
            out.start.push((span.start - range.start) as i64);
            out.end.push((span.end - range.start) as i64);
            out.item.push(i64::from(span.item));
            out.item_start.push((span.from - items.range(span.item as usize).start) as i64);
            let count = self.counts.binary_search_by_key(&span.item, |&(item, _)| item);
            out.covered.push(count.map_or(0, |at| self.counts[at].1));
        }
    }

    /// Counts the units that lie in `covers`, item by item.
    fn count(&mut self) {
        self.counts.clear();
        self.covers.sort_unstable();
        let offsets = &self.ngrams.items.offsets;
        let (mut item, mut done) = (0, 0);
        for &(start, end) in &self.covers {
            if i64::from(start) >= offsets[item + 1] || self.counts.is_empty() {
                item = offsets.partition_point(|&offset| offset <= i64::from(start)) - 1;
                self.counts.push((item as u32, 0));
            }
            if let Some((_, count)) = self.counts.last_mut() {
                *count += i64::from(end.saturating_sub(start.max(done)));
            }
            done = done.max(end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn pack<T: Token>(rows: &[Vec<T>]) -> RaggedBuf<T> {
        let mut buf = RaggedBuf::default();
        for row in rows {
            buf.values.extend_from_slice(row);
            buf.end_row();
        }
        buf
    }

    fn widened(rows: &[Vec<u32>]) -> RaggedBuf<u64> {
        pack(&rows.iter().map(|row| row.iter().map(|&u| u64::from(u) << 40).collect()).collect::<Vec<Vec<u64>>>())
    }

    /// The definition: (row, start, end, item, start in the item, covered units of it).
    fn oracle(rows: &[Vec<u32>], items: &[Vec<u32>], ngram: usize, shortest: usize, most: usize) -> Vec<[i64; 6]> {
        let known = |length: usize| -> HashSet<&[u32]> {
            let holders = items.iter().filter(|item| item.len().min(ngram) == length);
            let grams: HashSet<&[u32]> = holders.clone().flat_map(|item| item.windows(length)).collect();
            let common =
                |gram: &&[u32]| holders.clone().filter(|item| item.windows(length).any(|w| w == *gram)).count();
            grams.into_iter().filter(|gram| most == 0 || common(gram) <= most).collect()
        };
        let mut out: Vec<[i64; 6]> = vec![];
        for (r, row) in rows.iter().enumerate() {
            for (t, item) in items.iter().enumerate() {
                let n = item.len().min(ngram);
                if n < shortest.min(ngram) {
                    continue;
                }
                let known = known(n);
                let of_row: HashSet<&[u32]> = row.windows(n).filter(|gram| known.contains(gram)).collect();
                let mut inside = vec![false; item.len()];
                for (i, _) in item.windows(n).enumerate().filter(|(_, gram)| of_row.contains(gram)) {
                    inside[i..i + n].fill(true);
                }
                let covered = inside.into_iter().filter(|&x| x).count();
                let (mut i, mut before) = (0, 0);
                while i + n <= row.len() {
                    let gram = &row[i..i + n];
                    let places =
                        item.windows(n).enumerate().filter(|&(_, w)| w == gram && known.contains(gram)).take(TRIED);
                    let ahead = |j: usize| row[i..].iter().zip(&item[j..]).take_while(|(a, b)| a == b).count();
                    let best =
                        places.map(|(j, _)| (ahead(j), j)).max_by_key(|&(common, j)| (common, std::cmp::Reverse(j)));
                    let Some((right, j)) = best else {
                        i += 1;
                        continue;
                    };
                    let left =
                        row[before..i].iter().rev().zip(item[..j].iter().rev()).take_while(|(a, b)| a == b).count();
                    out.push([r, i - left, i + right, t, j - left, covered].map(|x| x as i64));
                    before = i;
                    i += right + 1 - n;
                }
            }
        }
        out.sort_unstable_by_key(|&[row, start, end, item, from, _]| (row, start, item, end, from));
        out
    }

    fn columns(hits: &Hits) -> Vec<[i64; 6]> {
        (0..hits.row.len())
            .map(|k| [hits.row[k], hits.start[k], hits.end[k], hits.item[k], hits.item_start[k], hits.covered[k]])
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn hits_are_those_of_the_definition(
            items in prop::collection::vec(prop::collection::vec(0u32..3, 0..14), 0..6),
            rows in prop::collection::vec(prop::collection::vec(0u32..3, 0..30), 0..8),
            planted in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0usize..30), 0..8),
            ngram in 1usize..8,
            shortest in 1usize..8,
            most in 0usize..3,
        ) {
            let mut rows = rows;
            for (row, item, at) in planted {
                if !rows.is_empty() && !items.is_empty() {
                    let row = row.index(rows.len());
                    let at = at.min(rows[row].len());
                    rows[row].splice(at..at, items[item.index(items.len())].iter().copied());
                }
            }
            let expected = oracle(&rows, &items, ngram, shortest, most);
            for level in Level::available() {
                let ngrams = Ngrams::at(pack(&items), ngram, shortest, most, level).unwrap();
                prop_assert_eq!(columns(&ngrams.scan(pack(&rows).view(), true)), expected.clone());
                let words = Ngrams::at(widened(&items), ngram, shortest, most, level).unwrap();
                prop_assert_eq!(columns(&words.scan(widened(&rows).view(), true)), expected.clone());
                prop_assert_eq!(words.covered(), ngrams.covered());
                let short = items.iter().filter(|item| item.len() < shortest.min(ngram)).count();
                prop_assert_eq!(ngrams.short(), short);
            }
            // What all rows together cover of an item is what one row does that holds them all, apart from one another.
            let ngrams = Ngrams::at(pack(&items), ngram, shortest, most, simd::level()).unwrap();
            let uncounted: Vec<_> = oracle(&rows, &items, ngram, shortest, most).into_iter().map(|[a, b, c, d, e, _]| [a, b, c, d, e, 0]).collect();
            prop_assert_eq!(columns(&ngrams.scan(pack(&rows).view(), false)), uncounted);
            let joined: Vec<u32> = rows.iter().flat_map(|row| row.iter().copied().chain([99])).collect();
            let mut covered = vec![0; items.len()];
            for [.., item, _, count] in oracle(&[joined], &items, ngram, shortest, most) {
                covered[item as usize] = count;
            }
            prop_assert_eq!(ngrams.covered(), covered);
        }
    }

    #[test]
    fn crowds_and_long_rows_take_linear_time() {
        let equal = vec![7u32; 1_000_000];
        let ngrams = Ngrams::new(pack(&[equal.clone(), vec![7; 1000]]), 13, 8, 0).unwrap();
        let hits = ngrams.scan(pack(&[equal.clone(), equal]).view(), true);
        assert!(hits.row.len() > 2 * 1000 && hits.row.len() < 2 * 1100);
        assert_eq!(ngrams.covered(), [1_000_000, 1000]);
        let item: Vec<u32> = (0..100).collect();
        let ngrams = Ngrams::new(pack(std::slice::from_ref(&item)), 13, 8, 0).unwrap();
        let hits = ngrams.scan(pack(&vec![item; 50_000]).view(), true);
        assert!(hits.row.iter().copied().eq(0..50_000) && hits.covered.iter().all(|&covered| covered == 100));
    }

    #[test]
    fn parameters_out_of_range_are_refused() {
        for (ngram, shortest, name) in [(0, 8, "ngram"), (65537, 8, "ngram"), (13, 0, "shortest")] {
            let error = Ngrams::new(pack(&[vec![1u32]]), ngram, shortest, 0).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{name} must lie in 1 to 65536 (it is ")), "{error}");
        }
    }
}
