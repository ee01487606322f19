//! What follows the end of a connection: the table of close codes, as a client obeys it.

use std::time::Duration;

use rivulet_protocol::close::{CloseCode, Reconnect};
use serde::Deserialize;

/// The first delay is up to this long, and doubles while connections don't last.
const BASE: Duration = Duration::from_millis(500);
/// And never longer than this.
const LONGEST: Duration = Duration::from_secs(30);
/// A connection that lasted this long was a good one.
const LASTING: Duration = Duration::from_secs(30);
/// How far clients that were told the same delay are spread.
const SPREAD: Duration = Duration::from_secs(1);

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With a close frame.
    Closed { code: u16, reason: String },
    /// It never was one: the answer was HTTP.
    Refused { status: u16, retry_after: Option<u64> },
    /// Without a word.
    Lost(String),
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Connect again after this long.
    After(Duration),
    /// Connect again after this long, with another token; give up without one.
    WithNewToken(Duration),
    /// Give up: the same would happen again.
    Stop,
}

/// How often in a row a connection did not last.
#[derive(Debug, Default)]
pub(crate) struct Attempts(u32);

impl Attempts {
    /// Decides. `chance` from 0 to 1 spreads clients whose connections ended together.
    pub(crate) fn after(&mut self, end: &End, lasted: Duration, chance: f64) -> Next {
        if lasted >= LASTING {
            self.0 = 0;
        }
        let first = self.0 == 0;
        let doubled = BASE.saturating_mul(1 << self.0.min(16)).min(LONGEST);
        self.0 += 1;
        // Full jitter: anything up to the bound, so that a crowd comes back as a trickle.
        let backoff = doubled.mul_f64(chance);
        let told = |seconds: u64| Duration::from_secs(seconds) + SPREAD.mul_f64(chance);
        match end {
            End::Lost(_) => Next::After(backoff),
            End::Refused {
                retry_after: Some(seconds),
                ..
            } => Next::After(told(*seconds)),
            End::Refused { status: 401, .. } => Next::WithNewToken(backoff),
            End::Refused {
                status: 408 | 425 | 429 | 500..,
                ..
            } => Next::After(backoff),
            End::Refused { .. } => Next::Stop,
            End::Closed { code, reason } => match reconnect(*code) {
                Reconnect::No => Next::Stop,
                Reconnect::Resume if first => Next::After(Duration::ZERO),
                Reconnect::Resume | Reconnect::ResumeWithBackoff => {
                    Next::After(retry_after(reason).map_or(backoff, told))
                }
                Reconnect::NewToken => Next::WithNewToken(if first { Duration::ZERO } else { backoff }),
                Reconnect::WhenAllowed => {
                    retry_after(reason).map_or(Next::Stop, |seconds| Next::After(told(seconds)))
                }
            },
        }
    }
}

/// What a code of ours means; of others the ones that get better by themselves (1005: no code, 1012 and 1014 of
/// the registry: restart, bad gateway).
fn reconnect(code: u16) -> Reconnect {
    let ours = CloseCode::ALL.iter().find(|known| known.number() == code);
    match ours {
        Some(ours) => ours.reconnect(),
        None if matches!(code, 1005 | 1012 | 1014) => Reconnect::ResumeWithBackoff,
        None => Reconnect::No,
    }
}

/// The whole seconds that a reason asks to wait.
fn retry_after(reason: &str) -> Option<u64> {
    #[derive(Deserialize)]
    struct Reason {
        retry_after: f64,
    }
    let Reason { retry_after } = serde_json::from_str(reason).ok()?;
    // Saturating: a day is as good as never.
    Some(retry_after.ceil().clamp(0.0, 86_400.0) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(code: u16, reason: &str) -> End {
        End::Closed {
            code,
            reason: reason.to_owned(),
        }
    }

    #[test]
    fn codes_are_obeyed() {
        let half = |end: End| Attempts::default().after(&end, Duration::ZERO, 0.5);
        for code in [1000, 1002, 1003, 1007, 1008, 1009, 4403, 4999] {
            assert_eq!(half(closed(code, "")), Next::Stop, "{code}");
        }
        for code in [1001, 4408] {
            assert_eq!(half(closed(code, "")), Next::After(Duration::ZERO), "{code}");
        }
        for code in [1005, 1006, 1011, 1012, 1013, 4413] {
            assert_eq!(half(closed(code, "")), Next::After(BASE / 2), "{code}");
        }
        assert_eq!(half(closed(4401, "")), Next::WithNewToken(Duration::ZERO));
        assert_eq!(half(closed(4429, "replaced")), Next::Stop);
        assert_eq!(
            half(closed(4429, r#"{"retry_after":3}"#)),
            Next::After(Duration::from_millis(3_500))
        );
        assert_eq!(
            half(End::Refused {
                status: 429,
                retry_after: Some(2)
            }),
            Next::After(Duration::from_millis(2_500))
        );
        assert_eq!(
            half(End::Refused {
                status: 503,
                retry_after: None
            }),
            Next::After(BASE / 2)
        );
        assert_eq!(
            half(End::Refused {
                status: 401,
                retry_after: None
            }),
            Next::WithNewToken(BASE / 2)
        );
        assert_eq!(
            half(End::Refused {
                status: 404,
                retry_after: None
            }),
            Next::Stop
        );
    }

    #[test]
    fn every_code_of_ours_has_an_answer() {
        for code in CloseCode::ALL {
            let stops =
                Attempts::default().after(&closed(code.number(), ""), Duration::ZERO, 0.0) == Next::Stop;
            let expected = matches!(code.reconnect(), Reconnect::No | Reconnect::WhenAllowed);
            assert_eq!(stops, expected, "{code}");
        }
    }

    #[test]
    fn delays_double_up_to_half_a_minute_until_a_connection_lasts() {
        let mut attempts = Attempts::default();
        let lost = End::Lost(String::new());
        let mut delay = |lasted| match attempts.after(&lost, lasted, 1.0) {
            Next::After(delay) => delay.as_millis(),
            _ => panic!("it may come back"),
        };
        let delays: Vec<_> = (0..8).map(|_| delay(Duration::ZERO)).collect();
        assert_eq!(delays, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
        assert_eq!(delay(LASTING), 500);
    }

    #[test]
    fn a_node_that_goes_away_again_and_again_is_not_hammered() {
        let mut attempts = Attempts::default();
        let away = closed(1001, "");
        assert_eq!(
            attempts.after(&away, Duration::ZERO, 1.0),
            Next::After(Duration::ZERO)
        );
        assert_eq!(attempts.after(&away, Duration::ZERO, 1.0), Next::After(BASE * 2));
    }
}
