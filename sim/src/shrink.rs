//! A failing run, made as small as it can be made.
//!
//! A run of twenty seconds has a hundred faults and a thousand operations, of which three matter. [`shrink`] takes away what does not: time
//! after the violation, whole kinds of faults, single faults and operations (delta debugging: Zeller and Hildebrandt, *Simplifying and
//! isolating failure-inducing input*, 2002), and half of the time again and again. After each step the run is made again, and the step is kept if
//! the same property is broken. What remains is a [`Plan`]: a file that says what to run, and fails in the same way every time.
//!
//! Nothing is drawn for a plan that the seed does not give, so that what is left happens as it did; yet one fault less moves everything
//! after it, so a step that loses the violation proves nothing about the fault that it left out. The result is small, not smallest.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::fault::{FaultKind, Schedule};
use crate::process::Address;
use crate::random::nanos;
use crate::run::{Phase, Report};

/// What to run besides the seed: which faults, which operations, how long.
///
/// Its text has one line for each thing: settings of whoever runs it, the time, the operations that are kept, the faults.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What else whoever runs it has to know: the seed, for example. Neither names nor values have line breaks, and no name has a `=`.
    pub settings: BTreeMap<String, String>,
    /// How long faults strike.
    pub safety: Duration,
    /// The faults.
    pub faults: Schedule,
    /// The operations of each client that are done, by their numbers; all others are left out. All are done if `None`.
    pub kept: Option<Kept>,
}

/// Operations of clients, by their numbers from 1.
pub type Kept = BTreeMap<Address, BTreeSet<u64>>;

impl Plan {
    /// All that happened in a run.
    pub fn of(report: &Report) -> Self {
        let (safety, faults) = (report.safety, report.schedule.clone());
        Self { settings: BTreeMap::new(), safety, faults, kept: None }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.settings {
            writeln!(f, "{name}={value}")?;
        }
        writeln!(f, "safety={}", nanos(self.safety))?;
        for (client, kept) in self.kept.iter().flatten() {
            let ranges: Vec<_> = ranges(kept).map(|(a, b)| format!("{a}-{b}")).collect();
            writeln!(f, "keep={}:{}", client.0, ranges.join(","))?;
        }
        self.faults.iter().try_for_each(|fault| writeln!(f, "{fault}"))
    }
}

/// Numbers as ranges without gaps, both ends included.
fn ranges(numbers: &BTreeSet<u64>) -> impl Iterator<Item = (u64, u64)> {
    let mut numbers = numbers.iter().copied().peekable();
    std::iter::from_fn(move || {
        let first = numbers.next()?;
        let mut last = first;
        while let Some(next) = numbers.next_if(|next| *next == last + 1) {
            last = next;
        }
        Some((first, last))
    })
}

/// The longest range of operations in a plan.
const RANGE_MAX: u64 = 1 << 20;

impl FromStr for Plan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut plan = Self::default();
        let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{text}: {error}"));
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if line.starts_with("at=") {
                plan.faults.push(line.parse()?);
                continue;
            }
            let (name, value) = line.split_once('=').ok_or_else(|| format!("{line}: no value"))?;
            match name {
                "safety" => plan.safety = Duration::from_nanos(number(value)?),
                "keep" => {
                    let (client, ranges) =
                        value.split_once(':').ok_or_else(|| format!("{line}: no client"))?;
                    let all = plan.kept.get_or_insert_default();
                    let kept = all.entry(Address(number(client)?)).or_default();
                    for range in ranges.split(',').filter(|range| !range.is_empty()) {
                        let (first, last) =
                            range.split_once('-').ok_or_else(|| format!("{range}: no range"))?;
                        let (first, last) = (number(first)?, number(last)?);
                        if last.saturating_sub(first) > RANGE_MAX {
                            return Err(format!("{range}: too long"));
                        }
                        kept.extend(first..=last);
                    }
                }
                _ => {
                    plan.settings.insert(name.to_owned(), value.to_owned());
                }
            }
        }
        Ok(plan)
    }
}

/// What was made of a failing run.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// What is left.
    pub plan: Plan,
    /// The run of it.
    pub report: Report,
    /// How many runs it took to get there.
    pub runs: u64,
    /// Faults, operations and simulated time of the run that was shrunk.
    pub before: (usize, u64, Duration),
}

impl fmt::Display for Shrunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (faults, operations, time) = self.before;
        write!(
            f,
            "{faults} faults shrank to {}, {operations} operations to {}, {:.2} s to {:.2} s, in {} runs",
            self.report.schedule.len(),
            begun(&self.report),
            time.as_secs_f64(),
            self.report.simulated.as_secs_f64(),
            self.runs
        )
    }
}

/// The operations that clients really did.
fn begun(report: &Report) -> u64 {
    report.begun.values().sum()
}

/// Makes a failing run small: `run` runs a plan with the seed of `report`, at most `runs_max` times.
///
/// Answers `None` if the run did not fail, or does not fail in the same way when its own faults are carried out again, which would be a bug of
/// the simulation.
pub fn shrink(report: &Report, runs_max: u64, run: impl FnMut(&Plan) -> Report) -> Option<Shrunk> {
    let property = report.violation.as_ref()?.property.clone();
    let plan = Plan::of(report);
    let mut shrinker =
        Shrinker { property, runs_left: runs_max, best: (plan.clone(), report.clone()), run };
    if !shrinker.attempt(plan) {
        return None;
    }
    shrinker.shorten();
    shrinker.leave_kinds_out();
    loop {
        let size = shrinker.size();
        shrinker.leave_faults_out();
        shrinker.leave_operations_out();
        shrinker.shorten();
        if shrinker.size() == size || shrinker.runs_left == 0 {
            break;
        }
    }
    let (plan, shrunk) = shrinker.best;
    Some(Shrunk {
        plan,
        report: shrunk,
        runs: runs_max - shrinker.runs_left,
        before: (report.schedule.len(), begun(report), report.simulated),
    })
}

struct Shrinker<R> {
    property: String,
    runs_left: u64,
    /// The smallest plan that fails, and its run.
    best: (Plan, Report),
    run: R,
}

impl<R: FnMut(&Plan) -> Report> Shrinker<R> {
    fn size(&self) -> (usize, u64, Duration) {
        let (plan, report) = &self.best;
        (plan.faults.len(), begun(report), plan.safety)
    }

    /// Runs a plan, and keeps it if it fails in the same way.
    fn attempt(&mut self, plan: Plan) -> bool {
        if self.runs_left == 0 {
            return false;
        }
        self.runs_left -= 1;
        let report = (self.run)(&plan);
        let fails = report.violation.as_ref().is_some_and(|found| found.property == self.property);
        if fails {
            self.best = (plan, report);
        }
        fails
    }

    /// Ends the faults at the violation, and then in the middle, as long as that shows it too.
    fn shorten(&mut self) {
        let (plan, report) = &self.best;
        if report.phase == Phase::Safety && report.simulated < plan.safety {
            let mut shorter = plan.clone();
            shorter.safety = report.simulated + Duration::from_millis(1);
            shorter.faults.retain(|fault| fault.at <= shorter.safety);
            self.attempt(shorter);
        }
        loop {
            let mut shorter = self.best.0.clone();
            shorter.safety /= 2;
            if shorter.safety < Duration::from_millis(100) {
                return;
            }
            shorter.faults.retain(|fault| fault.at <= shorter.safety);
            if !self.attempt(shorter) {
                return;
            }
        }
    }

    fn leave_kinds_out(&mut self) {
        let kinds: BTreeSet<FaultKind> =
            self.best.0.faults.iter().map(|fault| fault.kind).collect();
        for kind in kinds {
            let mut fewer = self.best.0.clone();
            fewer.faults.retain(|fault| fault.kind != kind);
            self.attempt(fewer);
        }
    }

    fn leave_faults_out(&mut self) {
        let plan = self.best.0.clone();
        self.minimise(plan.faults.clone(), |plan, faults| plan.faults = faults.to_vec());
    }

    fn leave_operations_out(&mut self) {
        let clients: Vec<Address> = self.best.1.begun.keys().copied().collect();
        let kept: Vec<(Address, u64)> = match &self.best.0.kept {
            Some(kept) => kept
                .iter()
                .flat_map(|(client, kept)| kept.iter().map(|number| (*client, *number)))
                .collect(),
            None => {
                let begun = self.best.1.begun.iter();
                begun.flat_map(|(client, count)| (1..=*count).map(|n| (*client, n))).collect()
            }
        };
        self.minimise(kept, move |plan, kept| {
            // A line for each client, those that do nothing too.
            let all = plan.kept.insert(clients.iter().map(|c| (*c, BTreeSet::new())).collect());
            for (client, number) in kept {
                all.entry(*client).or_default().insert(*number);
            }
        });
    }

    /// Takes away chunks of `items`, half of them first and single ones in the end, as long as the violation stays.
    fn minimise<T: Clone>(&mut self, mut items: Vec<T>, apply: impl Fn(&mut Plan, &[T])) {
        let mut chunk = items.len();
        while chunk > 0 && self.runs_left > 0 {
            let mut start = 0;
            while start < items.len() {
                let end = (start + chunk).min(items.len());
                let mut fewer = items.clone();
                fewer.drain(start..end);
                let mut plan = self.best.0.clone();
                apply(&mut plan, &fewer);
                if self.attempt(plan) {
                    items = fewer;
                } else {
                    start = end;
                }
            }
            chunk /= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Fault;
    use crate::run::Violation;

    fn report(faults: Schedule, begun: u64, fails: bool) -> Report {
        Report {
            safety: Duration::from_secs(20),
            simulated: Duration::from_secs(16),
            schedule: faults,
            begun: BTreeMap::from([(Address(101), begun)]),
            violation: fails.then(|| Violation::new("one log", "it is two")),
            ..Report::new(1)
        }
    }

    fn faults() -> Schedule {
        let kinds = FaultKind::ALL.into_iter().cycle();
        (0..60)
            .zip(kinds)
            .map(|(at, kind)| Fault::new(Duration::from_millis(at * 100), kind))
            .collect()
    }

    #[test]
    fn what_does_not_matter_is_left_out() {
        // It takes a crash at 0.0 s, a flipped bit at 2.6 s, and operation 37.
        let run = |plan: &Plan| {
            let has = |kind, at| {
                let at = Duration::from_millis(at);
                plan.faults.iter().any(|fault| fault.kind == kind && fault.at == at)
            };
            let kept = plan.kept.as_ref().map(|kept| &kept[&Address(101)]);
            let left = kept.map_or(50, |kept| u64::try_from(kept.len()).unwrap());
            let fails = has(FaultKind::Crash, 0)
                && has(FaultKind::BitRot, 2_600)
                && kept.is_none_or(|kept| kept.contains(&37));
            Report { safety: plan.safety, ..report(plan.faults.clone(), left, fails) }
        };
        let shrunk = shrink(&report(faults(), 50, true), 1_000, run).unwrap();
        let times: Vec<_> = shrunk.plan.faults.iter().map(|fault| fault.at.as_millis()).collect();
        assert_eq!(times, [0, 2_600]);
        assert_eq!(shrunk.report.begun[&Address(101)], 1);
        assert!(shrunk.plan.safety < Duration::from_secs(6), "{:?}", shrunk.plan.safety);
        assert!(shrunk.runs < 200, "{shrunk}");
        let text = shrunk.plan.to_string();
        assert_eq!(text.parse(), Ok(shrunk.plan), "{text}");
        assert!(text.contains("keep=101:37-37\n"), "{text}");
    }

    #[test]
    fn no_more_runs_are_made_than_allowed_and_what_was_found_by_then_is_kept() {
        let mut runs = 0;
        let shrunk = shrink(&report(faults(), 50, true), 7, |plan| {
            runs += 1;
            report(plan.faults.clone(), 50, true)
        });
        assert_eq!(shrunk.unwrap().runs, 7);
        assert_eq!(runs, 7);
    }

    #[test]
    fn what_does_not_fail_or_fails_otherwise_is_not_shrunk() {
        let sound = report(faults(), 50, false);
        assert!(shrink(&sound, 100, |_| sound.clone()).is_none());
        let mut other = report(faults(), 50, true);
        other.violation = Some(Violation::new("progress", "none"));
        assert!(shrink(&report(faults(), 50, true), 100, |_| other.clone()).is_none());
    }

    #[test]
    fn a_plan_that_is_not_one_is_refused() {
        for text in
            ["nonsense", "at=1 kind=no", "keep=1", "keep=1:2", "keep=1:0-99999999999", "safety=x"]
        {
            assert!(text.parse::<Plan>().is_err(), "{text}");
        }
        let plan: Plan = "# why\n\nseed=7\nsafety=5\nkeep=3:\n".parse().unwrap();
        assert_eq!(plan.kept, Some(Kept::from([(Address(3), BTreeSet::new())])));
        assert_eq!(plan.settings["seed"], "7");
    }
}
