//! Ops on text, run over tokens: the decoded text is edited, and the words that an edit touched are encoded again.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use super::draw::Draw;
use super::plan::{Plan, Row, TokenOp};
use super::text::{Edit, TextOp, TextPlan, TextRow};
use super::words::WordSet;
use crate::error::{Error, Result};
use crate::ragged::Ragged;
use crate::subword::{Bpe, Scratch, Subword};
use crate::tokenize::{Encoded, Tokenizer};
use crate::word_map::Apart;

/// A text op as an op on tokens.
///
/// Special and added tokens, the unknown token, protected tokens and parts of characters are fences: the op sees their
/// text and cannot touch it, and they stay. A row in which an edit would change a fence stays as it is.
#[derive(Debug)]
pub(super) struct OnTokens {
    path: String,
    op: Arc<dyn TextOp>,
    /// Words of text that stay.
    words: WordSet,
    idle: Mutex<Vec<Room>>,
}

impl OnTokens {
    pub(super) fn new(path: String, op: Arc<dyn TextOp>, words: &[String]) -> Self {
        OnTokens { path, op, words: WordSet::new(words), idle: Mutex::default() }
    }

    fn given<'t>(&self, tokenizer: Option<&'t Tokenizer>) -> Result<&'t Tokenizer> {
        tokenizer.ok_or_else(|| {
            Error::invalid(format!(
                "{} works on text, and this batch of tokens has no tokenizer: give it one, batch.replace(tokenizer=...)",
                self.path
            ))
        })
    }
}

impl TokenOp for OnTokens {
    fn moves(&self) -> bool {
        self.op.moves()
    }

    fn reads_spans(&self) -> Option<&str> {
        self.op.reads_spans()
    }

    fn fits(&self, tokenizer: Option<&Tokenizer>) -> Result<()> {
        self.given(tokenizer).map(drop)
    }

    fn plan(&self, row: Row<'_>, draw: &mut Draw, plan: &mut Plan) -> Result<()> {
        let tokenizer = self.given(row.tokenizer)?;
        tokenizer.check(row.tokens)?;
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut room = idle.unwrap_or_default();
        let planned = room.plan(self, row, tokenizer, draw, plan);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(room);
        planned
    }
}

/// The text of a row, what an op makes of it, and where things lie.
#[derive(Debug, Default)]
struct Room {
    text: Vec<u8>,
    /// Where each token ends in the text.
    ends: Vec<u32>,
    /// 1 for each token that is a fence.
    fences: Vec<u8>,
    /// 1 for each token that is a part of a character whose rest is missing.
    lost: Vec<u8>,
    mask: Vec<u8>,
    made: TextPlan,
    /// Where each edit starts in the new text.
    starts: Vec<usize>,
    old_words: Vec<u32>,
    new_words: Vec<u32>,
}

impl Room {
    fn plan(
        &mut self,
        this: &OnTokens,
        row: Row<'_>,
        tokenizer: &Tokenizer,
        draw: &mut Draw,
        plan: &mut Plan,
    ) -> Result<()> {
        let fenced = self.read(row, tokenizer)?;
        let mut masked = fenced;
        if !this.words.is_empty() {
            if !masked {
                self.mask.clear();
                self.mask.resize(self.text.len(), 0);
            }
            let text = str::from_utf8(&self.text).map_err(|_| Error::invalid("a row is no UTF-8"))?;
            this.words.mark(text, &mut self.mask);
            masked = true;
        }
        self.made.clear();
        let protected = masked.then_some(self.mask.as_slice());
        let spans = self.spans(row.spans);
        this.op.plan(TextRow { text: &self.text, protected, spans: &spans }, draw, &mut self.made)?;
        plan.held = self.made.held;
        before_spaces(&mut self.made, &self.text, protected);
        let n = row.tokens.len();
        plan.out.reserve(n + self.made.text.len());
        if !self.made.edits.is_empty() {
            self.starts.clear();
            let mut shift = 0isize;
            for edit in &self.made.edits {
                self.starts.push(edit.start.wrapping_add_signed(shift));
                shift += edit.length as isize - (edit.end - edit.start) as isize;
            }
            (plan.moved, plan.repeats) = (true, true);
            let done = match tokenizer.word_by_word() {
                Some((subword, bpe)) => self.by_words(row.tokens, (tokenizer, subword, bpe), plan),
                None => None,
            };
            if done.unwrap_or_else(|| self.whole(row.tokens, tokenizer, plan)) {
                return Ok(());
            }
        }
        let held = plan.held;
        plan.clear();
        plan.held = held;
        plan.out.copy(row.tokens, 0, n);
        Ok(())
    }

    /// Spans of tokens as spans of the text, without the white space at their ends.
    fn spans(&self, spans: &[Range<usize>]) -> Vec<Range<usize>> {
        let place = |token: usize| if token == 0 { 0 } else { self.ends[token - 1] as usize };
        let trimmed = |span: &Range<usize>| {
            let (mut start, end) = (place(span.start), place(span.end));
            let text = &self.text[start..end];
            let kept = text.trim_ascii();
            start += text.len() - text.trim_ascii_start().len();
            start..start + kept.len()
        };
        spans.iter().map(trimmed).collect()
    }

    /// Decodes the row and finds the fences; says whether there are any.
    fn read(&mut self, row: Row<'_>, tokenizer: &Tokenizer) -> Result<bool> {
        let Room { text, ends, fences, lost, mask, .. } = self;
        let (apart, unknown) = (tokenizer.apart(), tokenizer.unknown());
        read_text(row.tokens, tokenizer, |i| i == 0, text, ends, lost);
        fences.clear();
        fences.extend(
            row.tokens
                .iter()
                .zip(lost.iter())
                .map(|(&token, &lost)| lost | u8::from(apart[token as usize] != Apart::No || unknown == Some(token))),
        );
        if let Some(protected) = row.protected {
            fences.iter_mut().zip(protected).for_each(|(fence, &p)| *fence |= p);
        }
        if text.len() > crate::ragged::MAX_ROW {
            return Err(Error::invalid(format!("a row is longer than {} bytes", crate::ragged::MAX_ROW)));
        }
        if !fences.contains(&1) {
            return Ok(false);
        }
        mask.clear();
        for (&fence, &end) in fences.iter().zip(ends.iter()) {
            mask.resize(end as usize, fence);
        }
        Ok(true)
    }

    /// Copies the tokens of words that no edit touched and encodes the others. Says whether it could; nothing where an
    /// edit spelled an added token, which this does not see.
    fn by_words(&mut self, tokens: &[u32], model: (&Tokenizer, &Subword, &Bpe), plan: &mut Plan) -> Option<bool> {
        let (tokenizer, subword, bpe) = model;
        let mut scratch = subword.scratch();
        let Scratch { merging, memory, .. } = &mut *scratch;
        let mut old_words = std::mem::take(&mut self.old_words);
        let mut new_words = std::mem::take(&mut self.new_words);
        let moves = self.moves();
        let new = &self.made.text;
        let mut out = Out { tokens, ends: &self.ends, new: &self.made.text, moves, copied: 0..0, held: 0, edit: 0 };
        let fence_from = |first: usize| {
            self.fences[first..].iter().position(|&fence| fence == 1).map_or(tokens.len(), |k| first + k)
        };
        let windows = tokenizer.windows();
        let (mut first, mut edit, mut fence) = (0, 0, fence_from(0));
        let result = loop {
            let next =
                moves.edits.get(edit).filter(|edit| edit.start <= out.start(fence) && edit.end <= out.start(fence));
            let mut last = fence;
            if let Some(next) = next {
                if next.start < out.start(first) {
                    break Some(false);
                }
                let before = edit;
                let opens = if windows { self.opens(first, next.start) } else { first };
                (last, edit) = self.closes(fence, edit, windows);
                out.copy(first, opens, plan);
                let (from, to) = (out.start(opens), out.start(last));
                let (begin, end) = (moves.new_place(from, before), moves.new_place(to, edit));
                if tokenizer.spells_added(&new[begin..end]) {
                    break None;
                }
                old_words.clear();
                new_words.clear();
                subword.word_ends(tokenizer, &self.text[from..to], from, &mut old_words);
                subword.word_ends(tokenizer, &new[begin..end], begin, &mut new_words);
                let (mut word, mut token, mut at) = (0, opens, begin);
                for &stop in &new_words {
                    let stop = stop as usize;
                    // The tokens of an old word that is where this one is, or nothing.
                    let same = out.moves.untouched(at, stop, &mut out.edit).and_then(|old| {
                        let start = |word: usize| if word == 0 { from } else { old_words[word - 1] as usize };
                        while word < old_words.len() && start(word) < old {
                            word += 1;
                        }
                        let whole = word < old_words.len()
                            && start(word) == old
                            && old_words[word] as usize == old + (stop - at);
                        while token < last && out.start(token) < old {
                            token += 1;
                        }
                        let end =
                            token + self.ends[token..last].partition_point(|&end| (end as usize) < old + (stop - at));
                        let tiled = whole
                            && out.start(token) == old
                            && end < last
                            && self.ends[end] as usize == old + (stop - at);
                        tiled.then_some(token..end + 1)
                    });
                    match same {
                        Some(range) => out.copy(range.start, range.end, plan),
                        None => {
                            out.flush(plan);
                            let encoded = bpe.encode(&new[at..stop], merging, memory)?;
                            let mut begin = at;
                            for &(token, length) in encoded.tokens {
                                out.write(token, begin, begin + length as usize, plan);
                                begin += length as usize;
                            }
                        }
                    }
                    at = stop;
                }
            } else {
                out.copy(first, fence, plan);
            }
            first = last;
            if last == fence {
                if fence == tokens.len() {
                    break Some(edit == moves.edits.len());
                }
                out.copy(fence, fence + 1, plan);
                first = fence + 1;
                fence = fence_from(first);
            }
        };
        if result == Some(true) {
            out.flush(plan);
        }
        if result.is_none() {
            plan.out.len = 0;
            plan.marked = false;
        }
        self.old_words = old_words;
        self.new_words = new_words;
        result
    }

    /// Whether a word ends at a place whatever lies around it: between a letter and a space before a letter.
    fn parts(&self, at: usize) -> bool {
        let letter = |at: usize| self.text.get(at).is_some_and(u8::is_ascii_alphabetic);
        self.text.get(at) == Some(&b' ') && letter(at.wrapping_sub(1)) && letter(at + 1)
    }

    /// The last token from `first` on that begins such a place before an edit, or `first`.
    fn opens(&self, first: usize, edit: usize) -> usize {
        let start = |token: usize| if token == 0 { 0 } else { self.ends[token - 1] as usize };
        let held = first + self.ends[first..].partition_point(|&end| (end as usize) < edit);
        (first + 1..=held).rev().find(|&token| start(token) + 2 <= edit && self.parts(start(token))).unwrap_or(first)
    }

    /// The first token that begins such a place behind the edits from `edit` on that are close together, or the fence;
    /// and the first edit behind it.
    fn closes(&self, fence: usize, mut edit: usize, windows: bool) -> (usize, usize) {
        let edits = &self.made.edits;
        let start = |token: usize| if token == 0 { 0 } else { self.ends[token - 1] as usize };
        let to = start(fence);
        let mut token =
            if windows { self.ends[..fence].partition_point(|&end| end as usize <= edits[edit].end) } else { fence };
        loop {
            edit += 1;
            while token < fence && !(start(token) > edits[edit - 1].end && self.parts(start(token))) {
                token += 1;
            }
            let inside = |edit: &Edit| match token < fence {
                true => edit.start < start(token) + 2,
                false => edit.start <= to && edit.end <= to,
            };
            if !edits.get(edit).is_some_and(inside) {
                return (token, edit);
            }
        }
    }

    /// Encodes the new text as a whole. Says whether the fences are still there.
    fn whole(&mut self, tokens: &[u32], tokenizer: &Tokenizer, plan: &mut Plan) -> bool {
        let moves = self.moves();
        let offsets = [0, self.made.text.len() as i64];
        let Ok(texts) = Ragged::new(&self.made.text, &offsets) else { return false };
        let mut encoded = Encoded::default();
        if tokenizer.encode_row(texts, 0, false, &mut encoded).is_err() {
            return false;
        }
        let new = &encoded.tokens.values;
        let (n, m) = (tokens.len(), new.len());
        plan.out.reserve(m);
        let mut out = Out { tokens, ends: &self.ends, new: &self.made.text, moves, copied: 0..0, held: 0, edit: 0 };
        // Before the first edit and after the last, equal tokens are the same ones.
        let (Some(first), Some(last)) = (moves.edits.first(), moves.edits.last()) else { return false };
        let before = (0..n.min(m)).take_while(|&i| tokens[i] == new[i] && self.ends[i] as usize <= first.start).count();
        let after = (0..n.min(m) - before)
            .take_while(|&i| tokens[n - 1 - i] == new[m - 1 - i] && out.start(n - 1 - i) >= last.end)
            .count();
        out.copy(0, before, plan);
        out.flush(plan);
        let places = encoded.starts.iter().zip(&encoded.ends).map(|(&from, &to)| (from as usize, to as usize));
        for (&token, (from, to)) in new.iter().zip(places).take(m - after).skip(before) {
            // White space that was taken off the offsets is before them.
            out.write(token, if from == to { from.saturating_sub(1) } else { from }, to, plan);
        }
        out.copy(n - after, n, plan);
        out.flush(plan);
        let mut kept = vec![false; n];
        let strand = &plan.out;
        for (&source, &edited) in strand.source[..strand.len].iter().zip(&strand.edited) {
            if let Some(kept) = kept.get_mut(source as usize) {
                *kept |= edited == 0;
            }
        }
        kept.iter().zip(&self.fences).all(|(&kept, &fence)| kept || fence == 0)
    }

    fn moves(&self) -> Moves<'_> {
        // The lists are read while other parts of the room are written.
        Moves { edits: &self.made.edits, starts: &self.starts }
    }
}

/// Puts what is inserted behind a space, and ends with one, before that space instead: the text is the same, and the word
/// behind keeps its space and so its tokens.
fn before_spaces(made: &mut TextPlan, text: &[u8], protected: Option<&[u8]>) {
    // The first byte that is no part of the edits so far, with one between.
    let (mut next, mut shift) = (1, 0isize);
    for edit in &mut made.edits {
        let (start, end) = (edit.start, edit.start.wrapping_add_signed(shift) + edit.length);
        let spaces = start >= next && text[start - 1] == b' ' && made.text[..end].last() == Some(&b' ');
        if start == edit.end && spaces && protected.is_none_or(|mask| mask[start - 1] == 0) {
            (edit.start, edit.end) = (start - 1, start - 1);
        }
        shift += edit.length as isize - (edit.end - edit.start) as isize;
        next = edit.end + 2;
    }
}

/// Decodes tokens into UTF-8 and says where each ends; one that `opens` a text as it stands alone. Parts of a character
/// whose rest is missing are `lost`, and read as U+FFFD each.
pub(super) fn read_text(
    tokens: &[u32],
    tokenizer: &Tokenizer,
    opens: impl Fn(usize) -> bool,
    text: &mut Vec<u8>,
    ends: &mut Vec<u32>,
    lost: &mut Vec<u8>,
) {
    let (table, n) = (tokenizer.token_bytes().view(), tokens.len());
    let joins = tokenizer.joins_bytes();
    lost.clear();
    lost.resize(n, 0);
    loop {
        text.clear();
        ends.clear();
        for (i, &token) in tokens.iter().enumerate() {
            match lost[i] == 1 {
                true => text.extend_from_slice("\u{FFFD}".as_bytes()),
                false if !joins && opens(i) => text.extend(tokenizer.alone(token)),
                false => text.extend_from_slice(table.row(token as usize)),
            }
            ends.push(text.len() as u32);
        }
        if std::str::from_utf8(text).is_ok() {
            break;
        }
        let mut at = 0;
        for chunk in text.utf8_chunks() {
            let bad = at + chunk.valid().len();
            at = bad + chunk.invalid().len();
            let first = ends.partition_point(|&end| end as usize <= bad);
            let last = ends.partition_point(|&end| (end as usize) < at);
            lost.get_mut(first..(last + 1).min(n)).into_iter().flatten().filter(|_| at > bad).for_each(|l| *l = 1);
        }
    }
}

/// Edits, and where each starts in the new text.
#[derive(Debug, Clone, Copy)]
struct Moves<'a> {
    edits: &'a [Edit],
    starts: &'a [usize],
}

impl Moves<'_> {
    /// Where a place of the old text is in the new one, after so many edits.
    fn new_place(&self, old: usize, edits: usize) -> usize {
        match edits.checked_sub(1) {
            None => old,
            Some(k) => self.starts[k] + self.edits[k].length + (old - self.edits[k].end),
        }
    }

    /// The first edit that ends after `at` in the new text, from `edit` on.
    fn seek(&self, at: usize, edit: &mut usize) {
        while *edit < self.edits.len() && self.starts[*edit] + self.edits[*edit].length <= at {
            *edit += 1;
        }
    }

    /// Where new bytes `from..to` start in the old text, if no edit touched them.
    fn untouched(&self, from: usize, to: usize, edit: &mut usize) -> Option<usize> {
        self.seek(from, edit);
        let free = *edit == self.edits.len() || self.starts[*edit] >= to;
        free.then(|| self.old_place(from, *edit))
    }

    /// Where a new byte that lies behind so many edits is in the old text.
    fn old_place(&self, new: usize, edits: usize) -> usize {
        match edits.checked_sub(1) {
            None => new,
            Some(k) => self.edits[k].end + (new - self.starts[k] - self.edits[k].length),
        }
    }

    /// The first old byte that new bytes `from..to` come from.
    fn source(&self, from: usize, to: usize, edit: &mut usize) -> Option<usize> {
        let mut at = from;
        self.seek(at, edit);
        while at < to {
            if *edit == self.edits.len() || self.starts[*edit] > at {
                return Some(self.old_place(at, *edit));
            }
            let Edit { start, end, .. } = self.edits[*edit];
            if start < end {
                return Some(start + (at - self.starts[*edit]).min(end - start - 1));
            }
            at = self.starts[*edit] + self.edits[*edit].length;
            self.seek(at, edit);
        }
        None
    }
}

/// Where the new row goes.
struct Out<'a> {
    tokens: &'a [u32],
    ends: &'a [u32],
    /// The new text.
    new: &'a [u8],
    moves: Moves<'a>,
    /// Old tokens that are to be copied.
    copied: Range<usize>,
    /// The last token that something came from.
    held: usize,
    edit: usize,
}

impl Out<'_> {
    fn start(&self, token: usize) -> usize {
        if token == 0 { 0 } else { self.ends[token - 1] as usize }
    }

    fn copy(&mut self, from: usize, to: usize, plan: &mut Plan) {
        if self.copied.end != from {
            self.flush(plan);
            self.copied = from..from;
        }
        self.copied.end = to;
    }

    fn flush(&mut self, plan: &mut Plan) {
        plan.out.copy(self.tokens, self.copied.start, self.copied.end);
        self.held = self.held.max(self.copied.end.saturating_sub(1));
        self.copied = self.copied.end..self.copied.end;
    }

    /// Appends a token that stands for new bytes `from..to`. The space that opens a word says little about where it
    /// comes from, so the first byte behind it does.
    fn write(&mut self, token: u32, from: usize, to: usize, plan: &mut Plan) {
        let (mut source, mut edited) = (-1, true);
        let mut edit = self.edit;
        let opens = self.new[from..to].iter().position(|&byte| byte != b' ').unwrap_or(0);
        if let Some(old) = self.moves.source(from + opens, to, &mut edit) {
            while self.held + 1 < self.tokens.len() && self.ends[self.held] as usize <= old {
                self.held += 1;
            }
            source = self.held as i32;
            if let Some(old) = self.moves.untouched(from, to, &mut self.edit) {
                edited = self.tokens[self.held] != token || self.ends[self.held] as usize != old + (to - from);
            }
        }
        let strand = &mut plan.out;
        // A token is kept once: what repeats it is new.
        edited |= strand.len > 0 && strand.source[strand.len - 1] == source;
        strand.tokens[strand.len] = token;
        strand.source[strand.len] = source;
        strand.edited[strand.len] = u8::from(edited);
        strand.len += 1;
        plan.marked |= edited;
    }
}
