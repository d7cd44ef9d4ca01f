//! `PFDEBUG` and `PFSELFTEST`: what Redis's own tests look into HyperLogLogs with.

use std::fmt::Write as _;

use super::{must_be_sketch, sketch};
use crate::command::{Context, Failure, is_option, shown};
use crate::store::Missing;
use crate::value::Text;

pub(super) fn pfdebug(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let key = ctx.key(arguments[2]);
    let bytes = ctx.keys.string(&key)?;
    let bytes = bytes.ok_or_else(|| Failure::err("The specified key does not exist"))?;
    must_be_sketch(bytes)?;
    let is_dense = sketch::is_dense(bytes);
    match arguments[1] {
        name if is_option(name, "ENCODING") => {
            ctx.reply.simple(if is_dense { "dense" } else { "sparse" });
        }
        name if is_option(name, "GETREG") => {
            ctx.reply.array(sketch::REGISTERS);
            let reply = &mut ctx.reply;
            sketch::each(bytes, |_, count, value| {
                (0..count).for_each(|_| reply.integer(i64::from(value)));
            })?;
        }
        name if is_option(name, "DECODE") => {
            if is_dense {
                return Err(Failure::err("HLL encoding is not sparse"));
            }
            let mut text = String::new();
            sketch::each(bytes, |_, count, value| {
                let written = match value {
                    0 if count > 64 => write!(text, "Z:{count} "),
                    0 => write!(text, "z:{count} "),
                    _ => write!(text, "v:{value},{count} "),
                };
                written.expect("text takes all that is written");
            })?;
            ctx.reply.bulk(text.trim_end().as_bytes());
        }
        name if is_option(name, "TODENSE") => {
            let edited = ctx.keys.edit(&key, Missing::Skip, |text: &mut Text| {
                let mut result = Ok(());
                text.alter(|bytes| {
                    result = sketch::make_dense(bytes);
                    !is_dense
                });
                result
            })?;
            edited.transpose()?;
            ctx.reply.integer(i64::from(!is_dense));
        }
        other => {
            let name = shown(other);
            return Err(Failure::err(format_args!("Unknown PFDEBUG subcommand '{name}'")));
        }
    }
    Ok(())
}

/// How many elements the self-test adds.
const ELEMENTS: u32 = 10_000;

/// Adds the same elements to a sketch that grows from sparse to dense and to one that was dense from the beginning: they must agree,
/// and be right within three standard errors.
pub(super) fn pfselftest(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> Result<(), Failure> {
    let (mut sparse, mut dense) = (sketch::empty(), sketch::empty());
    sketch::make_dense(&mut dense)?;
    for number in 0..ELEMENTS {
        let (index, value) = sketch::place(&number.to_le_bytes());
        sketch::raise(&mut sparse, index, value, super::sparse_max(ctx))?;
        sketch::raise(&mut dense, index, value, 0)?;
    }
    let estimates =
        [&sparse, &dense].map(|bytes| sketch::histogram(bytes).map(|it| sketch::estimate(&it)));
    let [sparse, dense] = estimates;
    let (sparse, dense) = (sparse?, dense?);
    if sparse != dense || dense.abs_diff(u64::from(ELEMENTS)) > u64::from(ELEMENTS) * 244 / 10_000 {
        return Err(Failure::err(format_args!(
            "TESTFAILED {ELEMENTS} elements were estimated as {sparse} and {dense}"
        )));
    }
    ctx.reply.ok();
    Ok(())
}
