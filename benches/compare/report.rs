//! The report: tables in Markdown, and the machine that they were measured on.

use std::cell::RefCell;
use std::fmt::Write;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use super::load::Measured;
use super::support::quantile;
use super::{BODY, CONNECTIONS, KEYS, PROCESSES, Plan};

const BEGIN: &str = "<!-- scripts/compare writes from here -->";
const END: &str = "<!-- to here -->";

/// A report that is being written.
pub struct Report {
    began: Instant,
    load_before: String,
    /// The commit that was built.
    version: String,
    plan: String,
    tables: String,
    goals: Vec<Goal>,
    /// The times of the same work, measured again and again, in seconds.
    same_work: Vec<f64>,
}

/// A goal and its result.
struct Goal {
    what: &'static str,
    goal: String,
    measured: String,
    /// The same by measures that are disturbed less: by the time on the server's core, and of the
    /// fastest rounds.
    besides: [Option<f64>; 2],
    reached: bool,
}

impl Report {
    pub fn begin(plan: &Plan) -> Report {
        Report {
            began: Instant::now(),
            load_before: load_average(),
            version: said("git", &["describe", "--always", "--dirty"]),
            plan: format!(
                "{} rounds of {} s each, {} processes of each server in turns",
                plan.rounds,
                plan.span.as_secs(),
                PROCESSES.min(plan.rounds)
            ),
            tables: String::new(),
            goals: Vec::new(),
            same_work: Vec::new(),
        }
    }

    /// The time of the same work now, while nothing else is measured.
    pub fn steadiness(&mut self, took: Duration) {
        self.same_work.push(took.as_secs_f64());
    }

    fn at_least(&mut self, what: &'static str, goal: f64, measured: f64) {
        self.goals.push(Goal {
            what,
            goal: format!("≥ {goal}"),
            measured: format!("{measured:.2}"),
            besides: [None, None],
            reached: measured >= goal,
        });
    }

    /// The ratio of `this` to `other`. By time on the server's core, `wrk` cannot be the limit. The
    /// fastest rounds are the least disturbed.
    fn against(
        &mut self,
        what: &'static str,
        goal: Option<f64>,
        this: &Measured,
        other: &Measured,
    ) {
        let ratio = this.to(other);
        self.goals.push(Goal {
            what,
            goal: goal.map_or(String::new(), |goal| format!("≥ {goal}")),
            measured: format!("{ratio:.2}"),
            besides: [
                Some(this.to_by_core_time(other)),
                Some(this.range.1 / other.range.1),
            ],
            reached: goal.is_none_or(|goal| ratio >= goal),
        });
    }

    fn below(&mut self, what: &'static str, goal: f64, measured: f64, unit: &str) {
        self.goals.push(Goal {
            what,
            goal: format!("< {goal}{unit}"),
            measured: format!("{measured:.2}{unit}"),
            besides: [None, None],
            reached: measured < goal,
        });
    }

    pub fn idle(&mut self, started: f64, memory: u64, threads: u64) {
        let mib = memory as f64 / f64::from(1 << 20);
        self.below(
            "idle, nothing configured, a worker for each core: memory",
            30.0,
            mib,
            " MiB",
        );
        self.below("the same: ready after", 150.0, started * 1e3, " ms");
        self.below("the same: threads", 20.0, threads as f64, "");
    }

    pub fn one_core_each(&mut self, measured: &[Measured]) {
        let find = |name: &str| measured.iter().find(|of| of.name.contains(name));
        let (Some(bare), Some(hit), Some(unchanged)) =
            (find("bare"), find("memory hit"), find("304"))
        else {
            return;
        };
        let _ = writeln!(
            self.tables,
            "\nThe server on one core, `wrk` on the other, {CONNECTIONS} connections, one key, {BODY} bytes of JSON:\n\n\
             | server | requests/s | slowest … fastest round | to bare | p50 | p99 | its time on a core per request | its core busy | memory |\n\
             |---|--:|--:|--:|--:|--:|--:|--:|--:|"
        );
        for of in measured {
            let (slowest, fastest) = of.range;
            let _ = writeln!(
                self.tables,
                "| {} | {:.0} | {slowest:.0} … {fastest:.0} | {:.3} | {} | {} | {:.2} µs | {:.0} % | {:.1} MiB |",
                of.name,
                of.per_second,
                of.to(bare),
                time(of.p50),
                time(of.p99),
                of.core_time * 1e6,
                of.busy * 100.0,
                of.memory as f64 / f64::from(1 << 20),
            );
        }
        self.against("memory hit to the bare handler", Some(0.9), hit, bare);
        if let Some(scraped) = find("scrape") {
            let what = "the same with a scrape every second";
            self.against(what, Some(0.9), scraped, bare);
            let what = "memory hit with a scrape every second to one without";
            self.against(what, Some(0.98), scraped, hit);
        }
        for (name, what, goal) in [
            ("nginx", "memory hit to nginx `proxy_cache`", 1.3),
            ("Varnish", "memory hit to Varnish", 2.5),
            ("FastAPI", "memory hit to FastAPI + Redis", 80.0),
        ] {
            if let Some(other) = find(name) {
                self.against(what, Some(goal), hit, other);
            }
        }
        if let Some(unread) = find("unread") {
            let what = "the same, where Python passes the body on unread";
            self.against(what, None, hit, unread);
        }
        self.against("304 to a memory hit of 200", Some(1.1), unchanged, hit);
    }

    pub fn both_cores(&mut self, measured: &[Measured], bare_redis: Option<f64>) {
        let [memory, redis, _, many] = measured else {
            return;
        };
        let _ = writeln!(
            self.tables,
            "\nlarder, Redis and `wrk` share all cores; {CONNECTIONS} connections, {KEYS} keys in turn, but where it says otherwise:\n\n\
             | larder | requests/s | slowest … fastest round | to memory hit | p50 | p99 |\n|---|--:|--:|--:|--:|--:|"
        );
        for of in measured {
            let (slowest, fastest) = of.range;
            let _ = writeln!(
                self.tables,
                "| {} | {:.0} | {slowest:.0} … {fastest:.0} | {:.3} | {} | {} |",
                of.name,
                of.per_second,
                of.to(memory),
                time(of.p50),
                time(of.p99),
            );
        }
        if let Some(rate) = bare_redis {
            let _ = writeln!(
                self.tables,
                "| Redis itself: `GET` of {BODY} bytes by `redis-benchmark` | {rate:.0} | | {:.3} | | |",
                rate / memory.per_second,
            );
        }
        self.at_least(
            "Redis hit to a memory hit, all sharing both cores",
            0.65,
            redis.to(memory),
        );
        self.below(
            "Redis hit, 256 connections: p99 in p50",
            5.0,
            many.p99 / many.p50,
            " ×",
        );
    }

    /// `more` entries are between the two that were measured, each with a key and a body of
    /// `itself` bytes.
    pub fn entries(&mut self, measured: &[Measured], more: u64, itself: u64) {
        let [few, many] = measured else {
            return;
        };
        let _ = writeln!(
            self.tables,
            "\nThe same of rows of a table, in 100 bytes and without tags, any of them as often as any other:\n\n\
             | larder, memory hit | requests/s | p50 | p99 | its time on a core per request | memory |\n|---|--:|--:|--:|--:|--:|"
        );
        for of in measured {
            let _ = writeln!(
                self.tables,
                "| {} | {:.0} | {} | {} | {:.2} µs | {:.1} MiB |",
                of.name,
                of.per_second,
                time(of.p50),
                time(of.p99),
                of.core_time * 1e6,
                of.memory as f64 / f64::from(1 << 20),
            );
        }
        let cost = few.to_by_core_time(many);
        self.goals.push(Goal {
            what: "time on its core of a memory hit among a million entries to one among a thousand",
            goal: "< 1.3".into(),
            measured: format!("{cost:.2}"),
            besides: [None, Some(few.range.1 / many.range.1)],
            reached: cost < 1.3,
        });
        let each = many.memory.saturating_sub(few.memory) / more;
        self.below(
            "memory of an entry without tags beyond key and body",
            400.0,
            each.saturating_sub(itself) as f64,
            " bytes",
        );
    }

    /// Seconds from the call of each invalidation until the last of three other replicas has it.
    pub fn invalidations(&mut self, seen: Vec<f64>) {
        self.below(
            "invalidation seen on the last of 3 other replicas, p99",
            5.0,
            quantile(seen, 0.99) * 1e3,
            " ms",
        );
    }

    pub fn misses(&mut self, own: Vec<f64>) {
        let p99 = quantile(own.clone(), 0.99);
        let p50 = quantile(own, 0.5);
        let _ = writeln!(
            self.tables,
            "\nA miss, one connection, less what the source took: p50 {}, p99 {}.",
            time(p50),
            time(p99),
        );
        self.below("larder's own part of a miss, p50", 1.0, p50 * 1e3, " ms");
    }

    /// The whole report.
    pub fn end(mut self, left_out: &RefCell<Vec<String>>) -> String {
        let mut text = String::from(
            "| | goal | measured | by time on its core | of the fastest rounds | |\n|---|--:|--:|--:|--:|---|\n",
        );
        for goal in &self.goals {
            let reached = if goal.goal.is_empty() {
                ""
            } else if goal.reached {
                "reached"
            } else {
                "**not reached**"
            };
            let [of_core, fastest] = goal
                .besides
                .map(|ratio| ratio.map_or(String::new(), |ratio| format!("{ratio:.2}")));
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {reached} |",
                goal.what, goal.goal, goal.measured, of_core, fastest
            );
        }
        text += &self.tables;
        let left_out = left_out.borrow();
        if !left_out.is_empty() {
            let _ = writeln!(text, "\nLeft out: {}.", left_out.join(", "));
        }
        let again = |share| {
            let took = |share| quantile(self.same_work.clone(), share);
            took(share) / took(0.0)
        };
        let _ = writeln!(
            text,
            "\n{}; {} cores of {}, Linux {}; {}, nginx {}, {}, {}, {}; larder at {}; load average {} before; \
             between rounds the same work took {:.2} times its shortest at the median, {:.2} times at most; {:.0} s.",
            self.plan,
            std::thread::available_parallelism().unwrap(),
            processor(),
            said("uname", &["-r"]),
            said("rustc", &["--version"]),
            said("nginx", &["-v"])
                .rsplit('/')
                .next()
                .unwrap_or_default(),
            said("varnishd", &["-V"])
                .split(['(', ')'])
                .nth(1)
                .and_then(|version| version.split(" revision").next())
                .unwrap_or("no Varnish"),
            said("redis-server", &["--version"])
                .split(" sha")
                .next()
                .unwrap_or_default(),
            packages(),
            self.version,
            self.load_before,
            again(0.5),
            again(1.0),
            self.began.elapsed().as_secs_f64(),
        );
        std::mem::take(&mut self.tables);
        text
    }
}

/// Writes the report into its place in the document.
pub fn write(path: &str, report: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let text = fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("its place is marked");
    let (_, after) = rest
        .split_once(END)
        .expect("the end of its place is marked");
    fs::write(&path, format!("{before}{BEGIN}\n\n{report}\n{END}{after}")).unwrap();
}

fn time(seconds: f64) -> String {
    if seconds < 0.01 {
        format!("{:.0} µs", seconds * 1e6)
    } else {
        format!("{:.1} ms", seconds * 1e3)
    }
}

fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

fn processor() -> String {
    let all = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = all.lines().find(|line| line.starts_with("model name"));
    let name = name.and_then(|line| line.split_once(": "));
    name.map_or("an unknown processor".into(), |(_, name)| name.to_owned())
}

fn packages() -> String {
    let python = std::env::var("COMPARE_PYTHON").unwrap_or_else(|_| "python3".into());
    let ask = "import fastapi, redis, uvicorn, sys\n\
        print(f'Python {sys.version.split()[0]}, FastAPI {fastapi.__version__}, uvicorn {uvicorn.__version__}, redis-py {redis.__version__}')";
    said(&python, &["-c", ask])
}

/// The version that a program prints, on either output.
fn said(program: &str, arguments: &[&str]) -> String {
    let Ok(output) = Command::new(program).args(arguments).output() else {
        return format!("no {program}");
    };
    let all = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&all);
    text.lines().next().unwrap_or_default().trim().to_owned()
}
