//! The steps counted in instructions, by this program under callgrind, and compared with those of
//! the baseline.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::steps::{STEPS, Stage, Step};

/// How many of a step are counted in a row.
const TIMES: u64 = 2000;
/// The tolerated rise of a hot step, as a share of the baseline.
const RISE: f64 = 0.05;

/// Callgrind counts inside this function only: no other thread, and no set-up.
#[inline(never)]
fn counted_from_here_on(run: Box<dyn FnOnce()>) {
    run();
    // Something to do after the call, or it would be a jump that callgrind sees no end of.
    std::hint::black_box(());
}

/// This program as callgrind runs it.
pub fn run_counted(step: &str, times: usize) {
    let stage = Stage::set();
    stage.prepare(step, 500)();
    let run = stage.prepare(step, times);
    counted_from_here_on(run);
}

/// Counts all steps, and compares them or saves them. The exit code: 1 where a hot one has risen, 2
/// where there is nothing to compare with.
pub fn check(save: bool) -> i32 {
    let made_with = made_with();
    let baseline = std::fs::read_to_string(file()).unwrap_or_default();
    let comparable = baseline.lines().next() == Some(&format!("# {made_with}"));
    let mut saved = format!("# {made_with}\n");
    let mut risen = Vec::new();
    println!("| step | instructions | baseline | change | |\n|---|--:|--:|--:|---|");
    for step in STEPS {
        let now = count(step);
        let _ = writeln!(saved, "{} {now:.0}", step.name);
        let before = baseline.lines().find_map(|line| {
            let (name, count) = line.split_once(' ')?;
            (name == step.name).then(|| count.parse::<f64>().ok())?
        });
        let Some(before) = before.filter(|_| comparable) else {
            println!("| {} | {now:.0} | | | |", step.name);
            if step.hot && comparable && !save {
                risen.push(step.name);
            }
            continue;
        };
        let change = now / before - 1.0;
        let told = match step.hot {
            true if change > RISE => "**risen**",
            true => "hot",
            false => "",
        };
        println!(
            "| {} | {now:.0} | {before:.0} | {:+.1} % | {told} |",
            step.name,
            change * 100.0
        );
        if step.hot && change > RISE {
            risen.push(step.name);
        }
    }
    if save {
        std::fs::write(file(), saved).unwrap();
        return 0;
    }
    if !comparable {
        println!(
            "\nThe baseline is not of {made_with}: nothing was compared. Make one of your own with --save."
        );
        return 2;
    }
    if risen.is_empty() {
        return 0;
    }
    println!(
        "\nMore than 5 % above the baseline, or not in it: {}",
        risen.join(", ")
    );
    1
}

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/micro/baseline.txt")
}

/// What the counts depend on besides larder.
fn made_with() -> String {
    let said = |program: &str| {
        let output = Command::new(program).arg("--version").output();
        let output = output.unwrap_or_else(|_| panic!("{program} is missing"));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    format!(
        "{}, {}, {}",
        said("rustc"),
        said("valgrind"),
        std::env::consts::ARCH
    )
}

/// Instructions of one.
fn count(step: &Step) -> f64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .args([
            "--collect-atstart=no",
            "--toggle-collect=*counted_from_here_on*",
        ])
        .arg(std::env::current_exe().unwrap())
        .args(["count", step.name, &TIMES.to_string()])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{}: {said}", step.name);
    let line = said.lines().find_map(|line| line.split_once("Collected :"));
    let total: u64 = line.unwrap().1.trim().parse().unwrap();
    assert!(total > 0, "{said}");
    total as f64 / TIMES as f64
}
