//! What was invalidated, as a subscriber in this and in another process hears it.

use larder_cache::{Cache, Heard, InvalidationTarget, Purge};

use super::{steady, trusted};
use testkit::SOON;
use testkit::redis::RedisServer;

#[test]
fn each_invalidation_is_heard_once_here_and_elsewhere() {
    let redis = RedisServer::start();
    let (one, other) = (steady(&redis.url()), steady(&redis.url()));
    let mut heard_by = [one.subscribe(), other.subscribe()];
    let sent = [
        (InvalidationTarget::tag("a"), Purge::Hard),
        (InvalidationTarget::key("user?key=1"), Purge::Soft),
        (InvalidationTarget::everything(), Purge::Hard),
    ];
    for (target, purge) in &sent {
        assert!(!one.invalidate(target, *purge).is_pending());
    }
    let last = InvalidationTarget::tag("last");
    other.invalidate(&last, Purge::Hard);
    for subscription in &mut heard_by {
        let expected: Vec<Heard> = sent
            .iter()
            .cloned()
            .map(|(target, purge)| Heard::Invalidated(target, purge))
            .chain([Heard::Invalidated(last.clone(), Purge::Hard)])
            .collect();
        let heard: Vec<Heard> = expected
            .iter()
            .map_while(|_| subscription.recv_timeout(SOON))
            .collect();
        assert_eq!(heard, expected);
    }
}

#[test]
fn a_subscription_ends_with_the_cache_and_does_not_keep_it() {
    let redis = RedisServer::start();
    let cache = trusted(&redis.url());
    let mut subscription = cache.subscribe();
    let reader = std::thread::spawn(move || {
        let heard = actix_web::rt::System::new().block_on(subscription.recv_async());
        (heard, subscription.recv())
    });
    let target = InvalidationTarget::tag("a");
    cache.invalidate(&target, Purge::Hard);
    drop(cache);
    let heard = Heard::Invalidated(target, Purge::Hard);
    assert_eq!(reader.join().unwrap(), (Some(heard), None));
}

#[test]
fn a_process_whose_redis_lost_its_data_hears_that_everything_is_invalid() {
    let mut redis = RedisServer::start();
    let cache = trusted(&redis.url());
    let mut subscription = cache.subscribe();
    redis.restart();
    let heard = subscription.recv_timeout(SOON);
    let everything = InvalidationTarget::everything();
    assert_eq!(heard, Some(Heard::Invalidated(everything, Purge::Soft)));
}

#[test]
fn a_cache_of_memory_alone_tells_its_own() {
    let cache = Cache::builder().build().unwrap();
    let mut subscription = cache.subscribe();
    drop(cache.subscribe());
    let target = InvalidationTarget::tag("a");
    cache.invalidate(&target, Purge::Soft);
    let heard = Heard::Invalidated(target, Purge::Soft);
    assert_eq!(subscription.recv(), Some(heard));
}
