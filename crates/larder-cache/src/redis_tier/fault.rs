//! Faults: what a failed exchange with Redis says of the connection, of the server, and of what
//! Redis can do.
//!
//! Errors are told apart by the kinds of the `redis` crate, by the code with which a reply begins
//! and by the kinds of I/O errors, never by the text of an error.

use std::fmt;

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::coherence::HistoryRetired;

/// Redis gave no answer that can be used. It is counted where it happened; the caller goes on
/// without Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisDown {
    /// It cannot be reached, or did not answer in time.
    Unreachable,
    /// It answered with this error: no memory, read-only, loading, not permitted.
    Refused(String),
}

impl fmt::Display for RedisDown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RedisDown::Unreachable => f.write_str("Redis cannot be reached"),
            RedisDown::Refused(why) => write!(f, "Redis refused: {why}"),
        }
    }
}

impl std::error::Error for RedisDown {}

/// Whether Redis takes fills, and if not, why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedisState {
    /// It takes fills.
    Up,
    /// It is not reached, or does not answer in time.
    Down,
    /// It is a replica of another server (`READONLY`, `MASTERDOWN`).
    ReadOnly,
    /// It reads its data from disk or from its primary (`LOADING`).
    Loading,
    /// It has no memory left and evicts nothing (`OOM`).
    Full,
    /// The user or the password is wrong, or the user lacks a right (`NOAUTH`, `WRONGPASS`,
    /// `NOPERM`).
    NotPermitted,
    /// It refuses for another reason, such as a disk that cannot be written (`MISCONF`).
    Refusing,
}

impl RedisState {
    /// Whether reads and invalidations work as promised. A Redis that is full takes no fills, but
    /// every invalidation.
    pub fn keeps_promises(self) -> bool {
        matches!(self, RedisState::Up | RedisState::Full)
    }
}

impl fmt::Display for RedisState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RedisState::Up => "up",
            RedisState::Down => "down",
            RedisState::ReadOnly => "read-only",
            RedisState::Loading => "loading",
            RedisState::Full => "full",
            RedisState::NotPermitted => "not permitted",
            RedisState::Refusing => "refusing",
        })
    }
}

/// What a failed exchange says. The variants differ by what the caller does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// No reply in time. The connection is closed: a late reply would be taken for the reply to the
    /// next command.
    TimedOut,
    /// The connection was lost. Those that were opened before it are closed too. Only a new one can
    /// tell whether Redis is gone.
    ConnectionLost,
    /// The server answers, but takes no writes, or not yet. Every connection that was opened so far
    /// is closed: a new one may reach another server.
    WrongServer(RedisState),
    /// This connection is not authenticated. It is closed.
    NotAuthenticated,
    /// The server answers, but has no memory for this, or the user may not do it. The connection
    /// stays open.
    Refusing(RedisState),
    /// The server refuses this one command. The connection stays open.
    Refused,
}

/// The text of larder's own error for a connection to a Redis whose history is over here.
const RETIRED: &str = "the history of this Redis is over";

/// The error for a connection to a Redis whose history is over here.
pub(crate) fn retired() -> RedisError {
    (ErrorKind::ClusterConnectionNotFound, RETIRED).into()
}

/// The error in words for a log. The operating system calls a time-out "Resource temporarily
/// unavailable", which is not what an operator looks for.
pub(crate) fn reason(error: &RedisError) -> String {
    if error.is_timeout() {
        return "timed out".to_owned();
    }
    error.to_string()
}

impl From<HistoryRetired> for RedisError {
    fn from(HistoryRetired: HistoryRetired) -> RedisError {
        retired()
    }
}

impl Fault {
    /// What this error says.
    pub(crate) fn of(error: &RedisError) -> Fault {
        if error.is_timeout() {
            return Fault::TimedOut;
        }
        match error.kind() {
            // The library closes a connection after a reply that it cannot parse.
            ErrorKind::Io | ErrorKind::Parse => Fault::ConnectionLost,
            ErrorKind::AuthenticationFailed => Fault::NotAuthenticated,
            // `retired`: the library itself gives this kind to clients of a cluster only.
            ErrorKind::ClusterConnectionNotFound => Fault::WrongServer(RedisState::Refusing),
            // A reply of the server. Redis before 7 wraps the error of a command in a script in an
            // error of its own.
            ErrorKind::Server(ServerErrorKind::ResponseError) => error
                .detail()
                .and_then(code_in_script)
                .map_or(Fault::Refused, Fault::of_code),
            _ => error.code().map_or(Fault::Refused, Fault::of_code),
        }
    }

    /// What a reply of the server with this code says.
    fn of_code(code: &str) -> Fault {
        match code {
            "READONLY" | "MASTERDOWN" => Fault::WrongServer(RedisState::ReadOnly),
            "LOADING" => Fault::WrongServer(RedisState::Loading),
            // A cluster without a primary for the key, a key that another node has, a command that
            // was ended because the server became a replica, a primary that has lost its replicas,
            // one whose disk cannot be written. Every exchange begins with a write, so a server
            // that takes none is of no use.
            "CLUSTERDOWN" | "MOVED" | "UNBLOCKED" | "NOREPLICAS" | "MISCONF" => {
                Fault::WrongServer(RedisState::Refusing)
            }
            "NOAUTH" | "WRONGPASS" => Fault::NotAuthenticated,
            "NOPERM" => Fault::Refusing(RedisState::NotPermitted),
            "OOM" => Fault::Refusing(RedisState::Full),
            _ => Fault::Refused,
        }
    }

    /// Whether the connection is of no use any more.
    pub(crate) fn ends_connection(self) -> bool {
        !matches!(self, Fault::Refusing(_) | Fault::Refused)
    }

    /// Whether every connection that was opened so far is of no use any more.
    pub(crate) fn ends_all(self) -> bool {
        matches!(self, Fault::ConnectionLost | Fault::WrongServer(_))
    }

    /// The state of Redis that it proves, if it proves one.
    pub(crate) fn state(self) -> Option<RedisState> {
        match self {
            Fault::WrongServer(state) | Fault::Refusing(state) => Some(state),
            Fault::NotAuthenticated => Some(RedisState::NotPermitted),
            Fault::TimedOut | Fault::ConnectionLost | Fault::Refused => None,
        }
    }
}

/// The code of the error that ended a script, in the detail of the script's own error. Redis 6
/// writes `Error running script (call to f_<sha1>): @user_script:12: @user_script: 12: -READONLY
/// You can't write ...`, and an error that a script raises itself begins with its place,
/// `user_script:12: NOPERM ...`.
fn code_in_script(detail: &str) -> Option<&str> {
    let (_, from_place) = detail.split_once("user_script:")?;
    let mut words = from_place.split(' ');
    words
        .by_ref()
        .map(|word| word.strip_prefix('-').unwrap_or(word))
        .find(|word| word.len() > 2 && word.bytes().all(|byte| byte.is_ascii_uppercase()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    fn reply(line: &str) -> RedisError {
        let value = redis::parse_redis_value(line.as_bytes()).unwrap();
        value.extract_error().unwrap_err()
    }

    #[test]
    fn a_time_out_is_logged_in_words_that_say_so() {
        for kind in [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut] {
            assert_eq!(reason(&io::Error::from(kind).into()), "timed out");
        }
        for other in [
            io::Error::from(io::ErrorKind::ConnectionRefused).into(),
            reply("-LOADING reading\r\n"),
        ] {
            assert_eq!(reason(&other), other.to_string());
        }
    }

    #[test]
    fn a_reply_is_told_by_its_code() {
        use RedisState::{Full, Loading, NotPermitted, ReadOnly, Refusing};
        for (line, fault) in [
            (
                "-READONLY You can't write against a read only replica.",
                Fault::WrongServer(ReadOnly),
            ),
            (
                "-READONLY You can't write against a read only replica. script: 1f, on @user_script:9.",
                Fault::WrongServer(ReadOnly),
            ),
            (
                "-ERR Error running script (call to f_1f): @user_script:9: @user_script: 9: -READONLY You can't write against a read only replica. ",
                Fault::WrongServer(ReadOnly),
            ),
            (
                "-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
                Fault::WrongServer(ReadOnly),
            ),
            (
                "-LOADING Redis is loading the dataset in memory",
                Fault::WrongServer(Loading),
            ),
            (
                "-CLUSTERDOWN Hash slot not served",
                Fault::WrongServer(Refusing),
            ),
            ("-MOVED 3999 127.0.0.1:6381", Fault::WrongServer(Refusing)),
            (
                "-UNBLOCKED force unblock from blocking operation",
                Fault::WrongServer(Refusing),
            ),
            (
                "-NOREPLICAS Not enough good replicas to write.",
                Fault::WrongServer(Refusing),
            ),
            ("-NOAUTH Authentication required.", Fault::NotAuthenticated),
            (
                "-WRONGPASS invalid username-password pair or user is disabled.",
                Fault::NotAuthenticated,
            ),
            (
                "-NOPERM this user has no permissions to run the 'evalsha' command",
                Fault::Refusing(NotPermitted),
            ),
            (
                "-ERR user_script:7: NOPERM the user may not run INFO script: 1f, on @user_script:7.",
                Fault::Refusing(NotPermitted),
            ),
            (
                "-OOM command not allowed when used memory > 'maxmemory'.",
                Fault::Refusing(Full),
            ),
            (
                "-ERR Error running script (call to f_1f): @user_script:2: @user_script: 2: -OOM command not allowed when used memory > 'maxmemory'. ",
                Fault::Refusing(Full),
            ),
            (
                "-MISCONF Redis is configured to save RDB snapshots, but it is currently unable to persist to disk.",
                Fault::WrongServer(Refusing),
            ),
            (
                "-WRONGTYPE Operation against a key holding the wrong kind of value",
                Fault::Refused,
            ),
            ("-BUSY Redis is busy running a script.", Fault::Refused),
            // Codes are not looked for in what somebody else may have written.
            ("-ERR unknown command 'READONLY'", Fault::Refused),
            ("-ERR max number of clients reached", Fault::Refused),
        ] {
            assert_eq!(Fault::of(&reply(&format!("{line}\r\n"))), fault, "{line}");
        }
    }

    #[test]
    fn an_error_of_input_and_output_is_told_by_its_kind() {
        let of = |kind: io::ErrorKind| Fault::of(&io::Error::from(kind).into());
        assert_eq!(of(io::ErrorKind::TimedOut), Fault::TimedOut);
        assert_eq!(of(io::ErrorKind::WouldBlock), Fault::TimedOut);
        for kind in [
            io::ErrorKind::UnexpectedEof,
            io::ErrorKind::BrokenPipe,
            io::ErrorKind::ConnectionReset,
            io::ErrorKind::ConnectionRefused,
            io::ErrorKind::NotFound,
        ] {
            assert_eq!(of(kind), Fault::ConnectionLost, "{kind:?}");
        }
        let password = (
            ErrorKind::AuthenticationFailed,
            "Password authentication failed",
        );
        assert_eq!(Fault::of(&password.into()), Fault::NotAuthenticated);
        assert_eq!(
            Fault::of(&retired()),
            Fault::WrongServer(RedisState::Refusing)
        );
        assert_eq!(Fault::of(&crate::coherence::unexpected()), Fault::Refused);
    }

    #[test]
    fn what_is_closed_follows_from_the_fault() {
        for (fault, connection, all) in [
            (Fault::TimedOut, true, false),
            (Fault::ConnectionLost, true, true),
            (Fault::WrongServer(RedisState::ReadOnly), true, true),
            (Fault::NotAuthenticated, true, false),
            (Fault::Refusing(RedisState::Full), false, false),
            (Fault::Refused, false, false),
        ] {
            assert_eq!(
                (fault.ends_connection(), fault.ends_all()),
                (connection, all),
                "{fault:?}"
            );
        }
    }
}
