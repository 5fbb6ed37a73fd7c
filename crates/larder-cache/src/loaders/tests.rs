use std::sync::mpsc::{self, Receiver, Sender};

use super::super::fair_queue::Caller;
use super::super::interest::{Behalf, Reader};
use super::*;

const LONG: Duration = Duration::from_secs(20);

/// Loaders, and the outcomes of their jobs.
struct Bench {
    loaders: Loaders,
    told: Sender<(&'static str, Turn)>,
    heard: Receiver<(&'static str, Turn)>,
    release: Vec<Sender<()>>,
}

fn bench(max_loads: usize, max_queue: usize, shares: &[&str]) -> Bench {
    let (told, heard) = mpsc::channel();
    let loaders = Loaders::new(LoadSettings {
        max_loads,
        max_queue,
    });
    loaders.set_aside(shares.iter().map(|name| Arc::from(*name)));
    Bench {
        loaders,
        told,
        heard,
        release: Vec::new(),
    }
}

fn wanted_by(caller: Caller) -> (Arc<Interest>, Option<Reader>) {
    let interest = Arc::new(Interest::default());
    let reader = interest.board(&Behalf::Reader(caller)).unwrap();
    (interest, reader)
}

impl Bench {
    fn submit(
        &self,
        name: &'static str,
        share: &str,
        interest: Arc<Interest>,
        work: impl FnOnce() + Send + 'static,
    ) {
        let told = self.told.clone();
        self.loaders.submit(Job {
            share: share.into(),
            interest,
            blocks: true,
            work: Box::new(move |turn, _| {
                let _ = told.send((name, turn));
                if turn == Turn::Now {
                    work();
                }
            }),
        });
    }

    /// A job that ends as soon as it runs.
    fn job(&self, name: &'static str, share: &str, caller: Caller) -> Option<Reader> {
        let (interest, reader) = wanted_by(caller);
        self.submit(name, share, interest, || ());
        reader
    }

    /// A job that is running, until it is released.
    fn held(&mut self, share: &str, caller: Caller) {
        let (release, gate) = mpsc::channel::<()>();
        let (interest, reader) = wanted_by(caller);
        self.submit("held", share, interest, move || {
            let _ = gate.recv();
            drop(reader);
        });
        self.release.push(release);
        assert_eq!(self.next(), ("held", Turn::Now));
    }

    fn next(&self) -> (&'static str, Turn) {
        self.heard.recv_timeout(LONG).unwrap()
    }

    fn quiet(&self) -> bool {
        self.heard.try_recv().is_err()
    }

    /// The names of the next jobs that report, in order.
    fn names(&self, count: usize) -> Vec<&'static str> {
        (0..count).map(|_| self.next().0).collect()
    }
}

#[test]
fn refuses_what_neither_runs_nor_waits_and_survives_a_panic() {
    let bench = bench(1, 1, &[]);
    let (release, gate) = mpsc::channel::<()>();
    let (interest, _reader) = wanted_by(1);
    bench.submit("first", "s", interest, move || {
        gate.recv().unwrap();
        panic!("a load may panic");
    });
    assert_eq!(bench.next(), ("first", Turn::Now));
    let _second = bench.job("second", "s", 1);
    let _third = bench.job("third", "s", 1);
    assert_eq!(bench.next(), ("third", Turn::Refused));
    release.send(()).unwrap();
    assert_eq!(bench.next(), ("second", Turn::Now));
}

#[test]
fn a_share_that_is_slow_leaves_the_others_their_places() {
    let mut bench = bench(4, 4, &["slow", "quick"]);
    // Each has one permit to run and one to wait.
    (0..3).for_each(|_| bench.held("slow", 1));
    let mut waiting: Vec<_> = (0..3).map(|_| bench.job("slow", "slow", 1)).collect();
    waiting.push(bench.job("one too many", "slow", 1));
    assert_eq!(bench.next(), ("one too many", Turn::Refused));
    bench.held("quick", 1);
    waiting.push(bench.job("quick", "quick", 1));
    assert!(bench.quiet());
    let status = bench.loaders.status();
    let figures: Vec<_> = status
        .iter()
        .map(|share| (&*share.name, share.running, share.waiting, share.refused))
        .collect();
    assert_eq!(figures, [("slow", 3, 3, 1), ("quick", 1, 1, 0)]);
    // Only quick jobs get the permit of the quick share, though more slow ones wait and came first.
    bench.release.pop();
    assert_eq!(bench.next(), ("quick", Turn::Now));
    assert!(bench.quiet());
    bench.release.clear();
    assert_eq!(bench.names(3), ["slow"; 3]);
}

#[test]
fn callers_take_turns_within_a_share() {
    let mut bench = bench(1, 8, &["s"]);
    bench.held("s", 1);
    let jobs = [("a1", 1), ("a2", 1), ("a3", 1), ("b1", 2)];
    let _waiting: Vec<_> = jobs
        .iter()
        .map(|(name, caller)| bench.job(name, "s", *caller))
        .collect();
    bench.release.clear();
    assert_eq!(bench.names(4), ["a1", "b1", "a2", "a3"]);
}

#[test]
fn a_full_queue_refuses_the_newest_of_who_has_most() {
    let mut bench = bench(1, 3, &["s"]);
    bench.held("s", 1);
    let jobs = [("a1", 1), ("a2", 1), ("a3", 1), ("b1", 2)];
    let _waiting: Vec<_> = jobs
        .iter()
        .map(|(name, caller)| bench.job(name, "s", *caller))
        .collect();
    assert_eq!(bench.next(), ("a3", Turn::Refused));
    let _more = (bench.job("b2", "s", 2), bench.job("a4", "s", 1));
    assert_eq!(bench.next(), ("b2", Turn::Refused));
    assert_eq!(bench.next(), ("a4", Turn::Refused));
    bench.release.clear();
    assert_eq!(bench.names(3), ["a1", "b1", "a2"]);
}

#[test]
fn what_nobody_waits_for_leaves_the_queue() {
    let mut bench = bench(1, 2, &["s"]);
    bench.held("s", 1);
    let (gone, stays) = (bench.job("gone", "s", 1), bench.job("stays", "s", 1));
    drop(gone);
    assert_eq!(bench.next(), ("gone", Turn::Left));
    // Its place is free.
    let _third = bench.job("third", "s", 1);
    assert!(bench.quiet());
    // One of the two readers is still there, and that is enough.
    let (interest, first) = wanted_by(1);
    drop(stays);
    assert_eq!(bench.next(), ("stays", Turn::Left));
    bench.submit("both", "s", interest.clone(), || ());
    let second = interest.board(&Behalf::Reader(2)).unwrap();
    drop(first);
    assert!(bench.quiet());
    drop(second);
    assert_eq!(bench.next(), ("both", Turn::Left));
    assert!(
        interest.board(&Behalf::Reader(3)).is_none(),
        "nobody joins it"
    );
    assert_eq!(bench.loaders.status()[0].left, 3);
    bench.release.clear();
    assert_eq!(bench.next(), ("third", Turn::Now));
}

#[test]
fn a_reader_who_may_be_gone_takes_what_begins_at_once_and_does_not_wait() {
    let mut bench = bench(1, 2, &["s"]);
    let (interest, mut reader) = wanted_by(1);
    reader.as_mut().unwrap().step_back();
    bench.submit("at once", "s", interest, || ());
    assert_eq!(bench.next(), ("at once", Turn::Now));
    bench.held("s", 1);
    let (interest, mut reader) = wanted_by(1);
    bench.submit("waits", "s", interest, || ());
    assert!(bench.quiet());
    reader.as_mut().unwrap().step_back();
    assert_eq!(bench.next(), ("waits", Turn::Left));
    let (interest, mut reader) = wanted_by(1);
    reader.as_mut().unwrap().step_back();
    bench.submit("would wait", "s", interest, || ());
    assert_eq!(bench.next(), ("would wait", Turn::Left));
}

#[test]
fn a_part_waits_as_long_as_somebody_wants_a_composite_of_it() {
    let mut bench = bench(1, 2, &["s"]);
    bench.held("s", 1);
    let part = Arc::new(Interest::default());
    let ((first, one), (second, two)) = (wanted_by(1), wanted_by(2));
    for composite in [&first, &second] {
        let none = part.board(&Behalf::Composite(composite.clone())).unwrap();
        assert!(none.is_none());
    }
    assert_eq!(part.callers(), [1, 2]);
    bench.submit("part", "s", part.clone(), || ());
    drop(one);
    assert!(bench.quiet());
    // A reader that joins the composite is added to the line of each part.
    let three = second.board(&Behalf::Reader(3)).unwrap();
    assert_eq!(part.callers(), [1, 2, 3]);
    drop(two);
    assert!(bench.quiet());
    drop(three);
    assert_eq!(bench.next(), ("part", Turn::Left));
    assert!(
        second.board(&Behalf::Reader(4)).is_none(),
        "it would be a composite without this part"
    );
}

#[test]
fn a_refresh_needs_nobody_and_makes_room_first() {
    let mut bench = bench(1, 2, &["s"]);
    bench.held("s", 1);
    let (interest, reader) = wanted_by(1);
    interest.set_refresh();
    bench.submit("refresh", "s", interest, || ());
    drop(reader);
    let _a = bench.job("a", "s", 1);
    assert!(bench.quiet());
    let _b = bench.job("b", "s", 1);
    assert_eq!(bench.next(), ("refresh", Turn::Refused));
    bench.release.clear();
    assert_eq!(bench.names(2), ["a", "b"]);
}

#[test]
fn closing_refuses_what_waits_and_ends_the_threads() {
    let mut bench = bench(1, 2, &["s"]);
    bench.held("s", 1);
    let _waits = bench.job("waits", "s", 1);
    bench.loaders.close();
    assert_eq!(bench.next(), ("waits", Turn::Refused));
    let _late = bench.job("late", "s", 1);
    assert_eq!(bench.next(), ("late", Turn::Refused));
    bench.release.clear();
    let inner = Arc::downgrade(&bench.loaders.0);
    drop(bench);
    let began = std::time::Instant::now();
    while inner.strong_count() > 0 {
        assert!(began.elapsed() < LONG, "a thread is left");
        std::thread::yield_now();
    }
    assert!(began.elapsed() < IDLE, "it did not wait for more work");
}
