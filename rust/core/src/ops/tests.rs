//! The golden vectors of tests/vectors, and what must hold for any input.

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::ragged::{Ragged, RaggedBuf};

/// The rows of a JSON list of lists, as one flat array.
fn ragged<T>(rows: &Value, one: impl Fn(&Value) -> T) -> RaggedBuf<T> {
    let mut buf = RaggedBuf::default();
    for row in rows.as_array().into_iter().flatten() {
        buf.values.extend(row.as_array().unwrap().iter().map(&one));
        buf.end_row();
    }
    buf
}

fn int(value: &Value) -> i64 {
    value.as_i64().unwrap()
}

fn call(case: &Value) -> Call {
    Call {
        seed: case["seed"].as_u64().unwrap(),
        epoch: u32::try_from(int(&case["epoch"])).unwrap(),
        variant: case["variant"].as_u64().unwrap(),
        return_source: true,
    }
}

fn labels(bytes: &[u8]) -> Vec<i64> {
    bytes.as_chunks::<4>().0.iter().map(|&b| i64::from(i32::from_ne_bytes(b))).collect()
}

/// Compares a strand with what a vector says of it; column 0 is `special`, column `wrote` is `labels`.
fn agrees(
    tokens: &[u32],
    source: Option<&[i32]>,
    edited: Option<&[u8]>,
    columns: &[(usize, Vec<u8>)],
    (unmoved, wrote): (&[u8], usize),
    expected: &Value,
) {
    let flat = |name: &str| ragged(&expected[name], int).values;
    assert_eq!(tokens.iter().map(|&t| i64::from(t)).collect::<Vec<_>>(), flat("tokens"));
    assert_eq!(source.unwrap().iter().map(|&s| i64::from(s)).collect::<Vec<_>>(), flat("source"));
    assert_eq!(edited.unwrap().iter().map(|&e| i64::from(e)).collect::<Vec<_>>(), flat("edited"));
    let column = |index: usize| columns.iter().find(|(i, _)| *i == index).map(|(_, bytes)| bytes.as_slice());
    assert_eq!(column(0).unwrap_or(unmoved).iter().map(|&s| i64::from(s)).collect::<Vec<_>>(), flat("special"));
    if !expected["labels"].is_null() {
        assert_eq!(labels(column(wrote).unwrap()), flat("labels"));
    }
}

fn check_tokens(case: &Value) {
    let pipeline = Pipeline::from_json(&case["spec"].to_string()).unwrap();
    let tokens = ragged(&case["tokens"], |t| u32::try_from(int(t)).unwrap());
    let special = ragged(&case["special"], |s| u8::try_from(int(s)).unwrap());
    let ids: Vec<u64> = case["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect();
    let column = Column { name: "special", bytes: &special.values, width: 1, fill: [0; 8] };
    let mut batch = Tokens::new(tokens.view(), &ids).unwrap().column(column).unwrap();
    let words = ragged(&case["word_ids"], |w| i32::try_from(int(w)).unwrap().to_ne_bytes()).values.concat();
    let ends = ragged(&case["ends"], |e| u8::try_from(int(e)).unwrap()).values;
    for (name, bytes, width) in [("word_ids", &words, 4), ("ends", &ends, 1)] {
        if !case[name].is_null() {
            batch = batch.column(Column { name, bytes, width, fill: [0; 8] }).unwrap();
        }
    }
    let wrote = if case["word_ids"].is_null() && case["ends"].is_null() { 1 } else { 2 };
    let out = pipeline.run_tokens(&batch, call(case)).unwrap();
    let expected = &case["out"];
    agrees(&out.tokens, out.source.as_deref(), out.edited.as_deref(), &out.columns, (&special.values, wrote), expected);
    assert_eq!(out.offsets.unwrap_or(tokens.offsets), ragged(&expected["tokens"], int).offsets);
    assert_eq!(out.targets.is_some(), !expected["targets"].is_null());
    if let Some(targets) = out.targets {
        let (source, edited) = (targets.source.as_deref(), targets.edited.as_deref());
        agrees(&targets.tokens, source, edited, &targets.columns, (&[], wrote), &expected["targets"]);
        assert_eq!(targets.offsets, ragged(&expected["targets"]["tokens"], int).offsets);
    }
    assert_eq!(out.lineage.is_some(), !expected["ids"].is_null());
    if let Some(lineage) = out.lineage {
        assert_eq!(Value::from(lineage.ids), expected["ids"]);
        assert_eq!(Value::from(lineage.parent), expected["parent"]);
        assert_eq!(Value::from(lineage.variant), expected["variant"]);
    }
}

fn check_texts(case: &Value) {
    let pipeline = Pipeline::from_json(&case["spec"].to_string()).unwrap();
    let mut text = RaggedBuf::default();
    for row in case["texts"].as_array().unwrap() {
        text.values.extend_from_slice(row.as_str().unwrap().as_bytes());
        text.end_row();
    }
    let ids: Vec<u64> = case["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect();
    let none = vec![];
    let spans = case["spans"].as_array().unwrap_or(&none);
    let part = |k: usize| spans.iter().map(|span| int(&span[k])).collect::<Vec<_>>();
    let (row, start, end) = (part(0), part(1), part(2));
    let number = |span: &Value| pipeline.tags().iter().position(|tag| tag == &span[3]).map_or(-1, |i| i as i32);
    let tag: Vec<i32> = spans.iter().map(number).collect();
    let batch = Texts::new(text.view(), &ids).unwrap();
    let batch = batch.spans(Spans { row: &row, start: &start, end: &end, tag: &tag }).unwrap();
    let out = pipeline.run_texts(&batch, call(case)).unwrap();
    let rows: Vec<_> =
        Ragged::new(&out.text, &out.offsets).unwrap().iter().map(|row| str::from_utf8(row).unwrap()).collect();
    assert_eq!(Value::from(rows), case["out"]["texts"]);
    let edits = out.edits.unwrap();
    for (row, expected) in case["out"]["edits"].as_array().unwrap().iter().enumerate() {
        let mine = (0..edits.row.len()).filter(|&i| edits.row[i] == row as i64);
        let runs: Vec<Value> = mine.map(|i| Value::from(vec![edits.start[i], edits.end[i], edits.length[i]])).collect();
        assert_eq!(&Value::from(runs), expected);
    }
}

macro_rules! vectors {
    ($($name:ident: $check:ident),* $(,)?) => {$(
        #[test]
        fn $name() {
            let file = include_str!(concat!("../../../../tests/vectors/", stringify!($name), ".json"));
            let cases: Vec<Value> = serde_json::from_str(file).unwrap();
            assert!(!cases.is_empty());
            cases.iter().for_each($check);
        }
    )*};
}

vectors! {
    case_noise: check_texts,
    char_delete: check_texts,
    char_insert: check_texts,
    char_substitute: check_texts,
    char_transpose: check_texts,
    compose: check_tokens,
    contraction: check_texts,
    diacritics: check_texts,
    entity_swap: check_texts,
    fill_in_middle: check_tokens,
    homoglyph: check_texts,
    keyboard_typo: check_texts,
    keyboard_typo_jcuken: check_texts,
    local_shuffle: check_tokens,
    masked_lm: check_tokens,
    misspelling: check_texts,
    ngram_mask: check_tokens,
    ocr_noise: check_texts,
    prefix_lm: check_tokens,
    punctuation_insert: check_texts,
    sentence_permute: check_tokens,
    span_corruption: check_tokens,
    synonym: check_texts,
    text_infilling: check_tokens,
    token_dropout: check_tokens,
    token_insert: check_tokens,
    token_mask: check_tokens,
    token_replace: check_tokens,
    token_swap: check_tokens,
    ul2: check_tokens,
    whitespace_noise: check_texts,
    whole_word_mask: check_tokens,
    word_delete: check_texts,
    word_insert: check_texts,
    word_swap: check_texts,
}

#[test]
fn specs_that_are_wrong_say_where() {
    let message = |spec: &str| Pipeline::from_json(spec).unwrap_err().to_string();
    let shape = "an op is an object with one key, its kind, and its parameters: {\"TokenDropout\": {\"rate\": 0.1}}";
    assert_eq!(message("3"), shape);
    assert_eq!(message("{}"), shape);
    assert_eq!(message(r#"{"TokenDropout": 1}"#), shape);
    assert_eq!(message("{"), "the spec is not JSON: EOF while parsing an object at line 1 column 1");
    assert_eq!(message(r#"{"Nothing": {}}"#), "there is no op 'Nothing'");
    assert_eq!(message(r#"{"TokenDropout": {}}"#), "TokenDropout: missing field `rate`");
    assert_eq!(message(r#"{"TokenDropout": {"rate": 2}}"#), "TokenDropout: rate must lie in [0, 1] (it is 2)");
    assert_eq!(message(r#"{"TokenSwap": {"rate": 0, "x": 1}}"#), "TokenSwap: unknown field `x`, expected `rate`");
    assert_eq!(message(r#"{"Repeat": {"op": {}, "n": 1, "x": 1}}"#), "Repeat: unknown field `x`");
    assert_eq!(message(r#"{"Sometimes": {"p": 0.5}}"#), "Sometimes: missing field `op`");
    let deep = format!("{}3{}", r#"{"Compose": {"ops": ["#.repeat(65), "]}}".repeat(65));
    assert!(message(&deep).starts_with("the spec is not JSON: recursion limit exceeded"));
}

#[test]
fn batches_that_are_wrong_say_where() {
    let tokens = Ragged::new(&[1u32, 2, 3], &[0, 2, 3]).unwrap();
    assert_eq!(Tokens::new(tokens, &[1]).unwrap_err().to_string(), "ids must hold one number per row (1 for 2 rows)");
    let batch = || Tokens::new(tokens, &[1, 2]).unwrap();
    let column =
        |bytes, width| batch().column(Column { name: "x", bytes, width, fill: [0; 8] }).unwrap_err().to_string();
    assert_eq!(column(&[0; 9], 3), "column 'x' must have values of 1, 2, 4 or 8 bytes (they have 3)");
    assert_eq!(column(&[0; 8], 4), "column 'x' must hold one value per token (2 for 3 tokens)");
    let spans = |row, start, end| {
        let tag = vec![-1; <[i64]>::len(row)];
        batch().spans(Spans { row, start, end, tag: &tag }).map(drop).unwrap_err().to_string()
    };
    assert_eq!(spans(&[2], &[0], &[0]), "span 0 names row 2, and the batch has 2 rows");
    assert_eq!(spans(&[0], &[1], &[3]), "span 0 must lie in its row (row 0 has length 2, the span is 1..3)");
    assert_eq!(spans(&[1, 0], &[0, 0], &[0, 0]), "spans must be sorted by row and start (span 1 is out of order)");
    assert_eq!(
        spans(&[1], &[0, 1], &[0]),
        "spans must have one start, end and tag per row number (1 rows, 2 starts, 1 ends, 1 tags)"
    );
}

fn any_op() -> impl Strategy<Value = String> {
    let rate = prop_oneof![Just(0.0), Just(1.0), 0.0..1.0];
    let leaf = (0usize..15, rate, prop_oneof![Just("follow"), Just("drop"), Just("forbid")]).prop_map(|(kind, rate, spans)| {
        let common = format!(r#""spans": "{spans}", "protect": {{"ids": [3], "columns": ["mark"], "spans": ["a"]}}"#);
        match kind {
            0 => format!(r#"{{"TokenDropout": {{"rate": {rate}, {common}}}}}"#),
            1 => format!(r#"{{"TokenSwap": {{"rate": {rate}, {common}}}}}"#),
            2 => format!(r#"{{"TokenReplace": {{"rate": {rate}, "vocab_size": 9, {common}}}}}"#),
            3 => format!(
                r#"{{"MaskedLM": {{"mlm_probability": {rate}, "mask_id": 9, "vocab_size": 5, "mask_replace_prob": 0.5,
                "random_replace_prob": 0.3, {common}}}}}"#
            ),
            4 => format!(r#"{{"TokenInsert": {{"rate": {rate}, "vocab_size": 9, "side": "after", {common}}}}}"#),
            5 => format!(r#"{{"TokenMask": {{"rate": {rate}, "mask_id": 9, {common}}}}}"#),
            6 => format!(r#"{{"LocalShuffle": {{"k": {}, {common}}}}}"#, (rate * 5.0) as u32),
            7 => format!(
                r#"{{"WholeWordMask": {{"mlm_probability": {rate}, "mask_id": 9, "vocab_size": 5, "mask_replace_prob": 0.5,
                "random_replace_prob": 0.3, "word_ids": "word", {common}}}}}"#
            ),
            8 => format!(
                r#"{{"NgramMask": {{"mlm_probability": {rate}, "mask_id": 9, "vocab_size": 5, "mask_replace_prob": 0.5,
                "random_replace_prob": 0.3, "ngram_weights": [1, 2], {common}}}}}"#
            ),
            9 => format!(
                r#"{{"PrefixLM": {{"min_prefix": {rate}, "max_prefix": 1, "form": "targets", {common}}}}}"#
            ),
            10 => format!(
                r#"{{"UL2": {{"weights": [2, 1, {rate}], "x_id": 60, "sentinel_id": 50, "sentinel_step": -1,
                "num_sentinels": 4, {common}}}}}"#
            ),
            11 => format!(
                r#"{{"TextInfilling": {{"mask_ratio": {rate}, "poisson_lambda": 2, "mask_id": 9, {common}}}}}"#
            ),
            12 => format!(
                r#"{{"SentencePermute": {{"permute_sentence_ratio": {rate}, "end_ids": [1, 2], {common}}}}}"#
            ),
            13 => format!(
                r#"{{"FillInMiddle": {{"fim_rate": {rate}, "fim_spm_rate": 0.5, "prefix_id": 50, "middle_id": 51,
                "suffix_id": 52, {common}}}}}"#
            ),
            _ => format!(
                r#"{{"SpanCorruption": {{"noise_density": {rate}, "mean_noise_span_length": 2, "sentinel_id": 50,
                "sentinel_step": -1, "num_sentinels": 4, "eos_id": 1, "inserted": "inherit", {common}}}}}"#
            ),
        }
    });
    leaf.prop_recursive(3, 8, 3, |inner| {
        let many = prop::collection::vec(inner.clone(), 1..3).prop_map(|ops| ops.join(", "));
        prop_oneof![
            many.clone().prop_map(|ops| format!(r#"{{"Compose": {{"ops": [{ops}]}}}}"#)),
            many.clone().prop_map(|ops| format!(r#"{{"SomeOf": {{"ops": [{ops}], "k": 0, "at_most": 1}}}}"#)),
            many.prop_map(|ops| format!(r#"{{"OneOf": {{"ops": [{ops}]}}}}"#)),
            inner.clone().prop_map(|op| format!(r#"{{"Sometimes": {{"op": {op}, "p": 0.5}}}}"#)),
            inner.prop_map(|op| format!(r#"{{"Repeat": {{"op": {op}, "n": 2}}}}"#)),
        ]
    })
}

/// A text op of any kind, with everything that may be guarded.
fn any_text_op() -> impl Strategy<Value = String> {
    let rate = prop_oneof![Just(0.0), Just(1.0), 0.0..1.0];
    let spans = prop_oneof![Just("follow"), Just("drop"), Just("forbid")];
    (0usize..23, rate, spans, prop_oneof![Just(1.0), 0.0..1.0]).prop_map(|(kind, rate, spans, most)| {
        let lexicon = r#"[["b", "n", "car", "e\u0301", "\u0301x"], ["a", "", "Z z", "no"], ["not", "v", "yes"]]"#;
        let words = format!(r#""max_edits": {most}, "negations": ["not", "n't"]"#);
        let (kind, own) = match kind {
            0 => ("KeyboardTypo", r#""layout": "qwerty""#.into()),
            1 => ("KeyboardTypo", r#""layout": "jcuken""#.into()),
            2 => ("OcrNoise", String::new()),
            3 => ("Homoglyph", String::new()),
            4 => ("CharInsert", String::new()),
            5 => ("CharInsert", r#""alphabet": "x\u0301\u200d\ud83c\udde9""#.into()),
            6 => ("CharSubstitute", String::new()),
            7 => ("CharSubstitute", r#""alphabet": "\u1100\u1161\u11a8""#.into()),
            8 => ("CharDelete", String::new()),
            9 => ("CharTranspose", String::new()),
            10 => ("CaseNoise", String::new()),
            11 => ("WhitespaceNoise", r#""split_rate": 0.3"#.into()),
            12 => ("Diacritics", r#""mode": "drop""#.into()),
            13 => ("Diacritics", r#""mode": "add""#.into()),
            14 => ("Contraction", r#""mode": "both""#.into()),
            15 => ("PunctuationInsert", format!(r#""marks": ".,\u0301", {words}"#)),
            16 => ("WordSwap", words),
            17 => ("WordDelete", words),
            18 => ("WordInsert", format!(r#""lexicon": {lexicon}, {words}"#)),
            19 => ("Synonym", format!(r#""lexicon": {lexicon}, {words}"#)),
            20 => {
                let rules = r"b {x}\t{x} car | e\u0301 {x}\na bs\tan b :: 3 | \u0301\nrn\tm";
                ("Rewriter", format!(r#""rules": "{rules}", "negations": ["not", "n't"]"#))
            }
            21 => ("Misspelling", format!(r#""table": {lexicon}, {words}"#)),
            _ => ("EntitySwap", format!(r#""tag": "b", "entities": ["Ada", "\u0301"], {words}"#)),
        };
        let own = if own.is_empty() { own } else { format!("{own}, ") };
        let protect = r#""protect": {"spans": ["a"], "words": ["keep"]}"#;
        format!(r#"{{"{kind}": {{"rate": {rate}, {own}"spans": "{spans}", {protect}}}}}"#)
    })
}

/// Rows of text with the words that ops look for, and with what joins to clusters.
fn any_text() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "not", "don't", "do not", "keep", "I am", "they", "a", "an", "b", "bs", "cl", "rn", " ", " ", "  ", "\n", ",",
    ]);
    let part = prop_oneof![word.prop_map(String::from), graphemes::tests::odd_text()];
    prop::collection::vec(part, 0..10).prop_map(|parts| parts.concat())
}

proptest! {
    /// Whatever the text: what comes out is UTF-8, the edits say what changed and no more, grapheme clusters stay
    /// whole, what is protected and negations stay, spans lie in their rows.
    #[test]
    fn any_text_op_keeps_the_law(
        specs in prop::collection::vec(any_text_op(), 1..3),
        texts in prop::collection::vec(any_text(), 0..4),
        seed: u64,
        spans in prop::collection::vec((0usize..4, 0usize..40, 0usize..40, -1i32..2), 0..5),
    ) {
        let mut rows = RaggedBuf::default();
        for text in &texts {
            rows.values.extend_from_slice(text.as_bytes());
            rows.end_row();
        }
        let ids: Vec<u64> = (0..texts.len() as u64).map(|r| r.wrapping_mul(u64::MAX / 3)).collect();
        let mut spans: Vec<_> = spans
            .into_iter()
            .filter(|&(row, ..)| row < texts.len())
            .map(|(row, a, b, tag)| {
                let whole = |at: usize| (0..=at.min(texts[row].len())).rev().find(|&at| texts[row].is_char_boundary(at)).unwrap_or(0);
                (row as i64, whole(a.min(b)) as i64, whole(a.max(b)) as i64, tag)
            })
            .collect();
        spans.sort_unstable();
        let part = |pick: fn(&(i64, i64, i64, i32)) -> i64| spans.iter().map(pick).collect::<Vec<_>>();
        let (row, start, end) = (part(|s| s.0), part(|s| s.1), part(|s| s.2));
        let spec = format!(r#"{{"Compose": {{"ops": [{}]}}}}"#, specs.join(", "));
        let pipeline = Pipeline::from_json(&spec).unwrap();
        let tag: Vec<i32> = spans
            .iter()
            .map(|s| pipeline.tags().iter().position(|tag| s.3 >= 0 && *tag == ["a", "b"][s.3 as usize]).map_or(-1, |i| i as i32))
            .collect();
        let batch = Texts::new(rows.view(), &ids).unwrap().spans(Spans { row: &row, start: &start, end: &end, tag: &tag }).unwrap();
        let out = pipeline.run_texts(&batch, Call { seed, return_source: true, ..Call::default() }).unwrap();
        let edits = out.edits.unwrap();
        let view = Ragged::new(&out.text, &out.offsets).unwrap();
        for (r, text) in texts.iter().enumerate() {
            let after = str::from_utf8(view.row(r)).unwrap();
            let (mut at, mut moved) = (0, 0);
            for i in (0..edits.row.len()).filter(|&i| edits.row[i] == r as i64) {
                let (start, end, length) = (edits.start[i] as usize, edits.end[i] as usize, edits.length[i] as usize);
                prop_assert!(at <= start && start <= end);
                prop_assert_eq!(&text[at..start], &after[moved..moved + start - at]);
                moved += start - at;
                prop_assert!(graphemes::boundary(text, start) && graphemes::boundary(text, end));
                prop_assert!(graphemes::boundary(after, moved) && graphemes::boundary(after, moved + length));
                (at, moved) = (end, moved + length);
            }
            prop_assert_eq!(&text[at..], &after[moved..]);
            if specs.len() == 1 {
                let guarded = ["Word", "Synonym", "Punctuation", "Misspelling", "Entity", "Rewriter"].iter().any(|kind| spec.contains(kind));
                let words = words::words(text).into_iter();
                let kept = words.filter(|w| w.of(text) == "keep" || guarded && matches!(w.of(text), "not" | "don't"));
                let kept: Vec<_> = kept
                    .map(|w| (w.start, w.end))
                    .chain(spans.iter().filter(|s| s.0 == r as i64 && s.3 == 0 && s.1 < s.2).map(|s| (s.1 as usize, s.2 as usize)))
                    .collect();
                for i in (0..edits.row.len()).filter(|&i| edits.row[i] == r as i64) {
                    let touched = |&(start, end): &(usize, usize)| (edits.start[i] as usize) < end && edits.end[i] as usize > start;
                    prop_assert!(!kept.iter().any(touched), "{} {}", text, after);
                }
            }
        }
        if let Some(spans) = out.spans {
            for i in 0..spans.row.len() {
                let after = str::from_utf8(view.row(spans.row[i] as usize)).unwrap();
                prop_assert!(0 <= spans.start[i] && spans.start[i] <= spans.end[i] && spans.end[i] <= after.len() as i64);
            }
            let gone: u64 = out.stats.iter().map(|stats| stats.spans_dropped).sum();
            prop_assert_eq!(row.len() as u64, spans.row.len() as u64 + gone);
        }
        let again = pipeline.run_texts(&batch, Call { seed, ..Call::default() }).unwrap();
        prop_assert_eq!(&out.text, &again.text);
    }

    /// Whatever is composed: shapes fit, the alignment law holds, spans lie in their rows, columns follow the source.
    #[test]
    fn any_composition_keeps_the_law(
        spec in any_op(),
        rows in prop::collection::vec(prop::collection::vec(0u32..12, 0..14), 0..5),
        seed: u64,
        spans in prop::collection::vec((0usize..5, 0usize..14, 0usize..14, -1i32..1), 0..5),
    ) {
        let mut tokens = RaggedBuf::default();
        for row in &rows {
            tokens.values.extend_from_slice(row);
            tokens.end_row();
        }
        let n = tokens.values.len();
        let ids: Vec<u64> = (0..rows.len() as u64).map(|r| r.wrapping_mul(u64::MAX / 3)).collect();
        let mark: Vec<u8> = (0..n).map(|i| u8::from(i % 5 == 0)).collect();
        let place: Vec<u8> = (0..n as u64).flat_map(u64::to_ne_bytes).collect();
        let word: Vec<u8> = (0..n as i32).flat_map(|i| (i / 2 - 1).to_ne_bytes()).collect();
        let mut spans: Vec<_> = spans
            .into_iter()
            .filter(|&(row, ..)| row < rows.len())
            .map(|(row, a, b, tag)| (row as i64, a.min(b).min(rows[row].len()) as i64, a.max(b).min(rows[row].len()) as i64, tag))
            .collect();
        spans.sort_unstable();
        let part = |pick: fn(&(i64, i64, i64, i32)) -> i64| spans.iter().map(pick).collect::<Vec<_>>();
        let (row, start, end) = (part(|s| s.0), part(|s| s.1), part(|s| s.2));
        let tag: Vec<i32> = spans.iter().map(|s| s.3).collect();
        let fill = u64::MAX.to_ne_bytes();
        let batch = Tokens::new(tokens.view(), &ids).unwrap()
            .column(Column { name: "mark", bytes: &mark, width: 1, fill: [0; 8] }).unwrap()
            .column(Column { name: "place", bytes: &place, width: 8, fill }).unwrap()
            .column(Column { name: "word", bytes: &word, width: 4, fill: [255; 8] }).unwrap()
            .spans(Spans { row: &row, start: &start, end: &end, tag: &tag }).unwrap();
        let pipeline = Pipeline::from_json(&spec).unwrap();
        let out = pipeline.run_tokens(&batch, Call { seed, return_source: true, ..Call::default() }).unwrap();
        let again = pipeline.run_tokens(&batch, Call { seed, ..Call::default() }).unwrap();
        prop_assert_eq!(&out.tokens, &again.tokens);
        let offsets = out.offsets.unwrap_or(tokens.offsets.clone());
        let view = Ragged::new(&out.tokens, &offsets).unwrap();
        let origin: Vec<usize> = out.lineage.map_or((0..rows.len()).collect(), |l| l.row.iter().map(|&r| r as usize).collect());
        prop_assert_eq!(view.rows(), origin.len());
        let (source, edited) = (out.source.unwrap(), out.edited.unwrap());
        let moved: Option<Vec<u64>> = out.columns.iter().find(|(index, _)| *index == 1)
            .map(|(_, bytes)| bytes.as_chunks::<8>().0.iter().map(|&b| u64::from_ne_bytes(b)).collect());
        for (r, &from) in origin.iter().enumerate() {
            let base = tokens.offsets[from] as usize;
            for i in view.range(r) {
                match usize::try_from(source[i]) {
                    Err(_) => prop_assert_eq!((source[i], edited[i]), (-1, 1)),
                    Ok(s) => {
                        prop_assert!(s < rows[from].len());
                        prop_assert!(edited[i] == 1 || out.tokens[i] == rows[from][s]);
                        prop_assert!(moved.as_ref().is_none_or(|moved| moved[i] == (base + s) as u64));
                        prop_assert!(!(rows[from][s] == 3 && edited[i] == 1));
                    }
                }
            }
        }
        if let Some(spans) = out.spans {
            for i in 0..spans.row.len() {
                let length = view.row(spans.row[i] as usize).len() as i64;
                prop_assert!(0 <= spans.start[i] && spans.start[i] <= spans.end[i] && spans.end[i] <= length);
                prop_assert!(i == 0 || (spans.row[i - 1], spans.start[i - 1]) <= (spans.row[i], spans.start[i]));
                prop_assert!((spans.origin[i] as usize) < row.len());
            }
        }
    }

    #[test]
    fn any_spec_is_compiled_or_refused_without_panic(spec in "[\\[\\]{}\":, a-zA-Z0-9.#/-]{0,60}") {
        drop(Pipeline::from_json(&spec));
        drop(Pipeline::from_json(&format!(r#"{{"TokenDropout": {{"rate": 0.1, "name": "{spec}"}}}}"#)));
        drop(Pipeline::from_json(&format!(r#"{{"Compose": {{"ops": [{spec}]}}}}"#)));
    }
}
