//! Close codes: every way in which a connection ends has a number and says what an SDK does next.

use std::fmt;

use serde::Serialize;

/// What a client does after a close.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reconnect {
    /// Not by itself: repeating the same would end the same.
    No,
    /// At once, with the cursor, so that nothing is lost.
    Resume,
    /// With the cursor, after a delay that doubles up to 30 s while it repeats.
    ResumeWithBackoff,
    /// After the application gave a new token.
    NewToken,
    /// After `retry_after` where the reason gives one, else when the user acts, at most once a minute.
    WhenAllowed,
}

macro_rules! close_codes {
    ($($variant:ident $number:literal $reconnect:ident $reason:literal $meaning:literal $advice:literal)*) => {
        /// Why a connection ended.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum CloseCode {
            $(#[doc = $meaning] $variant,)*
        }

        impl CloseCode {
            /// Every code, in the order of the reference page.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The number on the wire.
            pub const fn number(self) -> u16 {
                match self { $(Self::$variant => $number),* }
            }

            /// The reason sent where nothing more exact is known; at most 123 bytes (RFC 6455, section 5.5).
            pub const fn reason(self) -> &'static str {
                match self { $(Self::$variant => $reason),* }
            }

            /// What it means.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning),* }
            }

            /// What an SDK does.
            pub const fn reconnect(self) -> Reconnect {
                match self { $(Self::$variant => Reconnect::$reconnect),* }
            }

            /// What an SDK does, in words.
            pub const fn advice(self) -> &'static str {
                match self { $(Self::$variant => $advice),* }
            }
        }
    };
}

close_codes! {
    Normal 1000 No "bye"
        "The other side asked for it."
        "Nothing: the close was asked for."
    GoingAway 1001 Resume "going away"
        "The node is going away."
        "Reconnect with resume."
    ProtocolError 1002 No "protocol error"
        "What came is not WebSocket."
        "Does not reconnect by itself."
    UnsupportedData 1003 No "binary frames have no meaning here"
        "A binary frame came; the protocol has text frames only."
        "Does not reconnect by itself."
    Abnormal 1006 ResumeWithBackoff "abnormal"
        "The network broke; never on the wire (RFC 6455, section 7.4.1)."
        "Reconnect with backoff and resume."
    InvalidPayload 1007 No "invalid payload"
        "Text that is not UTF-8, or a compressed frame that does not inflate."
        "Does not reconnect by itself."
    PolicyViolation 1008 No "too many bad messages"
        "A flood, or more than 10 bad messages in a minute."
        "Does not reconnect by itself."
    MessageTooBig 1009 No "message too big"
        "A frame or message over `max_message_bytes`."
        "Does not reconnect by itself."
    InternalError 1011 ResumeWithBackoff "internal error"
        "The router has a fault."
        "Reconnect with backoff and resume."
    TryAgainLater 1013 ResumeWithBackoff "try again later"
        "The node is not current: it has lost NATS or is catching up."
        "Reconnect with backoff and resume."
    Unauthorized 4401 NewToken "unauthorized"
        "The token is missing, bad or expired."
        "Ask the application for a token, reconnect with resume."
    Forbidden 4403 No "forbidden"
        "The origin or a claim forbids it."
        "Does not reconnect by itself."
    HeartbeatMissed 4408 Resume "no heartbeat"
        "Nothing was heard of the client for two heartbeats."
        "Reconnect with resume."
    TooSlow 4413 ResumeWithBackoff "too slow"
        "The client read slower than its events came, and its outbox was full."
        "Reconnect with resume (nothing is lost); the delay doubles up to 30 s when it repeats."
    TooManyConnections 4429 WhenAllowed "too many connections"
        "All seats of the user are taken, the seat was given to another session, or the address connects too often."
        "With `retry_after`: after it, with jitter, with resume. Without: not by itself; again when the user acts or the tab becomes visible, at most once a minute."
}

impl fmt::Display for CloseCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.number(), self.reason())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_fit_a_close_frame() {
        for code in CloseCode::ALL {
            assert!(code.reason().len() <= 123, "{code}");
        }
    }
}
