//! Numbers, text and bytes, written and read. Reading checks every length against what is there.

use bytes::Bytes;

use super::RecordError;

/// Writes a number as LEB128: seven bits a byte, the least first.
pub(super) fn put_number(out: &mut Vec<u8>, mut number: u64) {
    loop {
        let low = u8::try_from(number & 0x7f).expect("seven bits fit a byte");
        number >>= 7;
        if number == 0 {
            return out.push(low);
        }
        out.push(low | 0x80);
    }
}

pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_bytes(out, text.as_bytes());
}

pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, u64::try_from(bytes.len()).expect("a length fits 64 bits"));
    out.extend_from_slice(bytes);
}

/// What is left to read of a record.
pub(super) struct Input<'a> {
    whole: &'a Bytes,
    at: usize,
}

impl<'a> Input<'a> {
    pub(super) fn new(whole: &'a Bytes) -> Self {
        Self { whole, at: 0 }
    }

    /// How many bytes are left.
    pub(super) fn rest(&self) -> usize {
        self.whole.len() - self.at
    }

    fn take(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], RecordError> {
        if count > self.rest() {
            return Err(RecordError::Short(what));
        }
        let from = self.at;
        self.at += count;
        Ok(&self.whole[from..self.at])
    }

    pub(super) fn byte(&mut self, what: &'static str) -> Result<u8, RecordError> {
        Ok(self.take(1, what)?[0])
    }

    pub(super) fn array<const N: usize>(
        &mut self,
        what: &'static str,
    ) -> Result<[u8; N], RecordError> {
        let bytes = self.take(N, what)?;
        Ok(bytes.try_into().expect("as many bytes as were asked for"))
    }

    pub(super) fn number(&mut self, what: &'static str) -> Result<u64, RecordError> {
        let mut number = 0;
        for place in 0..10_u32 {
            let byte = self.byte(what)?;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit; and a last byte of zero says nothing: the number has a shorter form.
            if (place == 9 && bits > 1) || (place > 0 && byte == 0) {
                return Err(RecordError::Invalid(what));
            }
            number |= bits << (7 * place);
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(RecordError::Invalid(what))
    }

    pub(super) fn number32(&mut self, what: &'static str) -> Result<u32, RecordError> {
        u32::try_from(self.number(what)?).ok().ok_or(RecordError::Invalid(what))
    }

    fn length(&mut self, what: &'static str) -> Result<usize, RecordError> {
        // A length beyond the address space is beyond the input as well.
        usize::try_from(self.number(what)?).ok().ok_or(RecordError::Short(what))
    }

    pub(super) fn text(&mut self, what: &'static str) -> Result<&'a str, RecordError> {
        let length = self.length(what)?;
        std::str::from_utf8(self.take(length, what)?).ok().ok_or(RecordError::Invalid(what))
    }

    /// Bytes that share the record's memory.
    pub(super) fn shared(&mut self, what: &'static str) -> Result<Bytes, RecordError> {
        let length = self.length(what)?;
        let from = self.at;
        self.take(length, what)?;
        Ok(self.whole.slice(from..self.at))
    }
}
