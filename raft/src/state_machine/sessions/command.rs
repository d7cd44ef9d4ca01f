//! What the log holds of a session: a header, and the command for the machine behind it. Drawn in `docs/formats.md`.

use bytes::{BufMut, Bytes, BytesMut};

/// A command of a session. With it in the entry go the session and the number, as [`SessionId`](crate::types::SessionId).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionCommand {
    /// Opens a session; the reply is its id, eight bytes, little-endian. The entry's session and number are of no account.
    Open {
        /// The proposer's wall clock, in milliseconds since the UNIX epoch; zero if it does not tell.
        time_ms: u64,
        /// For how long the session is kept without being used.
        idle_ms: u64,
    },
    /// Uses the session, and does nothing else.
    KeepAlive {
        /// The proposer's wall clock.
        time_ms: u64,
    },
    /// Forgets the session, if it is there.
    Close {
        /// The proposer's wall clock.
        time_ms: u64,
    },
    /// A command for the machine.
    Apply {
        /// The proposer's wall clock.
        time_ms: u64,
        /// The client has the replies to all numbers up to this one, and will not ask for them again.
        acknowledged: u64,
        /// The command.
        command: Bytes,
    },
}

/// The version of this encoding.
const VERSION: u8 = 1;

impl SessionCommand {
    /// The proposer's wall clock, in milliseconds since the UNIX epoch.
    #[must_use]
    pub fn time_ms(&self) -> u64 {
        match self {
            Self::Open { time_ms, .. }
            | Self::KeepAlive { time_ms }
            | Self::Close { time_ms }
            | Self::Apply { time_ms, .. } => *time_ms,
        }
    }

    /// As bytes: version, kind, time, a number (how long to be kept, or what is acknowledged), the command.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let (kind, number, command) = match self {
            Self::Open { idle_ms, .. } => (0, *idle_ms, Bytes::new()),
            Self::KeepAlive { .. } => (1, 0, Bytes::new()),
            Self::Close { .. } => (2, 0, Bytes::new()),
            Self::Apply { acknowledged, command, .. } => (3, *acknowledged, command.clone()),
        };
        let mut bytes = BytesMut::with_capacity(18 + command.len());
        bytes.put_u8(VERSION);
        bytes.put_u8(kind);
        bytes.put_u64_le(self.time_ms());
        bytes.put_u64_le(number);
        bytes.put_slice(&command);
        bytes.freeze()
    }

    /// Reads what [`Self::encode`] wrote; `None` if it did not write this.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (&[version, kind], rest) = bytes.split_first_chunk::<2>()?;
        let (time, rest) = rest.split_first_chunk::<8>()?;
        let (number, command) = rest.split_first_chunk::<8>()?;
        let (time_ms, number) = (u64::from_le_bytes(*time), u64::from_le_bytes(*number));
        if version != VERSION || (kind != 3 && !command.is_empty()) {
            return None;
        }
        match kind {
            0 => Some(Self::Open { time_ms, idle_ms: number }),
            1 => Some(Self::KeepAlive { time_ms }),
            2 => Some(Self::Close { time_ms }),
            3 => Some(Self::Apply {
                time_ms,
                acknowledged: number,
                command: Bytes::copy_from_slice(command),
            }),
            _ => None,
        }
    }
}
