//! The watcher: looks for a Redis that is lost. While Redis answers, it tries whether it takes
//! fills.

use std::time::{Duration, Instant};

use redis::RedisResult;

use super::fault::RedisState;
use super::health::Health;

/// The first and the longest pause between two looks for a Redis that is down. The longest is also
/// the pause between two trial fills while Redis is up.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// After this time of being up, the next outage starts with the shortest pause again.
const STEADY: Duration = Duration::from_secs(10);

/// Runs until `health` has ended, or a callback returns `None` because the pool is gone. `look`
/// opens a connection and returns whether Redis takes fills. `try_fill` tries a fill on a
/// connection of the pool and reports the result to `health`.
pub(super) fn watch(
    health: &Health,
    address: &str,
    configured: bool,
    look: impl Fn() -> Option<RedisResult<(RedisState, String)>>,
    try_fill: impl Fn() -> Option<()>,
) {
    let mut pause = PAUSES.0;
    let mut reported = false;
    let mut up_since: Option<Instant> = None;
    while !health.is_ended() {
        if health.answers() {
            if up_since.is_none_or(|since: Instant| since.elapsed() > STEADY) {
                pause = PAUSES.0;
            }
            // Without traffic nobody would notice that it is gone, or takes no fills.
            if health.wait_lost(PAUSES.1) && try_fill().is_none() {
                return;
            }
            continue;
        }
        let Some(found) = look() else { return };
        match found {
            Ok((state, why)) => {
                // A Redis that comes and goes is used again only after ever longer pauses, whoever
                // else finds it meanwhile.
                if up_since.is_some_and(|since| since.elapsed() < STEADY) {
                    health.pause(pause);
                }
                up_since = Some(Instant::now());
                reported = true;
                health.found_by_watcher(state, &why);
                match state {
                    RedisState::Up => log::info!("Redis is up at {address}"),
                    _ => log::warn!(
                        "Redis at {address} answers but accepts no fills ({state}): {why}"
                    ),
                }
            }
            Err(_) => {
                health.looked_in_vain();
                if !reported {
                    reported = true;
                    report_absent(address, &health.state().1, configured);
                }
                health.wait_found(pause);
            }
        }
        pause = (pause * 2).min(PAUSES.1);
    }
}

fn report_absent(address: &str, why: &str, configured: bool) {
    if configured {
        log::warn!(
            "Redis does not answer at {address}: {why}; serving without Redis until it does"
        );
    } else {
        log::info!(
            "no Redis is configured and none answers at {address}: standalone until one appears there"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redis_that_comes_and_goes_is_asked_ever_less_often() {
        let health = &Health::new();
        let look = || {
            // Everybody who opens a connection reports that.
            health.found();
            Some(Ok((RedisState::Up, String::new())))
        };
        let began = Instant::now();
        let found = std::thread::scope(|scope| {
            scope.spawn(move || watch(health, "here", true, look, || Some(())));
            let found = (0..5).filter(|_| {
                health.wait_up(STEADY);
                let up = health.is_up();
                health.gone(RedisState::Down, "gone again");
                up
            });
            let found = found.count();
            health.end();
            found
        });
        assert_eq!(found, 5);
        // Twice the first pause before the second time, and twice as long before each that follows.
        assert!(began.elapsed() >= PAUSES.0 * (2 + 4 + 8 + 16));
    }
}
