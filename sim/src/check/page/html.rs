//! Text and style of a page.

use std::fmt::Write as _;

/// Longer texts are cut: nobody reads them, and a page has to stay small.
const TEXT_MAX: usize = 600;

/// Text for a page: what would be markup is escaped, what would change how other characters are shown is replaced.
pub(super) fn text(text: &str) -> String {
    let mut safe = String::with_capacity(text.len().min(TEXT_MAX) + 8);
    let mut characters = text.chars();
    for character in characters.by_ref().take(TEXT_MAX) {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            '\n' | '\t' => safe.push(' '),
            _ if character.is_control() || is_invisible(character) => safe.push('\u{fffd}'),
            _ => safe.push(character),
        }
    }
    let cut = characters.count();
    if cut > 0 {
        write!(safe, " … ({cut} more)").expect("a String takes everything");
    }
    safe
}

/// Characters without a shape that turn, join or hide others.
fn is_invisible(character: char) -> bool {
    matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// The style of a page.
pub(super) const STYLE: &str = include_str!("style.css");
