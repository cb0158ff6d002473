//! Reads TOML so that every mistake can be told with its line, its key, what stands there and what would be right. A key
//! that nobody asked for is a mistake too: each section is closed by [`Section::finish`].
//!
//! The document is walked by hand rather than through serde: serde's messages know neither the key nor what the field is
//! for.

use std::collections::BTreeMap;

use sched::Millis;
use sealtasks::TaskType;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::units;

/// Characters of a wrong value that a message repeats.
const SHOWN_CHARS_MAX: usize = 60;

/// What is wrong with a cluster file.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    /// Not TOML.
    #[error("{file}:{line}: is not TOML: {problem}")]
    Syntax {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
        /// What the parser says.
        problem: String,
    },
    /// A key that means nothing here.
    #[error("{file}:{line}: {key} is not known here; {known}")]
    UnknownKey {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
        /// The key with the sections around it.
        key: String,
        /// What may stand there instead.
        known: String,
    },
    /// A key that must be there.
    #[error("{file}:{line}: {key} is missing; {wanted}")]
    Missing {
        /// The file.
        file: String,
        /// The line of its section, from 1.
        line: usize,
        /// The key with the sections around it.
        key: String,
        /// What to write.
        wanted: String,
    },
    /// A value that cannot be.
    #[error("{file}:{line}: {key} = {value}: {wanted}")]
    Value {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
        /// The key with the sections around it.
        key: String,
        /// What stands there.
        value: String,
        /// What would be right.
        wanted: String,
    },
}

/// The text that is read, and its name for messages.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The file's name.
    pub file: &'a str,
    /// What is in it.
    pub text: &'a str,
}

impl<'a> Source<'a> {
    /// Parses the text.
    ///
    /// # Errors
    /// [`ClusterError::Syntax`].
    pub fn parse(&self) -> Result<Spanned<DeTable<'a>>, ClusterError> {
        DeTable::parse(self.text).map_err(|error| ClusterError::Syntax {
            file: self.file.to_owned(),
            line: self.line(error.span().map_or(0, |span| span.start)),
            problem: error.message().replace('\n', ", "),
        })
    }

    fn line(&self, at: usize) -> usize {
        self.text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
    }
}

/// One table, of which every key is taken at most once.
#[derive(Debug)]
pub struct Section<'a> {
    source: Source<'a>,
    path: String,
    at: usize,
    entries: BTreeMap<&'a str, Entry<'a>>,
    asked: Vec<&'static str>,
}

/// One value with the way to it.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    source: Source<'a>,
    path: String,
    key_at: usize,
    value: &'a Spanned<DeValue<'a>>,
}

impl<'a> Section<'a> {
    /// The whole document.
    pub fn root(source: Source<'a>, table: &'a Spanned<DeTable<'a>>) -> Self {
        Self::new(source, String::new(), 0, table.get_ref())
    }

    fn new(source: Source<'a>, path: String, at: usize, table: &'a DeTable<'a>) -> Self {
        let entry = |key: &'a Spanned<_>, value| {
            let name: &'a str = AsRef::<str>::as_ref(Spanned::get_ref(key));
            let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
            (name, Entry { source, path, key_at: key.span().start, value })
        };
        let entries = table.iter().map(|(key, value)| entry(key, value)).collect();
        Self { source, path, at, entries, asked: Vec::new() }
    }

    /// Takes out a key that may be absent.
    pub fn optional(&mut self, key: &'static str) -> Option<Entry<'a>> {
        self.asked.push(key);
        self.entries.remove(key)
    }

    /// Takes out a key that must be there; `wanted` says what to write.
    ///
    /// # Errors
    /// [`ClusterError::Missing`].
    pub fn required(&mut self, key: &'static str, wanted: &str) -> Result<Entry<'a>, ClusterError> {
        self.optional(key).ok_or_else(|| self.missing(key, wanted))
    }

    /// A complaint about a key that is not there.
    pub fn missing(&self, key: &str, wanted: &str) -> ClusterError {
        let path = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        ClusterError::Missing {
            file: self.source.file.to_owned(),
            line: self.source.line(self.at),
            key: path,
            wanted: wanted.to_owned(),
        }
    }

    /// Takes out all that is left, for tables whose keys are names.
    pub fn rest(&mut self) -> Vec<(&'a str, Entry<'a>)> {
        std::mem::take(&mut self.entries).into_iter().collect()
    }

    /// Ends the section.
    ///
    /// # Errors
    /// [`ClusterError::UnknownKey`] for the first key that nobody took.
    pub fn finish(self) -> Result<(), ClusterError> {
        let Some(entry) = self.entries.values().min_by_key(|entry| entry.key_at) else { return Ok(()) };
        Err(ClusterError::UnknownKey {
            file: self.source.file.to_owned(),
            line: self.source.line(entry.key_at),
            key: entry.path.clone(),
            known: format!("known keys: {}", self.asked.join(", ")),
        })
    }
}

impl<'a> Entry<'a> {
    /// A complaint about this value.
    pub fn wrong(&self, wanted: impl Into<String>) -> ClusterError {
        let text = &self.source.text[self.value.span()];
        let first = text.lines().next().unwrap_or_default();
        let mut value: String = first.chars().take(SHOWN_CHARS_MAX).collect();
        if value.len() < text.len() {
            value.push('…');
        }
        ClusterError::Value {
            file: self.source.file.to_owned(),
            line: self.source.line(self.value.span().start),
            key: self.path.clone(),
            value,
            wanted: wanted.into(),
        }
    }

    /// A complaint about this key.
    pub fn unknown(&self, known: impl Into<String>) -> ClusterError {
        ClusterError::UnknownKey {
            file: self.source.file.to_owned(),
            line: self.source.line(self.key_at),
            key: self.path.clone(),
            known: known.into(),
        }
    }

    /// A text.
    pub fn text(&self) -> Result<&'a str, ClusterError> {
        self.value.get_ref().as_str().ok_or_else(|| self.wrong("write a text in quotes"))
    }

    /// Bytes.
    pub fn bytes(&self) -> Result<u64, ClusterError> {
        let parsed = self.value.get_ref().as_str().and_then(units::bytes);
        parsed.ok_or_else(|| self.wrong("write a whole number of bytes with its unit, such as \"512 GiB\""))
    }

    /// Milliseconds.
    pub fn span(&self) -> Result<Millis, ClusterError> {
        let parsed = self.value.get_ref().as_str().and_then(units::span);
        parsed.ok_or_else(|| {
            self.wrong("write a time with its units (d, h, m, s, ms), such as \"3h30m\" or \"100.6s\"")
        })
    }

    /// Milliseconds, at least one.
    pub fn span_above_zero(&self) -> Result<Millis, ClusterError> {
        let span = self.span()?;
        if span == Millis::ZERO { Err(self.wrong("must be longer than nothing")) } else { Ok(span) }
    }

    /// Bytes per second, at least one.
    pub fn bytes_per_second(&self) -> Result<u64, ClusterError> {
        let parsed = self.value.get_ref().as_str().and_then(units::bytes_per_second);
        parsed.filter(|rate| *rate > 0).ok_or_else(|| {
            self.wrong("write a rate above nothing with its unit, such as \"10 Gbit/s\" or \"500 MiB/s\"")
        })
    }

    /// A share in thousandths, at most `most`.
    pub fn percent(&self, most: u64) -> Result<u64, ClusterError> {
        let parsed = self.value.get_ref().as_str().and_then(units::percent);
        parsed.filter(|share| *share <= most).ok_or_else(|| {
            self.wrong(format!("write a share from \"0%\" to \"{}%\", to a tenth of a percent", most / 10))
        })
    }

    /// A whole number.
    pub fn count(&self, range: std::ops::RangeInclusive<u64>) -> Result<u64, ClusterError> {
        let number = self.value.get_ref().as_integer();
        let parsed = number.and_then(|digits| u64::from_str_radix(digits.as_str(), digits.radix()).ok());
        parsed.filter(|count| range.contains(count)).ok_or_else(|| {
            self.wrong(format!("write a whole number from {} to {}", range.start(), range.end()))
        })
    }

    /// A decimal number in thousandths.
    pub fn thousandths(&self, range: std::ops::RangeInclusive<u64>) -> Result<u64, ClusterError> {
        let value = self.value.get_ref();
        let whole = value.as_integer().filter(|digits| digits.radix() == 10).map(|digits| digits.as_str());
        let text = whole.or_else(|| value.as_float().map(|digits| digits.as_str()));
        let parsed = text.and_then(units::thousandths).filter(|number| range.contains(number));
        parsed.ok_or_else(|| {
            let (least, most) = (decimal(*range.start()), decimal(*range.end()));
            self.wrong(format!("write a number from {least} to {most} with at most three decimals"))
        })
    }

    /// `true` or `false`.
    pub fn flag(&self) -> Result<bool, ClusterError> {
        self.value.get_ref().as_bool().ok_or_else(|| self.wrong("write true or false"))
    }

    /// A task by its short code.
    pub fn task(&self, known: &[TaskType]) -> Result<TaskType, ClusterError> {
        let task = self.text().ok().and_then(TaskType::from_short);
        task.filter(|task| known.contains(task))
            .ok_or_else(|| self.wrong(format!("write one of {}", codes(known))))
    }

    /// A table.
    pub fn section(&self) -> Result<Section<'a>, ClusterError> {
        let table = self.value.get_ref().as_table();
        let table = table.ok_or_else(|| self.wrong("write a table of keys and values"))?;
        Ok(Section::new(self.source, self.path.clone(), self.key_at, table))
    }

    /// A list.
    pub fn list(&self) -> Result<Vec<Entry<'a>>, ClusterError> {
        let list = self.value.get_ref().as_array();
        let list = list.ok_or_else(|| self.wrong("write a list in square brackets"))?;
        let entry = |value: &'a Spanned<DeValue<'a>>| Entry {
            source: self.source,
            path: self.path.clone(),
            key_at: value.span().start,
            value,
        };
        Ok(list.iter().map(entry).collect())
    }

    /// Whether it is a number, a text, … for values that may be of two kinds.
    pub fn is_list(&self) -> bool {
        self.value.get_ref().is_array()
    }

    /// Whether it is a table.
    pub fn is_table(&self) -> bool {
        self.value.get_ref().is_table()
    }
}

/// Task codes in one line.
pub fn codes(tasks: &[TaskType]) -> String {
    tasks.iter().map(|task| task.short()).collect::<Vec<_>>().join(", ")
}

/// Thousandths as a decimal number without trailing zeros.
pub fn decimal(thousandths: u64) -> String {
    let text = format!("{}.{:03}", thousandths / 1000, thousandths % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
