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

/// English rules of rewriting, in the format of their files.
pub(super) const REWRITES: &str = include_str!("rewrites.tsv");

/// English words that carry a capital only where a sentence starts.
pub(super) const STARTERS: [&str; 67] = [
    "a", "after", "all", "although", "an", "and", "any", "as", "at", "because", "before", "both", "but", "by",
    "during", "each", "every", "few", "first", "for", "from", "he", "her", "here", "his", "how", "if", "in", "it",
    "its", "many", "most", "my", "on", "one", "or", "our", "several", "she", "since", "so", "some", "such", "that",
    "the", "their", "then", "there", "these", "they", "this", "those", "though", "to", "under", "until", "we", "what",
    "when", "where", "which", "while", "who", "why", "with", "you", "your",
];
