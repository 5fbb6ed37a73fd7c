//! Processes of this run, and their figures from `/proc`.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use testkit::client::Call;

/// A process that ends with this guard, together with its children.
pub struct Process(Child);

impl Process {
    pub fn start(command: &mut Command) -> Process {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        Process(child.unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// From now on it runs on these cores only, as `taskset` writes them.
    pub fn move_to(&self, cores: &str) {
        let done = Command::new("taskset")
            .args(["-a", "-p", "-c", cores])
            .arg(self.id().to_string())
            .output();
        assert!(done.unwrap().status.success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let id = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        // Asked first: nginx and varnishd then end their children.
        let _ = id.map(|id| kill_process(id, Signal::TERM));
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(3) {
            if matches!(self.0.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        eprintln!(
            "process {} did not end when asked: it is killed, and all that came from it",
            self.0.id()
        );
        for id in family(self.0.id()) {
            let id = i32::try_from(id).ok().and_then(Pid::from_raw);
            let _ = id.map(|id| kill_process(id, Signal::KILL));
        }
        let _ = self.0.wait();
    }
}

/// A command that runs on this core alone, or on any.
pub fn on_core(core: Option<usize>, program: &str) -> Command {
    let Some(core) = core else {
        return Command::new(program);
    };
    let mut command = Command::new("taskset");
    command.args(["-c", &core.to_string(), program]);
    command
}

pub fn is_installed(program: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", "command -v \"$0\"", program])
        .stdout(Stdio::null())
        .status();
    found.is_ok_and(|status| status.success())
}

pub fn until_it_listens(what: &str, at: SocketAddr) {
    let began = Instant::now();
    while TcpStream::connect(at).is_err() {
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "{what} does not listen"
        );
        std::thread::sleep(Duration::from_micros(500));
    }
}

/// Waits until larder is ready.
pub fn until_ready(at: SocketAddr) {
    let began = Instant::now();
    loop {
        assert!(began.elapsed() < Duration::from_secs(20), "larder is ready");
        if Call::new(at, "GET", "/readyz")
            .try_send()
            .is_ok_and(|answer| answer.status == 200)
        {
            return;
        }
        std::thread::sleep(Duration::from_micros(500));
    }
}

/// A process and its descendants.
pub fn family(of: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|id: u32| Some((id, stat(id)?.get(1)?.parse().ok()?)))
        .collect();
    let mut family = vec![of];
    let mut at = 0;
    while let Some(parent) = family.get(at).copied() {
        at += 1;
        let children = parents.iter().filter(|(_, of)| *of == parent);
        family.extend(children.map(|(id, _)| *id));
    }
    family
}

/// What stands behind the name in `/proc/ID/stat`: state, parent, ...
fn stat(id: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

/// The CPU time of a process and its descendants so far.
pub fn busy(of: u32) -> Duration {
    let ticks = family(of).into_iter().filter_map(|id| {
        let stat = stat(id)?;
        Some(stat.get(11)?.parse::<u64>().ok()? + stat.get(12)?.parse::<u64>().ok()?)
    });
    // A tick is a hundredth of a second on every Linux that people run.
    Duration::from_millis(ticks.sum::<u64>() * 10)
}

/// The memory of a process and its descendants in bytes: all of the first, and the unshared memory
/// of the others.
pub fn memory(of: u32) -> u64 {
    let sizes = family(of).into_iter().filter_map(|id| {
        let text = fs::read_to_string(format!("/proc/{id}/smaps_rollup")).ok()?;
        let size = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        if id == of {
            size("Rss:")
        } else {
            Some(size("Private_Clean:")? + size("Private_Dirty:")?)
        }
    });
    sizes.sum::<u64>() * 1024
}

/// A line of `/proc/ID/status`, as a number.
pub fn status(id: u32, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.trim_start_matches(':').split_whitespace().next());
    number.unwrap().parse().unwrap()
}
