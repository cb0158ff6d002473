//! What two Sealyards tell each other about a file: its content's names and lengths, and how it is cut into blocks.
//!
//! A GET with [`ACCEPT_HEADER`] is answered by a Sealyard with a [`Content`]; anyone else ignores the header and sends the
//! file, which is then taken as it comes. A GET with [`SPANS_HEADER`] is answered with those bytes and their BLAKE3 hash.

use serde::{Deserialize, Serialize};

use crate::error::StoreError;
use crate::members::{self, MEMBERS_MAX};

/// Asks for a [`Content`] where the peer has such.
pub(crate) const ACCEPT_HEADER: &str = "x-sealyard-blocks";
/// Asks for spans of a content: `etag;name:offset:bytes,…`.
pub(crate) const SPANS_HEADER: &str = "x-sealyard-spans";
/// Beside it: no hash is wanted.
pub(crate) const UNVERIFIED_HEADER: &str = "x-sealyard-unverified";
/// With a DELETE: only the state of the file that had this etag in its [`Content`], and no other copy.
pub(crate) const EXACTLY_HEADER: &str = "x-sealyard-exactly";
/// The media type of a [`Content`].
pub(crate) const CONTENT_TYPE_LIST: &str = "application/vnd.sealyard.content+json";
/// The media type of spans followed by their hash.
pub(crate) const CONTENT_TYPE_BLOCK: &str = "application/vnd.sealyard.block";
/// The version of all this.
pub(crate) const VERSION: u32 = 1;
/// A block's hash (bytes).
pub(crate) const HASH: usize = 32;
/// What is asked for, verified and sent again at once (bytes). A multiple of what direct I/O wants.
pub(crate) const BLOCK: u64 = 16 << 20;
/// At most so many bytes are sent for one request.
const SPANS_BYTES_MAX: u64 = 4 * BLOCK;
/// An etag is a BLAKE3 hash in hexadecimal digits.
const ETAG_DIGITS: usize = 64;

/// Names and lengths of what a sector's file or directory holds; a plain file has the empty name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Content {
    pub(crate) version: u32,
    /// Changes whenever a file is written, replaced, added or removed.
    pub(crate) etag: String,
    pub(crate) files: Vec<(String, u64)>,
    /// Of a rehearsal: where each file has data, as offset and length; the rest is empty and need not be sent. From anyone
    /// else nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) data: Vec<Vec<(u64, u64)>>,
}

impl Content {
    /// Reads and checks a peer's answer: every name and size is one that such a file may have.
    pub(crate) fn parse(json: &[u8], directory: bool) -> Result<Self, StoreError> {
        let bad = |reason: String| StoreError::Archive { reason };
        let content: Self = serde_json::from_slice(json)
            .map_err(|error| bad(format!("its content list is unreadable: {error}")))?;
        if content.version != VERSION {
            return Err(bad(format!("its content list has version {}; expected {VERSION}", content.version)));
        }
        if !is_etag(&content.etag) {
            return Err(bad(format!("its etag is no hash of {ETAG_DIGITS} digits")));
        }
        if !directory && !matches!(&content.files[..], [(name, _)] if name.is_empty()) {
            return Err(bad("its content list names files within a plain file".to_owned()));
        }
        if content.files.is_empty() || content.files.len() > MEMBERS_MAX {
            return Err(bad(format!("it lists {} files; expected 1 to {MEMBERS_MAX}", content.files.len())));
        }
        if directory {
            for (name, bytes) in &content.files {
                match members::size_max(name) {
                    Some(most) if bytes <= &most => {}
                    Some(most) => return Err(bad(format!("{name} has {bytes} bytes; at most {most}"))),
                    None => {
                        let shown: String = name.chars().take(100).collect();
                        return Err(bad(format!("{shown:?} is no file of a sector's directory")));
                    }
                }
            }
        }
        if content.files.windows(2).any(|pair| pair[0].0 >= pair[1].0) {
            return Err(bad("its files are not in the order of their names".to_owned()));
        }
        if !content.data.is_empty() && content.data.len() != content.files.len() {
            return Err(bad("its list of data names other files".to_owned()));
        }
        Ok(content)
    }

    /// Whether it says that nothing of a block is data.
    pub(crate) fn is_empty(&self, block: &Block) -> bool {
        let empty = |span: &Span| {
            let apart = |(offset, bytes): &(u64, u64)| {
                offset.saturating_add(*bytes) <= span.offset
                    || *offset >= span.offset.saturating_add(span.bytes)
            };
            self.data.get(span.file).is_some_and(|data| data.iter().all(apart))
        };
        block.spans.iter().all(empty)
    }

    /// All bytes of it.
    pub(crate) fn bytes(&self) -> u64 {
        self.files.iter().fold(0, |sum, (_, bytes)| sum.saturating_add(*bytes))
    }

    /// The blocks of it: large files are cut, and small ones share a block.
    pub(crate) fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut shared = Block::default();
        for (file, (_, bytes)) in self.files.iter().enumerate() {
            let mut offset = 0;
            while bytes - offset >= BLOCK {
                blocks.push(Block { spans: vec![Span { file, offset, bytes: BLOCK }] });
                offset += BLOCK;
            }
            let rest = Span { file, offset, bytes: bytes - offset };
            if rest.bytes == 0 {
                continue;
            }
            if shared.bytes() + rest.bytes > BLOCK {
                blocks.push(std::mem::take(&mut shared));
            }
            shared.spans.push(rest);
        }
        if !shared.spans.is_empty() {
            blocks.push(shared);
        }
        blocks
    }

    /// How a block is asked for.
    pub(crate) fn ask_for(&self, block: &Block) -> String {
        let span = |span: &Span| {
            let name = self.files.get(span.file).map_or("", |(name, _)| name);
            format!("{name}:{}:{}", span.offset, span.bytes)
        };
        let spans: Vec<String> = block.spans.iter().map(span).collect();
        format!("{};{}", self.etag, spans.join(","))
    }

    /// Reads what [`Content::ask_for`] writes, for this very content.
    pub(crate) fn asked(&self, spans: &str) -> Result<Block, StoreError> {
        let bad = |span: &str, why: &str| {
            let shown: String = span.chars().take(100).collect();
            StoreError::Archive { reason: format!("span {shown:?} {why}") }
        };
        let mut block = Block::default();
        for text in spans.split(',') {
            let parts: Vec<&str> = text.split(':').collect();
            let [name, offset, bytes] = parts[..] else { return Err(bad(text, "is not name:offset:bytes")) };
            let found = self.files.iter().position(|(known, _)| known == name);
            let file = found.ok_or_else(|| bad(text, "names no file of this content"))?;
            let number = |digits: &str| digits.parse::<u64>().map_err(|_| bad(text, "has no number"));
            let span = Span { file, offset: number(offset)?, bytes: number(bytes)? };
            let end = span.offset.checked_add(span.bytes).filter(|end| *end <= self.files[file].1);
            if end.is_none() || span.bytes == 0 {
                return Err(bad(text, "is not within its file"));
            }
            if !span.offset.is_multiple_of(crate::direct::ALIGN as u64) {
                return Err(bad(text, "does not begin at a multiple of 4096"));
            }
            block.spans.push(span);
            if block.spans.len() > MEMBERS_MAX || block.bytes() > SPANS_BYTES_MAX {
                return Err(bad(text, "is more than is sent at once"));
            }
        }
        Ok(block)
    }
}

/// The etag and the spans of a [`SPANS_HEADER`].
pub(crate) fn split_asked(header: &str) -> Option<(&str, &str)> {
    header.split_once(';').filter(|(etag, _)| is_etag(etag))
}

pub(crate) fn is_etag(text: &str) -> bool {
    text.len() == ETAG_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Some bytes of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// Its place in the list of files.
    pub(crate) file: usize,
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}

/// What travels together and has one hash.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) spans: Vec<Span>,
}

impl Block {
    pub(crate) fn bytes(&self) -> u64 {
        self.spans.iter().fold(0, |sum, span| sum.saturating_add(span.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(files: &[(&str, u64)]) -> Content {
        let files = files.iter().map(|(name, bytes)| ((*name).to_owned(), *bytes)).collect();
        Content { version: VERSION, etag: "a".repeat(ETAG_DIGITS), files, data: Vec::new() }
    }

    #[test]
    fn blocks_cover_every_byte_once_and_travel_as_text() {
        let all = content(&[
            ("p_aux", 64),
            ("sc-02-data-layer-1.dat", 3 * BLOCK),
            ("sc-02-data-layer-2.dat", 2 * BLOCK + 5),
            ("sc-02-data-tree-c.dat", BLOCK - 1),
            ("sc-02-data-tree-d.dat", 0),
            ("t_aux", 300),
        ]);
        let blocks = all.blocks();
        assert_eq!(blocks.iter().map(Block::bytes).sum::<u64>(), all.bytes());
        assert!(blocks.iter().all(|block| block.bytes() <= BLOCK && block.bytes() > 0));
        let mut ends = vec![0; all.files.len()];
        for block in &blocks {
            let asked = all.ask_for(block);
            let (etag, spans) = split_asked(&asked).expect("an etag");
            assert_eq!((etag, all.asked(spans).expect("readable")), (&*all.etag, block.clone()));
            for span in &block.spans {
                assert_eq!(ends[span.file], span.offset);
                ends[span.file] += span.bytes;
            }
        }
        assert!(all.files.iter().zip(&ends).all(|((_, bytes), end)| bytes == end));
    }

    #[test]
    fn spans_outside_the_content_are_refused() {
        let all = content(&[("p_aux", 64), ("t_aux", 300)]);
        for (spans, why) in [
            ("", "is not name:offset:bytes"),
            ("../p_aux:0:1", "names no file"),
            ("p_aux:0:65", "not within its file"),
            ("p_aux:0:0", "not within its file"),
            ("p_aux:18446744073709551615:2", "not within its file"),
            ("t_aux:1:5", "multiple of 4096"),
            ("p_aux:-1:5", "has no number"),
        ] {
            let error = all.asked(spans).expect_err(why).to_string();
            assert!(error.contains(why), "{spans}: {error}");
        }
        assert!(split_asked("zz;p_aux:0:1").is_none());
    }

    #[test]
    fn lists_that_no_sector_has_are_refused() {
        let json =
            |files: &str| format!("{{\"version\":1,\"etag\":\"{}\",\"files\":{files}}}", "0".repeat(64));
        for (directory, files, why) in [
            (true, "[[\"../../etc/passwd\",1]]", "no file of a sector"),
            (true, "[[\"p_aux\",65]]", "at most 64"),
            (true, "[[\"t_aux\",6],[\"p_aux\",6]]", "order of their names"),
            (true, "[[\"p_aux\",6],[\"p_aux\",6]]", "order of their names"),
            (true, "[]", "expected 1 to"),
            (false, "[[\"p_aux\",6]]", "within a plain file"),
            (false, "[]", "within a plain file"),
            (false, "7", "unreadable"),
        ] {
            let error = Content::parse(json(files).as_bytes(), directory).expect_err(why).to_string();
            assert!(error.contains(why), "{files}: {error}");
        }
        let other = json("[[\"\",6]]").replace(":1,", ":2,");
        assert!(Content::parse(other.as_bytes(), false).is_err());
        assert_eq!(Content::parse(json("[[\"\",6]]").as_bytes(), false).expect("fine").bytes(), 6);
    }
}
