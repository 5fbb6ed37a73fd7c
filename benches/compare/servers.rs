//! The servers that are compared, each configured as well as its documentation says.

use std::cell::{Cell, RefCell};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use tempfile::TempDir;
use testkit::client::{Answer, Session};
use testkit::free_address;

use super::processes::{Process, is_installed, on_core, until_it_listens, until_ready};

pub const SERVER_CORE: usize = 0;
pub const CLIENT_CORE: usize = 1;
const LARDER: &str = env!("CARGO_BIN_EXE_larder");

/// What all servers use: the origin, a Redis, and a folder for files.
pub struct Stage {
    origin: Process,
    origin_at: SocketAddr,
    redis: Process,
    redis_at: SocketAddr,
    folder: TempDir,
    /// How many folders of servers it has.
    homes: Cell<usize>,
    /// The servers that are not installed, and why.
    pub left_out: RefCell<Vec<String>>,
}

/// A server that is measured. It ends when its last owner is dropped.
pub struct Server {
    pub name: String,
    at: SocketAddr,
    process: Process,
    /// The header of every request to it.
    authorization: (String, String),
}

impl Server {
    pub fn process(&self) -> u32 {
        self.process.id()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.at)
    }

    pub fn address(&self) -> SocketAddr {
        self.at
    }

    /// The header with which it is asked.
    pub fn authorization(&self) -> (String, String) {
        self.authorization.clone()
    }

    /// Pins it to this core.
    pub fn pin(&self, core: usize) {
        self.process.move_to(&core.to_string());
    }

    pub fn get(&self, path: &str) -> Answer {
        let (name, value) = &self.authorization;
        let mut session = Session::connect(self.at).unwrap();
        let answer = session.send("GET", path, &[(name, value)], None).unwrap();
        assert_eq!(answer.status, 200, "{}", self.name);
        answer
    }
}

impl Stage {
    /// Starts what is needed whoever is measured.
    pub fn set() -> Stage {
        for needed in ["wrk", "taskset", "redis-server"] {
            assert!(
                is_installed(needed),
                "{needed} is missing: scripts/compare installs it"
            );
        }
        let folder = tempfile::tempdir().unwrap();
        let origin_at = free_address();
        let myself = std::env::current_exe().unwrap();
        // Both on the client's core: the server's core is for the server alone.
        let origin = Process::start(
            on_core(Some(CLIENT_CORE), myself.to_str().unwrap())
                .args(["origin", &origin_at.to_string()]),
        );
        let redis_at = free_address();
        let redis = Process::start(
            on_core(Some(CLIENT_CORE), "redis-server")
                .current_dir(folder.path())
                .args([
                    "--bind",
                    "127.0.0.1",
                    "--port",
                    &redis_at.port().to_string(),
                ])
                .args(["--save", "", "--appendonly", "no"]),
        );
        until_it_listens("the origin", origin_at);
        until_it_listens("Redis", redis_at);
        Stage {
            origin,
            origin_at,
            redis,
            redis_at,
            folder,
            homes: Cell::default(),
            left_out: RefCell::default(),
        }
    }

    /// Lets Redis and the origin run on any core.
    pub fn share_all_cores(&self) {
        let all = std::thread::available_parallelism().unwrap().get() - 1;
        for process in [&self.redis, &self.origin] {
            process.move_to(&format!("0-{all}"));
        }
    }

    /// The name of a folder that no other process of this server has.
    fn home(&self, server: &str) -> String {
        self.homes.set(self.homes.get() + 1);
        format!("{server}-{}", self.homes.get())
    }

    fn file(&self, path: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    fn begin(
        &self,
        name: &str,
        at: SocketAddr,
        command: &mut Command,
        authorization: Option<(String, String)>,
    ) -> Rc<Server> {
        let log = self.file(&format!("{}.log", self.home(name)), "");
        let log = fs::File::create(log).unwrap();
        let process = Process::start(command.stderr(log));
        until_it_listens(name, at);
        Rc::new(Server {
            name: name.to_owned(),
            at,
            process,
            authorization: authorization.unwrap_or_else(|| ("Accept".into(), "*/*".into())),
        })
    }

    /// larder with so many workers (0: one per core), with its shipped headers and a key that has a
    /// limit.
    pub fn larder(&self, name: &str, workers: usize, core: Option<usize>) -> Rc<Server> {
        let resource = |name: &str, path: &str, memory: &str| {
            format!(
                "[resource.{name}]\npath = \"{path}/{{id}}\"\nparams.id = {{ type = \"integer\", min = 1 }}\n\
                 source = {{ http = \"http://{}{}/{{id}}\" }}\nttl = {{ memory = \"{memory}\", redis = \"1h\" }}\n\
                 client_ttl = \"30s\"\ntags = [\"item:{{id}}\"]\n",
                self.origin_at,
                if name == "missed" {
                    "/missed"
                } else {
                    "/items"
                },
            )
        };
        let config = format!(
            "[server]\nworkers = {workers}\nopen_metrics = true\n{}{}{}",
            resource("item", "/items", "1h"),
            resource("redis_item", "/redis-items", "0s"),
            resource("missed", "/missed", "1h"),
        );
        self.serve(&self.home(name), &config, core, "info")
    }

    /// larder with one worker, and with rows of a table that has as many as anybody asks for.
    pub fn larder_of_rows(&self, folder: &str) -> Rc<Server> {
        self.file(
            &format!("{folder}/sql/queries/row.sql"),
            "SELECT CAST(:id AS INTEGER) AS id, 'what there is to say of a row of a table, in a hundred bytes of JSON' AS text",
        );
        let config = "[server]\nworkers = 1\n[memory]\nmax_size = \"4GiB\"\n\
             [resource.row]\npath = \"/rows/{id}\"\nparams.id = { type = \"integer\", min = 1 }\n\
             source = { sql = \"row\" }\nttl = { memory = \"1h\", redis = \"0s\" }\n";
        // Not a line for each of a million misses.
        self.serve(folder, config, None, "warn")
    }

    fn serve(&self, folder: &str, config: &str, core: Option<usize>, log: &str) -> Rc<Server> {
        let at = free_address();
        let config = format!(
            "{config}[redis]\nurl = \"redis://{}\"\nprefix = \"{folder}\"\n",
            self.redis_at
        );
        let config = self.file(&format!("{folder}/config.toml"), &config);
        let home = config.parent().unwrap();
        let made = Command::new(LARDER)
            .current_dir(home)
            .args([
                "key",
                "create",
                "--name",
                "bench",
                "--rate",
                "2000000000/1m",
            ])
            .output()
            .unwrap();
        let key = String::from_utf8(made.stdout).unwrap().trim().to_owned();
        assert!(made.status.success() && key.starts_with("lk_"), "{key}");
        let mut command = on_core(core, LARDER);
        command
            .current_dir(home)
            .env("RUST_LOG", log)
            .args(["serve", "--bind", &at.to_string()]);
        let key = ("Authorization".to_owned(), format!("Bearer {key}"));
        let server = self.begin("larder", at, &mut command, Some(key));
        until_ready(at);
        server
    }

    /// The bare handler. It gets the same requests as larder and sends the headers of this answer.
    pub fn bare(&self, like: &Answer, authorization: (String, String)) -> Rc<Server> {
        let at = free_address();
        let made_anyway = ["content-length", "date"];
        let headers = like.headers.iter();
        let headers = headers.filter(|(name, _)| !made_anyway.contains(&name.as_str()));
        let headers: Vec<String> = headers
            .map(|(name, value)| format!("{name}: {value}"))
            .collect();
        let myself = std::env::current_exe().unwrap();
        let mut command = on_core(Some(SERVER_CORE), myself.to_str().unwrap());
        command.args(["bare", &at.to_string(), &headers.join("\n")]);
        let server = self.begin("bare", at, &mut command, Some(authorization));
        let answer = server.get("/items/1");
        assert_eq!(answer.body, like.body);
        assert_eq!(answer.headers.len(), like.headers.len());
        server
    }

    fn leave_out(&self, what: &str) -> Option<Rc<Server>> {
        let mut left_out = self.left_out.borrow_mut();
        if !left_out.iter().any(|known| known == what) {
            left_out.push(what.to_owned());
        }
        None
    }

    /// nginx with one worker and its cache in files that the page cache holds. For bodies of this
    /// size its default (read and write) is a tenth faster than `sendfile` and `tcp_nopush`.
    pub fn nginx(&self) -> Option<Rc<Server>> {
        if !is_installed("nginx") {
            return self.leave_out("nginx (not installed)");
        }
        let at = free_address();
        let home = self.home("nginx");
        let file = format!("{home}/nginx.conf");
        let home = self.folder.path().join(home);
        let cache = home.join("cache");
        fs::create_dir_all(&home).unwrap();
        let user = if is_root() { "user root;" } else { "" };
        let home = home.display();
        let temp: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|what| format!("{what}_temp_path {home}/{what};"))
            .concat();
        let config = self.file(
            &file,
            &format!(
                "{user} daemon off; worker_processes 1; pid {home}/pid; error_log {home}/error.log;
                events {{ worker_connections 1024; }}
                http {{
                    access_log off; {temp}
                    sendfile off; tcp_nopush off;
                    keepalive_requests 1000000000;
                    open_file_cache max=10000 inactive=1h; open_file_cache_valid 1h;
                    proxy_cache_path {} levels=1:2 keys_zone=c:10m inactive=1h use_temp_path=off;
                    server {{
                        listen {at};
                        location / {{
                            proxy_pass http://{};
                            proxy_cache c; proxy_cache_valid 200 1h;
                            add_header X-Cache $upstream_cache_status;
                        }}
                    }}
                }}",
                cache.display(),
                self.origin_at,
            ),
        );
        let mut command = on_core(Some(SERVER_CORE), "nginx");
        command
            .arg("-c")
            .arg(&config)
            .args(["-p", &home.to_string()]);
        Some(self.begin("nginx proxy_cache", at, &mut command, None))
    }

    /// Varnish with its cache in memory. By default it caches no request with `Authorization`.
    pub fn varnish(&self) -> Option<Rc<Server>> {
        let Some(program) = ["varnishd", "/usr/sbin/varnishd"]
            .into_iter()
            .find(|program| is_installed(program))
        else {
            return self.leave_out("Varnish (not installed)");
        };
        let at = free_address();
        let vcl = self.file(
            &format!("{}/varnish.vcl", self.home("varnish")),
            &format!(
                "vcl 4.1;
                backend origin {{ .host = \"{}\"; .port = \"{}\"; }}
                sub vcl_recv {{ return (hash); }}
                sub vcl_backend_response {{ set beresp.ttl = 1h; return (deliver); }}
                sub vcl_deliver {{ set resp.http.X-Cache = \"MISS\"; if (obj.hits > 0) {{ set resp.http.X-Cache = \"HIT\"; }} }}",
                self.origin_at.ip(),
                self.origin_at.port(),
            ),
        );
        let home = vcl.parent().unwrap().join("work");
        let mut command = on_core(Some(SERVER_CORE), program);
        command
            .args(["-F", "-j", "none", "-s", "malloc,256m"])
            .args(["-a", &at.to_string(), "-T", "none", "-n"])
            .arg(home)
            .arg("-f")
            .arg(&vcl);
        Some(self.begin("Varnish", at, &mut command, None))
    }

    /// FastAPI and redis-py under uvicorn, one worker. Its Redis is on the other core, beside
    /// `wrk`.
    pub fn cache_aside(&self) -> Option<Rc<Server>> {
        let python = std::env::var("COMPARE_PYTHON").unwrap_or_else(|_| "python3".into());
        let imports = "import fastapi, hiredis, httptools, redis, uvicorn, uvloop";
        let known = Command::new(&python).args(["-c", imports]).output();
        if !known.is_ok_and(|known| known.status.success()) {
            return self.leave_out("FastAPI + redis-py (not installed)");
        }
        let at = free_address();
        let key = "a-key-of-the-comparison";
        let mut command = on_core(Some(SERVER_CORE), &python);
        command
            .args(["-m", "uvicorn", "cache_aside:app", "--workers", "1"])
            .args(["--no-access-log", "--loop", "uvloop", "--http", "httptools"])
            .args(["--host", "127.0.0.1", "--port", &at.port().to_string()])
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/compare"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("ORIGIN", format!("http://{}", self.origin_at))
            .env("REDIS_URL", format!("redis://{}", self.redis_at))
            .env("KEY", key);
        let key = ("Authorization".to_owned(), format!("Bearer {key}"));
        Some(self.begin("FastAPI + redis-py", at, &mut command, Some(key)))
    }

    /// Requests a second of `redis-benchmark` with values of the same size.
    pub fn redis_benchmark(&self, connections: usize) -> Option<f64> {
        if !is_installed("redis-benchmark") {
            self.leave_out("redis-benchmark (not installed)");
            return None;
        }
        let output = Command::new("redis-benchmark")
            .args(["-h", "127.0.0.1", "-p", &self.redis_at.port().to_string()])
            .args(["-t", "set,get", "-d", &super::BODY.to_string(), "--csv"])
            .args(["-n", "200000", "-c", &connections.to_string()])
            .output()
            .ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        let line = text.lines().find(|line| line.starts_with("\"GET\""))?;
        line.split(',').nth(1)?.trim_matches('"').parse().ok()
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
