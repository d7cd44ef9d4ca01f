//! How long functions and files are, crate by crate: a mirror, not a judge.

use std::fs;
use std::path::Path;

use anyhow::Result;

use crate::source::{files_below, function_lengths};

/// The sizes of one crate's sources.
#[derive(Default)]
struct Shape {
    files: Vec<usize>,
    functions: Vec<usize>,
    with_head: usize,
}

/// Prints one line per crate, and one over all.
pub(crate) fn print(root: &Path) -> Result<()> {
    println!("Lines by a scan of the text, so approximate. Tests within src/ count.");
    println!(
        "{:<16}{:>7}{:>9}{:>11}{:>8}{:>10}{:>9}{:>7}",
        "crate", "files", "lines", "functions", "fn p50", "fn p95", "file p50", "p90"
    );
    let mut all = Shape::default();
    for name in crates(root)? {
        let mut shape = Shape::default();
        for file in files_below(&root.join(&name).join("src"), &["rs"])? {
            measure(&fs::read_to_string(&file)?, &mut shape);
        }
        print_row(&name, &mut shape);
        all.files.append(&mut shape.files);
        all.functions.append(&mut shape.functions);
        all.with_head += shape.with_head;
    }
    print_row("all", &mut all);
    Ok(())
}

/// Directories of the workspace with a `Cargo.toml`, in order.
pub(crate) fn crates(root: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root)? {
        let path = entry?.path();
        if path.join("Cargo.toml").is_file()
            && let Some(name) = path.file_name().and_then(|name| name.to_str())
        {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn measure(text: &str, shape: &mut Shape) {
    shape.files.push(text.lines().count());
    shape.functions.extend(function_lengths(text));
    shape.with_head += usize::from(text.trim_start().starts_with("//!"));
}

fn print_row(name: &str, shape: &mut Shape) {
    let Shape { files, functions, with_head } = shape;
    files.sort_unstable();
    functions.sort_unstable();
    let heads = (*with_head * 100).checked_div(files.len()).unwrap_or(0);
    println!(
        "{name:<16}{:>7}{:>9}{:>11}{:>8}{:>10}{:>9}{:>7}   {heads}% of files with a head",
        files.len(),
        files.iter().sum::<usize>(),
        functions.len(),
        percentile(functions, 50),
        percentile(functions, 95),
        percentile(files, 50),
        percentile(files, 90),
    );
}

/// The value below which `percent` of the sorted values lie; zero if there are none.
fn percentile(sorted: &[usize], percent: usize) -> usize {
    let last = sorted.len().saturating_sub(1);
    sorted.get(last * percent / 100).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_few_values() {
        assert_eq!(percentile(&[], 50), 0);
        assert_eq!(percentile(&[7], 95), 7);
        assert_eq!(percentile(&[1, 2, 3], 50), 2);
        assert_eq!(percentile(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], 90), 10);
    }
}
