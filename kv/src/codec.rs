//! The bytes that commands, outcomes and snapshots are made of.
//!
//! Numbers are unsigned LEB128 in its shortest form; byte strings are their length and then
//! themselves. Decoding is total: any input gives a value or [`Malformed`], nothing is allocated on
//! the word of a length, and what decodes is encoded again to the same bytes.

use bytes::{Buf, Bytes};

/// The input is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Appends a number.
pub(crate) fn put_u64(out: &mut Vec<u8>, mut number: u64) {
    loop {
        let [low, ..] = (number & 0x7f).to_le_bytes();
        number >>= 7;
        if number == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

/// Appends a signed number by its two's complement: nearly all are small and not negative.
pub(crate) fn put_i64(out: &mut Vec<u8>, number: i64) {
    put_u64(out, number.cast_unsigned());
}

/// Appends a length or count.
pub(crate) fn put_len(out: &mut Vec<u8>, len: usize) {
    put_u64(out, u64::try_from(len).expect("lengths fit in 64 bits"));
}

/// Appends a byte string.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_len(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// Takes values off the front of its input.
#[derive(Debug)]
pub(crate) struct Decoder {
    rest: Bytes,
}

impl Decoder {
    pub(crate) fn new(input: Bytes) -> Self {
        Self { rest: input }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Succeeds if nothing is left: bytes that nobody asked for are an error too.
    pub(crate) fn finish(self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed) }
    }

    pub(crate) fn byte(&mut self) -> Result<u8, Malformed> {
        let byte = *self.rest.first().ok_or(Malformed)?;
        self.rest.advance(1);
        Ok(byte)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        let mut number = 0_u64;
        for (place, &byte) in self.rest.iter().take(10).enumerate() {
            let bits = u64::from(byte & 0x7f);
            let shift = 7 * u32::try_from(place).expect("at most ten places");
            // The tenth byte has room for one bit only.
            if shift == 63 && bits > 1 {
                return Err(Malformed);
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                // A last byte of zero adds nothing: there is a shorter form.
                if byte == 0 && place > 0 {
                    return Err(Malformed);
                }
                self.rest.advance(place + 1);
                return Ok(number);
            }
        }
        Err(Malformed)
    }

    pub(crate) fn i64(&mut self) -> Result<i64, Malformed> {
        Ok(self.u64()?.cast_signed())
    }

    /// A number that must not be negative.
    pub(crate) fn non_negative(&mut self) -> Result<i64, Malformed> {
        i64::try_from(self.u64()?).map_err(|_out_of_range| Malformed)
    }

    /// A byte string, which shares the input's memory.
    pub(crate) fn bytes(&mut self) -> Result<Bytes, Malformed> {
        let len = usize::try_from(self.u64()?).map_err(|_out_of_range| Malformed)?;
        if len > self.rest.len() {
            return Err(Malformed);
        }
        Ok(self.rest.split_to(len))
    }

    pub(crate) fn string(&mut self) -> Result<String, Malformed> {
        String::from_utf8(self.bytes()?.into()).map_err(|_not_utf8| Malformed)
    }

    /// A byte that is 0 or 1.
    pub(crate) fn flag(&mut self) -> Result<bool, Malformed> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_and_every_cut_is_malformed() {
        for number in [0, 1, 127, 128, 300, 16_383, 16_384, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            put_u64(&mut out, number);
            let mut decoder = Decoder::new(out.clone().into());
            assert_eq!(decoder.u64(), Ok(number));
            assert_eq!(decoder.finish(), Ok(()));
            for cut in 0..out.len() {
                let cut_off = Bytes::copy_from_slice(&out[..cut]);
                assert_eq!(Decoder::new(cut_off).u64(), Err(Malformed), "{number} cut at {cut}");
            }
        }
    }

    #[test]
    fn numbers_have_one_form() {
        let overlong: [&'static [u8]; 4] = [
            &[0x80, 0x00],
            &[0xff, 0x80, 0x00],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02],
            &[0xff; 11],
        ];
        for bytes in overlong {
            assert_eq!(Decoder::new(Bytes::from_static(bytes)).u64(), Err(Malformed), "{bytes:x?}");
        }
    }

    #[test]
    fn a_length_is_not_believed() {
        let mut out = Vec::new();
        put_u64(&mut out, u64::MAX);
        out.extend_from_slice(b"short");
        assert_eq!(Decoder::new(out.into()).bytes(), Err(Malformed));
    }
}
