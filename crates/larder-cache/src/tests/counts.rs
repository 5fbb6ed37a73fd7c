//! What is counted of a composite and its parts, and of a load that no tier was asked before.

use super::*;

/// The loads of each result that had any.
fn loads(totals: Totals) -> Vec<(&'static str, u64)> {
    let all = LoadResult::ALL.map(|result| (result.word(), totals.loads_by(result)));
    all.into_iter().filter(|(_, count)| *count > 0).collect()
}

/// The lookups of each outcome that had any.
fn lookups(totals: Totals) -> Vec<(&'static str, u64)> {
    let all = LookupEnd::ALL.map(|end| (end.word(), totals.ended(end)));
    all.into_iter().filter(|(_, count)| *count > 0).collect()
}

/// The counts of a composite of two parts, and of its parts.
struct Tallies {
    composite: Arc<Tally>,
    parts: [Arc<Tally>; 2],
}

impl Tallies {
    fn request(
        &self,
        policy: &Arc<Policy>,
        a: impl FnOnce() -> Result<Loaded, LoadError> + Send + 'static,
        b: impl FnOnce() -> Result<Loaded, LoadError> + Send + 'static,
    ) -> Request {
        let mut request = composed(policy, a, b, None);
        request.item.tally = self.composite.clone();
        if let Producer::Compose(composition) = &mut request.producer {
            for (part, tally) in composition.parts.iter_mut().zip(&self.parts) {
                part.item.tally = tally.clone();
            }
        }
        request
    }
}

#[test]
fn a_composite_counts_a_load_when_a_part_was_loaded_and_its_parts_count_theirs() {
    let (cache, policy) = (cache(), hour());
    let tallies = Tallies {
        composite: Arc::default(),
        parts: Default::default(),
    };
    let tag = [InvalidationTarget::key("composite")];
    let part = |name: &str| [InvalidationTarget::key(name)];
    let read = |a: fn() -> Result<Loaded, LoadError>, b: fn() -> Result<Loaded, LoadError>| {
        let request = tallies.request(&policy, a, b);
        let result = cache.fetch(request).wait(LONG);
        tallies.composite.count(&result);
        result
    };
    read(|| present("a"), || present("b")).unwrap();
    // Made again of the same parts, which are in memory: no load.
    cache.invalidate(&tag, Purge::Hard);
    read(failed, failed).unwrap();
    // One part is loaded anew, and says the same.
    cache.invalidate(&part("part-a"), Purge::Hard);
    read(|| present("a"), failed).unwrap();
    // And then another thing.
    cache.invalidate(&part("part-a"), Purge::Hard);
    read(|| present("A"), failed).unwrap();
    for name in ["part-a", "part-b"] {
        cache.invalidate(&part(name), Purge::Hard);
    }
    read(failed, failed).unwrap_err();
    let (own, of_parts) = (
        tallies.composite.totals(),
        tallies.parts.each_ref().map(|part| part.part_totals()),
    );
    let composite = [("changed", 1), ("same", 1), ("first", 1), ("failed", 1)];
    assert_eq!(loads(own), composite);
    assert_eq!(loads(of_parts[0]), composite);
    assert_eq!(loads(of_parts[1]), [("first", 1), ("failed", 1)]);
    assert_eq!(lookups(own), [("memory", 1), ("loaded", 3), ("failed", 1)]);
    let a = [("memory", 1), ("loaded", 3), ("failed", 1)];
    assert_eq!(lookups(of_parts[0]), a);
    let b = [("memory", 3), ("loaded", 1), ("failed", 1)];
    assert_eq!(lookups(of_parts[1]), b);
    // The errors of parts are counted once, where an operator looks for them.
    assert_eq!(own.load_errors, 0);
    for part in &tallies.parts {
        let totals = part.totals();
        assert_eq!((totals.load_errors, lookups(totals)), (1, Vec::new()));
        let durations = part.load_durations();
        assert_eq!(durations.count(), part.part_totals().loads);
    }
    assert_eq!(tallies.composite.load_durations().count(), own.loads);
}

#[test]
fn a_load_that_no_tier_was_asked_before_is_compared_with_what_memory_has() {
    let cache = assembled(false, LONG);
    let pool = cache.redis();
    let deadline = Instant::now() + LONG;
    while pool.answers() {
        assert!(Instant::now() < deadline, "nobody listens there");
        std::thread::yield_now();
    }
    let (policy, tally) = (hour(), Arc::<Tally>::default());
    for (text, result) in [("v", "first"), ("v", "same"), ("w", "changed")] {
        let before = tally.totals();
        let mut request = loading("k", &policy, || present(text));
        request.item.tally = tally.clone();
        // An invalidation that this replica has not heard of: only a load that begins now will do.
        let unheard = cache.bus().clock + 1;
        cache.fetch_after(request, 0, unheard).wait(LONG).unwrap();
        let after = tally.totals();
        for of in LoadResult::ALL {
            let more = after.loads_by(of) - before.loads_by(of);
            assert_eq!(more, u64::from(of.word() == result), "{text}: {of:?}");
        }
    }
}

#[test]
fn a_load_that_began_before_a_purge_is_the_predecessor_of_the_one_that_began_after_it() {
    let (cache, policy, tally) = (cache(), hour(), Arc::<Tally>::default());
    let counted = |run: Box<dyn FnOnce() -> Result<Loaded, LoadError> + Send>| {
        let mut request = loading("k", &policy, run);
        request.item.tally = tally.clone();
        cache.fetch(request)
    };
    let (started, running) = mpsc::channel();
    let gated = |text: &'static str| {
        let (release, gate) = mpsc::channel::<()>();
        let started = started.clone();
        let ticket = counted(Box::new(move || {
            started.send(()).unwrap();
            gate.recv().unwrap();
            present(text)
        }));
        (release, ticket)
    };
    let (first, waits_for_first) = gated("v");
    running.recv().unwrap();
    cache.invalidate(&[InvalidationTarget::key("k")], Purge::Hard);
    let (second, waits_for_second) = gated("v");
    running.recv().unwrap();
    first.send(()).unwrap();
    waits_for_first.wait(LONG).unwrap();
    second.send(()).unwrap();
    waits_for_second.wait(LONG).unwrap();
    assert_eq!(loads(tally.totals()), [("same", 1), ("first", 1)]);
}
