use super::*;
use crate::answer::Trace;
use crate::entry::{Entry, Extras, Value};
use crate::policy::Expiry;
use crate::{HistoryId, Stamp};
use std::sync::mpsc;
use std::time::Duration;

fn answer(body: &'static str, outcome: Outcome) -> Answer {
    let own = Dependency::unknown(
        Stamp {
            history: HistoryId(1),
            clock: 0,
            sequence: 0,
        },
        Arc::default(),
    );
    let never = Expiry {
        memory_until: 0,
        fresh_until: 0,
    };
    let value = Value::Present(body.into());
    let entry = Entry::new(value, own, 0, 0, never, Extras::default());
    Answer {
        entry: Arc::new(entry),
        outcome,
        trace: Trace::default(),
    }
}

fn body(result: &LookupResult) -> &[u8] {
    result.as_ref().unwrap().entry.value.bytes()
}

const LONG: Duration = Duration::from_secs(20);

/// Joins, or leads with the guard given back.
fn join(flights: &Arc<Flights>, joinable: bool) -> (Ticket, Option<Leader>) {
    let (give, take) = mpsc::channel();
    let ticket = flights.join(
        &Key::new(1, "a"),
        &Behalf::Reader(0),
        |_| joinable,
        false,
        move |guard| drop(give.send(guard)),
    );
    (ticket, take.try_recv().ok())
}

#[test]
fn one_leads_and_the_others_get_what_it_brings() {
    let flights = Arc::new(Flights::new());
    let (leader, guard) = join(&flights, true);
    let followers: Vec<_> = (0..20)
        .map(|_| {
            let (ticket, guard) = join(&flights, true);
            assert!(guard.is_none());
            std::thread::spawn(move || ticket.wait(LONG))
        })
        .collect();
    guard.unwrap().end(Ok(answer("x", Outcome::Loaded)));
    assert_eq!(leader.wait(LONG).unwrap().outcome, Outcome::Loaded);
    for follower in followers {
        let result = follower.join().unwrap();
        assert_eq!(
            (body(&result), result.as_ref().unwrap().outcome),
            (&b"x"[..], Outcome::Collapsed)
        );
    }
    assert!(
        join(&flights, true).1.is_some(),
        "a flight that has landed is not joined"
    );
}

#[test]
fn a_flight_that_could_not_serve_a_reader_is_not_joined_and_two_fly_at_most() {
    let flights = Arc::new(Flights::new());
    let (first, old) = join(&flights, false);
    let (second, new) = join(&flights, false);
    let (give, begun) = mpsc::channel();
    let third = flights.join(
        &Key::new(1, "a"),
        &Behalf::Reader(0),
        |_| false,
        false,
        move |guard| drop(give.send(guard)),
    );
    assert!(begun.try_recv().is_err(), "a third waits for a place");
    let (fourth, none) = join(&flights, false);
    assert!(none.is_none(), "and who comes then waits with it");
    old.unwrap().end(Ok(answer("1", Outcome::Loaded)));
    let guard = begun.try_recv().expect("the place is free");
    new.unwrap().end(Ok(answer("2", Outcome::Loaded)));
    guard.end(Ok(answer("3", Outcome::Loaded)));
    let bodies = [first, second, third, fourth].map(|ticket| body(&ticket.wait(LONG)).to_vec());
    assert_eq!(bodies, [b"1", b"2", b"3", b"3"].map(|body| body.to_vec()));
}

#[test]
fn a_reader_that_panics_strands_nobody() {
    let flights = Arc::new(Flights::new());
    let (first, guard) = join(&flights, false);
    let (_, other) = join(&flights, false);
    let (next, _) = join(&flights, false);
    first.on_answer(|_| panic!("a reader's own bug"));
    let (told, answers) = mpsc::channel();
    first.on_answer(move |result| drop(told.send(result)));
    guard.unwrap().end(Ok(answer("x", Outcome::Loaded)));
    assert_eq!(body(&answers.try_recv().unwrap()), b"x");
    // The next flight has begun, and ends: nothing here takes its leader.
    assert!(next.wait(LONG).is_err());
    drop(other);
    assert!(flights.shards.iter().all(|shard| shard.lock().is_empty()));
}

#[test]
fn who_needs_a_load_shares_the_next_one() {
    let flights = Arc::new(Flights::new());
    let (_, first) = join(&flights, false);
    let (_, second) = join(&flights, false);
    let (content, _) = join(&flights, false);
    let (give, begun) = mpsc::channel();
    let need = |number: usize| {
        let give = give.clone();
        flights.join(
            &Key::new(1, "a"),
            &Behalf::Reader(0),
            |_| false,
            true,
            move |guard| drop(give.send((number, guard))),
        )
    };
    let needs: Vec<Ticket> = (0..100).map(need).collect();
    assert!(begun.try_recv().is_err(), "two loads run at most");
    drop(first);
    let (number, guard) = begun.try_recv().expect("the place is free");
    assert_eq!(number, 0, "the way of the first that needs a load");
    guard.end(Ok(answer("new", Outcome::Loaded)));
    for ticket in needs.into_iter().chain([content]) {
        assert_eq!(body(&ticket.wait(LONG)), b"new");
    }
    drop(second);
    assert!(begun.try_recv().is_err(), "one load for all of them");
}

#[test]
fn a_leader_that_is_lost_frees_the_key_and_its_readers() {
    let flights = Arc::new(Flights::new());
    let (_, guard) = join(&flights, true);
    let (follower, _) = join(&flights, true);
    let panicked = std::thread::spawn(move || {
        let _guard = guard;
        panic!("a load may panic");
    });
    assert!(panicked.join().is_err());
    assert!(matches!(follower.wait(LONG), Err(LoadError::Failed(_))));
    assert!(join(&flights, true).1.is_some());
}

#[test]
fn an_offer_is_served_while_the_flight_goes_on() {
    let flights = Arc::new(Flights::new());
    let (leader, guard) = join(&flights, true);
    let guard = guard.unwrap();
    let (told, heard) = mpsc::channel();
    leader.on_answer(move |result| told.send(result).unwrap());
    let stale = Outcome::Stale(Staleness::WhileRevalidate);
    guard.offer(move || Some(answer("old", stale)));
    assert_eq!(body(&heard.recv().unwrap()), b"old");
    assert_eq!(
        body(&join(&flights, true).0.wait(LONG)),
        b"old",
        "who joins later gets it, too"
    );
    guard.offer(|| None);
    let (late, _) = join(&flights, true);
    guard.end(Ok(answer("new", Outcome::Loaded)));
    assert_eq!(body(&late.wait(LONG)), b"new", "an offer has its time");
}

#[test]
fn who_will_wait_no_longer_gets_the_copy_at_hand() {
    let flights = Arc::new(Flights::new());
    let (ticket, guard) = join(&flights, true);
    assert!(ticket.stale().is_none());
    guard
        .as_ref()
        .unwrap()
        .set_fallback(|| Some(answer("old", Outcome::MemoryHit)));
    let copy = ticket.stale().unwrap();
    assert_eq!(copy.outcome, Outcome::Stale(Staleness::SoftTimeout));
    assert!(matches!(
        ticket.wait(Duration::from_millis(1)),
        Err(LoadError::TooSlow(_))
    ));
}

#[test]
fn a_ticket_that_is_met_is_taken_once_and_told_to_a_callback() {
    let (tell, told) = mpsc::channel();
    let met = Ticket::ready(answer("x", Outcome::MemoryHit));
    met.on_answer(move |result| tell.send(result).unwrap());
    assert_eq!(body(&told.recv().unwrap()), b"x");
    assert!(met.answer_or_stale().is_some() && met.stale().is_none());
    let (mut met, mut context) = (met, Context::from_waker(Waker::noop()));
    let mut poll = || Pin::new(&mut met).poll(&mut context);
    assert!(matches!(poll(), Poll::Ready(Ok(_))));
    // Taking it twice is a bug of the caller, and is reported as one.
    assert!(matches!(poll(), Poll::Ready(Err(LoadError::Bug(_)))));
}

#[test]
fn an_offer_that_gives_nothing_wakes_everybody_and_each_waits_again() {
    #[derive(Default)]
    struct Counting(std::sync::atomic::AtomicUsize);
    impl Wake for Counting {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
    }
    let counting = Arc::new(Counting::default());
    let woken = || counting.0.swap(0, std::sync::atomic::Ordering::SeqCst) > 0;
    let waker = Waker::from(counting.clone());
    let mut context = Context::from_waker(&waker);
    let flights = Arc::new(Flights::new());
    let (mut ticket, leader) = join(&flights, true);
    let leader = leader.unwrap();
    let mut poll = || Pin::new(&mut ticket).poll(&mut context);
    assert!(poll().is_pending() && poll().is_pending() && !woken());
    leader.offer(|| None);
    assert!(woken() && poll().is_pending() && !woken());
    leader.end(Ok(answer("x", Outcome::Loaded)));
    assert!(woken());
    assert!(matches!(poll(), Poll::Ready(Ok(_))));
}

#[test]
fn a_load_keeps_the_time_of_its_first_stamp_and_the_names_of_its_last() {
    let flights = Arc::new(Flights::new());
    let (_ticket, leader) = join(&flights, true);
    let leader = leader.unwrap();
    let look = || {
        leader
            .flight
            .look(|own, began, unverified| (own.stamp.clock, began, unverified))
    };
    assert!(look().is_none(), "it has not begun");
    let stamped = |clock| {
        let stamp = Stamp {
            history: HistoryId(1),
            clock,
            sequence: 0,
        };
        leader.stamp(Dependency::unknown(stamp, Arc::default()));
    };
    stamped(1);
    let (first, began, _) = look().unwrap();
    leader.set_unverified(true);
    stamped(2);
    assert_eq!((first, look()), (1, Some((2, began, true))));
}

fn stamped(sequence: u64) -> Dependency {
    let stamp = Stamp {
        history: HistoryId(1),
        clock: 0,
        sequence,
    };
    Dependency::unknown(stamp, Arc::default())
}

/// A reader who may join unless the load began before `sequence`.
fn joins_after(flight: &Flight, sequence: u64) -> bool {
    let began_after = |of: &Dependency, _, _| of.stamp.sequence >= sequence;
    flight.look(began_after).unwrap_or(true)
}

#[test]
fn those_who_wait_are_given_a_value_and_those_who_come_later_are_not() {
    let flights = Arc::new(Flights::new());
    let key = Key::new(1, "a");
    let (leads, guard) = join(&flights, true);
    let guard = guard.unwrap();
    guard.stamp(stamped(0));
    let (waits, _) = join(&flights, true);
    flights.give(&key, 1, &answer("given", Outcome::Collapsed));
    for ticket in [leads, waits] {
        assert_eq!(body(&ticket.wait(LONG)), b"given");
    }
    // The load takes its lease only now.
    guard.stamp(stamped(2));
    assert!(
        !joins_after(&guard.flight, 1),
        "its answer is the given one"
    );
    guard.end(Ok(answer("loaded", Outcome::Loaded)));
    // One that began later is left alone.
    let (leads, guard) = join(&flights, true);
    let guard = guard.unwrap();
    guard.stamp(stamped(3));
    flights.give(&key, 3, &answer("given", Outcome::Collapsed));
    guard.end(Ok(answer("loaded", Outcome::Loaded)));
    assert_eq!(body(&leads.wait(LONG)), b"loaded");
}

/// 1. The leader takes its stamp.
/// 2. A reader comes after a later invalidation, and finds a flight without a stamp.
/// 3. The leader stores its stamp.
#[test]
fn one_that_was_joined_before_its_stamp_was_stored_is_given_nothing() {
    let flights = Arc::new(Flights::new());
    let (leads, guard) = join(&flights, true);
    let guard = guard.unwrap();
    assert!(joins_after(&guard.flight, 9));
    guard.stamp(stamped(0));
    flights.give(&Key::new(1, "a"), 1, &answer("given", Outcome::Collapsed));
    guard.end(Ok(answer("loaded", Outcome::Loaded)));
    assert_eq!(body(&leads.wait(LONG)), b"loaded");
}
