//! Fields out of lines of JSON, many lines at a time.
//!
//! The caller cuts a file into blocks that end at a newline; a line is a record or a problem, never both and never
//! neither, except that blank lines hold nothing.

mod quick;

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::error::{Error, Result as CoreResult};
use crate::ragged::{Ragged, RaggedBuf};

/// What a field may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// A string.
    Text,
    /// A string or an integer; an integer is kept as its digits.
    Key,
    /// Anything: strings as they are, other values as their JSON text; may be missing or null.
    Any,
}

/// A field to take from each line.
#[derive(Debug, Clone)]
pub struct Column<'a> {
    /// Its name in the object; dots may lead into objects inside of it, where no field has the name as it is.
    pub name: &'a str,
    /// What it may hold.
    pub want: Want,
}

impl<'a> Column<'a> {
    /// The part of the name before its first dot.
    fn head(&self) -> Option<&'a str> {
        self.name.split_once('.').map(|(head, _)| head)
    }
}

/// A line that holds no record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Line in the block, from 0.
    pub line: usize,
    /// First byte of the line in the block.
    pub start: usize,
    /// The byte after its last.
    pub end: usize,
    /// A short name for counting: `invalid_utf8`, `invalid_json`, `missing_field`, `wrong_type`.
    pub reason: &'static str,
    /// What is wrong, for a person.
    pub message: String,
}

/// The records and problems of a block.
#[derive(Debug, Default)]
pub struct Scan {
    /// Line in the block of each record, from 0.
    pub lines: Vec<i64>,
    /// Per column, the bytes of each record's value.
    pub fields: Vec<RaggedBuf<u8>>,
    /// Per column, 1 where the record has a value that is not null.
    pub present: Vec<Vec<u8>>,
    /// Lines that hold no record, in order.
    pub problems: Vec<Problem>,
    /// Number of lines, blank ones included.
    pub total: usize,
}

/// Takes `columns` from every line of `block`.
///
/// Where an object has a field twice, the last one counts. Cost: one pass, about a gigabyte a second.
pub fn scan(block: &[u8], columns: &[Column<'_>]) -> Scan {
    let mut out = Scan {
        fields: columns.iter().map(|_| RaggedBuf::default()).collect(),
        present: vec![Vec::new(); columns.len()],
        ..Scan::default()
    };
    let mut finder = quick::Finder::default();
    let utf8 = std::str::from_utf8(block).is_ok();
    for (column, field) in columns.iter().zip(&mut out.fields) {
        if column.want == Want::Text {
            field.values.reserve(block.len());
        }
    }
    let mut start = 0;
    while start < block.len() {
        let end = memchr::memchr(b'\n', &block[start..]).map_or(block.len(), |n| start + n);
        let line = out.total;
        out.total += 1;
        let bytes = &block[start..end];
        let checked = utf8 || std::str::from_utf8(bytes).is_ok();
        if checked && finder.take(bytes, columns, &mut out.fields, &mut out.present).is_some() {
            out.lines.push(line as i64);
        } else if !bytes.trim_ascii().is_empty() {
            match record(bytes, columns) {
                Ok(values) => {
                    out.lines.push(line as i64);
                    for (i, value) in values.into_iter().enumerate() {
                        out.present[i].push(u8::from(value.is_some()));
                        out.fields[i].values.extend_from_slice(value.unwrap_or_default().as_bytes());
                        out.fields[i].end_row();
                    }
                }
                Err((reason, message)) => out.problems.push(Problem { line, start, end, reason, message }),
            }
        }
        start = end + 1;
    }
    out
}

/// A column to write.
#[derive(Debug, Clone, Copy)]
pub struct Cells<'a> {
    /// The values: text to quote, or JSON as it is to stand.
    pub values: Ragged<'a, u8>,
    /// 0 where the value is null; `None` where none is.
    pub present: Option<&'a [u8]>,
    /// Whether the values are text.
    pub quote: bool,
}

/// One JSON object a row, each with all `names` in order, and a newline after it if asked for.
///
/// # Errors
/// If there are not as many columns as names, a column has another number of rows, or text is not UTF-8 (names the
/// row).
pub fn objects(names: &[&str], columns: &[Cells<'_>], rows: usize, newline: bool) -> CoreResult<RaggedBuf<u8>> {
    if names.len() != columns.len() {
        return Err(Error::invalid(format!("{} names for {} columns", names.len(), columns.len())));
    }
    let mut heads = Vec::with_capacity(names.len());
    for (i, (name, column)) in names.iter().zip(columns).enumerate() {
        if column.values.rows() != rows || column.present.is_some_and(|p| p.len() != rows) {
            return Err(Error::invalid(format!("column '{name}' has not {rows} rows")));
        }
        let mut head = vec![if i == 0 { b'{' } else { b',' }];
        quote(name, &mut head);
        head.push(b':');
        heads.push(head);
    }
    let size = columns.iter().map(|c| c.values.values().len()).sum::<usize>();
    let mut out = RaggedBuf::with_capacity(rows, size + size / 8 + rows * heads.iter().map(Vec::len).sum::<usize>());
    for row in 0..rows {
        if columns.is_empty() {
            out.values.push(b'{');
        }
        for (head, column) in heads.iter().zip(columns) {
            out.values.extend_from_slice(head);
            let cell = column.values.row(row);
            if column.present.is_some_and(|p| p[row] == 0) {
                out.values.extend_from_slice(b"null");
            } else if column.quote {
                let text = std::str::from_utf8(cell)
                    .map_err(|e| Error::invalid(format!("text is not UTF-8 (row {row}, byte {})", e.valid_up_to())))?;
                quote(text, &mut out.values);
            } else {
                out.values.extend_from_slice(cell);
            }
        }
        out.values.push(b'}');
        if newline {
            out.values.push(b'\n');
        }
        out.end_row();
    }
    Ok(out)
}

/// Appends a JSON string.
fn quote(text: &str, out: &mut Vec<u8>) {
    // Writing a string into a vector cannot fail.
    let _ = serde_json::to_writer(out, text);
}

type Values<'a> = Vec<Option<Cow<'a, str>>>;

fn record<'a>(bytes: &'a [u8], columns: &[Column<'_>]) -> Result<Values<'a>, (&'static str, String)> {
    let text = std::str::from_utf8(bytes)
        .map_err(|e| ("invalid_utf8", format!("invalid UTF-8 at byte {} of the line", e.valid_up_to() + 1)))?;
    let invalid = |e: serde_json::Error| {
        let message = e.to_string();
        let what = message.split(" at line ").next().unwrap_or_default().to_owned();
        ("invalid_json", format!("invalid JSON at column {}: {what}", e.column()))
    };
    if !text.trim_start().starts_with('{') {
        return match serde_json::from_str::<IgnoredAny>(text) {
            Ok(_) => Err(("wrong_type", format!("a record must be a JSON object, not {}", kind(text.trim())))),
            Err(e) => Err(invalid(e)),
        };
    }
    let mut parser = serde_json::Deserializer::from_str(text);
    let found = parser.deserialize_map(Fields(columns)).map_err(invalid)?;
    parser.end().map_err(invalid)?;
    let mut values = Vec::with_capacity(columns.len());
    for (column, found) in columns.iter().zip(found) {
        values.push(value(column, found.below(column.name), text)?);
    }
    Ok(values)
}

/// What an object holds of a column.
#[derive(Clone, Copy, Default)]
struct Found<'de> {
    /// The value of the field that has the column's name.
    exact: Option<&'de str>,
    /// The value of the field that has the part of the name before its first dot.
    head: Option<&'de str>,
}

impl<'de> Found<'de> {
    /// The value that the name leads to.
    fn below(self, name: &str) -> Option<&'de str> {
        if self.exact.is_some() {
            return self.exact;
        }
        let (_, rest) = name.split_once('.')?;
        let inner = self.head.filter(|raw| raw.starts_with('{'))?;
        let columns = [Column { name: rest, want: Want::Any }];
        let found = serde_json::Deserializer::from_str(inner).deserialize_map(Fields(&columns)).ok()?;
        found[0].below(rest)
    }
}

/// The value of one field, or why it cannot be used.
fn value<'a>(
    column: &Column<'_>,
    raw: Option<&'a str>,
    line: &str,
) -> Result<Option<Cow<'a, str>>, (&'static str, String)> {
    let name = column.name;
    let Some(raw) = raw.filter(|raw| column.want != Want::Any || *raw != "null") else {
        return match column.want {
            Want::Any => Ok(None),
            _ => Err(("missing_field", format!("no field '{name}'{}", those_there(line)))),
        };
    };
    if let Some(inner) = raw.strip_prefix('"').and_then(|r| r.strip_suffix('"')) {
        if !inner.contains('\\') {
            return Ok(Some(Cow::Borrowed(inner)));
        }
        return match serde_json::from_str(raw) {
            Ok(text) => Ok(Some(Cow::Owned(text))),
            Err(e) => Err(("invalid_json", format!("invalid JSON in field '{name}': {e}"))),
        };
    }
    let integer = raw.strip_prefix('-').unwrap_or(raw).bytes().all(|b| b.is_ascii_digit());
    match column.want {
        Want::Any => Ok(Some(Cow::Borrowed(raw))),
        Want::Key if integer => Ok(Some(Cow::Borrowed(raw))),
        Want::Key => Err(("wrong_type", format!("field '{name}' must be a string or an integer, not {}", kind(raw)))),
        Want::Text => Err(("wrong_type", format!("field '{name}' must be a string, not {}", kind(raw)))),
    }
}

/// The type of a piece of JSON, with its article.
fn kind(raw: &str) -> &'static str {
    match raw.as_bytes().first() {
        Some(b'"') => "a string",
        Some(b'{') => "an object",
        Some(b'[') => "a list",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

/// The first few field names of a line that lacks one.
fn those_there(line: &str) -> String {
    let Ok(serde_json::Value::Object(object)) = serde_json::from_str(line) else {
        return String::new();
    };
    if object.is_empty() {
        return " (the object is empty)".to_owned();
    }
    let names: Vec<String> = object.keys().take(5).map(|key| format!("'{key}'")).collect();
    format!(" (it has {}{})", names.join(", "), if object.len() > 5 { ", ..." } else { "" })
}

struct Fields<'c>(&'c [Column<'c>]);

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = Vec<Found<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = vec![Found::default(); self.0.len()];
        while let Some(key) = map.next_key::<Key<'de>>()? {
            let mut raw = None;
            for (i, column) in self.0.iter().enumerate() {
                let (exact, head) = (column.name == key.0, column.head().is_some_and(|head| head == key.0));
                if exact || head {
                    if raw.is_none() {
                        raw = Some(map.next_value::<&'de RawValue>()?.get());
                    }
                    let place = if exact { &mut found[i].exact } else { &mut found[i].head };
                    *place = raw;
                }
            }
            if raw.is_none() {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// A field name, borrowed from the line unless it has escapes.
struct Key<'de>(Cow<'de, str>);

impl<'de> serde::Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a field name")
            }

            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Borrowed(name)))
            }

            fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Owned(name.to_owned())))
            }
        }
        deserializer.deserialize_str(KeyVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const COLUMNS: [Column<'static>; 3] = [
        Column { name: "text", want: Want::Text },
        Column { name: "id", want: Want::Key },
        Column { name: "x", want: Want::Any },
    ];

    /// Compares the quick way with the long one; returns whether it took the line.
    fn agree(line: &[u8]) -> bool {
        let columns = [&COLUMNS[..], &[Column { name: "a.b", want: Want::Any }]].concat();
        let mut fields = vec![RaggedBuf::default(); columns.len()];
        let mut present = vec![Vec::new(); columns.len()];
        let taken = quick::Finder::default().take(line, &columns, &mut fields, &mut present).is_some();
        match record(line, &columns) {
            Ok(values) if taken => {
                for ((value, field), present) in values.iter().zip(&fields).zip(&present) {
                    assert_eq!(field.view().row(0), value.as_deref().unwrap_or_default().as_bytes());
                    assert_eq!(present, &[u8::from(value.is_some())]);
                }
            }
            Err(why) => assert!(!taken, "{why:?} in {}", String::from_utf8_lossy(line)),
            Ok(_) => {}
        }
        if !taken {
            assert!(fields.iter().all(|field| field.values.is_empty() && field.offsets == [0]));
        }
        taken
    }

    #[test]
    fn dots_lead_into_objects() {
        let block = br#"{"a": {"b": {"c": "x"}}}
{"a.b": {"c": "y"}}
{"a": {"b.c": "z"}, "b": 1}
{"a.b.c": "exact", "a": {"b": {"c": "x"}}}
{"a": "b"}
{"a": {"b": []}}
"#;
        let out = scan(block, &[Column { name: "a.b.c", want: Want::Text }]);
        let found: Vec<_> = out.fields[0].view().iter().collect();
        assert_eq!(found, [&b"x"[..], b"z", b"exact"]);
        let messages: Vec<_> = out.problems.iter().map(|p| (p.line, p.reason, p.message.as_str())).collect();
        assert_eq!(messages[0], (1, "missing_field", "no field 'a.b.c' (it has 'a.b')"));
        assert_eq!(messages[1], (4, "missing_field", "no field 'a.b.c' (it has 'a')"));
        assert_eq!(messages[2].0, 5);
    }

    #[test]
    fn deep_nesting_takes_no_stack() {
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        let (line, broken) =
            (format!("{{\"x\": {deep}, \"text\": \"a\", \"id\": 1}}"), format!("{{\"x\": {}", &deep[..100_000]));
        let out = scan(format!("{line}\n{broken}\n{{\"id\": {deep}}}\n").as_bytes(), &COLUMNS);
        assert_eq!(out.lines, [0]);
        assert_eq!(out.fields[2].view().row(0), deep.as_bytes());
        assert_eq!(out.problems.iter().map(|p| p.reason).collect::<Vec<_>>(), ["invalid_json", "missing_field"]);
    }

    fn first_problem(line: &[u8]) -> (&'static str, String) {
        let scan = scan(line, &COLUMNS);
        assert!(scan.lines.is_empty());
        (scan.problems[0].reason, scan.problems[0].message.clone())
    }

    #[test]
    fn values_come_out_and_blank_lines_do_not() {
        let block = b"{\"text\": \"a\\u00e9\\n\", \"id\": 7, \"y\": [1, {}]}\n\n  \r\n{\"id\":\"k\",\"x\":{\"b\":1.50},\"te\\u0078t\":\"\"}";
        let out = scan(block, &COLUMNS);
        assert_eq!(out.problems, []);
        assert_eq!((out.lines, out.total), (vec![0, 3], 4));
        let cell =
            |column: usize, row: usize| std::str::from_utf8(out.fields[column].view().row(row)).unwrap().to_owned();
        assert_eq!((cell(0, 0), cell(1, 0), cell(2, 0)), ("a\u{e9}\n".to_owned(), "7".to_owned(), String::new()));
        assert_eq!((cell(0, 1), cell(1, 1), cell(2, 1)), (String::new(), "k".to_owned(), "{\"b\":1.50}".to_owned()));
        assert_eq!(out.present, [vec![1, 1], vec![1, 1], vec![0, 1]]);
    }

    #[test]
    fn problems_say_what_is_wrong() {
        let cases: [(&[u8], &str, &str); 10] = [
            (b"{\"text\": \"\xff\"}", "invalid_utf8", "invalid UTF-8 at byte 11 of the line"),
            (b"{\"text\": }", "invalid_json", "invalid JSON at column 10: expected value"),
            (b"{\"text\": \"a\", \"id\": 1} x", "invalid_json", "invalid JSON at column 24: trailing characters"),
            (b"{\"text\": \"a", "invalid_json", "invalid JSON at column 11: EOF while parsing a string"),
            (b"[1]", "wrong_type", "a record must be a JSON object, not a list"),
            (b"{\"body\": 1, \"id\": 2}", "missing_field", "no field 'text' (it has 'body', 'id')"),
            (b"{}", "missing_field", "no field 'text' (the object is empty)"),
            (b"{\"text\": null, \"id\": 2}", "wrong_type", "field 'text' must be a string, not null"),
            (b"{\"text\": 5, \"id\": 2}", "wrong_type", "field 'text' must be a string, not a number"),
            (
                b"{\"text\": \"a\", \"id\": 2.5}",
                "wrong_type",
                "field 'id' must be a string or an integer, not a number",
            ),
        ];
        for (line, reason, message) in cases {
            assert_eq!(first_problem(line), (reason, message.to_owned()), "{}", String::from_utf8_lossy(line));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_give_records_or_problems(block in prop::collection::vec(any::<u8>(), 0..200)) {
            let out = scan(&block, &COLUMNS);
            let blank = block.split(|&b| b == b'\n').filter(|line| line.trim_ascii().is_empty()).count();
            let lines = block.split(|&b| b == b'\n').count();
            prop_assert_eq!(out.lines.len() + out.problems.len(), lines - blank);
        }

        #[test]
        fn strings_survive(text in any::<String>(), id in any::<i64>()) {
            let line = serde_json::json!({"text": text, "id": id, "other": [text]}).to_string();
            let out = scan(line.as_bytes(), &COLUMNS);
            prop_assert_eq!(&out.problems, &[]);
            prop_assert_eq!(out.fields[0].view().row(0), text.as_bytes());
            let digits = id.to_string();
            prop_assert_eq!(out.fields[1].view().row(0), digits.as_bytes());
        }

        #[test]
        fn written_rows_read_back(rows in prop::collection::vec((any::<String>(), any::<bool>()), 0..8)) {
            let (mut texts, mut present) = (RaggedBuf::default(), Vec::new());
            for (text, there) in &rows {
                texts.values.extend_from_slice(text.as_bytes());
                texts.end_row();
                present.push(u8::from(*there));
            }
            let cells = [
                Cells { values: texts.view(), present: None, quote: true },
                Cells { values: texts.view(), present: Some(&present), quote: true },
            ];
            let out = objects(&["text", "x"], &cells, rows.len(), true).unwrap();
            let columns = [Column { name: "text", want: Want::Text }, Column { name: "x", want: Want::Any }];
            let back = scan(&out.values, &columns);
            prop_assert_eq!(&back.problems, &[]);
            prop_assert_eq!(&back.fields[0], &texts);
            prop_assert_eq!(&back.present[1], &present);
        }

        #[test]
        fn the_quick_way_agrees_with_the_long_one(
            line in "[ ]{0,2}\\{[ ]?(\"(text|id|x|a\\.b|a|y)\"[ :]{1,2}(\"[a-cé\\\\nu0-9d\"/]{0,12}\"|[-0-9.eE+]{1,5}|null|true|[\\[{][\\[\\]{}:,\"ab0-9 ]{0,9}[\\]}]|\\{\"b\": \"c\"\\}|\\[1, \\{\\}\\]),?[ ]?){0,4}\\}[ x]?",
        ) {
            agree(line.as_bytes());
        }

        #[test]
        fn json_with_holes_never_panics(text in "[{}\\[\\]\":,a-e0-9\\\\ \n]{0,60}") {
            scan(text.as_bytes(), &COLUMNS);
            agree(text.replace('\n', " ").as_bytes());
        }

        #[test]
        fn objects_go_the_quick_way(text in any::<String>(), id in any::<i64>(), deep in 0..50usize) {
            let nested = format!("{}1{}", "[".repeat(deep), "]".repeat(deep));
            let line = format!("{{\"x\": {nested}, \"text\": {}, \"id\": {id}}}", serde_json::json!(text));
            prop_assert!(agree(line.as_bytes()));
        }
    }
}
