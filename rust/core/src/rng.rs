//! Philox4x32-10 streams: the only source of randomness in this crate.
//!
//! A draw is a pure function of a key and a counter (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
//! SC 2011), so it never depends on what was drawn before it, in which order, or on which thread.
//!
//! For ops the key is [`op_key`]`(seed, op path, variant)` and the counter `(block, epoch, id_lo, id_hi)`. A block
//! is four words; the top four bits of `block` are the [`lane`](Stream::fill), so an op has sixteen independent
//! word sequences per row, each of 2^30 words: word `i` of lane `l` is lane `i & 3` of block `l << 28 | i >> 2`.

use crate::simd::{Level, multiversion};

/// The version of the scheme; it changes when any draw changes, and every manifest stores it.
pub const SCHEME_VERSION: u32 = 1;

const MUL: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// What a stream is for. The tag keeps streams of one seed apart; its number is part of the scheme.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Domain {
    /// Gumbel noise of a sampled token.
    Sample = 1,
    /// More bits for a `Sample` word near 0.
    Refine = 2,
    /// Draft tokens of speculative decoding.
    Draft = 3,
    /// Accept or reject a draft token.
    Accept = 4,
    /// The residual draw after a rejection.
    Residual = 5,
    /// The shared point of arithmetic sampling.
    Arithmetic = 6,
    /// Watermark keys.
    Watermark = 7,
    /// Ops over batches.
    Ops = 8,
    /// Expansion of templates.
    Templates = 9,
    /// Hash functions of deduplication.
    Dedup = 10,
}

/// One block of Philox4x32-10: four words from a 128-bit counter and a 64-bit key (low word first).
///
/// ```
/// use variegate_core::rng::philox;
/// assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
/// ```
#[inline(always)]
pub fn philox(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let [mut c0, mut c1, mut c2, mut c3] = counter;
    let [mut k0, mut k1] = key;
    for _ in 0..10 {
        let p0 = u64::from(MUL[0]) * u64::from(c0);
        let p1 = u64::from(MUL[1]) * u64::from(c2);
        (c0, c1, c2, c3) = ((p1 >> 32) as u32 ^ c1 ^ k0, p1 as u32, (p0 >> 32) as u32 ^ c3 ^ k1, p0 as u32);
        k0 = k0.wrapping_add(WEYL[0]);
        k1 = k1.wrapping_add(WEYL[1]);
    }
    [c0, c1, c2, c3]
}

/// Mixes 64 bits so that every input bit reaches every output bit (the finaliser of SplitMix64).
#[inline]
pub fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// Folds numbers into one 64-bit key, order mattering: `h = mix(h + golden * (x + 1))` from `h = 0`.
pub fn mix64(parts: &[u64]) -> u64 {
    const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
    parts.iter().fold(0u64, |h, &x| mix(h.wrapping_add(GOLDEN.wrapping_mul(x.wrapping_add(1)))))
}

/// The key of an op: a function of the job's seed, the op's path in its pipeline and the variant.
///
/// The path is the user's `name=`, or the kind and its ordinal (`TokenDropout#0`), nested with `/`; its bytes enter
/// through FNV-1a, so inserting another op does not reseed this one.
pub fn op_key(domain: Domain, seed: u64, path: &str, variant: u64) -> u64 {
    let path =
        path.bytes().fold(0xCBF2_9CE4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01B3));
    mix64(&[domain as u64, seed, path, variant])
}

/// All the words that one op may draw for one row.
#[derive(Debug, Clone, Copy)]
pub struct Stream {
    key: [u32; 2],
    epoch: u32,
    id: [u32; 2],
}

impl Stream {
    /// The stream of an op key for the row `id` in `epoch`.
    #[inline]
    pub fn new(key: u64, epoch: u32, id: u64) -> Self {
        Stream { key: [key as u32, (key >> 32) as u32], epoch, id: [id as u32, (id >> 32) as u32] }
    }

    /// Word `index` of `lane`, by random access. `lane < 16`, `index < 2^30`.
    #[inline]
    pub fn word(&self, lane: u32, index: usize) -> u32 {
        debug_assert!(lane < 16 && index < 1 << 30);
        let block = lane << 28 | (index >> 2) as u32;
        philox([block, self.epoch, self.id[0], self.id[1]], self.key)[index & 3]
    }

    /// Words `0..out.len()` of `lane`: what [`word`](Self::word) gives one by one, several blocks at a time.
    #[inline]
    pub fn fill(&self, level: Level, lane: u32, out: &mut [u32]) {
        debug_assert!(lane < 16 && out.len() <= 1 << 30);
        fill(level, lane << 28, self.epoch, self.id, self.key, out);
    }

    /// The words of `lane` in order, drawn a block at a time: for ops that draw a few words a row.
    pub fn words(&self, lane: u32) -> Words {
        debug_assert!(lane < 16);
        Words { stream: *self, block: lane << 28, ready: [0; 4], left: 0 }
    }

    /// A stream of its own for a part of the row: the same epoch and id under `mix64(key, part)`.
    pub(crate) fn branch(&self, part: u64) -> Stream {
        let key = mix64(&[u64::from(self.key[1]) << 32 | u64::from(self.key[0]), part]);
        Stream { key: [key as u32, (key >> 32) as u32], ..*self }
    }

    /// [`words`](Self::words) of lane 0 where its first block is known, from [`first_blocks`].
    #[inline]
    pub fn words_after(&self, first: [u32; 4]) -> Words {
        Words { stream: *self, block: 1, ready: first, left: 4 }
    }
}

multiversion! {
    fn fill(block: u32, epoch: u32, id: [u32; 2], key: [u32; 2], out: &mut [u32]) = fill_body
}

/// Blocks that are drawn side by side.
const WIDE: usize = 16;

#[inline(always)]
fn fill_body(block: u32, epoch: u32, id: [u32; 2], key: [u32; 2], out: &mut [u32]) {
    let mut block = block;
    let mut chunks = out.chunks_exact_mut(4 * WIDE);
    for chunk in &mut chunks {
        wide_body(block, epoch, id, key, chunk);
        block = block.wrapping_add(WIDE as u32);
    }
    let rest = chunks.into_remainder();
    if rest.len() > 8 {
        let mut chunk = [0; 4 * WIDE];
        wide_body(block, epoch, id, key, &mut chunk);
        rest.copy_from_slice(&chunk[..rest.len()]);
        return;
    }
    for words in rest.chunks_mut(4) {
        words.copy_from_slice(&philox([block, epoch, id[0], id[1]], key)[..words.len()]);
        block = block.wrapping_add(1);
    }
}

/// The blocks from `block` on. Words stand in the low halves of 64-bit lanes, whose high halves are rubbish: the
/// multiplication of vector units reads the low halves and fills the lane, so nothing is ever widened or narrowed.
#[inline(always)]
fn wide_body(block: u32, epoch: u32, id: [u32; 2], key: [u32; 2], out: &mut [u32]) {
    let low = |x: u64| x & u64::from(u32::MAX);
    let mut c = [[0u64; WIDE], [u64::from(epoch); WIDE], [u64::from(id[0]); WIDE], [u64::from(id[1]); WIDE]];
    for (i, c0) in c[0].iter_mut().enumerate() {
        *c0 = u64::from(block.wrapping_add(i as u32));
    }
    let [mut k0, mut k1] = key;
    for _ in 0..10 {
        let [c0, c1, c2, c3] = &mut c;
        for i in 0..WIDE {
            let p0 = u64::from(MUL[0]) * low(c0[i]);
            let p1 = u64::from(MUL[1]) * low(c2[i]);
            (c0[i], c1[i], c2[i], c3[i]) = (p1 >> 32 ^ c1[i] ^ u64::from(k0), p1, p0 >> 32 ^ c3[i] ^ u64::from(k1), p0);
        }
        k0 = k0.wrapping_add(WEYL[0]);
        k1 = k1.wrapping_add(WEYL[1]);
    }
    // Two words a lane, in memory order, so that they are stored as they stand.
    let mut pairs = [[0u64; 2]; WIDE];
    for (i, pair) in pairs.iter_mut().enumerate() {
        let join = |first: u64, second: u64| match cfg!(target_endian = "little") {
            true => low(first) | second << 32,
            false => first << 32 | low(second),
        };
        *pair = [join(c[0][i], c[1][i]), join(c[2][i], c[3][i])];
    }
    let out = &mut out[..4 * WIDE];
    // SAFETY: both are 16 * WIDE bytes that do not overlap, and every bit pattern is a u32.
    unsafe {
        std::ptr::copy_nonoverlapping(pairs.as_ptr().cast::<u32>(), out.as_mut_ptr(), 4 * WIDE);
    }
}

multiversion! {
    /// Block 0 of lane 0 for each of `ids`, several at a time: for many rows that draw a few words each.
    ///
    /// # Panics
    /// If `out` is shorter than `ids`.
    pub fn first_blocks(key: u64, epoch: u32, ids: &[u64], out: &mut [[u32; 4]]) = first_blocks_body
}

#[inline(always)]
fn first_blocks_body(key: u64, epoch: u32, ids: &[u64], out: &mut [[u32; 4]]) {
    let key = [key as u32, (key >> 32) as u32];
    for (&id, out) in ids.iter().zip(&mut out[..ids.len()]) {
        *out = philox([0, epoch, id as u32, (id >> 32) as u32], key);
    }
}

/// The words of one lane, in order. Made by [`Stream::words`].
#[derive(Debug, Clone)]
pub struct Words {
    stream: Stream,
    block: u32,
    ready: [u32; 4],
    left: usize,
}

impl Words {
    /// The next word.
    #[inline]
    pub fn next_word(&mut self) -> u32 {
        if self.left == 0 {
            let Stream { key, epoch, id } = self.stream;
            self.ready = philox([self.block, epoch, id[0], id[1]], key);
            self.block = self.block.wrapping_add(1);
            self.left = 4;
        }
        self.left -= 1;
        self.ready[3 - self.left]
    }

    /// A uniform integer below `n`, exactly: multiply-high with rejection (Lemire 2019). Draws one word, rarely more.
    ///
    /// # Panics
    /// If `n` is 0.
    #[inline]
    pub fn below(&mut self, n: u32) -> u32 {
        assert!(n > 0, "below(0) has no answer");
        loop {
            let product = u64::from(self.next_word()) * u64::from(n);
            let low = product as u32;
            if low >= n || low >= n.wrapping_neg() % n {
                return (product >> 32) as u32;
            }
        }
    }

    /// A uniform 64-bit integer below `n`, exactly, from two words (high first), rarely more.
    ///
    /// # Panics
    /// If `n` is 0.
    #[inline]
    pub fn below_u64(&mut self, n: u64) -> u64 {
        assert!(n > 0, "below(0) has no answer");
        loop {
            let word = u64::from(self.next_word()) << 32 | u64::from(self.next_word());
            let product = u128::from(word) * u128::from(n);
            let low = product as u64;
            if low >= n || low >= n.wrapping_neg() % n {
                return (product >> 64) as u64;
            }
        }
    }

    /// A uniform float in [0, 1) on the grid of 2^-24.
    #[inline]
    pub fn unit(&mut self) -> f32 {
        (self.next_word() >> 8) as f32 * (1.0 / (1 << 24) as f32)
    }

    /// Whether an event of probability `p` (see [`threshold`]) happens.
    #[inline]
    pub fn chance(&mut self, threshold: u32) -> bool {
        hit(self.next_word(), threshold)
    }
}

/// The integer form of a probability: `hit(word, threshold(p))` is `unit(word) < p`, without a float per draw.
///
/// `threshold(0.0)` never hits, `threshold(1.0)` always does. `p` must lie in [0, 1].
pub fn threshold(p: f64) -> u32 {
    debug_assert!((0.0..=1.0).contains(&p));
    (p * f64::from(1u32 << 24)).ceil() as u32
}

/// Whether `word` falls under a [`threshold`].
#[inline(always)]
pub fn hit(word: u32, threshold: u32) -> bool {
    word >> 8 < threshold
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The known answers that Random123 publishes for philox4x32-10 (kat_vectors).
    #[test]
    fn random123_known_answers() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        assert_eq!(
            philox([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    fn numbers<T: serde::de::DeserializeOwned>(value: &serde_json::Value) -> T {
        T::deserialize(value).expect("philox.json has the shape that generate_philox.py gives it")
    }

    /// The scheme as an independent oracle has it; another answer is another `SCHEME_VERSION`.
    #[test]
    fn golden_vectors() {
        let vectors = include_str!("../../../tests/vectors/philox.json");
        let vectors: serde_json::Value = serde_json::from_str(vectors).expect("JSON");
        let list = |value: &serde_json::Value| value.as_array().cloned().expect("a list");
        assert_eq!(vectors["scheme"], SCHEME_VERSION);
        for block in list(&vectors["blocks"]) {
            let words: [u32; 4] = numbers(&block["words"]);
            assert_eq!(philox(numbers(&block["counter"]), numbers(&block["key"])), words, "{block}");
        }
        for case in list(&vectors["keys"]) {
            let domain = if case["domain"] == "ops" { Domain::Ops } else { Domain::Templates };
            let (seed, variant, key): (u64, u64, u64) =
                (numbers(&case["seed"]), numbers(&case["variant"]), numbers(&case["key"]));
            let path: String = numbers(&case["path"]);
            assert_eq!(op_key(domain, seed, &path, variant), key, "{case}");
        }
        for case in list(&vectors["streams"]) {
            let stream = Stream::new(numbers(&case["key"]), numbers(&case["epoch"]), numbers(&case["id"]));
            let lane: u32 = numbers(&case["lane"]);
            let expected: Vec<u32> = numbers(&case["words"]);
            for level in Level::available() {
                let mut words = vec![0; expected.len()];
                stream.fill(level, lane, &mut words);
                assert_eq!(words, expected, "{level:?} {case}");
            }
            for (index, word) in numbers::<Vec<(usize, u32)>>(&case["far"]) {
                assert_eq!(stream.word(lane, index), word, "word {index} of {case}");
            }
            let mut words = stream.words(lane);
            assert!(numbers::<Vec<f32>>(&case["unit"]).into_iter().all(|unit| words.unit() == unit), "{case}");
            for bounded in list(&case["below"]) {
                let (n, values, used): (u64, Vec<u64>, usize) =
                    (numbers(&bounded["n"]), numbers(&bounded["values"]), numbers(&bounded["words_used"]));
                let mut words = stream.words(lane);
                for value in values {
                    let drawn = if let Ok(n) = u32::try_from(n) { words.below(n).into() } else { words.below_u64(n) };
                    assert_eq!(drawn, value, "below {n} of {case}");
                }
                assert_eq!(words.next_word(), stream.word(lane, used), "words that below {n} used, {case}");
            }
        }
    }

    #[test]
    fn thresholds_hit_as_often_as_the_float_comparison() {
        assert!(!hit(0, threshold(0.0)));
        assert!(hit(u32::MAX, threshold(1.0)));
        for p in [0.15, 0.5, 1e-9, 0.999_999_99, f64::from(0.1f32)] {
            for word in (0..u32::MAX).step_by(65_521) {
                assert_eq!(hit(word, threshold(p)), f64::from(word >> 8) / f64::from(1 << 24) < p, "{word} {p}");
            }
        }
    }

    #[test]
    fn domains_and_paths_have_streams_of_their_own() {
        let keys = [
            op_key(Domain::Ops, 7, "TokenDropout#0", 0),
            op_key(Domain::Ops, 7, "TokenDropout#1", 0),
            op_key(Domain::Ops, 7, "TokenDropout#0", 1),
            op_key(Domain::Ops, 8, "TokenDropout#0", 0),
            op_key(Domain::Templates, 7, "TokenDropout#0", 0),
        ];
        for (i, a) in keys.iter().enumerate() {
            assert!(keys[..i].iter().all(|b| a != b));
        }
    }

    /// Chi-square of `below(n)` over a million draws; the limits are the 1e-6 quantiles.
    #[test]
    fn bounded_integers_are_uniform() {
        for (n, limit) in [(3u32, 27.7), (10, 47.0), (100, 180.0)] {
            let mut counts = vec![0u32; n as usize];
            let mut words = Stream::new(1, 2, 3).words(0);
            for _ in 0..1_000_000 {
                counts[words.below(n) as usize] += 1;
            }
            let expected = 1e6 / f64::from(n);
            let chi: f64 = counts.iter().map(|&c| (f64::from(c) - expected).powi(2) / expected).sum();
            assert!(chi < limit, "n = {n}: chi-square {chi}");
        }
    }

    proptest! {
        #[test]
        fn fill_words_and_random_access_agree_on_every_level(key: u64, epoch: u32, id: u64, lane in 0u32..16, n in 0usize..400) {
            let stream = Stream::new(key, epoch, id);
            let mut expected: Vec<u32> = (0..n).map(|i| stream.word(lane, i)).collect();
            for level in Level::available() {
                let mut out = vec![0; n];
                stream.fill(level, lane, &mut out);
                prop_assert_eq!(&out, &expected);
            }
            for level in Level::available() {
                let mut first = [[0; 4]];
                first_blocks(level, key, epoch, &[id], &mut first);
                let mut words = stream.words_after(first[0]);
                prop_assert!((0..n).all(|i| words.next_word() == stream.word(0, i)));
            }
            let mut words = stream.words(lane);
            prop_assert!(expected.drain(..).all(|word| words.next_word() == word));
        }

        #[test]
        fn bounded_integers_stay_below(key: u64, n in 1u32.., m in 1u64..) {
            let mut words = Stream::new(key, 0, 0).words(0);
            prop_assert!(words.below(n) < n);
            prop_assert!(words.below_u64(m) < m);
        }
    }
}
