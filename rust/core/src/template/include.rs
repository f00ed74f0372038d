//! The files of a grammar, read and parsed in order.

use std::path::{Component, Path, PathBuf};

use super::parse::{Include, Rule, Source, fault, parse};
use crate::error::{Error, Result};

/// The longest source of a grammar with all that it includes, in bytes.
const MAX_SOURCE: usize = 1 << 26;
/// How deep files may include one another.
const MAX_NESTING: usize = 64;

/// Where `include` finds its files.
#[derive(Debug, Clone, Default)]
pub enum Files {
    /// Nowhere: a text without a place includes nothing.
    #[default]
    None,
    /// On the disk, below the folder of the grammar's own file; `name` is that file's, if it is one.
    Disk {
        /// The folder.
        root: PathBuf,
        /// The file's name in it.
        name: Option<String>,
    },
    /// Here, by name.
    Known(Vec<(String, String)>),
}

/// The text of a grammar with all that it includes, and their rules: its own first.
pub(super) fn load(text: &str, files: &Files) -> Result<(Source, Vec<Rule>)> {
    let own = match files {
        Files::Disk { name: Some(name), .. } => name.clone(),
        _ => String::new(),
    };
    let mut loader =
        Loader { files, source: Source::default(), rules: Vec::new(), known: vec![own.clone()], open: vec![own] };
    loader.check_size(text)?;
    loader.add(None, text)?;
    Ok((loader.source, loader.rules))
}

struct Loader<'a> {
    files: &'a Files,
    source: Source,
    rules: Vec<Rule>,
    known: Vec<String>,
    /// The files that include one another down to the one at hand.
    open: Vec<String>,
}

impl Loader<'_> {
    fn check_size(&self, text: &str) -> Result<()> {
        let size = self.source.text.len() + text.len();
        if size > MAX_SOURCE {
            return Err(Error::invalid(format!("a grammar can have {MAX_SOURCE} bytes; this has {size}")));
        }
        Ok(())
    }

    fn add(&mut self, name: Option<String>, text: &str) -> Result<()> {
        let start = self.source.push(name, text);
        let (rules, includes) = parse(&self.source, start)?;
        self.rules.extend(rules);
        includes.iter().try_for_each(|include| self.include(include))
    }

    fn include(&mut self, Include { path, at }: &Include) -> Result<()> {
        let fail = |loader: &Self, message: String| Err(fault(&loader.source, *at, message));
        let from = self.open.last().map_or("", String::as_str);
        let name = joined(from, path);
        if self.open.contains(&name) {
            let round: Vec<&str> = self.open.iter().map(String::as_str).skip_while(|open| *open != name).collect();
            let round = round.join("' includes '");
            return fail(self, format!("a file cannot include itself: '{round}' includes '{name}'"));
        }
        if self.known.contains(&name) {
            return Ok(());
        }
        if self.open.len() == MAX_NESTING {
            return fail(self, format!("files include one another more than {MAX_NESTING} deep"));
        }
        let text = match self.files {
            Files::None => {
                let message = "a text has no folder to include from: read it with from_file, or pass root=".to_owned();
                return fail(self, message);
            }
            Files::Known(files) => match files.iter().find(|(known, _)| *known == name) {
                Some((_, text)) => text.clone(),
                None => return fail(self, format!("there is no file '{name}'")),
            },
            Files::Disk { root, .. } => match std::fs::read(root.join(&name)) {
                Err(error) => return fail(self, format!("cannot read '{name}': {error}")),
                Ok(bytes) => match String::from_utf8(bytes) {
                    Ok(text) => text.strip_prefix('\u{feff}').map_or(text.clone(), str::to_owned),
                    Err(error) => {
                        let byte = error.utf8_error().valid_up_to();
                        return fail(self, format!("cannot read '{name}': not UTF-8 (byte {byte})"));
                    }
                },
            },
        };
        self.check_size(&text)?;
        self.known.push(name.clone());
        self.open.push(name.clone());
        self.add(Some(name), &text)?;
        self.open.pop();
        Ok(())
    }
}

/// `path` as seen from the folder of the file `from`, without `.` and, where they can be taken back, `..`.
fn joined(from: &str, path: &str) -> String {
    let mut out = PathBuf::new();
    let folder = Path::new(from).parent().unwrap_or(Path::new(""));
    for part in folder.join(path).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if matches!(out.components().next_back(), Some(Component::Normal(_))) => _ = out.pop(),
            part => out.push(part),
        }
    }
    out.to_string_lossy().into_owned()
}
