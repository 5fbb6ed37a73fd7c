//! One pair of connections of the bus: it sends pings, hears messages, and repairs gaps.
//!
//! Each message says which clock came before it, and each echo says which clock there is. If that
//! clock was not applied here, something is missing. What is missing is read from the log. If the
//! log does not reach back, all targets are read. Only this advances [`History::applied`].

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use redis::{Connection, PubSub, RedisError};

use super::{Bus, MOST_TARGETS};
use crate::clock::micros;
use crate::coherence::{
    Echo, History, HistoryState, InvalidationOrigin, InvalidationTarget, LogReceived, Message,
    Ping, Purge, Received,
};
use crate::random::random;
use crate::redis_tier::commands::RedisCommand;
use crate::redis_tier::connection::Connector;
use crate::redis_tier::fault::{Fault, reason};
use crate::redis_tier::leases::RENEW_EVERY;

/// How often the thread looks for something to deliver while it hears nothing.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How many pending targets one script delivers.
const DELIVERED_AT_ONCE: usize = 500;
/// How many targets one run of `prune.lua` forgets, of either sort, as the script has it. In
/// between Redis does other work, and this thread listens.
const FORGOTTEN_AT_ONCE: u64 = 1000;

/// Why a session ends and the bus connects anew.
pub(super) enum SessionError {
    /// An exchange failed.
    Redis(RedisError),
    /// No connection could be opened. The connector has reported that already.
    Connect(RedisError),
    /// No echo arrives on the listening connection.
    NoEcho,
    /// The history was replaced twice in a row.
    HistoryChanged,
    /// Larder did not write this echo.
    UnreadableEcho,
}

impl From<RedisError> for SessionError {
    fn from(error: RedisError) -> SessionError {
        SessionError::Redis(error)
    }
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SessionError::Redis(error) | SessionError::Connect(error) => {
                f.write_str(&reason(error))
            }
            SessionError::NoEcho => f.write_str("its echoes do not arrive"),
            SessionError::HistoryChanged => f.write_str("the history changed again"),
            SessionError::UnreadableEcho => f.write_str("an echo is not readable"),
        }
    }
}

/// See the module.
pub(super) struct Session<'b> {
    bus: &'b Bus,
    /// The pings under way: token, and when each was sent.
    pings: VecDeque<(u64, Instant)>,
    got_echo: bool,
    /// When targets are forgotten next.
    prune_at: Instant,
}

impl<'b> Session<'b> {
    pub(super) fn new(bus: &'b Bus, prune_at: Instant) -> Session<'b> {
        Session {
            bus,
            pings: VecDeque::new(),
            got_echo: false,
            prune_at,
        }
    }

    /// When targets are to be forgotten next.
    pub(super) fn prune_at(&self) -> Instant {
        self.prune_at
    }

    /// Whether an echo arrived: the session worked.
    pub(super) fn got_echo(&self) -> bool {
        self.got_echo
    }

    /// Runs until the bus is closed.
    pub(super) fn run(&mut self, connector: &Connector) -> Result<(), SessionError> {
        let bus = self.bus;
        let max_staleness = bus.settings.max_staleness;
        let open = || {
            let opened = connector.open(bus.reply_timeout);
            opened.map_err(SessionError::Connect)
        };
        let mut listening = open()?;
        let mut commands = open()?;
        let mut listening = listening.as_pubsub();
        // Before anything else: other replicas may wait for the loads of this one.
        self.renew_leases(&mut commands)?;
        let private = bus.scripts.private_channel(&bus.replica);
        // The subscription is confirmed before the state is read. Messages in between wait in the
        // connection.
        listening.subscribe(&[bus.scripts.channel(), private.as_str()])?;
        self.catch_up(&mut commands, None)?;
        let mut ping_at = Instant::now();
        let mut renew_at = ping_at + RENEW_EVERY;
        loop {
            if bus.is_closed() {
                let _ = bus.scripts.forget_replica(&mut commands, &bus.replica);
                return Ok(());
            }
            let now = Instant::now();
            if now >= ping_at {
                ping_at = now + max_staleness / 4;
                self.ping(&mut commands, &private)?;
            }
            self.deliver_pending(&mut commands)?;
            if now >= renew_at {
                renew_at = now + RENEW_EVERY;
                self.renew_leases(&mut commands)?;
            }
            if now >= self.prune_at {
                let all = self.prune(&mut commands)? < FORGOTTEN_AT_ONCE;
                self.prune_at = if all { now + bus.prune_every() } else { now };
            }
            let oldest = self.pings.front().map(|(_, sent)| sent.elapsed());
            if oldest.is_some_and(|age| age > max_staleness * 2) {
                return Err(SessionError::NoEcho);
            }
            let wait = ping_at
                .min(renew_at)
                .saturating_duration_since(Instant::now())
                .clamp(Duration::from_millis(1), LOOK_EVERY);
            self.listen(&mut listening, &mut commands, &private, wait)?;
        }
    }

    /// Only an error that ends the connection counts. After any other one the leases run out, which
    /// costs work only.
    fn renew_leases(&self, commands: &mut Connection) -> Result<(), SessionError> {
        match self
            .bus
            .leases
            .renew(commands, self.bus.mirror.history_id())
        {
            Err(error) if Fault::of(&error).ends_connection() => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn ping(&mut self, commands: &mut Connection, private: &str) -> Result<(), SessionError> {
        let bus = self.bus;
        let (token, sent, sent_at) = (random() >> 1, Instant::now(), bus.clock.now());
        let about = bus.about();
        let ping = Ping {
            private_channel: private,
            token,
            replica: &bus.replica,
            about: &about,
        };
        self.pings.push_back((token, sent));
        let (state, time) = bus.scripts.ping(commands, &ping)?;
        bus.clock.heard_redis(time, sent_at);
        bus.mirror.observe(&state);
        Ok(())
    }

    /// Delivers pending invalidations: the latest of each target.
    fn deliver_pending(&mut self, commands: &mut Connection) -> Result<(), SessionError> {
        let bus = self.bus;
        if bus.mirror.pending.is_empty() {
            return Ok(());
        }
        // One batch of each purge: in between the thread has to listen.
        for batch in bus.mirror.pending.to_deliver(DELIVERED_AT_ONCE) {
            let send = || {
                bus.scripts
                    .invalidate(commands, &batch, &bus.replica, bus.log_length(), &[])
            };
            let taken = bus.commands.time(RedisCommand::Invalidate, send)?;
            let history = taken.earlier.state.history;
            if bus.mirror.confirm(&batch, history, taken.clock) {
                log::info!(
                    "pending invalidations delivered; targets: {}",
                    batch.targets.len()
                );
            } else {
                // The history is new here. The batch stays pending and is delivered once more.
                self.catch_up(commands, None)?;
            }
        }
        Ok(())
    }

    /// Forgets targets in Redis and here. Returns how many Redis forgot.
    fn prune(&self, commands: &mut Connection) -> Result<u64, SessionError> {
        let bus = self.bus;
        let keep = bus.remembered();
        let gone = bus.scripts.prune(commands, keep, MOST_TARGETS as u64)?;
        let now = bus.clock.redis_of_local(bus.clock.now());
        bus.mirror.history().prune(now.saturating_sub(keep));
        Ok(gone)
    }

    fn listen(
        &mut self,
        listening: &mut PubSub<'_>,
        commands: &mut Connection,
        private: &str,
        wait: Duration,
    ) -> Result<(), SessionError> {
        listening.set_read_timeout(Some(wait))?;
        let message = match listening.get_message() {
            Ok(message) => message,
            Err(error) if error.is_timeout() => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let payload: String = message.get_payload()?;
        if message.get_channel_name() == private {
            self.receive_echo(&payload, commands)
        } else {
            self.receive(&payload, commands)
        }
    }

    /// An echo: everything up to its clock has arrived, or is missing.
    fn receive_echo(
        &mut self,
        payload: &str,
        commands: &mut Connection,
    ) -> Result<(), SessionError> {
        let echo = Echo::decode(payload).ok_or(SessionError::UnreadableEcho)?;
        let Some(sent) = self.take_ping(echo.token) else {
            // Of another session of this replica.
            return Ok(());
        };
        let bus = self.bus;
        let mut history = bus.mirror.history();
        if !history.is_at(&echo) {
            history = self.catch_up(commands, None)?;
        }
        if history.has_applied(&echo) {
            let sent = bus.clock.at(sent);
            let until = sent + micros(bus.settings.max_staleness);
            if bus.mirror.extend_trust(&history, until) {
                bus.echoed.store(sent, Ordering::Relaxed);
            }
            self.got_echo = true;
        }
        Ok(())
    }

    /// When the ping with this token was sent. Forgets it and those before it.
    fn take_ping(&mut self, token: u64) -> Option<Instant> {
        let at = self.pings.iter().position(|(sent, _)| *sent == token)?;
        self.pings.drain(..=at).next_back().map(|(_, sent)| sent)
    }

    /// A message on the channel.
    fn receive(&mut self, payload: &str, commands: &mut Connection) -> Result<(), SessionError> {
        let bus = self.bus;
        // A message that cannot be decoded may have said anything.
        let message = Message::decode(payload);
        let received = message
            .as_ref()
            .map(|message| bus.mirror.history().receive(message));
        match (received, message) {
            (Some(Received::Applied), Some(message)) => self.notify(&message),
            (Some(Received::Known), _) => {}
            (Some(Received::Gap), _) | (None, _) | (_, None) => {
                self.catch_up(commands, None)?;
            }
        }
        Ok(())
    }

    fn notify(&self, message: &Message) {
        let Some(purge) = message.purge else {
            return;
        };
        // Its own messages come back to it. The listeners have heard them already.
        if message.replica != self.bus.replica {
            let heard = message.targets.len();
            self.bus
                .invalidated
                .count(InvalidationOrigin::Heard, purge, heard);
            self.bus.notify(&message.targets, purge);
        }
    }

    /// Applies everything that is missing up to the state of Redis, which `known` gives if it was
    /// read already. Returns the history in force.
    fn catch_up(
        &mut self,
        commands: &mut Connection,
        known: Option<HistoryState>,
    ) -> Result<Arc<History>, SessionError> {
        let bus = self.bus;
        let state = match known {
            Some(state) => state,
            None => self.hello(commands)?,
        };
        let history = bus.mirror.history();
        if history.id() != state.history {
            // The history of this Redis is over here: it got old data back without a restart.
            self.begin_history(commands)?;
            return Err(SessionError::HistoryChanged);
        }
        let applied = history.applied();
        if state.clock < applied {
            // The clock of one history runs backwards: Redis got old data back.
            let state = self.begin_history(commands)?;
            return self.catch_up(commands, Some(state));
        }
        if applied != 0 {
            if state.clock == applied {
                return Ok(history);
            }
            let log = bus.scripts.log_after(commands, applied)?;
            // If one message cannot be decoded, the log is of no use: all targets are read.
            let log: Option<Vec<Message>> = log.iter().map(|text| Message::decode(text)).collect();
            let log = log.unwrap_or_default();
            match history.receive_log(&log) {
                LogReceived::Applied => {
                    log.iter().for_each(|message| self.notify(message));
                    bus.gaps_repaired.fetch_add(1, Ordering::Relaxed);
                    return Ok(history);
                }
                LogReceived::Trimmed => {}
                LogReceived::OtherHistory => return Err(SessionError::HistoryChanged),
                LogReceived::Rewritten => {
                    let state = self.begin_history(commands)?;
                    return self.catch_up(commands, Some(state));
                }
            }
        }
        self.read_all_targets(commands, &history, &state)?;
        if applied != 0 {
            bus.gaps_repaired.fetch_add(1, Ordering::Relaxed);
        }
        // Some targets may have been invalidated and forgotten meanwhile. In a history that begins
        // here, whatever was loaded before is invalid.
        bus.notify(&[InvalidationTarget::everything()], Purge::Soft);
        Ok(history)
    }

    /// Applies all targets, up to the clock of `state`. Later invalidations arrive on the channel:
    /// `state` was read before the pages.
    fn read_all_targets(
        &self,
        commands: &mut Connection,
        history: &History,
        state: &HistoryState,
    ) -> Result<(), SessionError> {
        let mut cursor = 0;
        loop {
            let (next, page) = self.bus.scripts.targets_page(commands, cursor)?;
            for (target, purge, clock) in &page {
                history.apply(target, *purge, *clock);
            }
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        // Last: a target that is pruned while the pages are read is in none of them.
        let after = self.hello(commands)?;
        if after.history != state.history {
            return Err(SessionError::HistoryChanged);
        }
        history.apply_state(&after);
        history.advance(state.clock);
        Ok(())
    }

    fn hello(&self, commands: &mut Connection) -> Result<HistoryState, SessionError> {
        let sent = self.bus.clock.now();
        let reply = self.bus.scripts.hello(commands)?;
        Ok(self.observe(reply, sent))
    }

    fn begin_history(&self, commands: &mut Connection) -> Result<HistoryState, SessionError> {
        let sent = self.bus.clock.now();
        let reply = self.bus.scripts.begin_history(commands)?;
        Ok(self.observe(reply, sent))
    }

    fn observe(&self, (state, time): (HistoryState, u64), sent: u64) -> HistoryState {
        self.bus.clock.heard_redis(time, sent);
        self.bus.mirror.observe(&state);
        state
    }
}
