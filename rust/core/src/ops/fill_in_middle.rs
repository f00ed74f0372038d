//! Fill in the middle (Bavarian et al., "Efficient training of language models to fill in the middle", 2022), in the
//! forms of Allal et al., "SantaCoder: don't reach for the stars!", 2023.

use std::sync::{Mutex, PoisonError};

use serde::Deserialize;

use super::draw::Draw;
use super::plan::{Inserted, Plan, Row, TokenOp};
use super::seams::Seams;
use crate::error::{Error, Result};
use crate::rng::{Words, hit, threshold};
use crate::tokenize::Tokenizer;

/// Cuts a row into prefix, middle and suffix and moves the middle to the end, behind sentinels: PSM, or SPM.
#[derive(Debug)]
pub(crate) struct FillInMiddle {
    fim: u32,
    spm: u32,
    prefix_id: u32,
    middle_id: u32,
    suffix_id: u32,
    level: Level,
    inserted: Inserted,
    idle: Mutex<Vec<Seams>>,
}

/// Where a row may be cut.
#[derive(Debug, Clone, Copy, Default, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Level {
    /// Between two tokens.
    #[default]
    Token,
    /// Between two grapheme clusters of its text.
    Character,
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
    level: Level,
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
            level: parameters.level,
            inserted: parameters.inserted,
            idle: Mutex::default(),
        })
    }

    /// Plans a row that is rearranged, cut at characters.
    fn at_characters(
        &self,
        row: Row<'_>,
        (mut words, spm): (Words, bool),
        seams: &mut Seams,
        plan: &mut Plan,
    ) -> Result<()> {
        let (tokens, tokenizer) = (row.tokens, given(row.tokenizer)?);
        seams.read(row, tokenizer)?;
        let region = seams.region();
        if region.is_empty() {
            plan.out.copy(tokens, 0, tokens.len());
            return Ok(());
        }
        (plan.moved, plan.marked, plan.repeats) = (true, true, true);
        let mut cuts = [seams.draw(&mut words), seams.draw(&mut words)];
        cuts.sort_unstable();
        let [start, end] = seams.bounds();
        let [middle, suffix] = cuts.map(|at| seams.cut(at, tokenizer));
        plan.out.copy(tokens, 0, region.start);
        plan.out.insert(self.prefix_id);
        if spm {
            plan.out.insert(self.suffix_id);
            seams.part(tokens, tokenizer, [suffix, end], plan)?;
            plan.out.insert(self.middle_id);
            seams.part(tokens, tokenizer, [start, middle], plan)?;
        } else {
            seams.part(tokens, tokenizer, [start, middle], plan)?;
            plan.out.insert(self.suffix_id);
            seams.part(tokens, tokenizer, [suffix, end], plan)?;
            plan.out.insert(self.middle_id);
        }
        seams.part(tokens, tokenizer, [middle, suffix], plan)?;
        plan.out.copy(tokens, region.end, tokens.len());
        Ok(())
    }
}

fn given(tokenizer: Option<&Tokenizer>) -> Result<&Tokenizer> {
    tokenizer.ok_or_else(|| {
        Error::invalid(format!(
            "{KIND} needs a tokenizer for level 'character': give the batch one, batch.replace(tokenizer=...)"
        ))
    })
}

impl TokenOp for FillInMiddle {
    fn inherits(&self) -> bool {
        self.inserted == Inserted::Inherit
    }

    fn fits(&self, tokenizer: Option<&Tokenizer>) -> Result<()> {
        match self.level {
            Level::Token => Ok(()),
            Level::Character => given(tokenizer).map(drop),
        }
    }

    fn plan(&self, row: Row<'_>, draw: &mut Draw, plan: &mut Plan) -> Result<()> {
        let tokens = row.tokens;
        let n = tokens.len();
        let mut words = draw.stream.words(0);
        let (fim, spm) = (words.next_word(), words.next_word());
        if self.level == Level::Character && hit(fim, self.fim) {
            plan.out.reserve(n + 3);
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut seams = idle.unwrap_or_default();
            let planned = self.at_characters(row, (words, hit(spm, self.spm)), &mut seams, plan);
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(seams);
            return planned;
        }
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
