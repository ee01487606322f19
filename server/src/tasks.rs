//! The parts of a node that run as long as it does, each by its name.
//!
//! None of them ends by itself. One that does, by a fault of ours or with its last channel, would leave a node that
//! says it is well and does part of its work: so the node ends with it, and its supervisor starts it again.

use std::{any::Any, collections::HashMap, future::pending, panic::AssertUnwindSafe};

use futures_util::FutureExt as _;
use tokio::task::{AbortHandle, Id, JoinSet};

/// A part that ended though nobody asked it to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the part `{part}` of the node ended: {why}")]
pub struct Ended {
    /// Its name.
    pub part: &'static str,
    /// What it panicked with, or that it came to its end.
    pub why: String,
}

impl Ended {
    /// Without a panic.
    pub(crate) fn by_itself(part: &'static str) -> Self {
        Self {
            part,
            why: "it came to its end".to_owned(),
        }
    }

    /// With what the panic carries.
    pub(crate) fn panicked(part: &'static str, panic: &(dyn Any + Send)) -> Self {
        let said = panic
            .downcast_ref::<&str>()
            .map(|said| (*said).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned());
        Self {
            part,
            why: said.map_or_else(|| "it panicked".to_owned(), |said| format!("it panicked: {said}")),
        }
    }
}

/// Runs a part in the caller's task, until it ends in whatever way.
pub(crate) async fn part(name: &'static str, runs: impl Future<Output = ()>) -> Ended {
    match AssertUnwindSafe(runs).catch_unwind().await {
        Ok(()) => Ended::by_itself(name),
        Err(panic) => Ended::panicked(name, &*panic),
    }
}

/// Parts that have a task each. Dropped, all of them end.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    set: JoinSet<()>,
    parts: HashMap<Id, (&'static str, AbortHandle)>,
}

impl Tasks {
    /// Starts a part.
    pub(crate) fn spawn(&mut self, name: &'static str, runs: impl Future<Output = ()> + Send + 'static) {
        let task = self.set.spawn(runs);
        self.parts.insert(task.id(), (name, task));
    }

    /// Waits for the first part that ends though nobody asked it to.
    pub(crate) async fn ended(&mut self) -> Ended {
        loop {
            let (id, panic) = match self.set.join_next_with_id().await {
                Some(Ok((id, ()))) => (id, None),
                Some(Err(fault)) => (fault.id(), fault.try_into_panic().ok()),
                None => return pending().await,
            };
            // One that was asked to end is no longer known.
            let Some((name, _)) = self.parts.remove(&id) else {
                continue;
            };
            return match panic {
                Some(panic) => Ended::panicked(name, &*panic),
                None => Ended::by_itself(name),
            };
        }
    }

    /// Ends the parts of this name.
    pub(crate) fn end(&mut self, name: &str) {
        self.parts.retain(|_, (part, task)| {
            if *part == name {
                task.abort();
            }
            *part != name
        });
    }

    /// Ends all, and waits until they have.
    pub(crate) async fn shutdown(mut self) {
        self.set.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_that_ends_is_named() {
        let mut tasks = Tasks::default();
        tasks.spawn("idle", pending());
        tasks.spawn("asked", pending());
        tasks.end("asked");
        tasks.spawn("faulty", async { panic!("a fault of {}", "ours") });
        let ended = tasks.ended().await;
        assert_eq!(
            ended.to_string(),
            "the part `faulty` of the node ended: it panicked: a fault of ours"
        );
        tasks.spawn("brief", async {});
        assert_eq!(tasks.ended().await, Ended::by_itself("brief"));
        assert_eq!(part("feed", async {}).await.part, "feed");
        assert_eq!(part("feed", async { panic!("no") }).await.why, "it panicked: no");
    }
}
