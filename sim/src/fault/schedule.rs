//! Faults as values: each with its time and all that was drawn for it, so that it can be carried out again without drawing.
//!
//! ```text
//! at=1500000000 kind=crash nodes=2 lasts=480000000
//! at=2250000000 kind=partition-asymmetric cuts=1>2,1>3 lasts=900000000
//! at=2400000000 kind=bit-rot nodes=3 amount=33 sector=4 file=/node/group-0/log/00000000000000000001.seg
//! ```

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::fault::FaultKind;
use crate::process::Address;
use crate::random::nanos;

/// One fault. What its kind does not need is empty or zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// When it strikes, in world time.
    pub at: Duration,
    /// Its kind.
    pub kind: FaultKind,
    /// The nodes that it hits.
    pub nodes: Vec<Address>,
    /// The directed links that it cuts.
    pub cuts: Vec<(Address, Address)>,
    /// The sector that it hits: the file, and the sector's number.
    pub place: Option<(PathBuf, u64)>,
    /// How far, how fast, how much: nanoseconds of a jump, millionths of a drift, percent of messages, bytes of room, the factor of a
    /// slow disk, the flipped bits, another sector.
    pub amount: i64,
    /// How long it lasts, or how long its node is down.
    pub lasts: Duration,
}

impl Fault {
    /// A fault of this kind, with everything else empty.
    pub(crate) fn new(at: Duration, kind: FaultKind) -> Self {
        Self {
            at,
            kind,
            nodes: Vec::new(),
            cuts: Vec::new(),
            place: None,
            amount: 0,
            lasts: Duration::ZERO,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at={} kind={}", nanos(self.at), self.kind)?;
        if !self.nodes.is_empty() {
            let nodes: Vec<_> = self.nodes.iter().map(|node| node.0.to_string()).collect();
            write!(f, " nodes={}", nodes.join(","))?;
        }
        if !self.cuts.is_empty() {
            let cuts: Vec<_> = self.cuts.iter().map(|(a, b)| format!("{}>{}", a.0, b.0)).collect();
            write!(f, " cuts={}", cuts.join(","))?;
        }
        if self.amount != 0 {
            write!(f, " amount={}", self.amount)?;
        }
        if !self.lasts.is_zero() {
            write!(f, " lasts={}", nanos(self.lasts))?;
        }
        // Last, for a name may hold anything but the end of a line.
        if let Some((path, sector)) = &self.place {
            write!(f, " sector={sector} file={}", path.display())?;
        }
        Ok(())
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let (words, file) = match line.split_once(" file=") {
            Some((words, file)) => (words, Some(PathBuf::from(file))),
            None => (line, None),
        };
        let (mut at, mut kind, mut sector) = (None, None, None);
        let mut fault = Self::new(Duration::ZERO, FaultKind::Crash);
        for word in words.split_whitespace() {
            let (name, value) = word.split_once('=').ok_or_else(|| format!("{word}: no value"))?;
            match name {
                "at" => at = Some(Duration::from_nanos(number(value)?)),
                "kind" => kind = Some(value.parse()?),
                "nodes" => {
                    for node in value.split(',') {
                        fault.nodes.push(Address(number(node)?));
                    }
                }
                "cuts" => {
                    for cut in value.split(',') {
                        let ends = cut.split_once('>').ok_or_else(|| format!("{cut}: no link"))?;
                        fault.cuts.push((Address(number(ends.0)?), Address(number(ends.1)?)));
                    }
                }
                "amount" => fault.amount = number(value)?,
                "lasts" => fault.lasts = Duration::from_nanos(number(value)?),
                "sector" => sector = Some(number(value)?),
                _ => return Err(format!("{name} is nothing that a fault has")),
            }
        }
        fault.at = at.ok_or_else(|| format!("{line}: no time"))?;
        fault.kind = kind.ok_or_else(|| format!("{line}: no kind"))?;
        fault.place = file.zip(sector);
        Ok(fault)
    }
}

fn number<T: FromStr<Err: fmt::Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error| format!("{text}: {error}"))
}

/// Faults in the order of their times.
pub type Schedule = Vec<Fault>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_a_line_of_text_and_back() {
        let mut fault = Fault::new(Duration::from_nanos(1_234_567_891), FaultKind::BitRot);
        assert_eq!(fault.to_string().parse(), Ok(fault.clone()));
        fault.nodes = vec![Address(1), Address(20)];
        fault.cuts = vec![(Address(1), Address(2)), (Address(2), Address(1))];
        fault.amount = -7;
        fault.lasts = Duration::from_millis(3);
        fault.place = Some((PathBuf::from("/a b/c=d file=e"), 9));
        assert_eq!(fault.to_string().parse(), Ok(fault));
    }

    #[test]
    fn a_line_that_is_no_fault_says_why() {
        for line in ["", "at=1", "kind=crash", "at=x kind=crash", "at=1 kind=flood", "at=1 what=2"]
        {
            assert!(line.parse::<Fault>().is_err(), "{line}");
        }
    }
}
