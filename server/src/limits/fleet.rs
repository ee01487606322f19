//! The seats of one user on all nodes: who yields, where together they are too many.
//!
//! Each node decides for its own newcomer, a moment after it was seated, from what the others say they have. All
//! put the sessions into the same order, by the clocks of their nodes and then by name, so that two nodes which
//! decide at once for two newcomers name the same sessions.

use serde::{Deserialize, Serialize};

use super::seats::ClientKind;

/// Which session of the fleet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// When it was seated, in microseconds since 1970, by the clock of its node.
    pub since: u64,
    /// The name of its node.
    pub node: Box<str>,
    /// Its number there.
    pub id: u64,
}

/// A session, as its node tells the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Which.
    #[serde(flatten)]
    pub place: Place,
    /// What its client is able to be told.
    pub kind: ClientKind,
    /// Whether it has missed a whole heartbeat.
    pub silent: bool,
}

/// Whose seats are to be given back so that `devices` remain, the newcomer's perhaps. The rules are those of one
/// node: silent sessions first; then for a `rivulet.v1` newcomer the oldest of that kind, and a plain newcomer
/// itself where it is one too many.
pub fn who_yields(mut all: Vec<Known>, newcomer: &Place, devices: usize) -> Vec<Place> {
    let Some(kind) = all
        .iter()
        .find(|known| known.place == *newcomer)
        .map(|known| known.kind)
    else {
        // It is gone already.
        return Vec::new();
    };
    let mut over = match devices {
        0 => 0,
        devices => all.len().saturating_sub(devices),
    };
    all.sort_by(|one, other| one.place.cmp(&other.place));
    let mut yielding = Vec::new();
    let silent = |known: &mut Known| known.silent && known.place != *newcomer;
    for known in all.extract_if(.., silent).take(over) {
        yielding.push(known.place);
    }
    over -= yielding.len();
    match kind {
        ClientKind::V1 => {
            let v1 = all.into_iter().filter(|known| known.kind == ClientKind::V1);
            yielding.extend(v1.take(over).map(|known| known.place));
        }
        ClientKind::Plain => {
            let last = all.len() - over;
            let late = all.into_iter().skip(last).map(|known| known.place);
            // The others that are late are told by their own nodes.
            yielding.extend(late.filter(|place| place == newcomer));
        }
    }
    yielding
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: ClientKind = ClientKind::Plain;
    const V: ClientKind = ClientKind::V1;
    const NOBODY: [u64; 0] = [];

    fn known(since: u64, kind: ClientKind) -> Known {
        Known {
            place: Place {
                since,
                // Of one time, so that the name decides.
                node: ["a", "b", "c"][since as usize % 3].into(),
                id: since,
            },
            kind,
            silent: false,
        }
    }

    /// Which of these yield, the last of them the newcomer; at most 3 devices.
    fn yielding(kinds: &[ClientKind], silent: &[usize], newcomer: usize) -> Vec<u64> {
        let mut all: Vec<Known> = (0..)
            .zip(kinds)
            .map(|(since, kind)| known(since, *kind))
            .collect();
        for index in silent {
            all[*index].silent = true;
        }
        let newcomer = all[newcomer].place.clone();
        // As they come in, in no order.
        all.reverse();
        who_yields(all, &newcomer, 3)
            .into_iter()
            .map(|place| place.since)
            .collect()
    }

    #[test]
    fn the_rules_are_those_of_one_node() {
        assert_eq!(yielding(&[V, V, V], &[], 2), NOBODY);
        assert_eq!(yielding(&[V, V, V, V], &[], 3), [0]);
        assert_eq!(yielding(&[P, V, V, V], &[], 3), [1]);
        assert_eq!(yielding(&[P, P, P, V], &[], 3), [3]);
        assert_eq!(yielding(&[P, P, P, P], &[], 3), [3]);
        assert_eq!(yielding(&[V, V, V, P], &[], 3), [3]);
        assert_eq!(yielding(&[P, P, P, P], &[1, 2], 3), [1]);
        assert_eq!(yielding(&[V, V, P, V], &[2], 3), [2]);
    }

    #[test]
    fn two_newcomers_at_once_name_the_same_sessions() {
        assert_eq!(yielding(&[V, V, V, V, V], &[], 3), [0, 1]);
        assert_eq!(yielding(&[V, V, V, V, V], &[], 4), [0, 1]);
        // One place is left: the earlier plain one has it.
        assert_eq!(yielding(&[P, P, P, P], &[], 2), NOBODY);
        assert_eq!(yielding(&[P, P, P, P], &[], 3), [3]);
        // The later newcomer of two takes the seat of the earlier one.
        assert_eq!(yielding(&[P, P, V, V, V], &[], 3), [2, 3]);
        assert_eq!(yielding(&[P, P, V, V, V], &[], 4), [2, 3]);
    }

    #[test]
    fn who_left_meanwhile_costs_nobody_a_seat() {
        let all = vec![known(0, V), known(1, V), known(2, V), known(3, V)];
        assert_eq!(who_yields(all, &known(9, V).place, 3).len(), 0);
    }

    #[test]
    fn zero_devices_means_any_number() {
        let all: Vec<Known> = (0..100).map(|since| known(since, V)).collect();
        assert_eq!(who_yields(all, &known(99, V).place, 0).len(), 0);
    }
}
