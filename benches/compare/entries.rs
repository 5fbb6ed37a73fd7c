//! The cost of a memory hit with a million entries instead of a thousand, all equally likely.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use testkit::client::Session;

use super::load::Load;
use super::report::Report;
use super::servers::{SERVER_CORE, Server, Stage};
use super::{Contender, Plan, interleaved};

const FEW: usize = 1_000;
const MANY: usize = 1_000_000;

/// Two larders with one worker each, on the server's core; `wrk` on the other.
pub fn measure(stage: &Stage, plan: &Plan, report: &mut Report) {
    let larders = [FEW, MANY].map(|count| {
        let larder = stage.larder_of_rows(&format!("rows-{count}"));
        fill(&larder, count);
        larder.pin(SERVER_CORE);
        (larder, count)
    });
    // One process of each: a million misses take a minute.
    let contenders = larders.each_ref().map(|(larder, count)| {
        let load = move || Load {
            keys: *count,
            without_order: true,
            ..Load::of(&format!("{count} entries"), larder, "/rows/").memory_hit()
        };
        Box::new(move || vec![load()]) as Contender<'_>
    });
    let measured = interleaved(&contenders, plan, report);
    let body = larders[1].0.get(&format!("/rows/{MANY}")).body.len();
    // The digits of a fingerprint and a colon stand before what people know as the key.
    let key = 17 + format!("row?id={MANY}").len();
    report.entries(&measured, (MANY - FEW) as u64, (key + body) as u64);
}

/// Asks for all of them once, on some connections.
fn fill(larder: &Server, count: usize) {
    let next = AtomicUsize::new(1);
    thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| {
                let mut session = Session::connect(larder.address()).unwrap();
                let (name, value) = larder.authorization();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number > count {
                        break;
                    }
                    let path = format!("/rows/{number}");
                    let answer = session
                        .send("GET", &path, &[(&name, &value)], None)
                        .unwrap();
                    assert_eq!(answer.status, 200);
                }
            });
        }
    });
}
