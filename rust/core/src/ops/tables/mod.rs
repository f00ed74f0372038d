//! What characters and words are confused with, as data.

mod alphabets;
mod contractions;
mod diacritics;
mod homoglyphs;
mod misspellings;
mod ocr;
mod synonyms;

pub(super) use alphabets::ALPHABETS;
pub(super) use contractions::{CONTRACTIONS, PARTICIPLES, SUBJECTS};
pub(super) use diacritics::{DIACRITICS, STACKED};
pub(super) use homoglyphs::HOMOGLYPHS;
pub(super) use misspellings::MISSPELLINGS;
pub(super) use ocr::OCR;
pub(super) use synonyms::SYNONYMS;

/// English words that turn a sentence around; `n't` stands for all words that end so.
pub(super) const NEGATIONS: [&str; 17] = [
    "barely", "cannot", "hardly", "n't", "neither", "never", "no", "nobody", "none", "noone", "nor", "not", "nothing",
    "nowhere", "rarely", "scarcely", "without",
];
