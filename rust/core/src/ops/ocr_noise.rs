//! What a scanner misreads.

use serde::Deserialize;

use super::draw::{Draw, below_at};
use super::graphemes::boundary;
use super::tables::OCR;
use super::text::{TextOp, TextPlan, TextRow};
use crate::error::Result;
use crate::rng::threshold;

/// Replaces letters, digits and pairs of them by what optical character recognition takes them for, each with
/// probability `rate`. Where a pair stands, it is taken before its first letter.
#[derive(Debug)]
pub(crate) struct OcrNoise {
    rate: f64,
    /// By first byte, the entries of the table, the longest first.
    entries: Vec<Vec<(&'static str, &'static [&'static str])>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    rate: f64,
}

impl OcrNoise {
    pub(crate) fn new(parameters: Parameters) -> Result<Self> {
        let rate = super::rate("OcrNoise", "rate", parameters.rate)?;
        let mut entries = vec![Vec::new(); 128];
        for (seen, read) in OCR {
            entries[usize::from(seen.as_bytes()[0])].push((seen, read));
        }
        entries.iter_mut().for_each(|list| list.sort_by_key(|(seen, _)| std::cmp::Reverse(seen.len())));
        Ok(OcrNoise { rate, entries })
    }
}

impl TextOp for OcrNoise {
    fn plan(&self, row: TextRow<'_>, draw: &mut Draw, plan: &mut TextPlan) -> Result<()> {
        let (text, stream) = (row.text()?, draw.stream);
        for &i in draw.hits(text.len(), row.protected, threshold(self.rate)) {
            let i = i as usize;
            let Some(list) = self.entries.get(usize::from(row.text[i])).filter(|_| i >= plan.done()) else { continue };
            let fits = |seen: &str| {
                text[i..].starts_with(seen) && boundary(text, i + seen.len()) && row.free(i, i + seen.len())
            };
            if let Some((seen, read)) = list.iter().find(|(seen, _)| fits(seen)) {
                let read = read[below_at(&stream, 1, i, read.len() as u32) as usize];
                plan.replace(text, i, i + seen.len(), read);
            }
        }
        plan.finish(text);
        Ok(())
    }
}
