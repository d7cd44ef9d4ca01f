//! What the store refuses, in etcd's words.
//!
//! Clients of etcd match these errors by code and exact text, so both are part of the interface.
//! Every error that comes out of applying a command is a function of state and command alone: all
//! replicas refuse alike and stay unchanged.

/// Why a request was refused. `Display` is the text that an etcd client expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KvError {
    /// The key is empty.
    #[error("etcdserver: key is not provided")]
    KeyNotProvided,
    /// `ignore_value` or `ignore_lease` on a key that does not exist.
    #[error("etcdserver: key not found")]
    KeyNotFound,
    /// `ignore_value` together with a value.
    #[error("etcdserver: value is provided")]
    ValueProvided,
    /// `ignore_lease` together with a lease.
    #[error("etcdserver: lease is provided")]
    LeaseProvided,
    /// The lease that a put names does not exist.
    #[error("etcdserver: requested lease not found")]
    LeaseNotFound,
    /// A sort order or sort target outside of the enumeration.
    #[error("etcdserver: invalid sort option")]
    InvalidSortOption,
    /// The revision asked for has been compacted away.
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted,
    /// The revision asked for is not written yet.
    #[error("etcdserver: mvcc: required revision is a future revision")]
    FutureRevision,
    /// The request exceeds [`Limits::request_bytes_max`](crate::Limits::request_bytes_max).
    #[error("etcdserver: request is too large")]
    RequestTooLarge,
    /// The store is over its quota.
    #[error("etcdserver: mvcc: database space exceeded")]
    NoSpace,
    /// The node has more unapplied requests than it takes on.
    #[error("etcdserver: too many requests")]
    TooManyRequests,
    /// No member has that id.
    #[error("etcdserver: member not found")]
    MemberNotFound,
    /// The answer would exceed its limit. etcd has no such limit, hence no text of its own for it.
    #[error("etcdserver: response is too large, ask for fewer keys or set a limit")]
    ResponseTooLarge,
    /// The bytes of a command are not a command. Only a defect of the proposer can cause it.
    #[error("etcdserver: malformed command")]
    MalformedCommand,
}

/// The gRPC status code that belongs to an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// 3: the request is wrong in itself.
    InvalidArgument,
    /// 5: what it names does not exist.
    NotFound,
    /// 8: a limit is reached; the same request may succeed later or in smaller pieces.
    ResourceExhausted,
    /// 11: the revision is outside of what is kept.
    OutOfRange,
    /// 13: a defect on this side.
    Internal,
}

impl KvError {
    /// The gRPC status code under which etcd returns this error.
    #[must_use]
    pub fn code(self) -> Code {
        match self {
            Self::KeyNotProvided
            | Self::KeyNotFound
            | Self::ValueProvided
            | Self::LeaseProvided
            | Self::InvalidSortOption
            | Self::RequestTooLarge => Code::InvalidArgument,
            Self::LeaseNotFound | Self::MemberNotFound => Code::NotFound,
            Self::Compacted | Self::FutureRevision => Code::OutOfRange,
            Self::NoSpace | Self::TooManyRequests | Self::ResponseTooLarge => {
                Code::ResourceExhausted
            }
            Self::MalformedCommand => Code::Internal,
        }
    }
}

impl Code {
    /// The code's number in gRPC.
    #[must_use]
    pub fn number(self) -> i32 {
        match self {
            Self::InvalidArgument => 3,
            Self::NotFound => 5,
            Self::ResourceExhausted => 8,
            Self::OutOfRange => 11,
            Self::Internal => 13,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Clients match these by text and number.
    #[test]
    fn errors_have_the_texts_and_codes_of_etcd() {
        let table = [
            (KvError::KeyNotProvided, 3, "etcdserver: key is not provided"),
            (KvError::KeyNotFound, 3, "etcdserver: key not found"),
            (KvError::ValueProvided, 3, "etcdserver: value is provided"),
            (KvError::LeaseProvided, 3, "etcdserver: lease is provided"),
            (KvError::LeaseNotFound, 5, "etcdserver: requested lease not found"),
            (KvError::InvalidSortOption, 3, "etcdserver: invalid sort option"),
            (KvError::Compacted, 11, "etcdserver: mvcc: required revision has been compacted"),
            (
                KvError::FutureRevision,
                11,
                "etcdserver: mvcc: required revision is a future revision",
            ),
            (KvError::RequestTooLarge, 3, "etcdserver: request is too large"),
            (KvError::NoSpace, 8, "etcdserver: mvcc: database space exceeded"),
            (KvError::TooManyRequests, 8, "etcdserver: too many requests"),
            (KvError::MemberNotFound, 5, "etcdserver: member not found"),
        ];
        for (error, code, text) in table {
            assert_eq!(error.code().number(), code, "{text}");
            assert_eq!(error.to_string(), text);
        }
    }
}
