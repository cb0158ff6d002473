//! A Rust file and the rules it must keep. Rules look at code only: comments and literals are blanked first, so that
//! a room may say in its documentation what it never does.

use crate::manifest::{PROVER_FAMILIES, PROVERS};

/// Lines a file must stay below.
const LINES_MAX: usize = 500;
/// What pure rooms must not reach in `std`, as the paths begin.
const IMPURE_STD: [&str; 8] =
    ["fs", "net", "env", "process", "thread", "time::Instant", "time::SystemTime", "*"];
/// Crates they must not name.
const IMPURE_CRATES: [&str; 5] = ["tokio", "rand", "getrandom", "rand_core", "rand_chacha"];
/// Ends of paths that are impure wherever they come from.
const IMPURE_ENDS: [[&str; 2]; 3] = [["time", "Instant"], ["time", "SystemTime"], ["Uuid", "new_v4"]];
const PRINTERS: [&str; 5] = ["print", "println", "eprint", "eprintln", "dbg"];
const LOOSE_ENDS: [&str; 2] = ["todo", "unimplemented"];
const SLEEPERS: [&str; 3] = ["sleep", "sleep_until", "sleep_ms"];

/// One Rust file.
pub struct Source {
    path: String,
    lines: usize,
    tokens: Vec<Token>,
}

/// A word or a single sign of the code, and the line it stands in.
struct Token {
    text: String,
    line: usize,
}

impl Source {
    /// `path` counts from the workspace's root.
    pub fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), lines: text.lines().count(), tokens: tokens(&code(text)) }
    }

    /// The room it lies in, by directory.
    pub fn room(&self) -> &str {
        self.path.split('/').next().unwrap_or_default()
    }

    /// Whether it is part of what one of these rooms does, and no test or benchmark.
    pub fn is_product_of(&self, rooms: &[&str]) -> bool {
        rooms.contains(&self.room()) && self.path.split('/').nth(1) == Some("src")
    }

    /// Whether it is a test or a benchmark as a whole.
    pub fn is_test_file(&self) -> bool {
        self.path.split('/').any(|part| part == "tests" || part == "benches" || part == "tests.rs")
    }

    /// Whether it talks to cargo by printing.
    pub fn is_build_script(&self) -> bool {
        self.path.ends_with("/build.rs") && self.path.split('/').count() == 2
    }

    /// Clocks, files, sockets, processes, threads, randomness and tokio.
    pub fn impure(&self) -> Vec<String> {
        let std = |path: &[&str]| {
            matches!(path, ["std", rest @ ..] if {
                let rest = rest.join("::");
                IMPURE_STD.iter().any(|bad| rest == *bad || rest.starts_with(&format!("{bad}::")))
            })
        };
        let end = |path: &[&str]| path.windows(2).any(|pair| IMPURE_ENDS.iter().any(|bad| pair == bad));
        let foreign = |path: &[&str]| IMPURE_CRATES.contains(&path[0]);
        self.paths(|path| std(path) || end(path) || foreign(path), "a pure room must not name it")
    }

    /// The proofs libraries.
    pub fn provers(&self) -> Vec<String> {
        let named = |word: &str| {
            let name = word.replace('_', "-");
            PROVERS.contains(&name.as_str()) || PROVER_FAMILIES.iter().any(|family| name.starts_with(family))
        };
        self.paths(|path| named(path[0]), "only proofs names the proofs libraries")
    }

    /// Words to the terminal.
    pub fn prints(&self) -> Vec<String> {
        self.macros(&PRINTERS, "only cli prints; log through tracing")
    }

    /// Files that hold more than one subject, most likely.
    pub fn too_long(&self) -> Vec<String> {
        if self.lines < LINES_MAX {
            return Vec::new();
        }
        vec![format!("{}: {} lines; stay below {LINES_MAX}", self.path, self.lines)]
    }

    /// What is left for later.
    pub fn unfinished(&self) -> Vec<String> {
        self.macros(&LOOSE_ENDS, "finish it or leave it out")
    }

    /// Tests that are switched off.
    pub fn ignored_tests(&self) -> Vec<String> {
        let attribute =
            |at: usize| self.before(at, &["#", "["]) || self.before(at, &[","]) && self.after(at, ")");
        self.words(|at, word| word == "ignore" && attribute(at), "run it or delete it")
    }

    /// Tests that hope for the best.
    pub fn sleeping_tests(&self) -> Vec<String> {
        let whole = self.is_test_file();
        let inner = self.test_modules();
        self.words(
            |at, word| {
                SLEEPERS.contains(&word)
                    && self.after(at, "(")
                    && (whole || inner.iter().any(|module| module.contains(&at)))
            },
            "a test waits for an event, with a bound",
        )
    }

    /// Token ranges of the modules and items behind `#[cfg(test)]`.
    fn test_modules(&self) -> Vec<std::ops::Range<usize>> {
        let mark = ["#", "[", "cfg", "(", "test", ")", "]"];
        let starts = (0..self.tokens.len()).filter(|at| self.before(at + mark.len(), &mark));
        starts.map(|start| start..self.end_of_item(start + mark.len())).collect()
    }

    /// The token behind the item that begins here: behind its block, or its `;` if it has none.
    fn end_of_item(&self, start: usize) -> usize {
        let mut depth = 0_usize;
        for (at, token) in self.tokens.iter().enumerate().skip(start) {
            match token.text.as_str() {
                "{" => depth += 1,
                "}" => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 && (token.text == "}" || token.text == ";") {
                return at + 1;
            }
        }
        self.tokens.len()
    }

    fn macros(&self, names: &[&str], why: &str) -> Vec<String> {
        self.words(|at, word| names.contains(&word) && self.after(at, "!"), why)
    }

    fn words(&self, bad: impl Fn(usize, &str) -> bool, why: &str) -> Vec<String> {
        let found = self.tokens.iter().enumerate().filter(|(at, token)| bad(*at, &token.text));
        found.map(|(_, token)| format!("{}:{}: {}: {why}", self.path, token.line, token.text)).collect()
    }

    fn after(&self, at: usize, sign: &str) -> bool {
        self.tokens.get(at + 1).is_some_and(|token| token.text == sign)
    }

    /// Whether these tokens stand directly before the one at `at`.
    fn before(&self, at: usize, signs: &[&str]) -> bool {
        let Some(start) = at.checked_sub(signs.len()) else { return false };
        self.tokens.get(start..at).is_some_and(|tokens| tokens.iter().map(|token| &token.text).eq(signs))
    }

    fn paths(&self, bad: impl Fn(&[&str]) -> bool, why: &str) -> Vec<String> {
        let mut complaints = Vec::new();
        let mut at = 0;
        while at < self.tokens.len() {
            let mut found = Vec::new();
            let next = if is_word(&self.tokens[at].text) { self.tree(at, &[], &mut found) } else { at + 1 };
            for path in found.iter().filter(|path| bad(path)) {
                complaints.push(format!(
                    "{}:{}: {}: {why}",
                    self.path,
                    self.tokens[at].line,
                    path.join("::")
                ));
            }
            at = next;
        }
        complaints
    }

    /// Reads `a::b::{c, d::e}` from `at` into every path it names; gives the token behind it.
    fn tree<'a>(&'a self, at: usize, prefix: &[&'a str], found: &mut Vec<Vec<&'a str>>) -> usize {
        let text = |at: usize| self.tokens.get(at).map_or("", |token| token.text.as_str());
        let mut path = prefix.to_vec();
        let mut at = at;
        loop {
            match text(at) {
                "{" if !path.is_empty() => {
                    at += 1;
                    while !matches!(text(at), "}" | "") {
                        at = self.tree(at, &path, found);
                        // `as name` and the comma.
                        while !matches!(text(at), "}" | "" | ",") {
                            at += 1;
                        }
                        at += usize::from(text(at) == ",");
                    }
                    return at + 1;
                }
                word if is_word(word) || word == "*" && !path.is_empty() => path.push(word),
                _ => break,
            }
            at += 1;
            if text(at) != ":" || text(at + 1) != ":" {
                break;
            }
            at += 2;
        }
        let next = if path.len() == prefix.len() { at + 1 } else { at };
        if !path.is_empty() {
            found.push(path);
        }
        next
    }
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

fn tokens(code: &str) -> Vec<Token> {
    let mut found: Vec<Token> = Vec::new();
    for (number, line) in code.lines().enumerate() {
        let mut rest = line;
        while let Some(first) = rest.chars().next() {
            let in_word = |c: char| c.is_alphanumeric() || c == '_';
            let end = match in_word(first) {
                true => rest.find(|c| !in_word(c)).unwrap_or(rest.len()),
                false => first.len_utf8(),
            };
            if !first.is_whitespace() {
                found.push(Token { text: rest[..end].to_owned(), line: number + 1 });
            }
            rest = &rest[end..];
        }
    }
    found
}

/// The text with comments and literals blanked, its lines kept.
fn code(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let word_goes_on = kept.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let blank = comment(rest).or_else(|| literal(rest, word_goes_on));
        match blank {
            Some(length) => {
                kept.push(' ');
                kept.extend(rest[..length].chars().filter(|c| *c == '\n'));
                rest = &rest[length..];
            }
            None => {
                kept.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
    }
    kept
}

/// The length of the comment that begins here.
fn comment(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    let mut at = text.strip_prefix("/*").map(|_| 2)?;
    let mut depth = 1;
    while depth > 0 {
        let here = &text[at..];
        let (step, change) = match here.chars().next() {
            None => return Some(text.len()),
            Some(_) if here.starts_with("/*") => (2, 1),
            Some(_) if here.starts_with("*/") => (2, -1),
            Some(sign) => (sign.len_utf8(), 0),
        };
        at += step;
        depth += change;
    }
    Some(at)
}

/// The length of the text, raw text or letter that begins here. A lifetime is none of them.
fn literal(text: &str, word_goes_on: bool) -> Option<usize> {
    let bare = if word_goes_on { text } else { text.trim_start_matches(['b', 'c']) };
    let prefix = text.len() - bare.len();
    let length = if let Some(raw) = bare.strip_prefix('r').filter(|_| !word_goes_on) {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        let body = raw[hashes..].strip_prefix('"')?;
        let end = format!("\"{}", "#".repeat(hashes));
        1 + hashes + 1 + body.find(&end).map_or(body.len(), |at| at + end.len())
    } else if bare.starts_with('"') {
        quoted(bare, '"')
    } else if let Some(body) = bare.strip_prefix('\'') {
        let letter = body.chars().next()?;
        let closes = body[letter.len_utf8()..].starts_with('\'');
        if letter == '\\' || closes { quoted(bare, '\'') } else { return None }
    } else {
        return None;
    };
    Some(prefix + length)
}

/// The length up to and with the closing mark, escapes passed over.
fn quoted(text: &str, mark: char) -> usize {
    let mut escaped = false;
    for (at, sign) in text.char_indices().skip(1) {
        if escaped {
            escaped = false;
        } else if sign == '\\' {
            escaped = true;
        } else if sign == mark {
            return at + sign.len_utf8();
        }
    }
    text.len()
}
