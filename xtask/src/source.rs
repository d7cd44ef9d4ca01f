//! Finding the project's files and, roughly, the functions in them.
//!
//! A scan of text, not a parser: it counts braces outside comments and literals. Good enough to
//! watch a trend.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Directories that hold nothing written here.
const SKIPPED: [&str; 4] = ["target", "node_modules", "data", "generated"];

/// Files below `directory` with one of these extensions, in a fixed order; none if there is no such
/// directory.
pub(crate) fn files_below(directory: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    if !directory.is_dir() {
        return Ok(found);
    }
    let entries =
        fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() {
            if !name.starts_with('.') && !SKIPPED.contains(&name) {
                found.extend(files_below(&path, extensions)?);
            }
        } else if path
            .extension()
            .is_some_and(|extension| extensions.iter().any(|wanted| extension == *wanted))
        {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Lengths in lines of the functions with a body in a Rust file, nested ones counted on their own
/// too.
pub(crate) fn function_lengths(text: &str) -> Vec<usize> {
    let text = without_literals_and_comments(text);
    let mut lengths = Vec::new();
    let mut depth = 0_usize;
    // The line a function began on, and the depth at which its body opens, once that is seen.
    let mut open: Vec<(usize, usize)> = Vec::new();
    let mut announced: Option<usize> = None;
    for (number, line) in text.lines().enumerate() {
        if is_function_head(line) {
            announced = Some(number);
        }
        for character in line.chars() {
            match character {
                '{' => {
                    if let Some(start) = announced.take() {
                        open.push((start, depth));
                    }
                    depth += 1;
                }
                '}' => {
                    depth = depth.saturating_sub(1);
                    if let Some(&(start, at)) = open.last()
                        && at == depth
                    {
                        open.pop();
                        lengths.push(number - start + 1);
                    }
                }
                // A declaration without a body.
                ';' if announced.is_some() && !line.contains('[') => announced = None,
                _ => {}
            }
        }
    }
    lengths
}

fn is_function_head(line: &str) -> bool {
    let mut words = line.split_whitespace().skip_while(|word| {
        word.starts_with("pub") || matches!(*word, "const" | "async" | "crate)" | "super)" | "in")
    });
    words.next() == Some("fn")
}

/// How many `#` stand between an `r` and the quote that follows `text`; `None` if no raw string
/// begins there.
fn raw_hashes(text: &str) -> Option<usize> {
    let before = text.trim_end_matches('#');
    before.ends_with('r').then_some(text.len() - before.len())
}

/// Takes the rest of a string literal, whose opening quote has been taken, and returns it.
fn skip_string(rest: &mut std::iter::Peekable<std::str::Chars<'_>>, raw: Option<usize>) -> String {
    let end = format!("\"{}", "#".repeat(raw.unwrap_or(0)));
    let mut taken = String::new();
    while let Some(next) = rest.next() {
        taken.push(next);
        if next == '\\' && raw.is_none() {
            taken.extend(rest.next().filter(|escaped| *escaped == '\n'));
        } else if taken.ends_with(&end) {
            break;
        }
    }
    taken
}

/// The text with the content of strings, character literals and comments blanked; lines stay where
/// they are.
fn without_literals_and_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(character) = rest.next() {
        match character {
            '/' if rest.peek() == Some(&'/') => {
                while rest.next_if(|next| *next != '\n').is_some() {}
            }
            '/' if rest.peek() == Some(&'*') => {
                let mut last = ' ';
                for next in rest.by_ref() {
                    if next == '\n' {
                        out.push('\n');
                    }
                    if last == '*' && next == '/' {
                        break;
                    }
                    last = next;
                }
            }
            '"' => {
                let literal = skip_string(&mut rest, raw_hashes(&out));
                out.extend(literal.chars().filter(|next| *next == '\n'));
            }
            '\'' => {
                // A lifetime has no closing quote right behind its first character; a brace in
                // quotes has.
                let mut ahead = rest.clone();
                let first = ahead.next();
                if first == Some('\\') {
                    rest.next();
                    rest.next();
                    while rest.next_if(|next| *next != '\'').is_some() {}
                    rest.next();
                } else if ahead.next() == Some('\'') {
                    rest.next();
                    rest.next();
                }
            }
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_measured_from_head_to_closing_brace() {
        let text = "fn one() {}\n\npub(crate) async fn three(\n    a: u8) {\n}\n\nimpl X {\n    fn two() {\n    }\n}\n";
        assert_eq!(function_lengths(text), [1, 3, 2]);
    }

    #[test]
    fn braces_in_literals_and_comments_do_not_count() {
        let text = "fn f() {\n    let a = \"{{\"; // {\n    let b = '{';\n    let c: &'static str = \"\\\"}\";\n}\nfn g() {}\n";
        assert_eq!(function_lengths(text), [5, 1]);
        let text = "fn f() {\n    let a = r#\"{\" \\\"#;\n}\n";
        assert_eq!(function_lengths(text), [3]);
    }

    #[test]
    fn declarations_without_a_body_do_not_count() {
        let text = "trait T {\n    fn declared(&self) -> u8;\n    fn given(&self) {\n    }\n}\n";
        assert_eq!(function_lengths(text), [2]);
    }
}
