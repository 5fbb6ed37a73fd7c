//! The thread of the audit: asks Redis about the hits that wait.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Audit, EVERY, Question};
use crate::clock::{Clock, Micros};
use crate::coherence::{HitMoment, InvalidationTarget, Message, Record, Scripts, Verdict, judge};
use crate::redis_tier::fault::RedisDown;
use crate::redis_tier::pool::RedisPool;

/// The pause after a question that Redis did not answer.
const AGAIN: Duration = Duration::from_millis(500);
/// How many messages of the log one command reads.
const PAGE: usize = 500;
/// How many messages of the log are read for one batch, at most. If that does not reach the first
/// invalidation after a load, the hit is unknown.
const MOST_MESSAGES: usize = 10_000;
/// The log warns of illegal hits at most this often.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// See the module.
pub(super) struct Auditor {
    pub(super) max_staleness: Micros,
    pub(super) clock: Arc<Clock>,
    pub(super) scripts: Arc<Scripts>,
    pub(super) pool: RedisPool,
}

/// Why a batch has no verdicts.
enum NoAnswer {
    Down(RedisDown),
    Closed,
}

impl From<RedisDown> for NoAnswer {
    fn from(down: RedisDown) -> NoAnswer {
        NoAnswer::Down(down)
    }
}

impl Auditor {
    /// Looks at the hits that wait, until the audit is closed.
    pub(super) fn run(self, audit: &Audit) {
        let mut warned = None;
        while let Some(batch) = audit.take() {
            let Some(verdicts) = self.answers(audit, &batch) else {
                return;
            };
            audit.count(&verdicts);
            for (question, verdict) in batch.iter().zip(&verdicts) {
                if let Verdict::Illegal(clock) = verdict {
                    self.report(question, *clock, &mut warned);
                }
            }
            if !audit.pause(EVERY) {
                return;
            }
        }
    }

    /// The verdict of each hit, once Redis answers. `None` when the audit is closed.
    fn answers(&self, audit: &Audit, batch: &[Question]) -> Option<Vec<Verdict>> {
        let mut refused = false;
        loop {
            match self.ask(audit, batch) {
                Ok(verdicts) => return Some(verdicts),
                Err(NoAnswer::Closed) => return None,
                Err(NoAnswer::Down(RedisDown::Refused(why))) if !refused => {
                    refused = true;
                    log::warn!("the audit of memory hits waits until Redis answers it ({why})");
                }
                Err(NoAnswer::Down(_)) => {}
            }
            if !audit.pause(AGAIN) {
                return None;
            }
        }
    }

    fn ask(&self, audit: &Audit, batch: &[Question]) -> Result<Vec<Verdict>, NoAnswer> {
        let parts = || batch.iter().flat_map(|question| &question.parts);
        let targets: HashSet<&InvalidationTarget> =
            parts().flat_map(|part| part.names.iter()).collect();
        let targets: Vec<InvalidationTarget> = targets.into_iter().cloned().collect();
        let reply = self.pool.read(|connection| {
            let sent = self.clock.now();
            let reply = self.scripts.audit(connection, &targets)?;
            // So a clock of Redis that was set since the hit is noticed.
            self.clock.heard_redis(reply.time, sent);
            Ok(reply)
        })?;
        let record = Record {
            state: reply.state,
            time: reply.time,
            hard: targets.into_iter().zip(reply.hard).collect(),
        };
        let hits: Vec<HitMoment> = batch.iter().map(|question| self.moment(question)).collect();
        let verdicts = |log: Option<&[Message]>| -> Vec<Option<Verdict>> {
            let hits = batch.iter().zip(&hits);
            hits.map(|(question, hit)| judge(&question.parts, hit, &record, log))
                .collect()
        };
        let mut found = verdicts(None);
        if found.contains(&None) {
            let open = || {
                let all = batch.iter().zip(&hits).zip(&found);
                all.filter(|(_, verdict)| verdict.is_none())
                    .map(|(hit, _)| hit)
            };
            let loaded = open()
                .flat_map(|(question, _)| &question.parts)
                .filter(|part| {
                    let state = record.state.as_ref();
                    state.is_some_and(|state| state.history == part.stamp.history)
                })
                .map(|part| part.stamp.clock);
            let until = open().filter_map(|(_, hit)| hit.illegal_below);
            let log = self.log(
                audit,
                loaded.min().unwrap_or_default(),
                until.max().unwrap_or_default(),
                &record,
            )?;
            found = verdicts(Some(&log));
        }
        let found = found.into_iter();
        Ok(found
            .map(|verdict| verdict.unwrap_or(Verdict::Unknown))
            .collect())
    }

    /// The moment of a hit on Redis's clock, if that was not set between what the hit may have
    /// missed and now.
    fn moment(&self, question: &Question) -> HitMoment {
        let steady_since = question.at.saturating_sub(self.max_staleness);
        let at = self.clock.redis_moment(question.at, steady_since);
        HitMoment::new(at, self.max_staleness)
    }

    /// The messages after the clock `after` up to the first one at `until` or later, with only
    /// those targets that the record was asked for. Ends early before one that cannot be decoded.
    fn log(
        &self,
        audit: &Audit,
        after: u64,
        until: u64,
        record: &Record,
    ) -> Result<Vec<Message>, NoAnswer> {
        let mut log: Vec<Message> = Vec::new();
        let mut reached = after;
        loop {
            let read = |connection: &mut redis::Connection| {
                self.scripts.log_page(connection, reached, PAGE)
            };
            let page = self.pool.read(read)?;
            for text in &page {
                let Some(mut message) = Message::decode(text) else {
                    return Ok(log);
                };
                let asked = |target: &InvalidationTarget| {
                    target.is_everything() || record.hard.contains_key(target)
                };
                message.targets.retain(asked);
                reached = message.clock;
                log.push(message);
            }
            if page.len() < PAGE || reached >= until || log.len() >= MOST_MESSAGES {
                return Ok(log);
            }
            if !audit.pause(EVERY) {
                return Err(NoAnswer::Closed);
            }
        }
    }

    /// Warns of a hit that was served although the invalidation with this clock was older than
    /// `max_staleness`.
    fn report(&self, question: &Question, clock: u64, warned: &mut Option<Instant>) {
        let lately = warned.is_some_and(|warned| warned.elapsed() < WARN_EVERY);
        let level = if lately {
            log::Level::Debug
        } else {
            *warned = Some(Instant::now());
            log::Level::Warn
        };
        let key = question.key.as_str();
        let resource = key.split('?').next();
        let below = self.moment(question).illegal_below.unwrap_or(clock);
        let late_ms = below.saturating_sub(clock) / 1000;
        log::log!(
            level, resource, key, late_ms, clock;
            "illegal memory hit of {key}: served at least {late_ms} ms later than max_staleness \
             allows; clock of the invalidation: {clock}"
        );
    }
}
