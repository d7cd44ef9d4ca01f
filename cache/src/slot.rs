//! Hash slots: the 16,384 parts of the keyspace that Redis Cluster places on nodes.
//!
//! A key's slot is CRC16 (XMODEM: polynomial 0x1021, no reflection, initial value 0) of its *hash tag*, modulo 16,384. The tag is
//! what stands between the first `{` and the first `}` after it, if that is not empty; otherwise it is the whole key. Keys with one
//! tag share a slot, so that commands can span them. Source: the Redis Cluster specification, "Key distribution model".

/// How many slots there are.
pub const SLOTS: u16 = 16_384;

/// A hash slot, below [`SLOTS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u16);

impl Slot {
    /// The slot of `key`.
    #[must_use]
    pub fn of(key: &[u8]) -> Self {
        Self(crc16(hash_tag(key)) % SLOTS)
    }
}

/// The part of `key` that decides its slot.
#[must_use]
pub fn hash_tag(key: &[u8]) -> &[u8] {
    // Nearly no key has a brace. A look that does not stop at the first one is made at many bytes at once.
    if !key.iter().fold(false, |found, byte| found | (*byte == b'{')) {
        return key;
    }
    let Some(open) = key.iter().position(|byte| *byte == b'{') else { return key };
    let rest = &key[open + 1..];
    match rest.iter().position(|byte| *byte == b'}') {
        Some(length) if length > 0 => &rest[..length],
        _ => key,
    }
}

/// CRC16 by four tables: four bytes a step, since every command pays for it.
fn crc16(bytes: &[u8]) -> u16 {
    let mut crc = 0u16;
    let mut words = bytes.chunks_exact(4);
    for word in &mut words {
        let [high, low] = crc.to_be_bytes();
        crc = TABLES[3][usize::from(word[0] ^ high)]
            ^ TABLES[2][usize::from(word[1] ^ low)]
            ^ TABLES[1][usize::from(word[2])]
            ^ TABLES[0][usize::from(word[3])];
    }
    for byte in words.remainder() {
        let [high, low] = crc.to_be_bytes();
        crc = u16::from_be_bytes([low, 0]) ^ TABLES[0][usize::from(high ^ byte)];
    }
    crc
}

/// `TABLES[n][b]`: what byte `b` contributes with `n` bytes after it.
static TABLES: [[u16; 256]; 4] = tables();

const fn tables() -> [[u16; 256]; 4] {
    let mut tables = [[0u16; 256]; 4];
    let mut byte = 0;
    let mut start = 0u16;
    while byte < 256 {
        let mut crc = start;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 != 0 { (crc << 1) ^ 0x1021 } else { crc << 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
        start = start.wrapping_add(0x100);
    }
    let mut table = 1;
    while table < 4 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[table - 1][byte];
            tables[table][byte] = (before << 8) ^ tables[0][(before >> 8) as usize];
            byte += 1;
        }
        table += 1;
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_of_the_specifications_check_string() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
    }

    #[test]
    fn four_bytes_a_step_give_what_one_byte_a_step_gives() {
        fn bytewise(bytes: &[u8]) -> u16 {
            bytes.iter().fold(0, |crc: u16, byte| {
                let [high, low] = crc.to_be_bytes();
                u16::from_be_bytes([low, 0]) ^ TABLES[0][usize::from(high ^ byte)]
            })
        }
        let bytes: Vec<u8> = (0..=255).rev().collect();
        for length in 0..bytes.len() {
            assert_eq!(crc16(&bytes[..length]), bytewise(&bytes[..length]));
        }
    }

    #[test]
    fn known_slots() {
        for (key, slot) in [(&b""[..], 0), (b"foo", 12_182), (b"hello", 866), (b"user1000", 3_443)]
        {
            assert_eq!(Slot::of(key), Slot(slot), "{}", String::from_utf8_lossy(key));
        }
    }

    #[test]
    fn only_a_tag_that_is_not_empty_counts() {
        for (key, tag) in [
            ("{user1000}.following", "user1000"),
            ("foo{}{bar}", "foo{}{bar}"),
            ("foo{{bar}}zap", "{bar"),
            ("foo{bar}{zap}", "bar"),
            ("foo{bar", "foo{bar"),
            ("}{a}", "a"),
        ] {
            assert_eq!(hash_tag(key.as_bytes()), tag.as_bytes());
        }
    }
}
