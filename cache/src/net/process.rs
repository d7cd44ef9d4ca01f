//! What the operating system tells of the process: for `INFO`.

#![expect(
    clippy::disallowed_methods,
    reason = "the edge reads what the kernel tells of the process"
)]

use crate::totals::Process;

/// A file of `/proc`, if there is one.
fn text(path: &str) -> Option<String> {
    String::from_utf8(std::fs::read(path).ok()?).ok()
}

/// Learns what stays the same while the process lives.
pub(super) fn learn_once(process: &mut Process, threads: usize) {
    process.id = std::process::id();
    process.threads = threads;
    process.executable =
        std::env::current_exe().map(|path| path.display().to_string()).unwrap_or_default();
    let release = text("/proc/sys/kernel/osrelease").unwrap_or_default();
    let (system, architecture) = (std::env::consts::OS, std::env::consts::ARCH);
    process.system = format!("{system} {} {architecture}", release.trim());
    process.system_memory = text("/proc/meminfo").and_then(|it| memory_total(&it)).unwrap_or(0);
}

/// Learns what changes.
pub(super) fn learn_again(process: &mut Process, resident: Option<u64>) {
    process.resident = resident.unwrap_or(process.resident);
    if let Some((user, kernel)) = text("/proc/self/stat").and_then(|stat| ticks(&stat)) {
        let second = rustix::param::clock_ticks_per_second().max(1);
        process.user_us = user.saturating_mul(1_000_000) / second;
        process.kernel_us = kernel.saturating_mul(1_000_000) / second;
    }
}

/// The machine's memory in bytes: `MemTotal:  16384 kB`.
fn memory_total(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
    line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()?.checked_mul(1024)
}

/// Ticks in user mode and in the kernel: fields 14 and 15. The name before them may hold spaces, and stands in parentheses.
fn ticks(stat: &str) -> Option<(u64, u64)> {
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace().skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_moves_no_field() {
        let stat = "7 (a b) c) S 1 2 3 4 5 6 7 8 9 10 1100 1200 13";
        assert_eq!(ticks(stat), Some((1100, 1200)));
        assert_eq!(ticks("nonsense"), None);
    }

    #[test]
    fn memory_is_told_in_kilobytes() {
        assert_eq!(memory_total("Other: 1 kB\nMemTotal:       16 kB\n"), Some(16_384));
        assert_eq!(memory_total(""), None);
    }
}
