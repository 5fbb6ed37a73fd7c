//! The cost of the steps of a memory hit and of related steps, in time and in instructions.
//!
//! `cargo bench --bench micro` times them. `scripts/instructions` counts the instructions of each
//! under callgrind, which do not wobble as times do, and fails where a hot one takes 5 % more than
//! benches/micro/baseline.txt says; `--save` writes that file.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    unreachable_pub
)]

mod instructions;
mod steps;
#[path = "../support/mod.rs"]
mod support;

use std::hint::black_box;
use std::task::Waker;
use std::thread;

use divan::Bencher;
use divan::counter::ItemsCount;

use steps::{STEPS, Stage, Step};

// The program's own allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["count", step, times] => instructions::run_counted(step, times.parse().unwrap()),
        _ if words.contains(&"--instructions") => {
            std::process::exit(instructions::check(words.contains(&"--save")));
        }
        _ if words.contains(&"--bench") => divan::main(),
        // `cargo test --all-targets` runs this, too, without asking for figures.
        _ => println!("figures are made by: cargo bench --bench micro, scripts/instructions"),
    }
}

/// Each step, by itself; a sample is so many in a row, and items are steps.
#[divan::bench(args = STEPS, sample_count = 100)]
fn step(bencher: Bencher<'_, '_>, step: &Step) {
    const IN_A_ROW: usize = 1000;
    let stage = Stage::set();
    stage.prepare(step.name, IN_A_ROW)();
    bencher
        .counter(ItemsCount::new(IN_A_ROW))
        .with_inputs(|| stage.prepare(step.name, IN_A_ROW))
        .bench_local_values(|run| run());
}

/// A key that is being loaded and wanted by several threads at a time: each joins the one flight.
#[divan::bench(args = [1, 2, 4, 8], sample_count = 50)]
fn joining_one_flight(bencher: Bencher<'_, '_>, threads: usize) {
    const EACH: usize = 500;
    let stage = Stage::set();
    let held = stage.hold_a_load();
    let join = || {
        let mut context = std::task::Context::from_waker(Waker::noop());
        for _ in 0..EACH {
            let mut ticket = held.ticket();
            let state = std::future::Future::poll(std::pin::Pin::new(&mut ticket), &mut context);
            assert!(black_box(state).is_pending());
        }
    };
    bencher
        .counter(ItemsCount::new(EACH * threads))
        .bench_local(|| {
            thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(join);
                }
            });
        });
}
