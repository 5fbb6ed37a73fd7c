//! A typed hit in memory allocates nothing, its key included.

use larder_cache::{Cache, Outcome, TaggedKey};

use super::policy;

#[test]
fn a_typed_hit_allocates_nothing() {
    let cache = Cache::builder().build().unwrap();
    let rows = cache.typed::<Vec<String>>("rows", 1).unwrap();
    let row = |n: u32| format!("row {n}");
    let load = move || Ok::<_, String>((0..1000).map(row).collect());
    let (user, policy) = (42, policy());
    let key = || {
        let tag = format_args!("user:{user}");
        TaggedKey::new()
            .with("user", user)
            .with("page", "a b")
            .tag(tag)
    };
    rows.get_or_load(key(), &policy, load).unwrap();
    rows.get_or_load(7, &policy, load).unwrap();
    let mut seen = 0;
    let counted = allocation_counter::measure(|| {
        for _ in 0..20 {
            let found = rows.get_or_load(key(), &policy, load);
            seen += usize::from(found.is_ok_and(|(_, outcome)| outcome == Outcome::MemoryHit));
            let found = rows.get_or_load(7, &policy, load);
            seen += usize::from(found.is_ok_and(|(rows, _)| rows.len() == 1000));
        }
    });
    assert_eq!(seen, 40, "these are memory hits");
    // moka does its housekeeping on the calling threads, so an occasional lookup pays for it.
    assert!(counted.count_total <= 2, "{counted:?}");
}
