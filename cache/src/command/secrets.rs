//! What logs and monitors do not show: passwords, and what they are given with.

use std::borrow::Cow;

use super::is_option;

const REDACTED: &[u8] = b"(redacted)";

/// Settings whose values are secrets.
const SECRET_SETTINGS: [&str; 4] = ["requirepass", "masterauth", "masteruser", "tls-key-file-pass"];

/// The arguments of a command, the name first, as they may be shown. `name` is its full name: `acl|setuser`. As many as before.
pub(crate) fn without_secrets<'s, 'a>(
    name: &str,
    arguments: &'s [&'a [u8]],
) -> Cow<'s, [&'a [u8]]> {
    let mut shown = Cow::Borrowed(arguments);
    match name {
        "auth" => shown.to_mut()[1..].fill(REDACTED),
        "acl|setuser" | "acl|getuser" | "acl|deluser" => shown.to_mut()[2..].fill(REDACTED),
        "hello" => {
            if let Some(at) = arguments.iter().position(|it| is_option(it, "AUTH")) {
                shown.to_mut()[at + 1..].iter_mut().take(2).for_each(|it| *it = REDACTED);
            }
        }
        "config|set" => {
            for at in (2..arguments.len().saturating_sub(1)).step_by(2) {
                if SECRET_SETTINGS.iter().any(|it| is_option(arguments[at], it)) {
                    shown.to_mut()[at + 1] = REDACTED;
                }
            }
        }
        _ => {}
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::resolve;

    #[test]
    fn passwords_are_not_shown() {
        let lines = [
            ("auth me pass", "auth (redacted) (redacted)"),
            ("ACL SETUSER me >pass", "ACL SETUSER (redacted) (redacted)"),
            ("config set requirepass pass", "config set requirepass (redacted)"),
            (
                "config set timeout 1 MASTERAUTH pass maxmemory 1",
                "config set timeout 1 MASTERAUTH (redacted) maxmemory 1",
            ),
            ("hello 3 AUTH me pass setname n", "hello 3 AUTH (redacted) (redacted) setname n"),
            ("config set maxmemory 1", "config set maxmemory 1"),
            ("set auth pass", "set auth pass"),
        ];
        for (line, shown) in lines {
            let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            let name = resolve(&words).unwrap().full_name;
            assert_eq!(without_secrets(name, &words).join(&b' '), shown.as_bytes());
        }
    }
}
