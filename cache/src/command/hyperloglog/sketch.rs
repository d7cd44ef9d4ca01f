//! A HyperLogLog as bytes, laid out as Redis lays it out, so that what `GET` returns here can be `SET` there.
//!
//! An element's hash chooses one of 16,384 registers with its lowest 14 bits; the register keeps the largest number of zeros,
//! plus one, with which the rest of such a hash began. The header is `HYLL`, the encoding, three bytes unused, and the last
//! estimate (eight bytes, little-endian; its highest bit says that it is out of date). Behind it, *dense*: six bits a register,
//! from each byte's low end. Or *sparse*, while that is short: runs of registers, `00nnnnnn` for n + 1 zeros, `01nnnnnn nnnnnnnn`
//! likewise, `1vvvvvnn` for n + 1 registers of value v + 1.
//!
//! The bytes are any client's to write, so nothing in them is believed: a run that leads past the last register, or registers
//! that are not all there, are [`Corrupted`].
//!
//! The estimate is Ertl's ("New cardinality estimation algorithms for HyperLogLog sketches", 2017, algorithm 6).

/// How many registers there are.
pub(super) const REGISTERS: usize = 1 << 14;
const INDEX_BITS: u32 = 14;
/// Bits of the hash beside the register's number.
const REST_BITS: usize = 50;
const HEADER: usize = 16;
const DENSE_SIZE: usize = HEADER + REGISTERS * 6 / 8;
/// The largest value that a sparse register holds.
const SPARSE_VALUE_MAX: u8 = 32;
const ENCODING: usize = 4;
const DENSE: u8 = 0;
const SPARSE: u8 = 1;
const OUT_OF_DATE: u8 = 0x80;

/// The bytes are no valid sketch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Corrupted;

/// A sketch of nothing.
pub(super) fn empty() -> Vec<u8> {
    let mut bytes = b"HYLL".to_vec();
    bytes.resize(HEADER, 0);
    bytes[ENCODING] = SPARSE;
    push_zeros(&mut bytes, REGISTERS);
    bytes
}

/// Whether `bytes` begin like a sketch, and are as long as one.
pub(super) fn is_sketch(bytes: &[u8]) -> bool {
    bytes.len() >= HEADER
        && bytes.starts_with(b"HYLL")
        && match bytes[ENCODING] {
            DENSE => bytes.len() == DENSE_SIZE,
            other => other == SPARSE,
        }
}

/// Whether the sketch is dense.
pub(super) fn is_dense(bytes: &[u8]) -> bool {
    bytes[ENCODING] == DENSE
}

/// The estimate that was made last, if it still holds.
pub(super) fn cached(bytes: &[u8]) -> Option<u64> {
    let (_, rest) = bytes.split_first_chunk::<8>()?;
    let (cached, _) = rest.split_first_chunk::<8>()?;
    (cached[7] & OUT_OF_DATE == 0).then(|| u64::from_le_bytes(*cached))
}

/// Keeps an estimate.
pub(super) fn cache(bytes: &mut [u8], estimate: u64) {
    bytes[8..HEADER].copy_from_slice(&estimate.to_le_bytes());
}

/// Says that the estimate is out of date.
pub(super) fn outdate(bytes: &mut [u8]) {
    bytes[HEADER - 1] |= OUT_OF_DATE;
}

/// One run of a sparse sketch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    /// Its bytes.
    size: usize,
    /// Its registers.
    count: usize,
    /// What each of them holds.
    value: u8,
}

impl Run {
    fn at(bytes: &[u8], at: usize) -> Result<Self, Corrupted> {
        let first = *bytes.get(at).ok_or(Corrupted)?;
        let low = usize::from(first & 0x3F);
        Ok(match first >> 6 {
            0 => Self { size: 1, count: low + 1, value: 0 },
            1 => {
                let second = *bytes.get(at + 1).ok_or(Corrupted)?;
                Self { size: 2, count: (low << 8 | usize::from(second)) + 1, value: 0 }
            }
            _ => Self { size: 1, count: usize::from(first & 3) + 1, value: (first >> 2 & 31) + 1 },
        })
    }
}

fn byte(value: usize) -> u8 {
    u8::try_from(value).expect("masked to a byte")
}

fn push_zeros(bytes: &mut Vec<u8>, count: usize) {
    match count {
        0 => {}
        1..=64 => bytes.push(byte(count - 1)),
        _ => bytes.extend([0x40 | byte((count - 1) >> 8), byte((count - 1) & 0xFF)]),
    }
}

fn push_run(bytes: &mut Vec<u8>, value: u8, count: usize) {
    match (value, count) {
        (_, 0) => {}
        (0, _) => push_zeros(bytes, count),
        _ => bytes.push(0x80 | (value - 1) << 2 | byte(count - 1)),
    }
}

/// Visits all registers in order, as runs: the first one's number, how many, and what they hold.
pub(super) fn each(bytes: &[u8], mut visit: impl FnMut(usize, usize, u8)) -> Result<(), Corrupted> {
    if is_dense(bytes) {
        (0..REGISTERS).for_each(|index| visit(index, 1, dense_get(bytes, index)));
        return Ok(());
    }
    let (mut at, mut index) = (HEADER, 0);
    while at < bytes.len() {
        let run = Run::at(bytes, at)?;
        if index + run.count > REGISTERS {
            return Err(Corrupted);
        }
        visit(index, run.count, run.value);
        at += run.size;
        index += run.count;
    }
    if index == REGISTERS { Ok(()) } else { Err(Corrupted) }
}

fn dense_get(bytes: &[u8], index: usize) -> u8 {
    let (at, shift) = (HEADER + index * 6 / 8, index * 6 % 8);
    let high = bytes.get(at + 1).copied().unwrap_or(0);
    let pair = u16::from_le_bytes([bytes[at], high]);
    byte(usize::from(pair >> shift & 63))
}

fn dense_put(bytes: &mut [u8], index: usize, value: u8) {
    let (at, shift) = (HEADER + index * 6 / 8, index * 6 % 8);
    let high = bytes.get(at + 1).copied().unwrap_or(0);
    let pair = u16::from_le_bytes([bytes[at], high]);
    let pair = pair & !(63 << shift) | u16::from(value) << shift;
    let [low, high] = pair.to_le_bytes();
    bytes[at] = low;
    if let Some(byte) = bytes.get_mut(at + 1) {
        *byte = high;
    }
}

/// Turns a sketch dense.
pub(super) fn make_dense(bytes: &mut Vec<u8>) -> Result<(), Corrupted> {
    if is_dense(bytes) {
        return Ok(());
    }
    let mut dense = bytes[..HEADER].to_vec();
    dense[ENCODING] = DENSE;
    dense.resize(DENSE_SIZE, 0);
    each(bytes, |first, count, value| {
        if value > 0 {
            (first..first + count).for_each(|index| dense_put(&mut dense, index, value));
        }
    })?;
    *bytes = dense;
    Ok(())
}

/// Raises register `index` to `value` if it holds less. True if it did. A sparse sketch that would become longer than
/// `sparse_max` bytes turns dense.
pub(super) fn raise(
    bytes: &mut Vec<u8>,
    index: usize,
    value: u8,
    sparse_max: usize,
) -> Result<bool, Corrupted> {
    if !is_dense(bytes) {
        if value <= SPARSE_VALUE_MAX
            && let Some(raised) = sparse_raise(bytes, index, value, sparse_max)?
        {
            return Ok(raised);
        }
        make_dense(bytes)?;
    }
    let raised = dense_get(bytes, index) < value;
    if raised {
        dense_put(bytes, index, value);
    }
    Ok(raised)
}

/// As [`raise`], in the sparse form. None if there is no room for that.
fn sparse_raise(
    bytes: &mut Vec<u8>,
    index: usize,
    value: u8,
    sparse_max: usize,
) -> Result<Option<bool>, Corrupted> {
    let (mut before, mut at, mut first) = (HEADER, HEADER, 0);
    let mut run = Run::at(bytes, at)?;
    while first + run.count <= index {
        first += run.count;
        before = at;
        at += run.size;
        run = Run::at(bytes, at)?;
    }
    if run.value >= value {
        return Ok(Some(false));
    }
    let mut parts = Vec::with_capacity(5);
    push_run(&mut parts, run.value, index - first);
    push_run(&mut parts, value, 1);
    push_run(&mut parts, run.value, first + run.count - index - 1);
    if parts.len() > run.size && bytes.len() + parts.len() - run.size > sparse_max {
        return Ok(None);
    }
    bytes.splice(at..at + run.size, parts);
    join(bytes, before);
    Ok(Some(true))
}

/// Joins neighbouring runs of one value where they fit into one: among five from `at` on, since no others can have changed.
fn join(bytes: &mut Vec<u8>, mut at: usize) {
    for _ in 0..5 {
        let Ok(run) = Run::at(bytes, at) else { return };
        let next = Run::at(bytes, at + run.size);
        match next {
            Ok(next) if run.value > 0 && next.value == run.value && run.count + next.count <= 4 => {
                bytes.remove(at);
                bytes[at] = 0x80 | (run.value - 1) << 2 | byte(run.count + next.count - 1);
            }
            _ => at += run.size,
        }
    }
}

/// Which register an element belongs to, and what it raises that to.
pub(super) fn place(element: &[u8]) -> (usize, u8) {
    let hash = murmur(element);
    let index = usize::try_from(hash & (REGISTERS as u64 - 1)).expect("14 bits");
    let zeros = (hash >> INDEX_BITS | 1 << REST_BITS).trailing_zeros();
    (index, u8::try_from(zeros + 1).expect("at most 51"))
}

/// MurmurHash64A with the seed that Redis uses.
fn murmur(bytes: &[u8]) -> u64 {
    const FACTOR: u64 = 0xC6A4_A793_5BD1_E995;
    const SEED: u64 = 0xADC8_3B19;
    let mut hash = SEED ^ (bytes.len() as u64).wrapping_mul(FACTOR);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        let mut word = u64::from_le_bytes(*word).wrapping_mul(FACTOR);
        word ^= word >> 47;
        hash = (hash ^ word.wrapping_mul(FACTOR)).wrapping_mul(FACTOR);
    }
    if !rest.is_empty() {
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        hash = (hash ^ u64::from_le_bytes(last)).wrapping_mul(FACTOR);
    }
    hash = (hash ^ hash >> 47).wrapping_mul(FACTOR);
    hash ^ hash >> 47
}

/// How many registers hold each value.
pub(super) type Histogram = [u32; 64];

/// The histogram of a sketch.
pub(super) fn histogram(bytes: &[u8]) -> Result<Histogram, Corrupted> {
    let mut histogram = [0; 64];
    each(bytes, |_, count, value| {
        histogram[usize::from(value)] += u32::try_from(count).expect("at most 16,384");
    })?;
    Ok(histogram)
}

/// The estimate of how many different elements there were.
pub(super) fn estimate(histogram: &Histogram) -> u64 {
    const ALPHA: f64 = 0.721_347_520_444_481_7;
    let registers = 16_384.0;
    let full = f64::from(histogram[REST_BITS + 1]);
    let mut sum = registers * tau((registers - full) / registers);
    for count in histogram[1..=REST_BITS].iter().rev() {
        sum = (sum + f64::from(*count)) * 0.5;
    }
    sum += registers * sigma(f64::from(histogram[0]) / registers);
    let estimate = (ALPHA * registers * registers / sum).round();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "whole and positive; what is too large, or infinite, becomes the largest number"
    )]
    let estimate = estimate as u64;
    estimate
}

/// x + the sum over k of x^(2^k) 2^(k-1).
fn sigma(mut x: f64) -> f64 {
    if x >= 1.0 {
        return f64::INFINITY;
    }
    let (mut weight, mut sum) = (1.0, x);
    loop {
        x *= x;
        let before = sum;
        sum += x * weight;
        weight += weight;
        if sum <= before {
            return sum;
        }
    }
}

/// (1 - x - the sum over k of (1 - x^(2^-k))^2 2^-k) / 3.
fn tau(mut x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return 0.0;
    }
    let (mut weight, mut sum) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = sum;
        weight *= 0.5;
        sum -= (1.0 - x).powi(2) * weight;
        if sum >= before {
            return sum / 3.0;
        }
    }
}
