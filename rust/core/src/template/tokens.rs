//! Walks written as tokens, each row as the tokenizer encodes its text.
//!
//! A row's text falls into parts at the cuts of the tokenizer (`cuts`). Parts inside the text of a node are encoded once
//! and copied from then on; those that a drawn value, a computed one or the end of a node's text has a share in are the
//! seams, which are looked up among those that were met before. Where the tokenizer has no cuts, or a part cannot
//! stand alone, the row is encoded as a whole. So every row is exact, and only its cost depends on the tokenizer.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::compile::Program;
use super::walk::{Sink, SpanBuf, push_int};
use crate::cuts::{Cuts, Part};
use crate::error::{Error, Result};
use crate::ragged::RaggedBuf;
use crate::subword::{Bpe, Loan, Scratch, Subword};
use crate::tokenize::{Encoded, Tokenizer};

/// The most parts that are remembered, and the longest.
const MOST: usize = 1 << 17;
const LONGEST: usize = 1 << 10;
/// No literal yet.
const UNSEEN: u32 = u32::MAX;

/// How rows become tokens.
#[derive(Clone, Copy)]
pub(super) struct Encoding<'a> {
    pub tokenizer: &'a Tokenizer,
    /// Where parts may be encoded alone; nothing where every row is encoded as a whole.
    cuts: Option<&'a Cuts>,
    /// The model, where words are encoded here.
    words: Option<(&'a Subword, &'a Bpe)>,
    /// Whether the post-processor adds its tokens.
    special_tokens: bool,
    /// What it puts around every text, if that is all it does.
    around: Option<(&'a [u32], &'a [u32])>,
}

impl<'a> Encoding<'a> {
    pub fn new(
        tokenizer: &'a Tokenizer,
        special_tokens: bool,
        affixes: Option<&'a (Vec<u32>, Vec<u32>)>,
        spans: bool,
    ) -> Result<Self> {
        let around = match (special_tokens, affixes) {
            (false, _) => Some((&[][..], &[][..])),
            (true, affixes) => affixes.map(|(before, after)| (before.as_slice(), after.as_slice())),
        };
        if spans && around.is_none() {
            return Err(Error::invalid(
                "spans cannot follow this tokenizer's special tokens: sample with special_tokens=False",
            ));
        }
        let cuts = tokenizer.cuts().filter(|_| around.is_some());
        Ok(Encoding { tokenizer, cuts, words: tokenizer.word_by_word(), special_tokens, around })
    }
}

/// What earlier rows have taught about a grammar's texts under one tokenizer.
#[derive(Debug)]
pub(super) struct Known {
    tokenizer: u64,
    /// Whether it has the places of tokens.
    located: bool,
    /// The literal of each node that was met, and where it falls apart.
    of_node: Vec<u32>,
    literals: Vec<Literal>,
    /// The tokens of the parts inside literals.
    inside: Vec<u32>,
    /// Parts that begin a row, and all others.
    parts: [Parts; 2],
}

impl Known {
    fn new(tokenizer: u64, located: bool, nodes: usize) -> Self {
        let of_node = vec![UNSEEN; nodes];
        Known { tokenizer, located, of_node, literals: Vec::new(), inside: Vec::new(), parts: Default::default() }
    }
}

/// The text of a node: its first and last cut, equal if it has one, 0 if it has none; and the tokens between them.
#[derive(Debug, Clone, Copy)]
struct Literal {
    first: u32,
    last: u32,
    from: u32,
    to: u32,
    /// Whether the bytes of the tokens are the text.
    lays: bool,
}

/// Parts that were encoded before.
#[derive(Debug, Default)]
struct Parts {
    /// Short ones with few tokens: open addressing, at most half full. A part that is here has one line of memory.
    slots: Vec<Slot>,
    used: usize,
    others: HashMap<Box<[u8]>, Others>,
    /// The places of all tokens: as the crate has them, and as the bytes of the tokens lie.
    places: Vec<(u32, u32)>,
    laid: Vec<(u32, u32)>,
}

/// A part of up to 24 bytes and 6 tokens.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Slot {
    text: [u64; 3],
    tokens: [u32; 6],
    found: Found,
    /// One more than the length of its text; 0 in a free slot.
    length: u8,
}

/// A part that is no slot.
#[derive(Debug)]
struct Others {
    /// Nothing for a part that cannot be encoded alone.
    tokens: Option<Box<[u32]>>,
    found: Found,
}

/// What is known of a part besides its tokens.
#[derive(Debug, Clone, Copy)]
struct Found {
    /// The places of its tokens.
    from: u32,
    n: u32,
    /// Whether the bytes of the tokens are the text.
    lays: bool,
}

impl Slot {
    const FREE: Slot = Slot { text: [0; 3], tokens: [0; 6], found: Found { from: 0, n: 0, lays: false }, length: 0 };
    const TEXT: usize = 24;
    const TOKENS: usize = 6;
}

impl Parts {
    /// The slot of a short part, or the free one where it belongs.
    #[inline]
    fn slot(&self, text: [u64; 3], length: usize) -> usize {
        const K: u64 = 0x9E37_79B9_7F4A_7C15;
        let mut hash = (text[0] ^ length as u64).wrapping_mul(K);
        hash = (hash ^ hash >> 32 ^ text[1]).wrapping_mul(K);
        hash = (hash ^ hash >> 32 ^ text[2]).wrapping_mul(K);
        let mut at = (hash >> (64 - self.slots.len().ilog2())) as usize;
        loop {
            let slot = &self.slots[at];
            if slot.length == 0 || (usize::from(slot.length) == length + 1 && slot.text == text) {
                return at;
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }

    /// Appends the tokens of a part if it is known; nothing if it is not, `Err` if it cannot be encoded alone.
    #[inline]
    fn append(&self, part: &[u8], out: &mut Vec<u32>) -> Option<std::result::Result<Found, ()>> {
        if part.len() <= Slot::TEXT && !self.slots.is_empty() {
            let slot = &self.slots[self.slot(padded(part), part.len())];
            if slot.length > 0 {
                let length = out.len() + slot.found.n as usize;
                out.extend_from_slice(&slot.tokens);
                out.truncate(length);
                return Some(Ok(slot.found));
            }
        }
        let others = self.others.get(part)?;
        Some(match &others.tokens {
            Some(tokens) => {
                out.extend_from_slice(tokens);
                Ok(others.found)
            }
            None => Err(()),
        })
    }

    fn insert(&mut self, part: &[u8], encoded: Option<Part>) {
        let mut found = Found { from: self.places.len() as u32, n: 0, lays: false };
        let Some(Part { tokens, places, laid }) = encoded else {
            self.others.insert(part.into(), Others { tokens: None, found });
            return;
        };
        (found.n, found.lays) = (tokens.len() as u32, laid.is_some());
        self.laid.extend_from_slice(laid.as_ref().unwrap_or(&places));
        self.places.extend(if places.is_empty() { laid.unwrap_or_default() } else { places });
        if part.len() > Slot::TEXT || tokens.len() > Slot::TOKENS {
            self.others.insert(part.into(), Others { tokens: Some(tokens.into()), found });
            return;
        }
        if 2 * self.used >= self.slots.len() {
            let size = (2 * self.slots.len()).max(1 << 9);
            for slot in std::mem::replace(&mut self.slots, vec![Slot::FREE; size]) {
                if slot.length > 0 {
                    let at = self.slot(slot.text, usize::from(slot.length) - 1);
                    self.slots[at] = slot;
                }
            }
        }
        let text = padded(part);
        let mut slot = Slot { text, tokens: [0; 6], found, length: part.len() as u8 + 1 };
        slot.tokens[..tokens.len()].copy_from_slice(&tokens);
        let at = self.slot(text, part.len());
        self.slots[at] = slot;
        self.used += 1;
    }

    fn is_full(&self) -> bool {
        self.used + self.others.len() >= MOST
    }
}

/// Up to 24 bytes with zeros behind them.
#[inline]
fn padded(part: &[u8]) -> [u64; 3] {
    let n = part.len();
    let eight = |at: usize| part[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let byte = |at: usize| u64::from(part[at]) << (8 * at);
    match n {
        0 => [0; 3],
        1..4 => [byte(0) | byte(n / 2) | byte(n - 1), 0, 0],
        4..8 => {
            let four = |at: usize| part[at..].first_chunk().map_or(0, |bytes| u64::from(u32::from_le_bytes(*bytes)));
            [four(0) | four(n - 4) << (8 * (n - 4)), 0, 0]
        }
        8 => [eight(0), 0, 0],
        9..16 => [eight(0), eight(n - 8) >> (8 * (16 - n)), 0],
        16 => [eight(0), eight(8), 0],
        _ => [eight(0), eight(8), eight(n - 8) >> (8 * (Slot::TEXT - n))],
    }
}

/// A part of the row: where its text and its tokens start, and the places of its tokens if they matter.
#[derive(Debug, Clone, Copy)]
struct Piece {
    text: u32,
    token: usize,
    found: Option<Found>,
}

/// Writes tokens.
pub(super) struct Tokens<'a> {
    encoding: Encoding<'a>,
    idle: &'a Mutex<Vec<Known>>,
    known: Known,
    scratch: Option<Loan<'a>>,
    rows: RaggedBuf<u32>,
    spans: SpanBuf,
    open: Vec<usize>,
    /// The text of the row, and where its last part starts, which may yet grow.
    text: Vec<u8>,
    start: usize,
    /// Whether the row has to be encoded as a whole.
    whole: bool,
    /// Whether the bytes of its tokens are its text, so far.
    lays: bool,
    pieces: Vec<Piece>,
    /// The first span of the row.
    row_spans: usize,
    encoded: Encoded,
    ends: Vec<u32>,
}

impl<'a> Tokens<'a> {
    /// Room for about `rows` rows.
    pub fn new(program: &Program, encoding: Encoding<'a>, idle: &'a Mutex<Vec<Known>>, rows: usize) -> Self {
        let located = !program.tags.is_empty();
        let serial = encoding.tokenizer.serial();
        let known = {
            let mut idle = idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.retain(|known| known.tokenizer == serial);
            idle.pop()
        };
        let mut tokens = Tokens {
            encoding,
            idle,
            known: known.unwrap_or_else(|| Known::new(serial, located, program.nodes.len())),
            scratch: encoding.words.map(|(subword, _)| subword.scratch()),
            rows: RaggedBuf::with_capacity(rows, 0),
            spans: SpanBuf::default(),
            open: Vec::new(),
            text: Vec::new(),
            start: 0,
            whole: false,
            lays: true,
            pieces: Vec::new(),
            row_spans: 0,
            encoded: Encoded::default(),
            ends: Vec::new(),
        };
        tokens.begin_row();
        tokens
    }

    fn begin_row(&mut self) {
        self.text.clear();
        self.start = 0;
        (self.whole, self.lays) = (self.encoding.cuts.is_none(), true);
        self.pieces.clear();
        self.row_spans = self.spans.row.len();
        if let Some((before, _)) = self.encoding.around {
            self.rows.values.extend_from_slice(before);
        }
    }

    /// Ends a part at a cut where the text up to `seam` and the text behind it meet.
    #[inline]
    fn join(&mut self, seam: usize) {
        if let Some(cuts) = self.encoding.cuts {
            for at in seam.saturating_sub(1)..=seam {
                if at > self.start && at + 1 < self.text.len() && cuts.at(&self.text, at) {
                    self.end_part(at);
                }
            }
        }
    }

    /// Appends any text.
    #[inline]
    fn push(&mut self, text: &[u8]) {
        let seam = self.text.len();
        self.text.extend_from_slice(text);
        if let Some(cuts) = self.encoding.cuts {
            for at in seam.saturating_sub(1).max(self.start + 1)..self.text.len().saturating_sub(1) {
                if cuts.at(&self.text, at) {
                    self.end_part(at);
                }
            }
        }
    }

    /// Ends the part that the text from `start` to `end` is.
    #[inline]
    fn end_part(&mut self, end: usize) {
        let part = &self.text[self.start..end];
        let token = self.rows.values.len();
        let parts = &self.known.parts[usize::from(self.start > 0)];
        let found = match parts.append(part, &mut self.rows.values) {
            Some(found) => found,
            None => self.learn(end),
        };
        match found {
            Ok(found) if self.known.located => {
                self.lays &= found.lays;
                self.pieces.push(Piece { text: self.start as u32, token, found: Some(found) });
            }
            Ok(_) => {}
            Err(()) => self.whole = true,
        }
        self.start = end;
    }

    /// Encodes the part that the text from `start` to `end` is, and appends its tokens.
    #[cold]
    fn learn(&mut self, end: usize) -> std::result::Result<Found, ()> {
        let full = self.known.parts[usize::from(self.start > 0)].is_full();
        if full && self.encoding.words.is_none() {
            // Parts that never come again are dearer one by one than a whole row.
            return Err(());
        }
        let encoded = if end - self.start <= LONGEST { self.encode(self.start, end) } else { None };
        let parts = &mut self.known.parts[usize::from(self.start > 0)];
        let part = &self.text[self.start..end];
        parts.insert(part, encoded);
        parts.append(part, &mut self.rows.values).unwrap_or(Err(()))
    }

    fn encode(&mut self, start: usize, end: usize) -> Option<Part> {
        let part = std::str::from_utf8(&self.text[start..end]).ok()?;
        let Encoding { tokenizer, cuts, words, .. } = self.encoding;
        match (words, self.scratch.as_deref_mut()) {
            (Some((subword, bpe)), Some(Scratch { merging, memory, .. }))
                if !tokenizer.spells_added(part.as_bytes()) =>
            {
                self.ends.clear();
                subword.word_ends(tokenizer, part.as_bytes(), 0, &mut self.ends);
                let mut encoded = Part::default();
                let mut at = 0;
                for &end in &self.ends {
                    let word = bpe.encode(&part.as_bytes()[at..end as usize], merging, memory)?;
                    encoded.tokens.extend(word.tokens.iter().map(|token| token.0));
                    at = end as usize;
                }
                if self.known.located {
                    encoded.laid = Some(tokenizer.laid(part, &encoded.tokens)?);
                }
                Some(encoded)
            }
            _ => cuts?.encode(tokenizer, part, start == 0, self.known.located),
        }
    }

    /// Finds where the text of a node falls apart, and encodes what lies between its first and its last cut.
    #[cold]
    fn read(&mut self, node: u32, text: &[u8]) -> Literal {
        let mut literal = Literal { first: 0, last: 0, from: 0, to: 0, lays: true };
        literal.from = self.known.inside.len() as u32;
        if let Some(cuts) = self.encoding.cuts {
            let is_cut = |&at: &usize| cuts.at(text, at);
            let found: Vec<usize> = (1..text.len().saturating_sub(1)).filter(is_cut).collect();
            // What is inside a literal is encoded as the later part of a row would be.
            let row = std::mem::replace(&mut self.text, text.to_vec());
            let inside: Option<Vec<Part>> = found.windows(2).map(|cut| self.encode(cut[0], cut[1])).collect();
            self.text = row;
            if let (Some(&first), Some(&last), Some(inside)) = (found.first(), found.last(), inside) {
                inside.iter().for_each(|part| self.known.inside.extend_from_slice(&part.tokens));
                literal.lays = inside.iter().all(|part| part.laid.is_some());
                (literal.first, literal.last) = (first as u32, last as u32);
            }
        }
        literal.to = self.known.inside.len() as u32;
        self.known.of_node[node as usize] = self.known.literals.len() as u32;
        self.known.literals.push(literal);
        literal
    }

    /// Encodes the row as a whole.
    #[cold]
    fn end_whole(&mut self) -> Result<()> {
        let Encoding { tokenizer, special_tokens, around, .. } = self.encoding;
        let start = self.rows.offsets.last().map_or(0, |&offset| offset as usize);
        self.rows.values.truncate(start);
        let text = std::str::from_utf8(&self.text).map_err(|_| Error::invalid("the text is no UTF-8"))?;
        let failed = |error: tokenizers::Error| Error::invalid(format!("cannot encode {text:?}: {error}"));
        let (before, after) = around.unwrap_or_default();
        self.rows.values.extend_from_slice(before);
        if self.row_spans == self.spans.row.len() {
            let own = special_tokens && around.is_none();
            let ids = tokenizer.hf().encode_fast(text, own).map_err(failed)?;
            self.rows.values.extend_from_slice(ids.get_ids());
        } else {
            self.encoded = Encoded::default();
            tokenizer.encode_text(text, &mut self.encoded).map_err(failed)?;
            let Encoded { tokens, starts, ends } = &self.encoded;
            self.rows.values.extend_from_slice(&tokens.values);
            let laid = if tokenizer.joins_bytes() { tokenizer.laid(text, &tokens.values) } else { None };
            let places = laid.unwrap_or_else(|| starts.iter().zip(ends).map(|(&a, &b)| (a as u32, b as u32)).collect());
            let n = places.len() as i64;
            for span in self.row_spans..self.spans.row.len() {
                let (from, to) = (self.spans.start[span], self.spans.end[span]);
                let first = places.partition_point(|place| i64::from(place.1) <= from) as i64;
                let last = places.partition_point(|place| i64::from(place.0) < to) as i64;
                self.set_span(span, before.len() as i64, first.min(n), last);
            }
        }
        self.rows.values.extend_from_slice(after);
        Ok(())
    }

    /// Turns the places of the row's spans into tokens: those that a span touches.
    fn end_spans(&mut self) {
        let start = self.rows.offsets.last().map_or(0, |&offset| offset as usize);
        let before = self.encoding.around.map_or(0, |(before, _)| before.len());
        let n = (self.rows.values.len() - start - before) as i64;
        for span in self.row_spans..self.spans.row.len() {
            let (from, to) = (self.spans.start[span], self.spans.end[span]);
            let first = match from == self.text.len() as i64 {
                true => n,
                false => self.count(self.piece(from), |place| i64::from(place.1) <= from) - (start + before) as i64,
            };
            let last = match to {
                0 => 0,
                _ => self.count(self.piece(to - 1), |place| i64::from(place.0) < to) - (start + before) as i64,
            };
            self.set_span(span, before as i64, first.min(n), last);
        }
    }

    /// The part that holds a byte.
    fn piece(&self, byte: i64) -> Piece {
        self.pieces[self.pieces.partition_point(|piece| i64::from(piece.text) <= byte) - 1]
    }

    /// How many tokens lie before the row's part `piece`, and in it those whose places in the row `are` so.
    fn count(&self, piece: Piece, are: impl Fn((u32, u32)) -> bool) -> i64 {
        let inside = piece.found.map_or(0, |Found { from, n, .. }| {
            let parts = &self.known.parts[usize::from(piece.text > 0)];
            let places = if self.lays { &parts.laid } else { &parts.places };
            let places = &places[from as usize..(from + n) as usize];
            places.partition_point(|&(start, end)| are((start + piece.text, end + piece.text)))
        });
        (piece.token + inside) as i64
    }

    fn set_span(&mut self, span: usize, before: i64, first: i64, last: i64) {
        let empty = self.spans.end[span] <= self.spans.start[span];
        self.spans.start[span] = before + first;
        self.spans.end[span] = before + if empty { first } else { last.max(first) };
    }
}

impl Sink for Tokens<'_> {
    type Item = u32;

    #[inline]
    fn literal(&mut self, program: &Program, node: u32, start: u32, end: u32) {
        let text = &program.literals.as_bytes()[start as usize..end as usize];
        let literal = match self.known.of_node[node as usize] {
            UNSEEN => self.read(node, text),
            i => self.known.literals[i as usize],
        };
        let base = self.text.len();
        self.text.extend_from_slice(text);
        self.join(base);
        let (first, last) = (literal.first as usize, literal.last as usize);
        if last == 0 {
            return;
        }
        self.end_part(base + first);
        if first < last {
            if self.known.located {
                self.lays &= literal.lays;
                let token = self.rows.values.len();
                self.pieces.push(Piece { text: (base + first) as u32, token, found: None });
            }
            let inside = &self.known.inside[literal.from as usize..literal.to as usize];
            self.rows.values.extend_from_slice(inside);
        }
        self.start = base + last;
    }

    #[inline]
    fn text(&mut self, text: &[u8]) {
        self.push(text);
    }

    #[inline]
    fn int(&mut self, value: i64) {
        // Digits hold no space.
        let seam = self.text.len();
        push_int(&mut self.text, value);
        if seam > self.start + 1
            && let Some(cuts) = self.encoding.cuts
            && cuts.at(&self.text, seam - 1)
        {
            self.end_part(seam - 1);
        }
    }

    #[inline]
    fn open(&mut self, tag: u32) {
        self.open.push(self.spans.row.len());
        self.spans.row.push(self.rows.offsets.len() as i64 - 1);
        self.spans.start.push(self.text.len() as i64);
        self.spans.end.push(0);
        self.spans.tag.push(tag);
    }

    #[inline]
    fn close(&mut self) {
        let span = self.open.pop().expect("tags nest");
        self.spans.end[span] = self.text.len() as i64;
    }

    #[inline]
    fn end_row(&mut self) -> Result<()> {
        if !self.whole {
            self.end_part(self.text.len());
        }
        if self.whole {
            self.end_whole()?;
        } else {
            if self.row_spans < self.spans.row.len() {
                self.end_spans();
            }
            if let Some((_, after)) = self.encoding.around {
                self.rows.values.extend_from_slice(after);
            }
        }
        self.rows.end_row();
        if self.encoding.words.is_some() {
            // Words are encoded fast enough to meet them again.
            self.known.parts.iter_mut().filter(|parts| parts.is_full()).for_each(|parts| *parts = Parts::default());
        }
        self.begin_row();
        Ok(())
    }

    fn finish(mut self) -> (RaggedBuf<u32>, SpanBuf) {
        let row = self.rows.offsets.last().map_or(0, |&offset| offset as usize);
        self.rows.values.truncate(row);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(self.known);
        (self.rows, self.spans)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn short_parts_are_padded_with_zeros(part in prop::collection::vec(any::<u8>(), 0..=Slot::TEXT)) {
            let mut bytes = [0u8; Slot::TEXT];
            bytes[..part.len()].copy_from_slice(&part);
            let words = std::array::from_fn(|i| u64::from_le_bytes(std::array::from_fn(|k| bytes[8 * i + k])));
            prop_assert_eq!(padded(&part), words);
        }

        #[test]
        fn parts_are_found_again(
            parts in prop::collection::btree_map(prop::collection::vec(0u8..3, 0..30), prop::option::of(prop::collection::vec(any::<u32>(), 0..9)), 0..900)
        ) {
            let mut known = Parts::default();
            let mut out = vec![7];
            for (part, tokens) in &parts {
                prop_assert!(known.append(part, &mut out).is_none());
                known.insert(part, tokens.clone().map(|tokens| Part { tokens, ..Part::default() }));
            }
            prop_assert_eq!(&out, &[7]);
            for (part, tokens) in &parts {
                out.truncate(1);
                let found = known.append(part, &mut out).unwrap();
                prop_assert_eq!(found.is_ok(), tokens.is_some());
                prop_assert_eq!(&out[1..], tokens.as_deref().unwrap_or_default());
            }
        }
    }
}
