//! How long the commands of the cache take in Redis, and how many fail.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::stats::{Histogram, Snapshot};

/// A command of the cache. Each is one round trip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RedisCommand {
    /// Reads values, many at once if many wait, or asks what was invalidated.
    Read,
    /// Asks for a lease, or gives one back after a load that failed.
    Lease,
    /// Stores what a load brought, and gives its lease back.
    Fill,
    /// Invalidates up to a thousand targets.
    Invalidate,
    /// Anything else: a quota, a question of the audit, a trial whether Redis takes writes.
    Other,
}

impl RedisCommand {
    /// All commands.
    pub const ALL: [RedisCommand; 5] = [
        RedisCommand::Read,
        RedisCommand::Lease,
        RedisCommand::Fill,
        RedisCommand::Invalidate,
        RedisCommand::Other,
    ];

    /// The word for it in a metric.
    pub fn word(self) -> &'static str {
        match self {
            RedisCommand::Read => "read",
            RedisCommand::Lease => "lease",
            RedisCommand::Fill => "fill",
            RedisCommand::Invalidate => "invalidate",
            RedisCommand::Other => "other",
        }
    }
}

/// See the module.
pub(crate) struct CommandTimes([Times; RedisCommand::ALL.len()]);

struct Times {
    durations: Histogram,
    errors: AtomicU64,
}

impl Default for CommandTimes {
    fn default() -> CommandTimes {
        CommandTimes(RedisCommand::ALL.map(|_| Times {
            durations: Histogram::rare(),
            errors: AtomicU64::default(),
        }))
    }
}

impl CommandTimes {
    /// Does `work`, which is one `command`, and counts it.
    pub(crate) fn time<T, E>(
        &self,
        command: RedisCommand,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let began = Instant::now();
        let done = work();
        let times = &self.0[command as usize];
        times.durations.record(began.elapsed());
        if done.is_err() {
            times.errors.fetch_add(1, Ordering::Relaxed);
        }
        done
    }

    /// How long commands of this sort took, the failed ones included, and how many failed.
    pub(crate) fn of(&self, command: RedisCommand) -> (Snapshot, u64) {
        let times = &self.0[command as usize];
        let errors = times.errors.load(Ordering::Relaxed);
        (times.durations.snapshot(), errors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_is_counted_by_itself() {
        let times = CommandTimes::default();
        for (at, command) in RedisCommand::ALL.into_iter().enumerate() {
            assert_eq!(command as usize, at);
            for i in 0..=at {
                let done = times.time(command, || if i == 0 { Err(()) } else { Ok(i) });
                assert_eq!(done, if i == 0 { Err(()) } else { Ok(i) });
            }
        }
        for (at, command) in RedisCommand::ALL.into_iter().enumerate() {
            let (durations, errors) = times.of(command);
            assert_eq!((durations.count(), errors), (at as u64 + 1, 1));
        }
    }
}
