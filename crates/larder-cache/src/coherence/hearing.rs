//! Hearing: what the bus does with what it hears, and how it finds and makes up for what it did not hear.
//!
//! Each message says which clock came before it, and each echo which clock there is: if that was not heard, something is missing.
//! What was missed is read from the log, or, where that does not reach back, all names are. Only this advances `last`.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use redis::Connection;

use super::bus::{Lost, Session};
use super::era::{History, HistoryId, State};
use super::message::{Heard, parse};
use super::name::{InvalidationTarget, Purge};
use crate::clock::micros;

impl Session<'_> {
    /// An echo: everything up to its clock has arrived, or is missing.
    pub(super) fn echoed(&mut self, payload: &str, talking: &mut Connection) -> Result<(), Lost> {
        let mut parts = payload.split(' ');
        let token = parts.next().and_then(|text| text.parse::<u64>().ok());
        let epoch = parts.next().and_then(HistoryId::parse);
        let clock = parts.next().and_then(|text| text.parse::<u64>().ok());
        let (Some(token), Some(epoch), Some(clock)) = (token, epoch, clock) else {
            return Err(Lost::Strange("an echo that is none of larder's".into()));
        };
        let Some(at) = self.sent.iter().position(|(sent, _)| *sent == token) else {
            // Of another session of this replica.
            return Ok(());
        };
        let sent = self.sent[at].1;
        self.sent.drain(..=at);
        let mut era = self.bus.mirror.era();
        // Below it, too: what was made up for since the ping was sent, or a Redis that got old data back and still runs.
        if era.epoch() != epoch || clock != era.last() {
            era = self.catch_up(talking, None)?;
        }
        if era.epoch() == epoch && era.last() >= clock {
            let until = self.bus.clock.at(sent) + micros(self.bus.settings.max_staleness);
            self.bus.mirror.trust(&era, until);
            self.heard = true;
        }
        Ok(())
    }

    /// A message on the channel.
    pub(super) fn told(&mut self, payload: &str, talking: &mut Connection) -> Result<(), Lost> {
        let Ok(message) = parse(payload) else {
            // Nobody's, or of a larder that writes them otherwise: what it may have said is asked for.
            self.catch_up(talking, None)?;
            return Ok(());
        };
        let era = self.bus.mirror.era();
        if era.epoch() != message.epoch {
            self.catch_up(talking, None)?;
            return Ok(());
        }
        if message.clock <= era.last() {
            // Heard already, by way of the log.
            return Ok(());
        }
        // Greater: something was not heard. Less: what was heard last is no part of this history, so Redis got old data back.
        if message.before != era.last() {
            self.catch_up(talking, None)?;
            return Ok(());
        }
        self.apply(&era, &message);
        Ok(())
    }

    fn apply(&self, era: &History, message: &Heard) {
        if let Some(kind) = message.kind {
            let listeners = self
                .bus
                .listeners
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            for name in &message.names {
                era.apply(name, kind, message.clock);
                listeners.iter().for_each(|listener| listener(name, kind));
            }
        }
        era.heard(message.clock);
    }

    /// Hears what was missed: from the log, or, where that does not reach back, all names there are.
    pub(super) fn catch_up(
        &mut self,
        talking: &mut Connection,
        known: Option<State>,
    ) -> Result<Arc<History>, Lost> {
        let bus = self.bus;
        let state = match known {
            Some(state) => state,
            None => self.hello(talking, false)?,
        };
        let era = bus.mirror.era();
        if era.epoch() != state.epoch {
            // Redis has a history that was over here: it got old data back without a restart. A new one, then.
            self.hello(talking, true)?;
            return Err(Lost::Strange("the history changed again".into()));
        }
        let last = era.last();
        if state.clock < last {
            // Of one history, and yet it runs backwards: Redis got old data back.
            let state = self.hello(talking, true)?;
            return self.catch_up(talking, Some(state));
        }
        if last != 0 {
            if state.clock == last {
                return Ok(era);
            }
            let messages = bus.scripts.log_after(talking, last)?;
            // One that cannot be read leaves the log no use: then all names are read.
            let messages: Vec<Heard> = messages
                .iter()
                .map(|text| parse(text))
                .collect::<Result<_, _>>()
                .unwrap_or_default();
            if messages.iter().any(|message| message.epoch != state.epoch) {
                return Err(Lost::Strange("the history changed again".into()));
            }
            let chained = messages
                .windows(2)
                .all(|pair| pair[1].before == pair[0].clock);
            if messages.first().is_some_and(|first| first.before < last) || !chained {
                // What came before is none of what was heard here: the same.
                let state = self.hello(talking, true)?;
                return self.catch_up(talking, Some(state));
            }
            if messages.first().is_some_and(|first| first.before == last) {
                messages
                    .iter()
                    .for_each(|message| self.apply(&era, message));
                bus.gaps_repaired.fetch_add(1, Ordering::Relaxed);
                return Ok(era);
            }
        }
        // What comes while the pages are read is heard on the channel: `state.clock` was read before them.
        let mut cursor = 0;
        loop {
            let (next, page) = bus.scripts.names_page(talking, cursor)?;
            for (name, kind, clock) in &page {
                era.apply(name, *kind, *clock);
            }
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        // Last, since what is pruned while the pages are read is in none of them.
        let after = self.hello(talking, false)?;
        if after.epoch != state.epoch {
            return Err(Lost::Strange("the history changed again".into()));
        }
        era.apply_state(&after);
        era.heard(state.clock);
        if last != 0 {
            bus.gaps_repaired.fetch_add(1, Ordering::Relaxed);
            // Some may have been invalidated without this replica ever being told by name.
            let listeners = bus.listeners.lock().unwrap_or_else(PoisonError::into_inner);
            listeners
                .iter()
                .for_each(|listener| listener(&InvalidationTarget::everything(), Purge::Soft));
        }
        Ok(era)
    }

    fn hello(&self, talking: &mut Connection, anew: bool) -> Result<State, Lost> {
        let sent = self.bus.clock.now();
        let (state, time) = self.bus.scripts.hello(talking, anew)?;
        self.bus.clock.heard_redis(time, sent);
        self.bus.mirror.saw(&state);
        Ok(state)
    }
}
