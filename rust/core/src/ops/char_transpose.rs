//! Letters that were struck in the wrong order.

use serde::Deserialize;

use super::draw::Draw;
use super::text::{TextOp, TextPlan, TextRow};
use crate::error::Result;
use crate::rng::threshold;

/// Lets each letter change places with the letter after it, with probability `rate`; a pair that did is passed over.
#[derive(Debug)]
pub(crate) struct CharTranspose {
    rate: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    rate: f64,
}

impl CharTranspose {
    pub(crate) fn new(parameters: Parameters) -> Result<Self> {
        Ok(CharTranspose { rate: super::rate("CharTranspose", "rate", parameters.rate)? })
    }
}

impl TextOp for CharTranspose {
    fn plan(&self, row: TextRow<'_>, draw: &mut Draw, plan: &mut TextPlan) -> Result<()> {
        let text = row.text()?;
        let mut swapped = String::new();
        for &i in draw.hits(text.len(), row.protected, threshold(self.rate)) {
            let Some(a) = row.letter(text, i as usize).filter(|a| a.start >= plan.done()) else { continue };
            let Some(b) = row.letter(text, a.end) else { continue };
            let (left, right) = (&text[a.start..a.end], &text[b.start..b.end]);
            if left != right {
                swapped.clear();
                swapped.extend([right, left]);
                plan.replace(text, a.start, b.end, &swapped);
            }
        }
        plan.finish(text);
        Ok(())
    }
}
