//! The scripts that keep the history in Redis, and the keys that they keep it under.
//!
//! Each operation is one script: a connection has one reply to wait for, and nothing is done by halves. All keys of the history
//! have one hash tag, so that they are in one slot of a cluster.

use redis::{Connection, RedisResult, Script, ScriptInvocation, Value};

use super::era::{HistoryId, State};
use super::name::{InvalidationTarget, Purge};
use crate::redis_tier::fault::unexpected;

macro_rules! script {
    ($file:literal) => {
        concat!(
            include_str!("call.lua"),
            include_str!("history.lua"),
            include_str!($file)
        )
    };
}

/// See the module.
pub(crate) struct Scripts {
    state: String,
    names: String,
    log: String,
    replicas: String,
    channel: String,
    hello: Script,
    ping: Script,
    invalidate: Script,
    read: Script,
    prune: Script,
    lease: Script,
}

/// The clocks of the last hard and the last soft invalidation of a name.
pub(crate) type Clocks = Vec<(u64, u64)>;

/// Names with the clock of an invalidation each.
pub(crate) type Page = Vec<(InvalidationTarget, Purge, u64)>;
/// Replicas, when each last spoke (microseconds on Redis's clock), and what it said.
pub(crate) type Spoken = Vec<(String, u64, String)>;

/// What a replica says of itself with a ping.
pub(crate) struct Ping<'a> {
    pub(crate) private_channel: &'a str,
    pub(crate) token: u64,
    pub(crate) replica: &'a str,
    pub(crate) about: &'a str,
}

/// A read that asked for everything.
pub(crate) struct CheckedRead {
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) state: State,
    pub(crate) clocks: Clocks,
}

impl Scripts {
    pub(crate) fn new(prefix: &str) -> Scripts {
        let key = |name: &str| format!("{{{prefix}:bus}}{name}");
        Scripts {
            state: key(":state"),
            names: key(":names"),
            log: key(":log"),
            replicas: key(":replicas"),
            channel: key(""),
            hello: Script::new(script!("hello.lua")),
            ping: Script::new(script!("ping.lua")),
            invalidate: Script::new(script!("invalidate.lua")),
            read: Script::new(script!("read.lua")),
            prune: Script::new(script!("prune.lua")),
            lease: Script::new(script!("../redis_tier/lease.lua")),
        }
    }

    /// The channel that every invalidation is published on.
    pub(crate) fn channel(&self) -> &str {
        &self.channel
    }

    /// The channel of one replica's own echoes.
    pub(crate) fn private_channel(&self, replica: &str) -> String {
        format!("{}:{replica}", self.channel)
    }

    fn begin<'s>(&self, script: &'s Script) -> ScriptInvocation<'s> {
        let mut call = script.prepare_invoke();
        call.key(&self.state).key(&self.names).key(&self.log);
        call.arg(HistoryId::random().to_string()).arg(&self.channel);
        call
    }

    /// The history that this connection's Redis keeps, and its time. `anew`: begins a new one in any case.
    pub(crate) fn hello(
        &self,
        connection: &mut Connection,
        anew: bool,
    ) -> RedisResult<(State, u64)> {
        let reply = self
            .begin(&self.hello)
            .arg(if anew { "anew" } else { "" })
            .invoke(connection)?;
        state_and_time(&reply)
    }

    /// The clock, also to this replica's own subscriber.
    pub(crate) fn ping(
        &self,
        connection: &mut Connection,
        ping: &Ping<'_>,
    ) -> RedisResult<(State, u64)> {
        let mut call = self.begin(&self.ping);
        call.key(&self.replicas);
        call.arg(ping.private_channel)
            .arg(ping.token)
            .arg(ping.replica)
            .arg(ping.about);
        state_and_time(&call.invoke(connection)?)
    }

    /// Invalidates; returns epoch and clock of it.
    pub(crate) fn invalidate(
        &self,
        connection: &mut Connection,
        kind: Purge,
        names: impl Iterator<Item = InvalidationTarget>,
        origin: &str,
        log_length: u32,
    ) -> RedisResult<(HistoryId, u64)> {
        let mut call = self.begin(&self.invalidate);
        call.arg(kind.letter()).arg(origin).arg(log_length);
        names.for_each(|name| {
            call.arg(name.as_str());
        });
        let reply: Value = call.invoke(connection)?;
        let parts = texts(&reply);
        match (
            parts.first().and_then(|text| HistoryId::parse(text)),
            parts.get(1).and_then(|text| number(text)),
        ) {
            (Some(epoch), Some(clock)) => Ok((epoch, clock)),
            _ => Err(unexpected()),
        }
    }

    /// Reads a value and all that tells whether it may be served.
    pub(crate) fn read(
        &self,
        connection: &mut Connection,
        key: &str,
        names: &[InvalidationTarget],
    ) -> RedisResult<CheckedRead> {
        let mut call = self.begin(&self.read);
        call.key(key);
        names.iter().for_each(|name| {
            call.arg(name.as_str());
        });
        let Value::Array(parts) = call.invoke(connection)? else {
            return Err(unexpected());
        };
        let [value, state, clocks] = parts.as_slice() else {
            return Err(unexpected());
        };
        let value = if let Value::BulkString(bytes) = value {
            Some(bytes.clone())
        } else {
            None
        };
        Ok(CheckedRead {
            value,
            state: self::state(state)?,
            clocks: self::clocks(clocks),
        })
    }

    /// Asks for the right to load. Returns what became of that, a value or text, the history's state and the names' clocks.
    pub(crate) fn lease(
        &self,
        connection: &mut Connection,
        keys: [&str; 2],
        arguments: [&[u8]; 4],
        names: &[InvalidationTarget],
    ) -> RedisResult<(Vec<u8>, Vec<u8>, State, Clocks)> {
        let mut call = self.begin(&self.lease);
        keys.iter().for_each(|key| {
            call.key(*key);
        });
        arguments.iter().for_each(|argument| {
            call.arg(*argument);
        });
        names.iter().for_each(|name| {
            call.arg(name.as_str());
        });
        let Value::Array(parts) = call.invoke(connection)? else {
            return Err(unexpected());
        };
        let [kind, what, state, clocks] = parts.as_slice() else {
            return Err(unexpected());
        };
        Ok((
            bytes(kind),
            bytes(what),
            self::state(state)?,
            self::clocks(clocks),
        ))
    }

    /// Forgets names older than `keep_micros` and those beyond `most`. Returns how many went.
    pub(crate) fn prune(
        &self,
        connection: &mut Connection,
        keep_micros: u64,
        most: u64,
    ) -> RedisResult<u64> {
        self.begin(&self.prune)
            .arg(keep_micros)
            .arg(most)
            .invoke(connection)
    }

    /// The messages after `clock`, as far as the log has them.
    pub(crate) fn log_after(
        &self,
        connection: &mut Connection,
        clock: u64,
    ) -> RedisResult<Vec<String>> {
        let reply: Value = redis::cmd("XRANGE")
            .arg(&self.log)
            .arg(format!("({clock}-0"))
            .arg("+")
            .query(connection)?;
        let Value::Array(entries) = reply else {
            return Err(unexpected());
        };
        let message = |entry: &Value| {
            let Value::Array(entry) = entry else {
                return None;
            };
            let Value::Array(fields) = entry.get(1)? else {
                return None;
            };
            // What is no text is no message either.
            Some(String::from_utf8(bytes(fields.get(1)?)).unwrap_or_default())
        };
        entries
            .iter()
            .map(|entry| message(entry).ok_or_else(unexpected))
            .collect()
    }

    /// A page of all names with their clocks, from `cursor`; the next cursor, zero after the last page.
    pub(crate) fn names_page(
        &self,
        connection: &mut Connection,
        cursor: u64,
    ) -> RedisResult<(u64, Page)> {
        let (next, flat): (u64, Vec<(String, f64)>) = redis::cmd("ZSCAN")
            .arg(&self.names)
            .arg(cursor)
            .arg("COUNT")
            .arg(1000)
            .query(connection)?;
        let page = flat.into_iter().filter_map(|(member, clock)| {
            let kind = match member.get(..2)? {
                "h:" => Purge::Hard,
                "s:" => Purge::Soft,
                _ => return None,
            };
            Some((
                InvalidationTarget::tag(member.get(2..)?),
                kind,
                clock as u64,
            ))
        });
        Ok((next, page.collect()))
    }

    /// What each replica last said of itself, with the time of Redis when it did, in microseconds; and that time now.
    pub(crate) fn replicas(&self, connection: &mut Connection) -> RedisResult<(u64, Spoken)> {
        let (seconds, micros): (u64, u64) = redis::cmd("TIME").query(connection)?;
        let all: Vec<(String, String)> = redis::cmd("HGETALL")
            .arg(&self.replicas)
            .query(connection)?;
        let said = all.into_iter().filter_map(|(replica, said)| {
            let (time, about) = said.split_once(' ')?;
            Some((replica, time.parse().ok()?, about.to_owned()))
        });
        Ok((seconds * 1_000_000 + micros, said.collect()))
    }

    /// Forgets a replica that has gone.
    pub(crate) fn forget_replica(
        &self,
        connection: &mut Connection,
        replica: &str,
    ) -> RedisResult<()> {
        redis::cmd("HDEL")
            .arg(&self.replicas)
            .arg(replica)
            .exec(connection)
    }
}

fn bytes(value: &Value) -> Vec<u8> {
    match value {
        Value::BulkString(bytes) => bytes.clone(),
        Value::SimpleString(text) => text.clone().into_bytes(),
        Value::Int(number) => number.to_string().into_bytes(),
        _ => Vec::new(),
    }
}

fn texts(value: &Value) -> Vec<String> {
    let Value::Array(parts) = value else {
        return Vec::new();
    };
    parts
        .iter()
        .map(|part| String::from_utf8_lossy(&bytes(part)).into_owned())
        .collect()
}

/// A clock. Redis may write a score of its sorted sets with an exponent.
fn number(text: &str) -> Option<u64> {
    text.parse().ok().or_else(|| {
        text.parse::<f64>()
            .ok()
            .filter(|number| *number >= 0.0)
            .map(|number| number as u64)
    })
}

fn state(value: &Value) -> RedisResult<State> {
    let parts = texts(value);
    let at = |i: usize| {
        parts
            .get(i)
            .and_then(|text| number(text))
            .ok_or_else(unexpected)
    };
    Ok(State {
        epoch: parts
            .first()
            .and_then(|text| HistoryId::parse(text))
            .ok_or_else(unexpected)?,
        clock: at(1)?,
        floor: at(2)?,
        soft_floor: at(3)?,
        pruned_to: at(4)?,
        begun: at(5)?,
    })
}

fn state_and_time(value: &Value) -> RedisResult<(State, u64)> {
    let time = texts(value)
        .get(6)
        .and_then(|text| number(text))
        .ok_or_else(unexpected)?;
    Ok((state(value)?, time))
}

fn clocks(value: &Value) -> Clocks {
    let flat: Vec<u64> = texts(value)
        .iter()
        .map(|text| number(text).unwrap_or(0))
        .collect();
    flat.chunks_exact(2)
        .map(|pair| (pair[0], pair[1]))
        .collect()
}
