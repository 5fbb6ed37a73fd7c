//! FLOOR 6: the commands; puts the floors together.

pub mod check;
mod columns;
mod descriptors;
mod health;
mod invalidate;
pub mod key;
mod log;
mod news;
mod reload;
mod resource_table;
pub mod sandbox;
mod serve;
mod signals;

use std::fmt::Display;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, process_environment};
use crate::database::Database;

/// What is said of a configuration without resources. The built-in ones are those of the built-in
/// configuration alone.
const NO_RESOURCES: &str = "declares no resource, so nothing is served but larder's own routes";

/// A caching API server: slow endpoints answered from memory, then Redis, then their source.
#[derive(Debug, Parser)]
#[command(
    name = "larder",
    version,
    about,
    propagate_version = true,
    arg_required_else_help = false
)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArguments,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve (what larder does without a command)
    Serve(ServeArguments),
    /// Say whether larder would start with a configuration and its database, and print its
    /// resources
    Check(ConfigArgument),
    /// Make, list and revoke API keys
    Key {
        #[command(subcommand)]
        command: key::KeyCommand,
        #[command(flatten)]
        config: ConfigArgument,
    },
    /// Stand in for NewsAPI and The Guardian, for trying, testing and load
    Sandbox(sandbox::SandboxArguments),
    /// Invalidate through a running server, for scripts and cron
    Invalidate {
        #[command(flatten)]
        arguments: invalidate::InvalidateArguments,
        #[command(flatten)]
        config: ConfigArgument,
    },
    /// Exit with 0 when the server says that it is ready
    Health {
        /// Where the server is [default: server.bind of the configuration]
        #[arg(long, value_parser = server_url)]
        url: Option<String>,
        #[command(flatten)]
        config: ConfigArgument,
    },
}

#[derive(Args, Debug, Default)]
struct ConfigArgument {
    /// The configuration [default: LARDER_CONFIG, else ./config.toml, else the built-in one]
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
}

#[derive(Args, Debug, Default)]
struct ServeArguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// Where to listen, such as 127.0.0.1:8000 [default: server.bind of the configuration]
    #[arg(long, value_name = "ADDR", value_parser = bind_address)]
    bind: Option<String>,
}

fn server_url(text: &str) -> Result<String, String> {
    let host = text
        .strip_prefix("http://")
        .or_else(|| text.strip_prefix("https://"));
    let valid = host.is_some_and(|host| !host.is_empty() && !host.contains(char::is_whitespace));
    if valid {
        Ok(text.to_owned())
    } else {
        Err("want http:// or https:// and a host".to_owned())
    }
}

/// The configuration; where it is not valid, every fault is said.
fn configuration(file: Option<&Path>) -> Result<Config, ExitCode> {
    let loaded = Config::load(file, &process_environment);
    loaded.map(|(config, _)| config).map_err(|errors| {
        say_error(&errors);
        ExitCode::from(2)
    })
}

/// `url`, or else where the server is that the configuration describes.
fn url_of_server(url: Option<String>, file: Option<&Path>) -> Result<String, ExitCode> {
    match url {
        Some(url) => Ok(url),
        None => configuration(file).map(|config| own_url(&config.server.bind)),
    }
}

fn bind_address(text: &str) -> Result<String, String> {
    if crate::config::is_bind(text) {
        Ok(text.to_owned())
    } else {
        Err(format!("want {}", crate::config::BIND_FORM))
    }
}

/// Runs the command that the process was started with. Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.
pub fn run() -> ExitCode {
    let CommandLine { command, serve } = CommandLine::parse();
    if log::start().is_err() {
        say_error(&"larder: this process logs already");
        return ExitCode::FAILURE;
    }
    match command {
        None => serve::run(serve.config.config, serve.bind),
        Some(Command::Serve(arguments)) => serve::run(
            arguments.config.config.or(serve.config.config),
            arguments.bind.or(serve.bind),
        ),
        Some(Command::Check(arguments)) => check::run(arguments.config.as_deref()),
        Some(Command::Key { command, config }) => keys(&command, config.config.as_deref()),
        Some(Command::Sandbox(arguments)) => {
            let sandbox::SandboxArguments {
                bind,
                latency,
                error_rate,
            } = arguments;
            match sandbox::run(bind, latency, error_rate) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    say_error(&format!("larder: the sandbox on {bind}: {error}"));
                    ExitCode::FAILURE
                }
            }
        }
        Some(Command::Invalidate { arguments, config }) => {
            invalidate::run(arguments, config.config.as_deref())
        }
        Some(Command::Health { url, config }) => health::run(url, config.config.as_deref()),
    }
}

fn keys(command: &key::KeyCommand, file: Option<&Path>) -> ExitCode {
    let config = match configuration(file) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let opened =
        Database::open(&config.database).and_then(|database| database.migrate().map(|_| database));
    match opened {
        Ok(database) => {
            let done = key::run(
                &database,
                command,
                &mut io::stdout().lock(),
                &mut io::stderr().lock(),
            );
            done.map_or(ExitCode::FAILURE, ExitCode::from)
        }
        Err(error) => {
            say_error(&format!("larder: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Where this machine reaches a server that listens on `bind`.
fn own_url(bind: &str) -> String {
    let (host, port) = bind.rsplit_once(':').unwrap_or((bind, ""));
    match host {
        "0.0.0.0" => format!("http://127.0.0.1:{port}"),
        "[::]" => format!("http://[::1]:{port}"),
        _ => format!("http://{host}:{port}"),
    }
}

/// Prints to standard output.
fn say(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush())
}

/// Prints to standard error.
fn say_error(text: &dyn Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn a_server_on_all_addresses_is_reached_on_loopback() {
        assert_eq!(own_url("0.0.0.0:8000"), "http://127.0.0.1:8000");
        assert_eq!(own_url("[::]:8000"), "http://[::1]:8000");
        assert_eq!(own_url("localhost:80"), "http://localhost:80");
    }
}
