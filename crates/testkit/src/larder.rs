//! The larder binary as a process: started with its own configuration in its own folder. Its
//! environment has only the variables that the test sets.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};

use regex_lite::Regex;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::client::{Answer, Call};
use crate::process::Process;
use crate::{SOON, free_address, until};

/// The admin key of every larder in the tests, unless a test sets another.
pub const ADMIN_KEY: &str = "the-admin-key-of-the-tests-0123456789";

/// The path of the binary. Cargo 1.94 and later pass it to tests and benches of the package; with
/// an older one it is found beside the folder of the test binary.
pub fn binary() -> &'static Path {
    static BINARY: LazyLock<PathBuf> = LazyLock::new(|| {
        let told = std::env::var_os("CARGO_BIN_EXE_larder").map(PathBuf::from);
        let beside = || {
            let test = std::env::current_exe().unwrap();
            test.ancestors().nth(2).unwrap().join("larder")
        };
        let found = told.unwrap_or_else(beside);
        assert!(found.exists(), "cargo builds {}", found.display());
        found
    });
    &BINARY
}

/// How to start one larder. Cheap to clone: start one value several times for several replicas.
#[derive(Clone)]
pub struct LarderOptions {
    config: Option<String>,
    environment: Vec<(String, String)>,
    folder: Option<Arc<TempDir>>,
    /// The address in its configuration, if `--bind` is left out.
    bound_at: Option<SocketAddr>,
    /// The name of the configuration file in the working directory, if `LARDER_CONFIG` is left out.
    found_as: Option<&'static str>,
    /// Other files beside it, by their paths.
    beside: Vec<(String, String)>,
    /// A shell command that sets limits before the server starts.
    limits: Option<&'static str>,
}

impl LarderOptions {
    /// With this text as its `config.toml`.
    pub fn new(config: &str) -> LarderOptions {
        LarderOptions {
            config: Some(config.to_owned()),
            ..LarderOptions::unconfigured()
        }
        .env("LARDER_ADMIN_KEY", ADMIN_KEY)
    }

    /// Without a configuration file, with an empty environment.
    pub fn unconfigured() -> LarderOptions {
        LarderOptions {
            config: None,
            environment: Vec::new(),
            folder: None,
            bound_at: None,
            found_as: None,
            beside: Vec::new(),
            limits: None,
        }
    }

    /// With a file for the statement of this name.
    pub fn statement(mut self, name: &str, sql: &str) -> LarderOptions {
        self.beside
            .push((format!("sql/queries/{name}.sql"), sql.to_owned()));
        self
    }

    /// With each `old` in its configuration replaced by `new`.
    pub fn with_config_text(mut self, old: &str, new: &str) -> LarderOptions {
        let text = self.config.take().expect("a configuration");
        assert!(text.contains(old), "{old} is not in {text}");
        self.config = Some(text.replace(old, new));
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> LarderOptions {
        self.environment.retain(|(key, _)| key != name);
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn without_env(mut self, name: &str) -> LarderOptions {
        self.environment.retain(|(key, _)| key != name);
        self
    }

    /// Runs in this folder, which may contain the database of an earlier larder.
    pub fn in_folder(mut self, folder: &Arc<TempDir>) -> LarderOptions {
        self.folder = Some(Arc::clone(folder));
        self
    }

    /// Under the limits that a shell sets with this command, such as `ulimit -n 1024`.
    pub fn limited(mut self, limits: &'static str) -> LarderOptions {
        self.limits = Some(limits);
        self
    }

    /// Starts without `--bind`. The configuration makes it listen at this address.
    pub fn bound_by_its_configuration(mut self, at: SocketAddr) -> LarderOptions {
        self.bound_at = Some(at);
        self
    }

    /// With its configuration as `config.toml` in its working directory.
    pub fn with_config_to_be_found(mut self) -> LarderOptions {
        self.found_as = Some("config.toml");
        self
    }

    fn prepare(&self) -> (Arc<TempDir>, PathBuf) {
        let folder = self
            .folder
            .clone()
            .unwrap_or_else(|| Arc::new(tempfile::tempdir().unwrap()));
        // Replicas may share the folder, so each has a file of its own.
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = self.found_as.map(str::to_owned);
        let name = name.unwrap_or_else(|| format!("config-{number}.toml"));
        let config = folder.path().join(name);
        if let Some(text) = &self.config {
            fs::write(&config, text).unwrap();
        }
        for (path, text) in &self.beside {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        (folder, config)
    }

    fn command(&self, folder: &Path, config: &Path, arguments: &[&str]) -> Command {
        let mut command = match self.limits {
            None => Command::new(binary()),
            Some(limits) => {
                let mut shell = Command::new("/bin/sh");
                let line = format!("{limits} && exec \"$0\" \"$@\"");
                shell.args(["-c", &line]).arg(binary());
                shell
            }
        };
        command
            .current_dir(folder)
            .env_clear()
            .envs(self.environment.iter().map(|(key, value)| (key, value)))
            .args(arguments);
        if self.config.is_some() && self.found_as.is_none() {
            command.env("LARDER_CONFIG", config);
        }
        command
    }

    /// Runs one command of it to its end, such as `check` or `key create`.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.run_into(arguments, Stdio::piped())
    }

    /// The same, with its standard output written to this file.
    pub fn run_into(&self, arguments: &[&str], out: impl Into<Stdio>) -> Output {
        let (folder, config) = self.prepare();
        self.command(folder.path(), &config, arguments)
            .stdout(out)
            .output()
            .unwrap()
    }
}

pub struct Larder {
    address: SocketAddr,
    config: PathBuf,
    /// Removed when the last larder in it is dropped.
    _folder: Arc<TempDir>,
    process: Process,
}

impl Larder {
    /// Starts one and waits until it is ready.
    #[track_caller]
    pub fn start(options: &LarderOptions) -> Larder {
        let mut larder = Larder::spawn(options);
        larder.until_ready();
        larder
    }

    /// Several on one configuration, all ready.
    #[track_caller]
    pub fn start_many(count: usize, options: &LarderOptions) -> Vec<Larder> {
        let mut replicas: Vec<Larder> = (0..count).map(|_| Larder::spawn(options)).collect();
        for replica in &mut replicas {
            replica.until_ready();
        }
        replicas
    }

    /// Starts one and does not wait.
    pub fn spawn(options: &LarderOptions) -> Larder {
        let (folder, config) = options.prepare();
        let address = options.bound_at.unwrap_or_else(free_address);
        let bind = address.to_string();
        let arguments = match options.bound_at {
            Some(_) => &["serve"][..],
            None => &["serve", "--bind", &bind],
        };
        let command = options.command(folder.path(), &config, arguments);
        let log = folder.path().join(format!("larder-{}.log", address.port()));
        let process = Process::spawn(command, &log, "cargo builds it");
        Larder {
            address,
            config,
            _folder: folder,
            process,
        }
    }

    #[track_caller]
    pub fn until_ready(&mut self) {
        until(SOON, "larder is ready", || {
            self.process.must_run();
            self.call("GET", "/readyz")
                .try_send()
                .is_ok_and(|answer| answer.status == 200)
        });
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Everything that it has written to either output so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The API key that it created and printed at its start, if it did.
    pub fn first_key(&self) -> Option<String> {
        let form = Regex::new("lk_[0-9A-Za-z]{12}_[0-9A-Za-z]{32}").unwrap();
        form.find(&self.log()).map(|key| key.as_str().to_owned())
    }

    /// A request without a key.
    pub fn call(&self, method: &'static str, target: &str) -> Call {
        Call::new(self.address, method, target)
    }

    /// The answer to a `GET` with the admin key, which has no rate limit.
    #[track_caller]
    pub fn get(&self, target: &str) -> Answer {
        self.call("GET", target).key(ADMIN_KEY).send()
    }

    #[track_caller]
    pub fn post(&self, target: &str, body: &Value) -> Answer {
        self.call("POST", target).key(ADMIN_KEY).json(body).send()
    }

    #[track_caller]
    pub fn put(&self, target: &str, body: &Value) -> Answer {
        self.call("PUT", target).key(ADMIN_KEY).json(body).send()
    }

    #[track_caller]
    pub fn delete(&self, target: &str) -> Answer {
        self.call("DELETE", target).key(ADMIN_KEY).send()
    }

    #[track_caller]
    pub fn stats(&self) -> Value {
        self.get("/cache/stats").expect(200).json()
    }

    /// Creates an API key. Returns its id and the key.
    #[track_caller]
    pub fn create_key(&self, body: &Value) -> (String, String) {
        let made = self.post("/keys", body).expect(201).json();
        let text = |field: &str| made[field].as_str().unwrap().to_owned();
        (text("id"), text("key"))
    }

    /// Asks it to end and waits until it has.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        self.process.signal(Signal::TERM);
        self.ended()
    }

    /// Sends a signal and returns at once.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    #[track_caller]
    pub fn ended(&mut self) -> ExitStatus {
        self.process.wait(SOON)
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        self.process.signal(Signal::KILL);
        self.process.wait(SOON);
    }

    /// Replaces its configuration file and makes it reload.
    pub fn reload(&self, config: &str) {
        fs::write(&self.config, config).unwrap();
        self.process.signal(Signal::HUP);
    }

    /// Removes its configuration file and makes it reload.
    pub fn reload_without_file(&self) {
        fs::remove_file(&self.config).unwrap();
        self.process.signal(Signal::HUP);
    }

    /// How many threads it has.
    pub fn threads(&self) -> usize {
        self.status("Threads:")
    }

    /// How much memory it has, in bytes.
    pub fn resident(&self) -> usize {
        self.status("VmRSS:") << 10
    }

    /// A number in `/proc/PID/status`.
    fn status(&self, name: &str) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.unwrap().split_whitespace().next();
        number.unwrap().parse().unwrap()
    }
}

impl Drop for Larder {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let end = &lines[lines.len().saturating_sub(60)..];
            println!("larder at {} wrote last:\n{}", self.address, end.join("\n"));
        }
    }
}
