//! How fast Philox words come, at every SIMD level that this processor has; each level is checked first.
//!
//! `cargo bench -p variegate-core --bench philox`

use std::hint::black_box;
use std::time::{Duration, Instant};

use variegate_core::rng::Stream;
use variegate_core::simd::Level;

const WORDS: usize = 1 << 16;
const ROUNDS: usize = 50;
const CALLS: usize = 20;

fn main() {
    let stream = Stream::new(7, 0, 11);
    let expected: Vec<u32> = (0..WORDS).map(|i| stream.word(3, i)).collect();
    for level in Level::available() {
        let mut words = vec![0u32; WORDS];
        stream.fill(level, 3, &mut words);
        assert_eq!(words, expected, "wrong words at {}: nothing timed", level.name());
        let best = (0..ROUNDS).map(|_| round(&stream, level, &mut words)).min().unwrap_or_default();
        let best = best.as_secs_f64() / CALLS as f64;
        let (rate, simd) = (WORDS as f64 / best, level.name());
        println!(
            r#"{{"case": "philox fill, {simd}", "simd": "{simd}", "unit": "words", "units": {WORDS}, "rate": {rate:e}, "best": {best:e}, "rounds": {ROUNDS}}}"#
        );
    }
}

fn round(stream: &Stream, level: Level, words: &mut [u32]) -> Duration {
    let start = Instant::now();
    for _ in 0..CALLS {
        stream.fill(level, 3, black_box(&mut *words));
    }
    start.elapsed()
}
