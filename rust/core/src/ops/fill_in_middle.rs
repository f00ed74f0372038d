//! Fill in the middle (Bavarian et al., "Efficient training of language models to fill in the middle", 2022), in the
//! forms of Allal et al., "SantaCoder: don't reach for the stars!", 2023.

use serde::Deserialize;

use super::draw::Draw;
use super::plan::{Inserted, Plan, Row, TokenOp};
use crate::error::Result;
use crate::rng::{hit, threshold};

/// Cuts a row into prefix, middle and suffix and moves the middle to the end, behind sentinels: PSM, or SPM.
#[derive(Debug)]
pub(crate) struct FillInMiddle {
    fim: u32,
    spm: u32,
    prefix_id: u32,
    middle_id: u32,
    suffix_id: u32,
    inserted: Inserted,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    fim_rate: f64,
    fim_spm_rate: f64,
    prefix_id: i64,
    middle_id: i64,
    suffix_id: i64,
    #[serde(default)]
    inserted: Inserted,
}

const KIND: &str = "FillInMiddle";

impl FillInMiddle {
    pub(crate) fn new(parameters: Parameters) -> Result<Self> {
        Ok(FillInMiddle {
            fim: threshold(super::rate(KIND, "fim_rate", parameters.fim_rate)?),
            spm: threshold(super::rate(KIND, "fim_spm_rate", parameters.fim_spm_rate)?),
            prefix_id: super::token_id(KIND, "prefix_id", parameters.prefix_id)?,
            middle_id: super::token_id(KIND, "middle_id", parameters.middle_id)?,
            suffix_id: super::token_id(KIND, "suffix_id", parameters.suffix_id)?,
            inserted: parameters.inserted,
        })
    }
}

impl TokenOp for FillInMiddle {
    fn inherits(&self) -> bool {
        self.inserted == Inserted::Inherit
    }

    fn plan(&self, row: Row<'_>, draw: &mut Draw, plan: &mut Plan) -> Result<()> {
        let tokens = row.tokens;
        let n = tokens.len();
        let mut words = draw.stream.words(0);
        let (fim, spm) = (words.next_word(), words.next_word());
        // Protected tokens at the start and at the end of the row stay there.
        let (first, last) = row.protected.map_or((0, n), |protected| {
            let first = protected.iter().take_while(|&&p| p != 0).count();
            (first, n - protected[first..].iter().rev().take_while(|&&p| p != 0).count())
        });
        let Plan { out, moved, marked, .. } = plan;
        out.reserve(n + 3);
        if first == last || !hit(fim, self.fim) {
            out.copy(tokens, 0, n);
            return Ok(());
        }
        (*moved, *marked) = (true, true);
        // No cut between two protected tokens.
        let cuttable = |i: usize, p: &[u8]| i == first || i == last || p[i - 1] == 0 || p[i] == 0;
        let places = match row.protected {
            None => n + 1,
            Some(protected) => (first..=last).filter(|&i| cuttable(i, protected)).count(),
        };
        let drawn = [words.below(places as u32) as usize, words.below(places as u32) as usize];
        let mut cuts = match row.protected {
            None => drawn,
            Some(protected) => drawn.map(|k| (first..=last).filter(|&i| cuttable(i, protected)).nth(k).unwrap_or(last)),
        };
        cuts.sort_unstable();
        let [middle, suffix] = cuts;
        out.copy(tokens, 0, first);
        out.insert(self.prefix_id);
        if hit(spm, self.spm) {
            out.insert(self.suffix_id);
            out.copy(tokens, suffix, last);
            out.insert(self.middle_id);
            out.copy(tokens, first, suffix);
        } else {
            out.copy(tokens, first, middle);
            out.insert(self.suffix_id);
            out.copy(tokens, suffix, last);
            out.insert(self.middle_id);
            out.copy(tokens, middle, suffix);
        }
        out.copy(tokens, last, n);
        Ok(())
    }
}
