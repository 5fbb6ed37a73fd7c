//! The scripts that keep the history in Redis, and the keys that they keep it under.
//!
//! Each operation is one script: a connection waits for one reply, and no operation is left half
//! done. All keys of the history have one hash tag, so they are in one slot of a cluster.
//!
//! Keys, fields and the letters of messages are shared with the replicas of other versions during a
//! rolling upgrade. So they keep their first names: `epoch` is the id of the history, `floor` and
//! `soft` are its watermarks, `begun` is its first clock.

use redis::{Connection, ErrorKind, RedisError, RedisResult, Script, ScriptInvocation, Value};

use super::history::{Earlier, HistoryState, LastPurges};
use super::history_id::HistoryId;
use super::pending::Batch;
use super::target::{InvalidationTarget, Purge};

/// A script that reads and writes keys of its own.
pub(crate) fn script(lua: &str) -> Script {
    Script::new(&format!("{}{lua}", include_str!("call.lua")))
}

/// A script that also reads or advances the history: see [`Scripts::invocation`].
pub(crate) fn history_script(lua: &str) -> Script {
    script(&format!("{}{lua}", include_str!("history.lua")))
}

/// A reply that none of larder's scripts gives.
pub(crate) fn unexpected() -> RedisError {
    let what = "the answer of one of larder's scripts has an unexpected form";
    (ErrorKind::UnexpectedReturnType, what).into()
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
    audit: Script,
}

/// Targets, each with a purge and its clock.
pub(crate) type Page = Vec<(InvalidationTarget, Purge, u64)>;

/// A ping, and what the replica says of itself with it.
pub(crate) struct Ping<'a> {
    pub(crate) private_channel: &'a str,
    pub(crate) token: u64,
    pub(crate) replica: &'a str,
    pub(crate) about: &'a str,
}

/// What a replica last said of itself.
pub(crate) struct Said {
    pub(crate) replica: String,
    /// When it said that, in microseconds of Redis's time.
    pub(crate) at: u64,
    pub(crate) about: String,
}

/// The reply of a script that is asked about some targets.
pub(crate) struct TargetsReply {
    pub(crate) values: Vec<Value>,
    pub(crate) state: HistoryState,
    /// The last invalidations of each target.
    pub(crate) clocks: Vec<LastPurges>,
}

/// The reply to an invalidation.
pub(crate) struct Invalidated {
    pub(crate) clock: u64,
    /// What the record said right before it.
    pub(crate) earlier: Earlier,
}

/// The reply to the audit of memory hits.
pub(crate) struct AuditReply {
    /// Redis's time in microseconds.
    pub(crate) time: u64,
    /// `None`: the record is not whole.
    pub(crate) state: Option<HistoryState>,
    /// The clock of the last hard invalidation of each target; zero if there was none. Empty
    /// without a state.
    pub(crate) hard: Vec<u64>,
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
            hello: history_script(include_str!("hello.lua")),
            ping: history_script(include_str!("ping.lua")),
            invalidate: history_script(include_str!("invalidate.lua")),
            read: history_script(include_str!("read.lua")),
            prune: history_script(include_str!("prune.lua")),
            audit: history_script(include_str!("audit.lua")),
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

    /// A call of a [`history_script`], with the keys and arguments that `history.lua` takes.
    fn invocation<'s>(&self, script: &'s Script) -> ScriptInvocation<'s> {
        let mut call = script.prepare_invoke();
        call.key(&self.state).key(&self.names).key(&self.log);
        call.arg(HistoryId::random().to_string()).arg(&self.channel);
        call
    }

    /// The state of the history that this Redis keeps, and its time. Begins a new history if this
    /// Redis has none or has lost a part of it.
    pub(crate) fn hello(&self, connection: &mut Connection) -> RedisResult<(HistoryState, u64)> {
        self.say_hello(connection, "")
    }

    /// The same, but begins a new history in any case.
    pub(crate) fn begin_history(
        &self,
        connection: &mut Connection,
    ) -> RedisResult<(HistoryState, u64)> {
        self.say_hello(connection, "anew")
    }

    fn say_hello(
        &self,
        connection: &mut Connection,
        how: &str,
    ) -> RedisResult<(HistoryState, u64)> {
        let mut call = self.invocation(&self.hello);
        state_and_time(&call.arg(how).invoke(connection)?)
    }

    /// Reads the clock and sends it to this replica's own subscriber, too.
    pub(crate) fn ping(
        &self,
        connection: &mut Connection,
        ping: &Ping<'_>,
    ) -> RedisResult<(HistoryState, u64)> {
        let mut call = self.invocation(&self.ping);
        call.key(&self.replicas);
        call.arg(ping.private_channel)
            .arg(ping.token)
            .arg(ping.replica)
            .arg(ping.about);
        state_and_time(&call.invoke(connection)?)
    }

    /// Invalidates the targets of `batch` on behalf of the replica `origin`. `names`: the targets
    /// whose earlier clocks are asked for.
    pub(crate) fn invalidate(
        &self,
        connection: &mut Connection,
        batch: &Batch,
        origin: &str,
        log_length: u32,
        names: &[InvalidationTarget],
    ) -> RedisResult<Invalidated> {
        let mut call = self.invocation(&self.invalidate);
        call.arg(batch.purge.letter()).arg(origin).arg(log_length);
        call.arg(batch.targets.len());
        for target in batch.targets().chain(names) {
            call.arg(target.as_str());
        }
        let Value::Array(parts) = call.invoke(connection)? else {
            return Err(unexpected());
        };
        let [clock, state, clocks] = parts.as_slice() else {
            return Err(unexpected());
        };
        let purges = self::clocks(clocks);
        if purges.len() != names.len() {
            return Err(unexpected());
        }
        Ok(Invalidated {
            clock: number(&String::from_utf8_lossy(&bytes(clock))).ok_or_else(unexpected)?,
            earlier: Earlier {
                state: self::state(state)?,
                purges,
            },
        })
    }

    /// Reads the value under `key`, and what tells whether it may be served.
    pub(crate) fn read(
        &self,
        connection: &mut Connection,
        key: &str,
        targets: &[InvalidationTarget],
    ) -> RedisResult<(Option<Vec<u8>>, TargetsReply)> {
        let mut reply = self.ask_targets(connection, &self.read, &[key], &[], targets)?;
        let value = match (reply.values.pop(), reply.values.is_empty()) {
            (Some(Value::BulkString(bytes)), true) => Some(bytes),
            (Some(_), true) => None,
            _ => return Err(unexpected()),
        };
        Ok((value, reply))
    }

    /// Runs a [`history_script`] with these keys, and with these arguments before the targets. Its
    /// reply ends with the state of the history and the clocks of the targets.
    pub(crate) fn ask_targets(
        &self,
        connection: &mut Connection,
        script: &Script,
        keys: &[&str],
        arguments: &[&[u8]],
        targets: &[InvalidationTarget],
    ) -> RedisResult<TargetsReply> {
        let mut call = self.invocation(script);
        for key in keys {
            call.key(*key);
        }
        for argument in arguments {
            call.arg(*argument);
        }
        for target in targets {
            call.arg(target.as_str());
        }
        let Value::Array(mut values) = call.invoke(connection)? else {
            return Err(unexpected());
        };
        let clocks = values.pop().ok_or_else(unexpected)?;
        let state = values.pop().ok_or_else(unexpected)?;
        Ok(TargetsReply {
            values,
            state: self::state(&state)?,
            clocks: self::clocks(&clocks),
        })
    }

    /// Forgets targets that were last invalidated more than `keep_micros` ago, and the oldest
    /// beyond `most`. Returns how many it forgot.
    pub(crate) fn prune(
        &self,
        connection: &mut Connection,
        keep_micros: u64,
        most: u64,
    ) -> RedisResult<u64> {
        self.invocation(&self.prune)
            .arg(keep_micros)
            .arg(most)
            .invoke(connection)
    }

    /// The messages after `clock` that the log still has.
    pub(crate) fn log_after(
        &self,
        connection: &mut Connection,
        clock: u64,
    ) -> RedisResult<Vec<String>> {
        messages(&self.range_after(clock).query(connection)?)
    }

    /// The same, but at most `most` of them, the first ones.
    pub(crate) fn log_page(
        &self,
        connection: &mut Connection,
        clock: u64,
        most: usize,
    ) -> RedisResult<Vec<String>> {
        let mut range = self.range_after(clock);
        messages(&range.arg("COUNT").arg(most).query(connection)?)
    }

    fn range_after(&self, clock: u64) -> redis::Cmd {
        let mut range = redis::cmd("XRANGE");
        range.arg(&self.log).arg(format!("({clock}-0")).arg("+");
        range
    }

    /// What memory hits that depend on these targets are compared with. Changes nothing in Redis.
    pub(crate) fn audit(
        &self,
        connection: &mut Connection,
        targets: &[InvalidationTarget],
    ) -> RedisResult<AuditReply> {
        let mut call = self.invocation(&self.audit);
        for target in targets {
            call.arg(target.as_str());
        }
        let Value::Array(parts) = call.invoke(connection)? else {
            return Err(unexpected());
        };
        let [time, hard, state] = parts.as_slice() else {
            return Err(unexpected());
        };
        let time = number(&String::from_utf8_lossy(&bytes(time)));
        let hard = texts(hard);
        let hard = hard.iter().map(|text| number(text).unwrap_or(0));
        Ok(AuditReply {
            time: time.ok_or_else(unexpected)?,
            hard: hard.collect(),
            state: match state {
                Value::Nil => None,
                state => Some(self::state(state)?),
            },
        })
    }

    /// A page of all targets with their clocks, from `cursor`. Returns the next cursor, too: zero
    /// after the last page.
    pub(crate) fn targets_page(
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
            let (letter, name) = member.split_once(':')?;
            let purge = Purge::of_letter(letter)?;
            Some((InvalidationTarget::tag(name), purge, clock as u64))
        });
        Ok((next, page.collect()))
    }

    /// The time of Redis in microseconds, and what each replica last said of itself.
    pub(crate) fn replicas(&self, connection: &mut Connection) -> RedisResult<(u64, Vec<Said>)> {
        let (seconds, micros): (u64, u64) = redis::cmd("TIME").query(connection)?;
        let all: Vec<(String, String)> = redis::cmd("HGETALL")
            .arg(&self.replicas)
            .query(connection)?;
        let said = all.into_iter().filter_map(|(replica, said)| {
            let (at, about) = said.split_once(' ')?;
            Some(Said {
                replica,
                at: at.parse().ok()?,
                about: about.to_owned(),
            })
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

/// The bytes of a value that is a text or a number; empty for every other.
pub(crate) fn bytes(value: &Value) -> Vec<u8> {
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

/// The messages in a range of the log.
fn messages(reply: &Value) -> RedisResult<Vec<String>> {
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
        // A message that is no text cannot be decoded either.
        Some(String::from_utf8(bytes(fields.get(1)?)).unwrap_or_default())
    };
    entries
        .iter()
        .map(|entry| message(entry).ok_or_else(unexpected))
        .collect()
}

/// A clock. Redis may write a score of a sorted set with an exponent.
fn number(text: &str) -> Option<u64> {
    text.parse().ok().or_else(|| {
        text.parse::<f64>()
            .ok()
            .filter(|number| *number >= 0.0)
            .map(|number| number as u64)
    })
}

fn state(value: &Value) -> RedisResult<HistoryState> {
    let parts = texts(value);
    let clock = |at: usize| {
        let text = parts.get(at);
        text.and_then(|text| number(text)).ok_or_else(unexpected)
    };
    let history = parts.first().and_then(|text| HistoryId::parse(text));
    Ok(HistoryState {
        history: history.ok_or_else(unexpected)?,
        clock: clock(1)?,
        hard_watermark: clock(2)?,
        soft_watermark: clock(3)?,
        pruned_to: clock(4)?,
        first_clock: clock(5)?,
    })
}

fn state_and_time(value: &Value) -> RedisResult<(HistoryState, u64)> {
    let time = texts(value)
        .get(6)
        .and_then(|text| number(text))
        .ok_or_else(unexpected)?;
    Ok((state(value)?, time))
}

fn clocks(value: &Value) -> Vec<LastPurges> {
    let flat: Vec<u64> = texts(value)
        .iter()
        .map(|text| number(text).unwrap_or(0))
        .collect();
    flat.chunks_exact(2)
        .map(|pair| LastPurges {
            hard: pair[0],
            soft: pair[1],
        })
        .collect()
}
