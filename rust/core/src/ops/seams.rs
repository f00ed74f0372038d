//! Cutting a row of tokens at places of its text: what a cut touches is encoded again, all else is copied.

use std::ops::Range;

use super::graphemes::joint;
use super::on_tokens::read_text;
use super::plan::{Plan, Row};
use crate::error::{Error, Result};
use crate::ragged::{MAX_ROW, Ragged};
use crate::rng::Words;
use crate::subword::{Bpe, Scratch, Subword};
use crate::tokenize::{Encoded, Tokenizer};
use crate::word_map::Apart;

/// No cut goes through the token.
const WHOLE: u8 = 1;
/// The token is protected or special: it stays at the end of a row, and no cut comes between two of the kind.
const STAYS: u8 = 2;

/// The text of a row, where its tokens lie in it, and room to encode parts of it.
#[derive(Debug, Default)]
pub(super) struct Seams {
    text: Vec<u8>,
    /// Where each token ends in the text.
    ends: Vec<u32>,
    lost: Vec<u8>,
    /// `WHOLE` and `STAYS` of each token.
    fences: Vec<u8>,
    /// The tokens that may be cut apart: those between what stays at the start and what stays at the end.
    region: Range<usize>,
    old_words: Vec<u32>,
    new_words: Vec<u32>,
}

/// A place in the text, and the tokens about it that have to be encoded again if the text ends or starts there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    /// The byte.
    at: usize,
    /// The first token that does not end before it.
    token: usize,
    /// The tokens `lo..hi`; none where the place lies between texts that the tokenizer never joins.
    lo: usize,
    hi: usize,
}

impl Cut {
    fn between(at: usize, token: usize) -> Cut {
        Cut { at, token, lo: token, hi: token }
    }

    fn touches(&self) -> bool {
        self.lo < self.hi
    }
}

impl Seams {
    /// Reads a row. Parts of characters whose rest is missing, added tokens and the unknown token are never cut.
    pub(super) fn read(&mut self, row: Row<'_>, tokenizer: &Tokenizer) -> Result<()> {
        let Seams { text, ends, lost, fences, .. } = self;
        let spelled = tokenizer.spell(row.tokens, text, ends)?;
        let (apart, unknown) = (tokenizer.apart(), tokenizer.unknown());
        fences.clear();
        fences.extend(row.tokens.iter().map(|&token| match apart[token as usize] {
            Apart::Special => WHOLE | STAYS,
            Apart::Added => WHOLE,
            Apart::No => u8::from(unknown == Some(token)) * WHOLE,
        }));
        if let Some(protected) = row.protected {
            fences.iter_mut().zip(protected).for_each(|(fence, &p)| *fence |= p * (WHOLE | STAYS));
        }
        let opens = |i: usize| i == 0 || fences[i - 1] != 0;
        lost.clear();
        if !spelled {
            read_text(row.tokens, tokenizer, opens, text, ends, lost);
        }
        if text.len() > MAX_ROW {
            return Err(Error::invalid(format!("a row is longer than {MAX_ROW} bytes")));
        }
        if !text.is_ascii() {
            fences.iter_mut().zip(lost.iter()).for_each(|(fence, &lost)| *fence |= lost * WHOLE);
            // A character that is partly in such a token is wholly in such tokens.
            let n = fences.len();
            let inside = |i: usize| text.get(ends[i] as usize).is_some_and(|byte| byte & 0xC0 == 0x80);
            (1..n).filter(|&i| inside(i - 1)).for_each(|i| fences[i] |= fences[i - 1] & WHOLE);
            (1..n).rev().filter(|&i| inside(i - 1)).for_each(|i| fences[i - 1] |= fences[i] & WHOLE);
        }
        let stays = |fence: &&u8| **fence & STAYS != 0;
        let first = fences.iter().take_while(stays).count();
        let last = fences.len() - fences[first..].iter().rev().take_while(stays).count();
        self.region = first..last;
        Ok(())
    }

    /// The tokens that may be cut apart.
    pub(super) fn region(&self) -> Range<usize> {
        self.region.clone()
    }

    /// A place, all that are allowed equally likely: bytes are drawn until one is where two clusters of characters meet.
    pub(super) fn draw(&self, words: &mut Words) -> usize {
        let (from, to) = (self.start(self.region.start), self.start(self.region.end));
        loop {
            let at = from + words.below((to - from + 1) as u32) as usize;
            if self.cuttable(at) {
                return at;
            }
        }
    }

    fn cuttable(&self, at: usize) -> bool {
        let Range { start: first, end: last } = self.region;
        if at == self.start(first) || at == self.start(last) {
            return true;
        }
        if self.text[at] & 0xC0 == 0x80 || !joint(&self.text[..at], &self.text[at..]) {
            return false;
        }
        let token = self.token(at);
        match self.start(token) < at {
            true => self.fences[token] & WHOLE == 0,
            false => self.fences[token - 1] & self.fences[token] & STAYS == 0,
        }
    }

    fn start(&self, token: usize) -> usize {
        if token == 0 { 0 } else { self.ends[token - 1] as usize }
    }

    /// The first token of the region that does not end before a place.
    fn token(&self, at: usize) -> usize {
        let Range { start, end } = self.region;
        start + self.ends[start..end].partition_point(|&token| token as usize <= at)
    }

    /// The start and the end of the region.
    pub(super) fn bounds(&self) -> [Cut; 2] {
        [self.region.start, self.region.end].map(|token| Cut::between(self.start(token), token))
    }

    /// What a cut at a place touches. Where the tokenizer is one of words, that goes from a place before it to a place
    /// behind it where a word ends whatever lies around it.
    pub(super) fn cut(&self, at: usize, tokenizer: &Tokenizer) -> Cut {
        let by_words = tokenizer.word_by_word().is_some();
        for bound in self.bounds() {
            if at == bound.at {
                return bound;
            }
        }
        let token = self.token(at);
        let whole = |token: usize| self.fences[token] & WHOLE != 0;
        let ends = |token: usize| by_words && self.parts(self.start(token));
        let mut lo = token;
        while lo > self.region.start && !whole(lo - 1) && !(self.start(lo) + 2 <= at && ends(lo)) {
            lo -= 1;
        }
        let mut hi = token + usize::from(self.start(token) < at);
        while hi < self.region.end && !whole(hi) && !(self.start(hi) > at && ends(hi)) {
            hi += 1;
        }
        match self.start(lo) < at && at < self.start(hi) {
            true => Cut { at, token, lo, hi },
            false => Cut::between(at, token),
        }
    }

    /// Whether a word ends at a place whatever lies around it: between a letter and a space before a letter.
    fn parts(&self, at: usize) -> bool {
        let letter = |at: usize| self.text.get(at).is_some_and(u8::is_ascii_alphabetic);
        self.text.get(at) == Some(&b' ') && letter(at.wrapping_sub(1)) && letter(at + 1)
    }

    /// Appends the tokens of the text between two cuts.
    ///
    /// # Errors
    /// If the tokenizer cannot encode a part of the text.
    pub(super) fn part(
        &mut self,
        tokens: &[u32],
        tokenizer: &Tokenizer,
        [a, b]: [Cut; 2],
        plan: &mut Plan,
    ) -> Result<()> {
        if a.at == b.at {
            plan.out.copy(tokens, a.token, b.token.max(a.token));
            return Ok(());
        }
        if a.touches() && b.touches() && a.hi > b.lo {
            return self.window(tokens, tokenizer, a.at..b.at, a.lo..b.hi, plan);
        }
        if a.touches() {
            self.window(tokens, tokenizer, a.at..self.start(a.hi), a.lo..a.hi, plan)?;
        }
        if a.hi < b.lo {
            plan.out.copy(tokens, a.hi, b.lo);
        }
        if b.touches() {
            self.window(tokens, tokenizer, self.start(b.lo)..b.at, b.lo..b.hi, plan)?;
        }
        Ok(())
    }

    /// Appends the tokens of a piece of the text that lies in tokens `old`.
    fn window(
        &mut self,
        tokens: &[u32],
        tokenizer: &Tokenizer,
        piece: Range<usize>,
        old: Range<usize>,
        plan: &mut Plan,
    ) -> Result<()> {
        match tokenizer.word_by_word() {
            Some((subword, bpe)) => self.by_words(tokens, (tokenizer, subword, bpe), piece, old, plan),
            None => self.whole(tokens, tokenizer, piece, plan),
        }
    }

    /// Copies the words of a piece that are words of the row, and encodes the others.
    fn by_words(
        &mut self,
        tokens: &[u32],
        (tokenizer, subword, bpe): (&Tokenizer, &Subword, &Bpe),
        piece: Range<usize>,
        old: Range<usize>,
        plan: &mut Plan,
    ) -> Result<()> {
        plan.out.reserve(plan.out.len + piece.len() + tokens.len() + SENTINELS);
        let mut scratch = subword.scratch();
        let Scratch { merging, memory, .. } = &mut *scratch;
        let (from, to) = (self.start(old.start), self.start(old.end));
        self.old_words.clear();
        self.new_words.clear();
        subword.word_ends(tokenizer, &self.text[from..to], from, &mut self.old_words);
        subword.word_ends(tokenizer, &self.text[piece.clone()], piece.start, &mut self.new_words);
        let (mut word, mut word_start, mut at) = (0, from, piece.start);
        for &stop in &self.new_words {
            let stop = stop as usize;
            while word_start < at && word < self.old_words.len() {
                word_start = self.old_words[word] as usize;
                word += 1;
            }
            let same = word_start == at && self.old_words.get(word).is_some_and(|&end| end as usize == stop);
            match self.tiles(at, stop).filter(|_| same) {
                Some(range) => plan.out.copy(tokens, range.start, range.end),
                None => {
                    let encoded = bpe
                        .encode(&self.text[at..stop], merging, memory)
                        .ok_or_else(|| Error::invalid("the tokenizer lacks a byte".to_owned()))?;
                    let mut begin = at;
                    for &(token, length) in encoded.tokens {
                        self.write(tokens, token, begin..begin + length as usize, plan);
                        begin += length as usize;
                    }
                }
            }
            at = stop;
        }
        Ok(())
    }

    /// Encodes a piece, and copies what of it is as it was from its start or its end on.
    fn whole(&mut self, tokens: &[u32], tokenizer: &Tokenizer, piece: Range<usize>, plan: &mut Plan) -> Result<()> {
        let mut encoded = Encoded::default();
        let offsets = [0, piece.len() as i64];
        tokenizer.encode_row(Ragged::new(&self.text[piece.clone()], &offsets)?, 0, false, &mut encoded)?;
        let new = &encoded.tokens.values;
        plan.out.reserve(plan.out.len + new.len() + tokens.len() + SENTINELS);
        let first = self.token(piece.start);
        let first = first + usize::from(self.start(first) < piece.start);
        let last = self.token(piece.end).max(first);
        let room = new.len().min(last - first);
        let opens = self.start(first) == piece.start;
        let closes = self.start(last) == piece.end;
        let before = (0..room).take_while(|&i| opens && new[i] == tokens[first + i]).count();
        let after = (1..=room - before).take_while(|&i| closes && new[new.len() - i] == tokens[last - i]).count();
        plan.out.copy(tokens, first, first + before);
        let places = encoded.starts.iter().zip(&encoded.ends).map(|(&from, &to)| (from as usize, to as usize));
        for (&token, (from, to)) in new.iter().zip(places).take(new.len() - after).skip(before) {
            self.write(tokens, token, (piece.start + from).min(piece.end - 1)..piece.start + to, plan);
        }
        plan.out.copy(tokens, last - after, last);
        Ok(())
    }

    /// The tokens that hold exactly the text `from..to`, if there are such.
    fn tiles(&self, from: usize, to: usize) -> Option<Range<usize>> {
        let (first, last) = (self.token(from), self.token(to));
        (self.start(first) == from && self.start(last) == to).then_some(first..last)
    }

    /// Appends a token that stands for a range of the text. It comes from the token that held its first byte.
    fn write(&self, tokens: &[u32], token: u32, range: Range<usize>, plan: &mut Plan) {
        let source = self.token(range.start).min(self.region.end - 1);
        let same = (tokens[source], self.start(source), self.ends[source] as usize) == (token, range.start, range.end);
        let out = &mut plan.out;
        out.tokens[out.len] = token;
        out.source[out.len] = source as i32;
        out.edited[out.len] = u8::from(!same);
        out.len += 1;
    }
}

/// Tokens that the parts of a row get between them.
const SENTINELS: usize = 3;
