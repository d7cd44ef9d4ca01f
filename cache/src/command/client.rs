//! `CLIENT`: what connections are there, and what they want.

use super::{Command, Context, Failure};

/// The family.
pub(super) const COMMANDS: &[Command] = &[];

/// Names the connection; an empty name takes the name away.
pub(super) fn set_name(ctx: &mut Context<'_, '_>, name: &[u8]) -> Result<(), Failure> {
    if !is_label(name) {
        return Err(Failure::err(
            "Client names cannot contain spaces, newlines or special characters.",
        ));
    }
    ctx.session.client.edit_labels(|labels| labels.name = name.to_vec());
    Ok(())
}

/// Whether bytes can stand in a line of `CLIENT LIST`.
fn is_label(bytes: &[u8]) -> bool {
    bytes.iter().all(u8::is_ascii_graphic)
}
