//! The models of tokenizers as this crate runs them: BPE and Unigram over the spelling of tokens.
//!
//! Nothing here draws: ops decide which merges and which pieces; what is here is the text that tokens spell, the words
//! that it falls into, and the steps of the models.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

use serde::Deserialize;
use tokenizers::models::ModelWrapper;

use crate::fixed::Scaled;
use crate::ragged::RaggedBuf;
use crate::tokenize::{Tokenizer, byte_of, fallback_byte};
use crate::word_map::{Apart, Splitting};
use crate::words::Words;

/// No rank, token or edge.
const NONE: u32 = u32::MAX;

/// What stands for a space.
const MARK: char = '▁';
const MARK_BYTES: &str = "▁";

/// A model, and how the text that it sees falls into words.
#[derive(Debug)]
pub(crate) struct Subword {
    /// What each token spells in the text that the model sees; nothing for a token that spells no text.
    spelling: RaggedBuf<u8>,
    falls: Falls,
    pub(crate) model: Model,
    idle: Mutex<Vec<Scratch>>,
}

#[derive(Debug)]
pub(crate) enum Model {
    Bpe(Bpe),
    Unigram(Unigram),
}

/// How spelled text falls into words, which the model never joins.
#[derive(Debug)]
enum Falls {
    Known(Words),
    /// Before each ▁.
    Marks,
    /// Before each ▁ after a character that no token holds before a ▁: no model that sees unsplit text joins the two.
    MarksAfter(HashSet<char>),
    /// As the crate's pre-tokenizer has it.
    Crate,
}

impl Subword {
    /// Reads the model of a tokenizer, or says why it cannot be run here.
    pub(crate) fn new(tokenizer: &Tokenizer) -> std::result::Result<Subword, String> {
        let spec = tokenizer.spec();
        let kind = match tokenizer.hf().get_model() {
            ModelWrapper::BPE(_) => "BPE",
            ModelWrapper::Unigram(_) => "Unigram",
            _ => return Err(format!("its model is {}, not BPE or Unigram", spec.model.kind)),
        };
        if spec.model.continuing_subword_prefix.as_deref().is_some_and(|prefix| !prefix.is_empty())
            || spec.model.end_of_word_suffix.as_deref().is_some_and(|suffix| !suffix.is_empty())
        {
            return Err("its BPE marks the parts of words by a prefix or a suffix".to_owned());
        }
        let bytes = tokenizer.joins_bytes();
        let vocabulary = tokenizer.hf().get_vocab(false);
        let spelling = spell(tokenizer, &vocabulary, bytes);
        let falls = match spec.splitting() {
            Splitting::ByteLevel { words, .. } if bytes => Falls::Known(words),
            Splitting::Metaspace if !bytes => Falls::Marks,
            Splitting::Nothing if !bytes => {
                let pieces = spelling.view();
                let texts = pieces.iter().filter_map(|piece| std::str::from_utf8(piece).ok());
                let neighbours = texts.flat_map(|text| text.chars().zip(text.chars().skip(1)));
                Falls::MarksAfter(neighbours.filter(|&(_, next)| next == MARK).map(|(last, _)| last).collect())
            }
            _ if bytes => Falls::Crate,
            _ => return Err("its pre-tokenizer and its decoder do not fit together".to_owned()),
        };
        let model = match kind {
            "BPE" => Model::Bpe(Bpe::new(tokenizer, &vocabulary, &spelling, bytes)?),
            _ => Model::Unigram(Unigram::new(tokenizer, &spelling)),
        };
        Ok(Subword { spelling, falls, model, idle: Mutex::default() })
    }

    /// What a token spells; nothing where it spells no text.
    #[inline]
    pub(crate) fn spelling(&self, token: u32) -> &[u8] {
        self.spelling.view().row(token as usize)
    }

    /// Appends the end of each word of `text`, counted from `base`.
    pub(crate) fn word_ends(&self, tokenizer: &Tokenizer, text: &[u8], base: usize, out: &mut Vec<u32>) {
        match &self.falls {
            Falls::Known(words) => words.ends(text, base, out),
            Falls::Marks => {
                let starts = memchr::memmem::find_iter(text, MARK_BYTES).filter(|&at| at > 0);
                out.extend(starts.map(|at| (base + at) as u32));
                out.extend((!text.is_empty()).then_some((base + text.len()) as u32));
            }
            Falls::MarksAfter(joined) => {
                let text = std::str::from_utf8(text).unwrap_or_default();
                let before = |at: usize| text[..at].chars().next_back().is_some_and(|last| !joined.contains(&last));
                let starts = memchr::memmem::find_iter(text.as_bytes(), MARK_BYTES).filter(|&at| before(at));
                out.extend(starts.map(|at| (base + at) as u32));
                out.extend((!text.is_empty()).then_some((base + text.len()) as u32));
            }
            Falls::Crate => {
                let from = out.len();
                tokenizer.crate_ends(text, out);
                out[from..].iter_mut().for_each(|end| *end += base as u32);
            }
        }
    }

    /// Room to work in, with what was remembered of earlier words; given back when it is dropped.
    pub(crate) fn scratch(&self) -> Loan<'_> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Loan { subword: self, scratch: Some(idle.unwrap_or_default()) }
    }
}

/// The spelling of each token: bytes of the byte alphabet, or the characters of the vocabulary.
fn spell(tokenizer: &Tokenizer, vocabulary: &HashMap<String, u32>, bytes: bool) -> RaggedBuf<u8> {
    let mut tokens = vec![None; tokenizer.vocab_size()];
    for (token, &id) in vocabulary {
        let text = tokenizer.apart()[id as usize] == Apart::No && tokenizer.unknown() != Some(id);
        if text && (bytes || !tokenizer.spec().model.byte_fallback || fallback_byte(token).is_none()) {
            tokens[id as usize] = Some(token);
        }
    }
    let mut out = RaggedBuf::default();
    for token in tokens {
        match token {
            Some(token) if bytes => {
                out.values.extend(token.chars().map(byte_of).collect::<Option<Vec<u8>>>().unwrap_or_default());
            }
            Some(token) => out.values.extend_from_slice(token.as_bytes()),
            None => {}
        }
        out.end_row();
    }
    out
}

/// A borrowed [`Scratch`].
#[derive(Debug)]
pub(crate) struct Loan<'a> {
    subword: &'a Subword,
    scratch: Option<Scratch>,
}

impl Deref for Loan<'_> {
    type Target = Scratch;

    fn deref(&self) -> &Scratch {
        self.scratch.as_ref().expect("taken only on drop")
    }
}

impl DerefMut for Loan<'_> {
    fn deref_mut(&mut self) -> &mut Scratch {
        self.scratch.as_mut().expect("taken only on drop")
    }
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        let mut idle = self.subword.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.extend(self.scratch.take());
    }
}

/// Room for one row at a time.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// The text that a run of tokens spells.
    pub(crate) text: Vec<u8>,
    /// Where each of its tokens ends.
    pub(crate) token_ends: Vec<u32>,
    /// Where each of its words ends.
    pub(crate) word_ends: Vec<u32>,
    /// New tokens, and where each ends.
    pub(crate) made: Vec<(u32, u32)>,
    pub(crate) merging: Merging,
    pub(crate) lattice: Lattice,
    pub(crate) memory: Memory,
}

/// Byte-pair encoding (Sennrich et al. 2016) of words.
#[derive(Debug)]
pub(crate) struct Bpe {
    /// The token of each character, or of each byte.
    letters: Letters,
    merges: Pairs,
    /// The token that each rank makes.
    made: Vec<u32>,
    /// Words that are tokens whatever the merges say.
    whole: Option<HashMap<Box<[u8]>, u32>>,
}

#[derive(Debug)]
enum Letters {
    Bytes(Box<[u32; 256]>),
    Characters(HashMap<char, u32>),
}

#[derive(Deserialize)]
struct Merges {
    model: MergesOfModel,
}

#[derive(Deserialize)]
struct MergesOfModel {
    #[serde(default)]
    merges: Vec<MergeSpec>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum MergeSpec {
    Pair(String, String),
    Joined(String),
}

impl Bpe {
    fn new(
        tokenizer: &Tokenizer,
        vocabulary: &HashMap<String, u32>,
        spelling: &RaggedBuf<u8>,
        bytes: bool,
    ) -> std::result::Result<Bpe, String> {
        let spec: Merges = serde_json::from_str(tokenizer.json()).map_err(|error| error.to_string())?;
        let mut merges = Pairs::new(spec.model.merges.len());
        let mut made = Vec::with_capacity(spec.model.merges.len());
        for (rank, merge) in spec.model.merges.iter().enumerate() {
            let (left, right) = match merge {
                MergeSpec::Pair(left, right) => (left.as_str(), right.as_str()),
                MergeSpec::Joined(both) => both.split_once(' ').ok_or("a merge is no pair")?,
            };
            let id = |token: &str| vocabulary.get(token).copied().ok_or("a merge is not in the vocabulary");
            made.push(id(&[left, right].concat())?);
            merges.insert(id(left)?, id(right)?, rank as u32);
        }
        let letters = match bytes {
            true => {
                let mut table = [u32::MAX; 256];
                for (token, &id) in vocabulary {
                    let mut letters = token.chars();
                    if let (Some(byte), None) = (letters.next().and_then(byte_of), letters.next()) {
                        table[usize::from(byte)] = id;
                    }
                }
                if table.contains(&u32::MAX) {
                    return Err("its vocabulary lacks some of the 256 bytes".to_owned());
                }
                Letters::Bytes(table.into())
            }
            false => {
                let single = |(token, &id): (&String, &u32)| {
                    let mut letters = token.chars();
                    letters.next().filter(|_| letters.next().is_none()).map(|letter| (letter, id))
                };
                Letters::Characters(vocabulary.iter().filter_map(single).collect())
            }
        };
        let whole = tokenizer.spec().model.ignore_merges.then(|| {
            let words = spelling.view();
            let spelled = words.iter().zip(0..).filter(|(word, _)| !word.is_empty());
            spelled.map(|(word, id)| (word.into(), id)).collect()
        });
        Ok(Bpe { letters, merges, made, whole })
    }

    /// Encodes a word as the tokenizer does, and says how many candidates its merging looks at; nothing for a word with
    /// a character that the vocabulary does not have.
    pub(crate) fn encode<'m>(
        &self,
        word: &[u8],
        merging: &'m mut Merging,
        memory: &'m mut Memory,
    ) -> Option<Encoded<'m>> {
        let hash = match memory.find(word) {
            Ok(at) => return Some(memory.get(at)),
            Err(hash) => hash,
        };
        self.start(word, merging)?;
        let candidates = memory.keep(&merging.queue);
        let looks = self.run(merging, |_| false);
        merging.collect();
        if let Some(&id) = self.whole.as_ref().and_then(|whole| whole.get(word)) {
            merging.made.clear();
            merging.made.push((id, word.len() as u32));
        }
        if word.len() > Memory::LONGEST {
            return Some(Encoded { looks, tokens: &merging.made, again: None });
        }
        let at = memory.insert(hash, word, candidates, looks, &merging.made);
        Some(memory.get(at))
    }

    /// Merges the letters of a word; what is left is in `merging`. Returns how many candidates were looked at.
    ///
    /// Candidates come by rank and, in a rank, from the left. `drops` says, for one candidate after the other, whether
    /// it is passed over; it comes again after the next that is not. This is what `tokenizers` does, whose queue also
    /// holds candidates that an earlier merge made void: they are looked at and dropped as any other.
    pub(crate) fn merge(&self, word: &[u8], merging: &mut Merging, drops: impl FnMut(usize) -> bool) -> Option<u32> {
        self.start(word, merging)?;
        Some(self.run(merging, drops))
    }

    /// [`merge`](Self::merge) for a word whose first candidates are remembered.
    pub(crate) fn merge_again(
        &self,
        word: &[u8],
        candidates: &[u64],
        merging: &mut Merging,
        drops: impl FnMut(usize) -> bool,
    ) -> Option<u32> {
        let Merging { symbols, queue, .. } = &mut *merging;
        symbols.clear();
        self.letters_of(word, symbols)?;
        queue.clear(symbols.len());
        for &key in candidates {
            symbols[key as u32 as usize].rank = (key >> 32) as u32;
        }
        queue.sorted.extend_from_slice(candidates);
        Some(self.run(merging, drops))
    }

    /// Lays out the letters of a word and its first candidates.
    fn start(&self, word: &[u8], merging: &mut Merging) -> Option<()> {
        let Merging { symbols, queue, .. } = merging;
        symbols.clear();
        self.letters_of(word, symbols)?;
        queue.clear(symbols.len());
        for at in 1..symbols.len() {
            symbols[at - 1].rank = self.merges.get(symbols[at - 1].id, symbols[at].id);
            queue.push(symbols[at - 1].rank, at as u32 - 1);
        }
        Some(())
    }

    fn run(&self, merging: &mut Merging, mut drops: impl FnMut(usize) -> bool) -> u32 {
        let Merging { symbols, queue, .. } = merging;
        let mut looks = 0;
        while let Some((rank, at)) = queue.next() {
            looks += 1;
            if drops(looks - 1) {
                queue.pass();
                continue;
            }
            queue.take();
            let left = symbols[at as usize];
            let made = self.made[rank as usize];
            // Two merges may make one token; the candidate is void only where another token would come of it.
            if left.length == 0 || left.rank == NONE || self.made[left.rank as usize] != made {
                continue;
            }
            let right = symbols[left.next as usize];
            symbols[left.next as usize].length = 0;
            let mut merged = Symbol { id: made, length: left.length + right.length, next: right.next, ..left };
            merged.rank = match symbols.get_mut(merged.next as usize) {
                None => NONE,
                Some(next) => {
                    next.previous = at;
                    self.merges.get(made, next.id)
                }
            };
            queue.push(merged.rank, at);
            symbols[at as usize] = merged;
            if let Some(previous) = symbols.get_mut(merged.previous as usize) {
                previous.rank = self.merges.get(previous.id, made);
                queue.push(previous.rank, merged.previous);
            }
        }
        looks as u32
    }

    fn letters_of(&self, word: &[u8], symbols: &mut Vec<Symbol>) -> Option<()> {
        let mut push = |id, length| {
            let at = symbols.len() as u32;
            symbols.push(Symbol { id, length, rank: NONE, previous: at.wrapping_sub(1), next: at + 1 });
        };
        match &self.letters {
            Letters::Bytes(table) => word.iter().for_each(|&byte| push(table[usize::from(byte)], 1)),
            Letters::Characters(table) => {
                for letter in std::str::from_utf8(word).ok()?.chars() {
                    push(*table.get(&letter)?, letter.len_utf8() as u32);
                }
            }
        }
        Some(())
    }
}

/// A token in a word that is being merged; of length 0 once its left neighbour has taken it in.
#[derive(Debug, Clone, Copy)]
struct Symbol {
    id: u32,
    length: u32,
    /// The rank of the merge with the next token, or `NONE`.
    rank: u32,
    previous: u32,
    next: u32,
}

/// Room for the merging of a word.
#[derive(Debug, Default)]
pub(crate) struct Merging {
    symbols: Vec<Symbol>,
    queue: Queue,
    made: Vec<(u32, u32)>,
}

/// Candidate merges by rank and place. Those that were passed over come back when one is taken.
#[derive(Debug, Default)]
struct Queue {
    /// The candidates of a short word, the first of them last, and how many were passed over.
    sorted: Vec<u64>,
    next: usize,
    /// The candidates of a long word, the one that was seen last, and those that were passed over.
    long: bool,
    heap: BinaryHeap<Reverse<u64>>,
    seen: u64,
    passed: Vec<Reverse<u64>>,
}

impl Queue {
    /// Empties the queue for a word of `n` letters.
    fn clear(&mut self, n: usize) {
        self.sorted.clear();
        self.next = 0;
        self.long = n > 64;
        self.heap.clear();
        self.passed.clear();
    }

    /// Adds a candidate, if its rank is not `NONE`. None may have been passed over since one was taken.
    #[inline]
    fn push(&mut self, rank: u32, at: u32) {
        if rank == NONE {
            return;
        }
        let key = u64::from(rank) << 32 | u64::from(at);
        if self.long {
            return self.heap.push(Reverse(key));
        }
        let mut place = self.sorted.len();
        self.sorted.push(key);
        while place > 0 && self.sorted[place - 1] < key {
            self.sorted[place] = self.sorted[place - 1];
            place -= 1;
        }
        self.sorted[place] = key;
    }

    /// The rank and the place of the next candidate, which is then passed over or taken.
    #[inline]
    fn next(&mut self) -> Option<(u32, u32)> {
        let key = match self.long {
            false => self.sorted[self.sorted.len().checked_sub(1 + self.next)?],
            true => {
                self.seen = self.heap.pop()?.0;
                self.seen
            }
        };
        Some(((key >> 32) as u32, key as u32))
    }

    #[inline]
    fn pass(&mut self) {
        match self.long {
            false => self.next += 1,
            true => self.passed.push(Reverse(self.seen)),
        }
    }

    #[inline]
    fn take(&mut self) {
        match self.long {
            false if self.next == 0 => {
                self.sorted.pop();
            }
            false => {
                self.sorted.remove(self.sorted.len() - 1 - self.next);
                self.next = 0;
            }
            true => self.heap.extend(self.passed.drain(..)),
        }
    }
}

impl Merging {
    /// The tokens that are left and the length of each.
    pub(crate) fn tokens(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.symbols.iter().filter(|symbol| symbol.length > 0).map(|symbol| (symbol.id, symbol.length))
    }

    fn collect(&mut self) {
        let Merging { symbols, made, .. } = self;
        made.clear();
        made.extend(symbols.iter().filter(|symbol| symbol.length > 0).map(|symbol| (symbol.id, symbol.length)));
    }
}

/// A map from pairs of tokens to ranks: open addressing, at most half full.
#[derive(Debug)]
struct Pairs {
    slots: Vec<(u64, u32)>,
    mask: usize,
}

impl Pairs {
    const FREE: u64 = u64::MAX;

    fn new(n: usize) -> Pairs {
        let size = (2 * n + 1).next_power_of_two();
        Pairs { slots: vec![(Pairs::FREE, NONE); size], mask: size - 1 }
    }

    /// The slot of a key, or the free one where it belongs.
    #[inline]
    fn slot(&self, key: u64) -> usize {
        let mut at = (key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as usize & self.mask;
        while self.slots[at].0 != key && self.slots[at].0 != Pairs::FREE {
            at = (at + 1) & self.mask;
        }
        at
    }

    fn insert(&mut self, left: u32, right: u32, rank: u32) {
        let key = u64::from(left) << 32 | u64::from(right);
        let at = self.slot(key);
        self.slots[at] = (key, rank);
    }

    /// The rank of a pair, or `NONE`.
    #[inline]
    fn get(&self, left: u32, right: u32) -> u32 {
        self.slots[self.slot(u64::from(left) << 32 | u64::from(right))].1
    }
}

/// Words that were encoded before. It forgets all when it is full.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    slots: Vec<Slot>,
    used: usize,
    words: Vec<u8>,
    tokens: Vec<(u32, u32)>,
    candidates: Vec<u64>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    hash: u32,
    word: u32,
    tokens: u32,
    candidates: u32,
    looks: u32,
    /// How many first candidates there are, or `LONG` where they were not kept.
    candidate_length: u8,
    /// 0 in a free slot.
    word_length: u16,
    token_length: u16,
}

/// A word as the tokenizer encodes it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Encoded<'a> {
    /// How many candidates its merging looks at.
    pub(crate) looks: u32,
    /// Its tokens and the length of each.
    pub(crate) tokens: &'a [(u32, u32)],
    /// Where its first candidates are remembered.
    pub(crate) again: Option<Candidates>,
}

/// First candidates in a [`Memory`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidates {
    from: u32,
    length: u8,
}

const LONG: u8 = u8::MAX;

impl Memory {
    const SLOTS: usize = 1 << 16;
    /// The longest word that is remembered, in bytes.
    pub(crate) const LONGEST: usize = 255;

    /// Where a word is, or else its hash.
    #[inline]
    fn find(&self, word: &[u8]) -> std::result::Result<usize, u32> {
        let hash = hash(word);
        if self.slots.is_empty() {
            return Err(hash);
        }
        let mut at = hash as usize % Memory::SLOTS;
        loop {
            let slot = self.slots[at];
            if slot.word_length == 0 {
                return Err(hash);
            }
            let start = slot.word as usize;
            if slot.hash == hash && self.words[start..start + usize::from(slot.word_length)] == *word {
                return Ok(at);
            }
            at = (at + 1) % Memory::SLOTS;
        }
    }

    /// The first candidates of a word.
    #[inline]
    pub(crate) fn candidates(&self, Candidates { from, length }: Candidates) -> &[u64] {
        &self.candidates[from as usize..from as usize + usize::from(length)]
    }

    /// Makes room for one more word, and keeps its first candidates if it is short.
    fn keep(&mut self, queue: &Queue) -> Candidates {
        if self.slots.is_empty() || 2 * self.used >= Memory::SLOTS {
            self.slots.clear();
            self.slots.resize(Memory::SLOTS, Slot::default());
            self.used = 0;
            self.words.clear();
            self.tokens.clear();
            self.candidates.clear();
        }
        let from = self.candidates.len() as u32;
        if queue.long {
            return Candidates { from, length: LONG };
        }
        self.candidates.extend_from_slice(&queue.sorted);
        Candidates { from, length: queue.sorted.len() as u8 }
    }

    /// Remembers a word that is not there and not too long, for which there is room.
    fn insert(&mut self, hash: u32, word: &[u8], candidates: Candidates, looks: u32, tokens: &[(u32, u32)]) -> usize {
        let mut at = hash as usize % Memory::SLOTS;
        while self.slots[at].word_length != 0 {
            at = (at + 1) % Memory::SLOTS;
        }
        self.used += 1;
        self.slots[at] = Slot {
            hash,
            word: self.words.len() as u32,
            tokens: self.tokens.len() as u32,
            candidates: candidates.from,
            looks,
            candidate_length: candidates.length,
            word_length: word.len() as u16,
            token_length: tokens.len() as u16,
        };
        self.words.extend_from_slice(word);
        self.tokens.extend_from_slice(tokens);
        at
    }

    #[inline]
    fn get(&self, at: usize) -> Encoded<'_> {
        let Slot { tokens, candidates: from, looks, candidate_length: length, token_length, .. } = self.slots[at];
        let start = tokens as usize;
        Encoded {
            looks,
            tokens: &self.tokens[start..start + usize::from(token_length)],
            again: (length != LONG).then_some(Candidates { from, length }),
        }
    }
}

/// A hash of a few bytes; the same on every machine, though nothing depends on it.
#[inline]
fn hash(word: &[u8]) -> u32 {
    const K: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut h = word.len() as u64;
    let (chunks, rest) = word.as_chunks::<8>();
    for chunk in chunks {
        h = (h ^ u64::from_le_bytes(*chunk)).wrapping_mul(K);
        h ^= h >> 32;
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    h = (h ^ u64::from_le_bytes(last)).wrapping_mul(K);
    (h >> 32) as u32
}

/// A unigram language model over pieces (Kudo 2018).
#[derive(Debug)]
pub(crate) struct Unigram {
    pieces: Trie,
    /// The log probability of each token; 0 for one that is no piece.
    scores: Vec<f64>,
}

impl Unigram {
    fn new(tokenizer: &Tokenizer, spelling: &RaggedBuf<u8>) -> Unigram {
        let mut scores = vec![0.0; tokenizer.vocab_size()];
        if let ModelWrapper::Unigram(model) = tokenizer.hf().get_model() {
            for (score, (_, log)) in scores.iter_mut().zip(model.iter()) {
                *score = *log;
            }
        }
        let pieces = spelling.view();
        let spelled = pieces.iter().zip(0..).filter(|(piece, _)| !piece.is_empty());
        Unigram { pieces: Trie::new(spelled.collect()), scores }
    }

    /// The largest magnitude of a log probability.
    pub(crate) fn largest_score(&self) -> f64 {
        self.scores.iter().fold(0.0, |most, score| score.abs().max(most))
    }

    /// Draws a segmentation of a word with probability in proportion to its own to the power `alpha`: sums forward over
    /// the lattice, draws backward. Nothing for a word that pieces do not cover.
    ///
    /// `below(end, n)` draws an integer below `n` for the piece that ends at byte `end`. A piece is drawn in proportion
    /// to `floor(2^40 w / 2^e)`, where w is the sum of all ways that end with it and e the largest exponent among them;
    /// shorter pieces come first. The drawn tokens and their ends in the word are appended to `out` from the right.
    pub(crate) fn sample(
        &self,
        word: &[u8],
        alpha: f64,
        lattice: &mut Lattice,
        mut below: impl FnMut(usize, u64) -> u64,
        out: &mut Vec<(u32, u32)>,
    ) -> Option<()> {
        let Lattice { alpha: held, weights, edges, sums, ways } = lattice;
        if weights.is_empty() || *held != alpha {
            *held = alpha;
            weights.clear();
            weights.extend(self.scores.iter().map(|score| Scaled::exp(alpha * score)));
        }
        edges.clear();
        sums.clear();
        sums.resize(word.len() + 1, (NONE, Scaled::ONE));
        sums[0].0 = 0;
        for start in 0..word.len() {
            let (reached, sum) = sums[start];
            if reached == NONE {
                continue;
            }
            self.pieces.prefixes(&word[start..], |length, token| {
                let way = sum.times(weights[token as usize]);
                let (last, sum) = &mut sums[start + length];
                *sum = if *last == NONE { way } else { sum.plus(way) };
                edges.push(Edge { token, start: start as u32, before: *last });
                *last = edges.len() as u32;
            });
        }
        let mut end = word.len();
        while end > 0 {
            let mut last = sums[end].0;
            if last == NONE {
                return None;
            }
            ways.clear();
            let mut top = i64::MIN;
            while last != NONE {
                let edge = edges[last as usize - 1];
                let way = sums[edge.start as usize].1.times(weights[edge.token as usize]);
                top = top.max(way.exponent);
                ways.push((edge, way));
                last = edge.before;
            }
            let mut chosen = 0;
            if ways.len() > 1 {
                let whole = |&(_, way): &(Edge, Scaled)| way.whole(40 - top);
                let mut left = below(end, ways.iter().map(whole).sum());
                while let Some(rest) = ways.get(chosen).map(whole).and_then(|way| left.checked_sub(way)) {
                    left = rest;
                    chosen += 1;
                }
            }
            let edge = ways[chosen].0;
            out.push((edge.token, end as u32));
            end = edge.start as usize;
        }
        Some(())
    }
}

/// A piece at a place in a word, and the edge before it that ends where it ends, counted from 1.
#[derive(Debug, Clone, Copy)]
struct Edge {
    token: u32,
    start: u32,
    before: u32,
}

/// Room for the lattice of a word.
#[derive(Debug, Default)]
pub(crate) struct Lattice {
    alpha: f64,
    weights: Vec<Scaled>,
    edges: Vec<Edge>,
    /// For each byte, the last edge that ends there and the sum of all ways to it.
    sums: Vec<(u32, Scaled)>,
    ways: Vec<(Edge, Scaled)>,
}

/// Pieces by their bytes.
#[derive(Debug)]
struct Trie {
    /// First child and number of children of each node, and the token that ends there.
    nodes: Vec<(u32, u32, u32)>,
    /// The byte that leads to each node.
    labels: Vec<u8>,
}

impl Trie {
    fn new(mut pieces: Vec<(&[u8], u32)>) -> Trie {
        pieces.sort_unstable();
        let mut trie = Trie { nodes: vec![(0, 0, NONE)], labels: vec![0] };
        // Ranges of pieces below a node, at a depth, in the order of the nodes.
        let mut open = std::collections::VecDeque::from([(0, 0..pieces.len(), 0)]);
        while let Some((node, range, depth)) = open.pop_front() {
            let mut at = range.start;
            if at < range.end && pieces[at].0.len() == depth {
                trie.nodes[node].2 = pieces[at].1;
                at += 1;
            }
            trie.nodes[node].0 = trie.nodes.len() as u32;
            while at < range.end {
                let label = pieces[at].0[depth];
                let to = at + pieces[at..range.end].partition_point(|(piece, _)| piece[depth] == label);
                open.push_back((trie.nodes.len(), at..to, depth + 1));
                trie.nodes.push((0, 0, NONE));
                trie.labels.push(label);
                trie.nodes[node].1 += 1;
                at = to;
            }
        }
        trie
    }

    /// Calls `found` with length and token of each piece that `text` begins with, the shortest first.
    #[inline]
    fn prefixes(&self, text: &[u8], mut found: impl FnMut(usize, u32)) {
        let mut node = 0;
        for (i, byte) in text.iter().enumerate() {
            let (first, n, _) = self.nodes[node];
            let children = first as usize..(first + n) as usize;
            let Ok(child) = self.labels[children].binary_search(byte) else { return };
            node = first as usize + child;
            let token = self.nodes[node].2;
            if token != NONE {
                found(i + 1, token);
            }
        }
    }
}
