//! Token counts: the mergeable statistics of a corpus that can be shipped where its text cannot.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::Ragged;
use crate::error::{Error, Result};
use crate::identity::hash64;
use crate::rng::mix;

/// Ids below this are counted in an array, the others in a map.
const DENSE: usize = 1 << 18;

const MAGIC: &[u8; 8] = b"VGSKETCH";
const VERSION: u32 = 1;
const CHECKSUM: usize = 8;

/// How often each token occurs, in how many rows of how many tokens.
///
/// Integers only, so the result does not depend on how the data was split, ordered or merged.
///
/// ```
/// use variegate_core::Ragged;
/// use variegate_core::metrics::Counts;
/// let mut counts = Counts::default();
/// counts.add(Ragged::new(&[7, 7, 9], &[0, 2, 3])?);
/// assert_eq!(counts.sorted(), [(7, 2), (9, 1)]);
/// assert_eq!(Counts::from_bytes(&counts.to_bytes())?.sorted(), counts.sorted());
/// # Ok::<(), variegate_core::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Counts {
    rows: u64,
    tokens: u64,
    dense: Vec<u64>,
    sparse: HashMap<u32, u64, BuildHasherDefault<Mixed>>,
}

impl PartialEq for Counts {
    fn eq(&self, other: &Self) -> bool {
        self.rows == other.rows && self.tokens == other.tokens && self.sorted() == other.sorted()
    }
}

impl Counts {
    /// Number of rows.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Number of tokens.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Number of different tokens.
    pub fn types(&self) -> u64 {
        self.dense.iter().filter(|&&count| count > 0).count() as u64 + self.sparse.len() as u64
    }

    /// How often `token` occurs.
    pub fn of(&self, token: u32) -> u64 {
        let dense = self.dense.get(token as usize).copied();
        dense.unwrap_or_else(|| self.sparse.get(&token).copied().unwrap_or(0))
    }

    /// Each token that occurs with its count, lowest token first.
    pub fn sorted(&self) -> Vec<(u32, u64)> {
        let dense = (0u32..).zip(&self.dense).filter(|&(_, &count)| count > 0);
        let mut all: Vec<(u32, u64)> =
            dense.chain(self.sparse.iter().map(|(&t, c)| (t, c))).map(|(t, &c)| (t, c)).collect();
        all.sort_unstable();
        all
    }

    /// Counts the tokens of `rows`. One pass, one increment a token.
    pub fn add(&mut self, rows: Ragged<'_, u32>) {
        self.rows += rows.rows() as u64;
        self.tokens += rows.values().len() as u64;
        for &token in rows.values() {
            match self.dense.get_mut(token as usize) {
                Some(count) => *count += 1,
                None => self.bump(token, 1),
            }
        }
    }

    /// Adds what `other` counted.
    ///
    /// # Errors
    /// If the sums exceed 64 bits; nothing is added.
    pub fn merge(&mut self, other: &Counts) -> Result<()> {
        let sum = |a: u64, b: u64| a.checked_add(b).ok_or_else(|| Error::invalid("merged counts exceed 64 bits"));
        let (rows, tokens) = (sum(self.rows, other.rows)?, sum(self.tokens, other.tokens)?);
        (self.rows, self.tokens) = (rows, tokens);
        for (token, count) in other.sorted() {
            self.bump(token, count);
        }
        Ok(())
    }

    /// Takes back what `other` counted, where that was counted here too.
    ///
    /// # Errors
    /// If `other` counted more of something; nothing is taken back.
    pub fn subtract(&mut self, other: &Counts) -> Result<()> {
        let counts = other.sorted();
        if let Some(&(token, count)) = counts.iter().find(|&&(token, count)| self.of(token) < count) {
            let mine = self.of(token);
            return Err(Error::invalid(format!("cannot take back {count} of token {token}: only {mine} were counted")));
        }
        if self.rows < other.rows {
            return Err(Error::invalid(format!("cannot take back {} of {} rows", other.rows, self.rows)));
        }
        self.rows -= other.rows;
        self.tokens -= other.tokens;
        for (token, count) in counts {
            match self.dense.get_mut(token as usize) {
                Some(mine) => *mine -= count,
                None => match self.sparse.get_mut(&token) {
                    Some(mine) if *mine > count => *mine -= count,
                    _ => drop(self.sparse.remove(&token)),
                },
            }
        }
        Ok(())
    }

    #[cold]
    fn bump(&mut self, token: u32, count: u64) {
        let at = token as usize;
        if at >= DENSE {
            *self.sparse.entry(token).or_default() += count;
            return;
        }
        if at >= self.dense.len() {
            self.dense.resize((at + 1).next_power_of_two(), 0);
        }
        self.dense[at] += count;
    }

    /// The tail: the tokens that remain when the most frequent are taken (the lower id first among equals) until they
    /// hold at least 95 % of all occurrences. Lowest token first.
    pub fn tail(&self) -> Vec<u32> {
        let mut by_count = self.sorted();
        by_count.sort_by_key(|&(token, count)| (std::cmp::Reverse(count), token));
        let mut mass = 0u128;
        let head = by_count.iter().take_while(|&&(_, count)| {
            let open = 20 * mass < 19 * u128::from(self.tokens);
            mass += u128::from(count);
            open
        });
        let head = head.count();
        let mut tail: Vec<u32> = by_count[head..].iter().map(|&(token, _)| token).collect();
        tail.sort_unstable();
        tail
    }

    /// A form to store and ship; equal counts have equal bytes.
    ///
    /// `VGSKETCH`, the version as u32, rows, tokens and types as u64 (all little-endian); for each token, lowest first,
    /// its distance from the one before less 1 (the first: itself) and its count, as LEB128; and the
    /// [`hash64`] of all that.
    pub fn to_bytes(&self) -> Vec<u8> {
        let counts = self.sorted();
        let mut out = MAGIC.to_vec();
        out.extend(VERSION.to_le_bytes());
        for number in [self.rows, self.tokens, counts.len() as u64] {
            out.extend(number.to_le_bytes());
        }
        let mut next = 0;
        for (token, count) in counts {
            put(&mut out, u64::from(token) - next);
            put(&mut out, count);
            next = u64::from(token) + 1;
        }
        let checksum = hash64([&out[..]]).to_le_bytes();
        out.extend(checksum);
        out
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote.
    ///
    /// # Errors
    /// If the bytes are something else, of a later version, torn, altered, or do not add up.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let Some(rest) = bytes.strip_prefix(MAGIC) else {
            return Err(Error::invalid(format!("not a sketch: the {} bytes do not begin with VGSKETCH", bytes.len())));
        };
        let torn = || {
            Error::invalid(format!("sketch is torn or altered: its checksum does not fit its {} bytes", bytes.len()))
        };
        let (version, _) = rest.split_first_chunk().ok_or_else(torn)?;
        let version = u32::from_le_bytes(*version);
        if version != VERSION {
            return Err(Error::invalid(format!(
                "sketch has version {version}, but this Variegate reads version {VERSION}"
            )));
        }
        let (body, checksum) = bytes.split_last_chunk::<CHECKSUM>().ok_or_else(torn)?;
        if hash64([body]) != u64::from_le_bytes(*checksum) || body.len() < MAGIC.len() + 4 {
            return Err(torn());
        }
        parse(&body[MAGIC.len() + 4..])
            .ok_or_else(|| Error::invalid("sketch does not add up: it was not written by Variegate"))
    }
}

/// The part of a sketch behind the version, or nothing if any number in it contradicts another.
fn parse(body: &[u8]) -> Option<Counts> {
    let mut rest = body;
    let mut number = || {
        let (bytes, after) = rest.split_first_chunk()?;
        rest = after;
        Some(u64::from_le_bytes(*bytes))
    };
    let (rows, tokens, types) = (number()?, number()?, number()?);
    let mut counts = Counts { rows, tokens, ..Counts::default() };
    let (mut next, mut total) = (0u64, 0u64);
    for _ in 0..types {
        let token = next.checked_add(take(&mut rest)?)?;
        let count = take(&mut rest).filter(|&count| count > 0)?;
        total = total.checked_add(count)?;
        counts.bump(u32::try_from(token).ok()?, count);
        next = token + 1;
    }
    (rest.is_empty() && total == tokens).then_some(counts)
}

/// Appends a number as LEB128: seven bits a byte, low first, the top bit set on all but the last.
fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, after) = rest.split_first()?;
        *rest = after;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits || (byte == 0 && shift > 0) {
            return None;
        }
        number |= bits << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

/// Mixes token ids, which are anything but random.
#[derive(Debug, Default, Clone)]
struct Mixed(u64);

impl Hasher for Mixed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = mix(self.0 ^ u64::from(byte));
        }
    }

    fn write_u32(&mut self, token: u32) {
        self.0 = mix(u64::from(token) + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn of(tokens: &[u32]) -> Counts {
        let mut counts = Counts::default();
        counts.add(Ragged::new(tokens, &[0, tokens.len() as i64]).unwrap());
        counts
    }

    fn sealed(mut body: Vec<u8>) -> Vec<u8> {
        let checksum = hash64([&body[..]]).to_le_bytes();
        body.extend(checksum);
        body
    }

    fn message(bytes: &[u8]) -> String {
        Counts::from_bytes(bytes).unwrap_err().to_string()
    }

    #[test]
    fn the_tail_is_what_the_first_95_percent_leave() {
        let mut tokens = vec![1; 90];
        tokens.extend([5, 5, 5, 5, 5, 8, 8, 3, 3, 2]);
        assert_eq!(of(&tokens).tail(), [2, 3, 8]);
        tokens.extend(vec![1; 300]);
        assert_eq!(of(&tokens).tail(), [2, 3, 5, 8]);
        assert!(of(&[4, 4]).tail().is_empty());
        assert!(of(&[]).tail().is_empty());
        // Twenty equal types: nineteen hold 95 % to the occurrence, the highest id is the tail.
        assert_eq!(of(&(0..20).collect::<Vec<_>>()).tail(), [19]);
    }

    #[test]
    fn foreign_torn_and_false_sketches_are_told_apart() {
        assert_eq!(message(b""), "not a sketch: the 0 bytes do not begin with VGSKETCH");
        assert_eq!(message(b"PAR1PAR1PAR1"), "not a sketch: the 12 bytes do not begin with VGSKETCH");
        let good = of(&[3, 3, 900, u32::MAX]).to_bytes();
        let torn = format!("sketch is torn or altered: its checksum does not fit its {} bytes", good.len() - 1);
        assert_eq!(message(&good[..good.len() - 1]), torn);
        assert_eq!(message(b"VGSKETCH"), "sketch is torn or altered: its checksum does not fit its 8 bytes");
        let mut later = good.clone();
        later[8] = 9;
        assert_eq!(message(&later), "sketch has version 9, but this Variegate reads version 1");
        let mut sum = good[..good.len() - CHECKSUM].to_vec();
        sum[20] += 1;
        assert_eq!(message(&sealed(sum)), "sketch does not add up: it was not written by Variegate");
    }

    #[test]
    fn sums_over_64_bits_are_refused() {
        let mut huge = MAGIC.to_vec();
        huge.extend(VERSION.to_le_bytes());
        for number in [1, u64::MAX, 1] {
            huge.extend(number.to_le_bytes());
        }
        put(&mut huge, 5);
        put(&mut huge, u64::MAX);
        let mut huge = Counts::from_bytes(&sealed(huge)).unwrap();
        let before = huge.clone();
        assert_eq!(huge.merge(&of(&[1])).unwrap_err().to_string(), "merged counts exceed 64 bits");
        assert!(huge == before);
    }

    proptest! {
        #[test]
        fn counts_are_those_of_a_plain_map_however_split(
            tokens in prop::collection::vec(prop_oneof![0u32..9, (DENSE as u32) - 3..(DENSE as u32) + 3, any::<u32>()], 0..80), cut: prop::sample::Index,
        ) {
            let mut expected = BTreeMap::<u32, u64>::new();
            for &token in &tokens {
                *expected.entry(token).or_default() += 1;
            }
            let cut = cut.index(tokens.len() + 1);
            let (mut merged, whole) = (of(&tokens[cut..]), of(&tokens));
            merged.merge(&of(&tokens[..cut])).unwrap();
            for counts in [&merged, &whole] {
                prop_assert_eq!(counts.sorted(), expected.iter().map(|(&t, &c)| (t, c)).collect::<Vec<_>>());
                prop_assert_eq!((counts.types(), counts.tokens()), (expected.len() as u64, tokens.len() as u64));
                prop_assert!(expected.iter().all(|(&t, &c)| counts.of(t) == c) && counts.of(77) == *expected.get(&77).unwrap_or(&0));
            }
            let mut less = whole.clone();
            less.subtract(&of(&tokens[..cut])).unwrap();
            let rest = of(&tokens[cut..]);
            prop_assert!(less.sorted() == rest.sorted() && less.types() == rest.types() && less.tokens() == rest.tokens());
            prop_assert!(cut == 0 || cut == tokens.len() || rest.clone().subtract(&whole).is_err());
            let mut again = of(&tokens[..cut]);
            again.add(Ragged::new(&tokens[cut..], &[0, (tokens.len() - cut) as i64]).unwrap());
            prop_assert_eq!(again.to_bytes(), merged.to_bytes());
            prop_assert!(Counts::from_bytes(&again.to_bytes()).unwrap() == merged);
        }

        #[test]
        fn a_flipped_bit_is_noticed(tokens in prop::collection::vec(any::<u32>(), 0..20), at: prop::sample::Index, bit in 0u8..8) {
            let mut bytes = of(&tokens).to_bytes();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(Counts::from_bytes(&bytes).is_err());
        }

        #[test]
        fn any_bytes_are_read_or_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..60), header: bool, sealed_: bool) {
            let mut body = if header { [&MAGIC[..], &VERSION.to_le_bytes()].concat() } else { vec![] };
            body.extend(bytes);
            let bytes = if sealed_ { sealed(body) } else { body };
            if let Ok(counts) = Counts::from_bytes(&bytes) {
                prop_assert_eq!(counts.to_bytes(), bytes);
            }
        }
    }
}
