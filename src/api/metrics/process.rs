//! The figures of this process that every exporter has, as the kernel counts them.

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Process {
    /// In bytes.
    pub(super) resident_memory: u64,
    /// In bytes.
    pub(super) virtual_memory: u64,
    /// In user and system mode, in seconds.
    pub(super) cpu: f64,
    pub(super) open_fds: u64,
    /// `None`: there is no limit.
    pub(super) max_fds: Option<u64>,
    /// In seconds since 1970.
    pub(super) started: f64,
}

impl Process {
    /// The figures now. `None` where there is no `/proc` of Linux's.
    #[cfg(target_os = "linux")]
    pub(super) fn read() -> Option<Process> {
        use rustix::process::{Resource, getrlimit};
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        let boot = std::fs::read_to_string("/proc/stat").ok()?;
        // One of them is that of the listing itself.
        let open = std::fs::read_dir("/proc/self/fd").ok()?.count();
        Some(Process {
            open_fds: open.saturating_sub(1) as u64,
            max_fds: getrlimit(Resource::Nofile).current,
            ..parse(
                &stat,
                &boot,
                rustix::param::clock_ticks_per_second() as f64,
                rustix::param::page_size() as u64,
            )?
        })
    }

    /// The figures now. `None` where there is no `/proc` of Linux's.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn read() -> Option<Process> {
        None
    }
}

/// The figures in the texts of `/proc/self/stat` and `/proc/stat`, without those of descriptors.
/// `ticks` are those of a second, `page` is the size of a page.
#[cfg(any(target_os = "linux", test))]
fn parse(stat: &str, boot: &str, ticks: f64, page: u64) -> Option<Process> {
    // The name of the program, in parentheses, may contain anything. The state follows: field 3.
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let booted = boot.lines().find_map(|line| line.strip_prefix("btime "))?;
    Some(Process {
        resident_memory: field(24)?.saturating_mul(page),
        virtual_memory: field(23)?,
        cpu: (field(14)? + field(15)?) as f64 / ticks,
        open_fds: 0,
        max_fds: None,
        started: booted.trim().parse::<f64>().ok()? + field(22)? as f64 / ticks,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_are_found_behind_any_name() {
        let stat = "42 (a) b ( c)) S 1 42 42 0 -1 4194560 9 0 0 0 250 50 0 0 20 0 12 0 3000 1048576 10 18446744073709551615 1";
        let process = parse(
            stat,
            "cpu  1 2\nbtime 1700000000\nprocesses 1\n",
            100.0,
            4096,
        );
        let expected = Process {
            resident_memory: 40_960,
            virtual_memory: 1_048_576,
            cpu: 3.0,
            open_fds: 0,
            max_fds: None,
            started: 1_700_000_030.0,
        };
        assert_eq!(process, Some(expected));
        assert_eq!(parse("nonsense", "btime 1", 100.0, 4096), None);
    }
}
