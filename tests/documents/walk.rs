//! Runs the commands of a section as a reader does: in one shell and one folder, with the shipped
//! configuration, and with `cargo run --release` as the larder under test.
//!
//! The text of a command is not changed, but for what the reader has to fill in. The ports of the
//! documents are led to free ones: by curl's own configuration, by the arguments of larder, and in
//! what is added to the configuration.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use regex_lite::Regex;
use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use testkit::client::Call;
use testkit::larder::binary;
use testkit::programs::python_with_requests;
use testkit::redis::RedisServer;
use testkit::{SOON, free_address, until};

use super::blocks::{Block, text_of};
use super::reasons::{Instead, reason};

/// Ends the output of a command.
const END: &str = "--- the command has ended:";

/// A command of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    command: String,
    /// What the document shows as its output. `None`: nothing is shown.
    output: Option<String>,
}

/// The commands of a block. In a `console` block they begin with `$ `, and their output follows.
fn steps(block: &Block) -> Vec<Step> {
    let is_console = block.language == "console";
    let mut steps: Vec<Step> = Vec::new();
    let mut goes_on = false;
    for line in block.text.lines() {
        if goes_on {
            let step = steps.last_mut().unwrap();
            step.command += "\n";
            step.command += line;
        } else if let Some(command) = line.strip_prefix("$ ").filter(|_| is_console) {
            steps.push(Step {
                command: command.to_owned(),
                output: None,
            });
        } else if is_console {
            let step = steps.last_mut();
            let step = step.unwrap_or_else(|| panic!("{}: no command", block.place()));
            let output = step.output.get_or_insert_default();
            output.push_str(line);
            output.push('\n');
            continue;
        } else if !line.trim().is_empty() && !line.starts_with('#') {
            steps.push(Step {
                command: line.to_owned(),
                output: None,
            });
        } else {
            continue;
        }
        goes_on = line.ends_with('\\');
    }
    steps
}

/// Runs all blocks of one section, in order.
pub fn run(blocks: &[Block]) {
    let mut walk = Walk::begin();
    for block in blocks {
        walk.block(block);
    }
}

/// A server of the walk.
struct Running {
    /// The shell's name for it.
    pid: u32,
    address: SocketAddr,
}

struct Walk {
    shell: Child,
    commands: ChildStdin,
    output: BufReader<ChildStdout>,
    folder: TempDir,
    _redis: RedisServer,
    /// The ports in the documents and the real ones.
    ports: Vec<(u16, SocketAddr)>,
    running: Vec<Running>,
    started: usize,
}

impl Walk {
    fn begin() -> Walk {
        let (folder, redis) = (tempfile::tempdir().unwrap(), RedisServer::start());
        let ports = [8000, 8001, 9100].map(|port| (port, free_address()));
        write_programs(folder.path(), &ports);
        fs::write(folder.path().join("config.toml"), text_of("config.toml")).unwrap();
        let errors = fs::File::create(folder.path().join("shell.err")).unwrap();
        let path = format!("{}:/usr/bin:/bin", folder.path().join("bin").display());
        let mut shell = Command::new("bash")
            .args(["--noprofile", "--norc"])
            .current_dir(&folder)
            .env_clear()
            .env("PATH", path)
            .env("HOME", folder.path())
            .env("LARDER_BIND", ports[0].1.to_string())
            .env("REDIS_URL", redis.url())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            // One group, so that all of it can be ended.
            .process_group(0)
            .spawn()
            .expect("bash");
        Walk {
            commands: shell.stdin.take().unwrap(),
            output: BufReader::new(shell.stdout.take().unwrap()),
            shell,
            folder,
            _redis: redis,
            ports: ports.to_vec(),
            running: Vec::new(),
            started: 0,
        }
    }

    fn block(&mut self, block: &Block) {
        match block.language.as_str() {
            "toml" => self.append(block),
            "python" => self.python(block),
            "sql" => {
                let name = block.statement().expect("the name of a file");
                let folder = self.folder.path().join("sql/queries");
                fs::create_dir_all(&folder).unwrap();
                fs::write(folder.join(format!("{name}.sql")), &block.text).unwrap();
            }
            _ => {
                for step in steps(block) {
                    self.step(block, &step);
                }
            }
        }
    }

    /// Adds to the configuration what the document says to add.
    fn append(&self, block: &Block) {
        let file = self.folder.path().join("config.toml");
        let before = fs::read_to_string(&file).unwrap();
        fs::write(&file, before + &self.with_real_ports(&block.text)).unwrap();
    }

    /// Runs a script as `KEY=$KEY python3 FILE`.
    fn python(&mut self, block: &Block) {
        let file = self.folder.path().join("script.py");
        fs::write(&file, self.with_real_ports(&block.text)).unwrap();
        let command = format!("KEY=$KEY '{}' script.py", python_with_requests());
        let (said, status) = self.send(&command);
        let (place, wrong) = (block.place(), self.read("shell.err"));
        assert!(status == 0 && !said.is_empty(), "{place}: {said}\n{wrong}");
    }

    fn step(&mut self, block: &Block, step: &Step) {
        let place = block.place();
        match reason(&block.document, &step.command) {
            None => {}
            Some(Instead::Nothing(_)) => return,
            Some(Instead::Command(instead, _)) => {
                self.start(&place, instead);
                return;
            }
        }
        let command = self.filled_in(&step.command);
        let said = if is_server(&command) {
            self.start(&place, &command)
        } else {
            let (said, status) = self.send(&command);
            // curl fails with this code where the document shows that larder refuses.
            let shown = step.output.as_deref().unwrap_or_default();
            let expected = if shown.starts_with("HTTP/1.1 4") {
                22
            } else {
                0
            };
            assert_eq!(
                status,
                expected,
                "{place}: {command}\n{said}\n{}",
                self.read("shell.err")
            );
            said
        };
        if let Some(expected) = &step.output {
            let said = self.with_documented_ports(&said);
            assert_alike(&place, &command, expected, &said);
        }
    }

    /// The command with what the reader has to fill in: the key that was printed, and other values.
    fn filled_in(&self, command: &str) -> String {
        let key = Regex::new("lk_[0-9A-Za-z]+_…").unwrap();
        let printed = || self.first_key().expect("a first key is printed");
        let command = key.replace_all(command, |_: &regex_lite::Captures<'_>| printed());
        command.replace('…', "a-value-of-yours")
    }

    /// The first key that a server of this walk printed.
    fn first_key(&self) -> Option<String> {
        let key = Regex::new("lk_[0-9A-Za-z]{12}_[0-9A-Za-z]{32}").unwrap();
        let all = (1..=self.started).map(|number| self.read(&format!("server-{number}.out")));
        let found = |text: String| key.find(&text).map(|key| key.as_str().to_owned());
        all.into_iter().find_map(found)
    }

    /// Starts a server and waits until it is ready. Stops one that has its address. Returns what it
    /// printed.
    fn start(&mut self, place: &str, command: &str) -> String {
        let is_sandbox = command.contains("sandbox");
        let bound = self
            .ports
            .iter()
            .find(|(port, _)| command.contains(&format!(":{port}")));
        let address = match bound {
            Some((_, address)) => *address,
            None if is_sandbox => self.ports[2].1,
            None => self.ports[0].1,
        };
        self.stop(address);
        self.started += 1;
        let name = format!("server-{}", self.started);
        let command = command.split(" #").next().unwrap().trim();
        let (pid, status) = self.send(&format!("{command} >{name}.out 2>{name}.err & echo $!"));
        assert_eq!(status, 0, "{place}: {command}");
        let pid = pid.trim().parse().unwrap();
        self.running.push(Running { pid, address });
        until(SOON, &format!("{place}: {command} is ready"), || {
            let ended = !Path::new(&format!("/proc/{pid}")).exists();
            assert!(
                !ended,
                "{place}: {command}\n{}",
                self.read(&format!("{name}.err"))
            );
            // The sandbox has no such path, but it answers.
            let answer = Call::new(address, "GET", "/readyz").try_send();
            answer.is_ok_and(|answer| answer.status == 200 || is_sandbox)
        });
        if self.first_key().is_some() && !is_sandbox {
            let key = self.first_key().unwrap();
            // The text above the block says to put it there.
            self.send(&format!("KEY=${{KEY:-{key}}}"));
        }
        self.read(&format!("{name}.out"))
    }

    fn stop(&mut self, address: SocketAddr) {
        let at = self.running.iter().position(|one| one.address == address);
        if let Some(at) = at {
            let pid = self.running.remove(at).pid;
            self.send(&format!("kill {pid}; wait {pid}"));
        }
    }

    /// Runs a command in the shell. Returns what it printed, and its exit code.
    fn send(&mut self, command: &str) -> (String, i32) {
        let text = format!("{{ {command}\n}} </dev/null\nprintf '\\n%s %d\\n' '{END}' $?\n");
        self.commands.write_all(text.as_bytes()).unwrap();
        self.commands.flush().unwrap();
        let mut said = String::new();
        loop {
            let mut line = String::new();
            let read = self.output.read_line(&mut line).unwrap();
            assert!(
                read > 0,
                "the shell has ended: {command}\n{}",
                self.read("shell.err")
            );
            if let Some(status) = line.strip_prefix(END) {
                said.pop();
                return (said, status.trim().parse().unwrap());
            }
            said += &line;
        }
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.folder.path().join(file)).unwrap_or_default()
    }

    fn with_real_ports(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (port, address) in &self.ports {
            text = text.replace(&format!("127.0.0.1:{port}"), &address.to_string());
        }
        text
    }

    fn with_documented_ports(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (port, address) in &self.ports {
            text = text.replace(&address.to_string(), &format!("127.0.0.1:{port}"));
        }
        text
    }
}

impl Drop for Walk {
    fn drop(&mut self) {
        let _ = kill_process_group(Pid::from_child(&self.shell), Signal::KILL);
        let _ = self.shell.wait();
    }
}

/// Whether a command goes on until it is told to end.
fn is_server(command: &str) -> bool {
    let form = r"(^|\s)(cargo run --release|larder)(\s+--)?(\s+(serve|sandbox)\b.*|\s+--bind.*|\s*#.*|\s*)$";
    Regex::new(form).unwrap().is_match(command.trim())
}

/// Writes `cargo`, `larder` and curl's configuration.
fn write_programs(home: &Path, ports: &[(u16, SocketAddr)]) {
    let bin = home.join("bin");
    fs::create_dir(&bin).unwrap();
    let script = |name: &str, text: &str| {
        let path: PathBuf = bin.join(name);
        fs::write(&path, format!("#!/bin/bash\n{text}")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    script(
        "cargo",
        r#"[ "$1 $2" = "run --release" ] || { echo "cargo $*: no test has this" >&2; exit 64; }
shift 2
[ "${1:-}" = "--" ] && shift
exec larder "$@"
"#,
    );
    let mut larder = String::new();
    let mut curl = "max-time = 30\nfail-with-body\n".to_owned();
    for (port, address) in ports {
        larder += &format!("set -- \"${{@/127.0.0.1:{port}/{address}}}\"\n");
        for host in ["localhost", "127.0.0.1"] {
            curl += &format!("connect-to = \"{host}:{port}:{address}\"\n");
        }
    }
    let (_, sandbox) = ports.last().unwrap();
    larder += &format!(
        "[ \"${{1:-}}\" = sandbox ] && case \"$*\" in *--bind*) ;; *) set -- \"$@\" --bind {sandbox} ;; esac\n"
    );
    larder += &format!("exec '{}' \"$@\"\n", binary().display());
    script("larder", &larder);
    fs::write(home.join(".curlrc"), curl).unwrap();
}

/// Fails unless the output is as the document shows it, but for what varies from run to run. Of an
/// answer's head a document may show some lines, in any order.
#[track_caller]
fn assert_alike(place: &str, command: &str, expected: &str, said: &str) {
    let (expected, said) = (without_what_varies(expected), without_what_varies(said));
    let split = |text: &str| -> (Vec<String>, String) {
        if !text.starts_with("HTTP/1.1 ") {
            return (Vec::new(), text.trim().to_owned());
        }
        let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
        let lines = head.lines().map(|line| line.trim().to_owned());
        // A document may break a body anywhere.
        (lines.collect(), body.lines().collect())
    };
    let (expected_head, expected_body) = split(&expected);
    let (head, body) = split(&said);
    for line in &expected_head {
        assert!(
            head.contains(line),
            "{place}: {command}\nno {line} in\n{said}"
        );
    }
    assert_eq!(body, expected_body, "{place}: {command}");
}

/// The text with a word in place of each number, time and text that differs between two runs.
pub fn without_what_varies(text: &str) -> String {
    let varies = [
        ("\r", ""),
        ("lk_[0-9A-Za-z]{12}_(…|[0-9A-Za-z]{32})", "KEY"),
        (r"\b(ttl|dur|max-age|newsapi|guardian)=-?[0-9.]+", "$1=N"),
        (r"\b[0-9]+ms\b", "Nms"),
        (r#"("[a-z]+_ms":)[0-9]+"#, "${1}N"),
        (r#"W/"[0-9a-f]{16}""#, "W/\"TAG\""),
        (r"(?m)^(age|larder-clock|x-request-id): .*$", "$1: N"),
        (r"\b(invalidated at) [0-9]+", "$1 N"),
        (r#""(clock|timestamp)":"[^"]*""#, "\"$1\":\"N\""),
        (r"\[(…|[0-9TZ:-]+) ", "[TIME "),
        // What the sandbox makes up depends on the hour.
        (
            r#""(title|description|url|image|author|source|published_at)":("([^"\\]|\\.)*"|null)"#,
            "\"$1\":\"N\"",
        ),
    ];
    varies.iter().fold(text.to_owned(), |text, (form, word)| {
        Regex::new(form)
            .unwrap()
            .replace_all(&text, *word)
            .into_owned()
    })
}

#[test]
fn commands_and_their_output_are_told_apart() {
    let block = |language: &str, text: &str| Block {
        document: "x.md".to_owned(),
        line: 1,
        section: String::new(),
        language: language.to_owned(),
        text: text.to_owned(),
    };
    let step = |command: &str, output: Option<&str>| Step {
        command: command.to_owned(),
        output: output.map(str::to_owned),
    };
    let console = block("console", "$ a \\\n    b\none\n\ntwo\n$ c\n");
    assert_eq!(
        steps(&console),
        [step("a \\\n    b", Some("one\n\ntwo\n")), step("c", None)]
    );
    let script = block("sh", "# what it does\na \\\n  b\n\nc   # why\n");
    assert_eq!(
        steps(&script),
        [step("a \\\n  b", None), step("c   # why", None)]
    );
    for server in [
        "larder",
        "larder serve --config x.toml",
        "larder sandbox",
        "cargo run --release   # serve",
        "NEWSAPI_KEY=x cargo run --release",
        "cargo run --release -- --bind 127.0.0.1:8001",
        "cargo run --release -- sandbox --latency 1s",
    ] {
        assert!(is_server(server), "{server}");
    }
    for command in [
        "larder check",
        "larder --version",
        "larder openapi > openapi.json",
        "cargo run --release -- invalidate --tag x",
        "curl localhost:8000/larder",
    ] {
        assert!(!is_server(command), "{command}");
    }
}
