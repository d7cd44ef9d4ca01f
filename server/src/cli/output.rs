//! Output: tables for people, JSON for programs.

use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use serde_json::{Value, json};

/// How results are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns for people
    Table,
    /// One JSON document
    Json,
    /// One JSON object a line
    Jsonl,
}

/// Shows results in the chosen format.
#[derive(Debug)]
pub(crate) struct Output {
    format: Format,
}

/// The version of the shape of all JSON output.
const SCHEMA: u32 = 1;

impl Output {
    pub(crate) fn new(format: Format) -> Self {
        Self { format }
    }

    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// A list of like things: `summary` tells about the list, each of `items` about one; `row` makes a table line of one.
    pub(crate) fn list(
        &self,
        headers: &[&str],
        summary: Value,
        name: &str,
        items: &[Value],
        row: impl Fn(&Value) -> Vec<String>,
    ) -> io::Result<()> {
        match self.format {
            Format::Table => {
                let rows: Vec<Vec<String>> = items.iter().map(row).collect();
                self.text(&table(headers, &rows))
            }
            Format::Json => {
                let mut document = with_schema(summary);
                document[name] = items.into();
                self.text(&format!("{document:#}\n"))
            }
            Format::Jsonl => {
                let lines: String = items.iter().map(|item| format!("{item}\n")).collect();
                self.text(&lines)
            }
        }
    }

    /// One thing: `text` for people, `value` for programs.
    pub(crate) fn one(&self, text: &str, value: Value) -> io::Result<()> {
        match self.format {
            Format::Table => self.text(&format!("{text}\n")),
            Format::Json => self.text(&format!("{:#}\n", with_schema(value))),
            Format::Jsonl => self.text(&format!("{value}\n")),
        }
    }

    /// Bytes as they are, and an end of line.
    pub(crate) fn bytes(&self, bytes: &[u8]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(bytes)?;
        out.write_all(b"\n")?;
        out.flush()
    }

    /// Text as it is.
    pub(crate) fn text(&self, text: &str) -> io::Result<()> {
        print(text)
    }
}

/// Writes to standard output.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Tells about a failure, on standard error. Nobody is left to tell if that fails too.
pub(crate) fn complain(text: &str) {
    let mut err = io::stderr().lock();
    let (on, off) = if colour(&err) { ("\x1b[31m", "\x1b[0m") } else { ("", "") };
    let _nobody_to_tell = writeln!(err, "{on}error{off}: {text}");
}

/// Whether to colour what goes to `stream`.
pub(crate) fn colour(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Bytes as JSON: text where they are text, else `{"b64": …}`.
pub(crate) fn json_bytes(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_not_text) => json!({ "b64": base64(bytes) }),
    }
}

/// Bytes for a terminal: what could move its cursor, or is no text, is escaped.
pub(crate) fn shown(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() || c == '\\' { out.extend(c.escape_default()) } else { out.push(c) }
        }
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out
}

fn with_schema(value: Value) -> Value {
    let mut document = json!({ "schema": SCHEMA });
    if let (Some(document), Value::Object(fields)) = (document.as_object_mut(), value) {
        document.extend(fields);
    }
    document
}

/// Columns as wide as their widest cell, two spaces between them.
fn table(headers: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = headers.iter().map(|header| header.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: Vec<&str>| {
        let mut line = String::new();
        for (cell, width) in cells.iter().zip(&widths) {
            line.push_str(&format!("{cell:<width$}  "));
        }
        format!("{}\n", line.trim_end())
    };
    let head = line(headers.to_vec());
    rows.iter().fold(head, |mut text, row| {
        text.push_str(&line(row.iter().map(String::as_str).collect()));
        text
    })
}

/// Base64 with padding (RFC 4648 §4).
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for i in 0..4 {
            let index = usize::try_from(bits >> (18 - 6 * i) & 63).expect("six bits");
            out.push(if i <= chunk.len() { char::from(ALPHABET[index]) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
        assert_eq!(base64(&[0xff, 0xfe, 0xfd]), "//79");
    }

    #[test]
    fn bytes_that_are_no_text_are_marked() {
        assert_eq!(json_bytes(b"a\n"), json!("a\n"));
        assert_eq!(json_bytes(&[0xff]), json!({ "b64": "/w==" }));
        assert_eq!(shown(b"a\x1b[31m\\ \xff\xc3\xa9"), "a\\u{1b}[31m\\\\ \\xffé");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["é".into(), "long cell".into()], vec!["bb".into(), String::new()]];
        assert_eq!(table(&["A", "B"], &rows), "A   B\né   long cell\nbb\n");
    }
}
