//! Every way in which a client can break the protocol, each with the code that the server closes with.

/// How a client broke RFC 6455 or RFC 7692. Its `Display` is a reason short enough for a close frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// RSV2 or RSV3, or RSV1 where no compressed message begins (RFC 6455 §5.2, RFC 7692 §6).
    #[error("reserved bit set")]
    ReservedBit,
    /// An opcode that no extension defined (RFC 6455 §5.2).
    #[error("reserved opcode")]
    ReservedOpcode,
    /// A client frame without a mask (RFC 6455 §5.1).
    #[error("frame not masked")]
    Unmasked,
    /// A length in more bytes than it needs, or beyond 63 bits (RFC 6455 §5.2).
    #[error("bad length encoding")]
    BadLength,
    /// A control frame in fragments (RFC 6455 §5.5).
    #[error("fragmented control frame")]
    FragmentedControl,
    /// A control frame with more than 125 bytes (RFC 6455 §5.5).
    #[error("control frame over 125 bytes")]
    LongControl,
    /// A continuation of nothing (RFC 6455 §5.4).
    #[error("continuation without a message")]
    UnexpectedContinuation,
    /// A new message inside another (RFC 6455 §5.4).
    #[error("message inside a fragmented message")]
    ExpectedContinuation,
    /// A close frame of one byte, or with a code that must not be sent (RFC 6455 §5.5.1 and §7.4).
    #[error("bad close frame")]
    BadClose,
    /// A text message or a close reason that is not UTF-8 (RFC 6455 §8.1).
    #[error("not UTF-8")]
    NotUtf8,
    /// A compressed message that doesn't inflate (RFC 7692 §7.2.2).
    #[error("bad deflate data")]
    BadDeflate,
    /// A message over the cap: as announced, as put together, or as inflated.
    #[error("message too large")]
    TooLarge,
    /// A message in more fragments than anyone needs.
    #[error("too many fragments")]
    TooManyFragments,
}

impl ProtocolError {
    /// The status code to close with (RFC 6455 §7.4.1).
    pub fn close_code(self) -> u16 {
        match self {
            Self::NotUtf8 | Self::BadDeflate => 1007,
            Self::TooManyFragments => 1008,
            Self::TooLarge => 1009,
            Self::ReservedBit
            | Self::ReservedOpcode
            | Self::Unmasked
            | Self::BadLength
            | Self::FragmentedControl
            | Self::LongControl
            | Self::UnexpectedContinuation
            | Self::ExpectedContinuation
            | Self::BadClose => 1002,
        }
    }
}
