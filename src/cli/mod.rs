//! FLOOR 6: the commands. `serve.rs` puts the floors together.

mod apply;
pub mod check;
mod columns;
mod descriptors;
mod health;
mod invalidate;
pub mod key;
mod log;
mod news;
mod openapi;
mod output;
mod reload;
mod resource_table;
pub mod sandbox;
mod serve;
mod signals;
mod target;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::database::Database;

use self::apply::Refusal;
use self::output::failed;
use self::target::{configuration, server_url};

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
    /// Create, list and revoke API keys
    Key {
        #[command(subcommand)]
        command: key::KeyCommand,
        #[command(flatten)]
        config: ConfigArgument,
    },
    /// Stand in for NewsAPI, The Guardian and a paid AI service, for trying, testing and load
    Sandbox(sandbox::SandboxArguments),
    /// Invalidate through a running server, for scripts and cron
    Invalidate {
        #[command(flatten)]
        arguments: invalidate::InvalidateArguments,
        #[command(flatten)]
        config: ConfigArgument,
    },
    /// Print the OpenAPI document of the declared resources, without a server
    Openapi {
        #[command(flatten)]
        arguments: openapi::OpenapiArguments,
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

fn bind_address(text: &str) -> Result<String, String> {
    if crate::config::is_bind(text) {
        Ok(text.to_owned())
    } else {
        Err(format!("want {}", crate::config::BIND_FORM))
    }
}

/// Runs the command of the command line. Exit codes: 0 done, 1 failed, 2 wrong usage or invalid
/// configuration.
pub fn run() -> ExitCode {
    let CommandLine { command, serve } = CommandLine::parse();
    if let Err(refusal) = log::start() {
        return log::report(&refusal);
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
                    let why = format!("the sandbox on {bind}: {error}");
                    log::report(&Refusal::Failed(why))
                }
            }
        }
        Some(Command::Invalidate { arguments, config }) => {
            invalidate::run(arguments, config.config.as_deref())
        }
        Some(Command::Openapi { arguments, config }) => {
            openapi::run(&arguments, config.config.as_deref())
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
        Err(error) => failed(&error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        CommandLine::command().debug_assert();
    }
}
