//! Which vector instructions this processor has, and how a loop is compiled for each.
//!
//! A wheel is built for the baseline of its architecture, so hot loops are compiled several times and the best
//! one is chosen when the program runs. Every level gives the same answer; `VARIEGATE_SIMD` (`portable`, `avx2`,
//! `avx512`) lowers the level, which is how tests and benchmarks compare them.

use std::sync::OnceLock;

use crate::error::{Error, Result};

/// A set of vector instructions, from the least to the most. Only this crate makes one, after it asked the processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What every processor of the architecture has (SSE2 on x86-64, NEON on aarch64).
    #[non_exhaustive]
    Portable,
    /// AVX2, FMA, BMI1 and BMI2.
    #[non_exhaustive]
    Avx2,
    /// AVX-512 F, BW, DQ, VL, and all of [`Level::Avx2`].
    #[non_exhaustive]
    Avx512,
}

const LEVELS: [Level; 3] = [Level::Portable, Level::Avx2, Level::Avx512];

impl Level {
    /// The name that `VARIEGATE_SIMD` takes.
    pub fn name(self) -> &'static str {
        match self {
            Level::Portable => "portable",
            Level::Avx2 => "avx2",
            Level::Avx512 => "avx512",
        }
    }

    /// Every level that this processor can run, lowest first.
    pub fn available() -> impl Iterator<Item = Level> {
        LEVELS.into_iter().filter(|&level| level <= detect())
    }
}

/// The level in use: the best of the processor, or less if `VARIEGATE_SIMD` says so. Read once.
pub fn level() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    *LEVEL.get_or_init(|| asked().ok().flatten().map_or(detect(), |asked| asked.min(detect())))
}

/// Refuses a `VARIEGATE_SIMD` that names no level; the binding asks once, at import.
///
/// # Errors
/// Names the value and the levels.
pub fn check_environment() -> Result<()> {
    asked().map(drop)
}

fn asked() -> Result<Option<Level>> {
    let Ok(name) = std::env::var("VARIEGATE_SIMD") else { return Ok(None) };
    let level = LEVELS.into_iter().find(|level| level.name() == name);
    level
        .map(Some)
        .ok_or_else(|| Error::invalid(format!("VARIEGATE_SIMD must be portable, avx2 or avx512, not '{name}'")))
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Level {
    use std::arch::is_x86_feature_detected as has;
    let avx2 = has!("avx2") && has!("fma") && has!("bmi1") && has!("bmi2");
    let avx512 = has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl");
    match (avx2, avx512) {
        (true, true) => Level::Avx512,
        (true, false) => Level::Avx2,
        _ => Level::Portable,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Level {
    Level::Portable
}

/// Compiles one loop for every level and calls the one that `$level` names.
///
/// The body is an `#[inline(always)]` function without intrinsics; the compiler vectorises it for each target.
macro_rules! multiversion {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:ident) => {
        $(#[$meta])*
        #[inline]
        #[allow(clippy::too_many_arguments)]
        $vis fn $name(level: $crate::simd::Level, $($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi1,bmi2")]
                #[allow(clippy::too_many_arguments)]
                fn avx512($($arg: $ty),*) $(-> $ret)? {
                    $body($($arg),*)
                }
                #[target_feature(enable = "avx2,fma,bmi1,bmi2")]
                #[allow(clippy::too_many_arguments)]
                fn avx2($($arg: $ty),*) $(-> $ret)? {
                    $body($($arg),*)
                }
                match level {
                    // SAFETY: a Level is only made by `detect`, which asked the processor for these features.
                    $crate::simd::Level::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    $crate::simd::Level::Avx2 => return unsafe { avx2($($arg),*) },
                    $crate::simd::Level::Portable => {}
                }
            }
            let _ = level;
            $body($($arg),*)
        }
    };
}
pub(crate) use multiversion;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_ordered_and_the_lowest_is_always_there() {
        let levels: Vec<_> = Level::available().collect();
        assert_eq!(levels[0], Level::Portable);
        assert!(levels.is_sorted());
        assert!(levels.contains(&level()));
    }
}
