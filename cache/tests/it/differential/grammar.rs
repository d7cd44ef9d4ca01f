//! A small language for random commands: one line says what calls of a command can look like.
//!
//! Words stand for themselves. `$name` draws an argument (see `argument`), `[…]` is there or not, `{a|b}` is one of several, and
//! a `+` after a group repeats it up to four times. So `SET $s $v [{EX $ttl|PX $ttl|KEEPTTL}] [GET]` covers most of `SET`.

use rand_core::Rng;

/// One call: the name and its arguments.
pub(crate) type Call = Vec<Vec<u8>>;

#[derive(Debug)]
enum Part {
    Word(String),
    Draw(String),
    Group { choices: Vec<Vec<Self>>, optional: bool, repeated: bool },
}

/// A parsed line.
#[derive(Debug)]
pub(crate) struct Template(Vec<Part>);

impl Template {
    pub(crate) fn parse(line: &str) -> Self {
        let mut tokens = Vec::new();
        let mut word = String::new();
        for c in line.chars() {
            if " []{}|".contains(c) || (c == '+' && word.is_empty()) {
                if !word.is_empty() {
                    tokens.push(std::mem::take(&mut word));
                }
                if c != ' ' {
                    tokens.push(c.to_string());
                }
            } else {
                word.push(c);
            }
        }
        if !word.is_empty() {
            tokens.push(word);
        }
        let mut tokens = tokens.into_iter().peekable();
        let mut choices = parts(&mut tokens);
        assert!(tokens.next().is_none() && choices.len() == 1, "unbalanced: {line}");
        Self(choices.remove(0))
    }

    pub(crate) fn draw(&self, random: &mut impl Rng) -> Call {
        let mut call = Vec::new();
        draw_all(&self.0, random, &mut call);
        call
    }
}

fn parts(tokens: &mut std::iter::Peekable<impl Iterator<Item = String>>) -> Vec<Vec<Part>> {
    let mut choices = vec![Vec::new()];
    while let Some(token) = tokens.peek() {
        let part = match token.as_str() {
            "]" | "}" => break,
            "|" => {
                tokens.next();
                choices.push(Vec::new());
                continue;
            }
            "[" | "{" => {
                let optional = token == "[";
                tokens.next();
                let choices = parts(tokens);
                assert!(tokens.next().is_some(), "a group ends");
                let repeated = tokens.next_if(|token| token == "+").is_some();
                Part::Group { choices, optional, repeated }
            }
            _ => {
                let token = tokens.next().unwrap();
                match token.strip_prefix('$') {
                    Some(name) => Part::Draw(name.to_owned()),
                    None => Part::Word(token),
                }
            }
        };
        choices.last_mut().unwrap().push(part);
    }
    choices
}

fn draw_all(parts: &[Part], random: &mut impl Rng, call: &mut Call) {
    for part in parts {
        match part {
            Part::Word(word) => call.push(word.as_bytes().to_vec()),
            Part::Draw(name) => call.push(argument(name, random)),
            Part::Group { choices, optional, repeated } => {
                if *optional && below(random, 2) == 0 {
                    continue;
                }
                let times = if *repeated { 1 + below(random, 4) } else { 1 };
                for _ in 0..times {
                    let choice = index(random, choices.len());
                    draw_all(&choices[choice], random, call);
                }
            }
        }
    }
}

/// A random index of something of `length` elements.
pub(crate) fn index(random: &mut impl Rng, length: usize) -> usize {
    let length = u32::try_from(length).unwrap();
    usize::try_from(below(random, length)).unwrap()
}

/// A random number below `bound`.
pub(crate) fn below(random: &mut impl Rng, bound: u32) -> u32 {
    u32::try_from((u64::from(random.next_u32()) * u64::from(bound)) >> 32).unwrap()
}

fn pick<'a>(random: &mut impl Rng, of: &[&'a str]) -> &'a str {
    of[index(random, of.len())]
}

/// Draws an argument. Keys have a type by their first letter, so that most commands meet the type they want; one in twelve does
/// not. One argument in a hundred is nonsense.
fn argument(name: &str, random: &mut impl Rng) -> Vec<u8> {
    if below(random, 100) == 0 {
        let nonsense =
            ["", "x", "-1", "0", "99999999999999999999", "1.5", "nan", " 1", "\u{0}\r\n"];
        return pick(random, &nonsense).into();
    }
    let number = |random: &mut _, bound| below(random, bound).to_string();
    let text = match name {
        "s" | "h" | "l" | "t" | "z" | "y" | "i" | "p" => {
            // Where scores differ, a range by text means nothing: `y` is never `z`.
            let others: &[&str] = if name == "y" {
                &["s", "h", "l", "t", "i"]
            } else {
                &["s", "h", "l", "t", "z", "i"]
            };
            let kind = if below(random, 12) == 0 { pick(random, others) } else { name };
            format!("{kind}{}", below(random, 4))
        }
        "k" => {
            format!("{}{}", pick(random, &["s", "h", "l", "t", "z", "i", "p"]), below(random, 4))
        }
        "new" => format!("n{}", below(random, 3)),
        "v" => value(random),
        "f" => format!("f{}", below(random, 12)),
        "m" => match below(random, 4) {
            0 => number(random, 30),
            1 => value(random),
            _ => format!("m{}", below(random, 12)),
        },
        "n" => (i64::from(below(random, 30)) - 10).to_string(),
        "u" => number(random, 12),
        "bit" => number(random, 200),
        "int" => pick(
            random,
            &[
                "0",
                "1",
                "-1",
                "7",
                "100",
                "9223372036854775807",
                "-9223372036854775808",
                "12345678901",
            ],
        )
        .to_owned(),
        "float" => {
            pick(random, &["0", "1.5", "-2.25", "3", "1e3", "0.1", "1e17", "-0.5", "inf", "2.5e-5"])
                .to_owned()
        }
        "score" => pick(
            random,
            &["0", "1", "2", "3", "-1", "1.5", "2.25", "1e3", "-inf", "+inf", "0.1", "1e17", "3.0"],
        )
        .to_owned(),
        "edge" => pick(random, &["-inf", "+inf", "(1", "1", "(2", "3", "0", "(1e3", "1.5", "(-1"])
            .to_owned(),
        "lex" => pick(random, &["-", "+", "[m1", "(m1", "[m5", "(m7", "[", "(a", "[zz"]).to_owned(),
        // Far enough away that both servers see it alike.
        "ms" => pick(random, &["100000", "5000000", "0", "-5"]).to_owned(),
        "ttl" => pick(random, &["100", "1000", "5000", "0", "-5"]).to_owned(),
        "at" => pick(random, &["4102444800", "4102444801", "33177117420"]).to_owned(),
        "atms" => pick(random, &["4102444800000", "4102444800123", "33177117420000"]).to_owned(),
        "pattern" => {
            pick(random, &["*", "s*", "?1", "[hl]*", "m[0-5]", "f?", "*1*", "\\*", "[^s]*", "n*"])
                .to_owned()
        }
        "field_type" => {
            pick(random, &["u8", "i8", "u1", "i5", "u63", "i64", "u16", "i13"]).to_owned()
        }
        "offset" => pick(random, &["0", "7", "8", "100", "#0", "#1", "#3"]).to_owned(),
        other => panic!("no argument {other}"),
    };
    text.into_bytes()
}

fn value(random: &mut impl Rng) -> String {
    match below(random, 8) {
        0 => below(random, 1000).to_string(),
        1 => "a".repeat(below(random, 80) as usize),
        2 => "x".repeat(100 + below(random, 400) as usize),
        3 => pick(random, &["", "\u{ff}\u{0}", "hello world", "3.0e2", " 12", "-0"]).to_owned(),
        _ => format!("v{}", below(random, 20)),
    }
}
