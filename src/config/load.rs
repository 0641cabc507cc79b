//! Where settings come from: flags over `XCRON_*` variables over the TOML file over defaults.
//!
//! clap reads flags and variables, toml the file; this file lays one over the other and remembers which won.
//! Called by `cli/`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};

use super::{Config, Invalid, show};
use crate::limits::CONFIG_BYTES_MAX;

const FILE_ID: &str = "config";
const FILE_ENV: &str = "XCRON_CONFIG";

/// The settings given as flags or variables, and the file they lie over. Flatten it into a command.
#[derive(Clone, Debug)]
pub struct Flags {
    file: Option<PathBuf>,
    // Kept whole: clap alone knows whether a value came from a flag or from a variable.
    matches: ArgMatches,
}

/// Where a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody set it.
    Default,
    /// The TOML file.
    File,
    /// A variable of the environment.
    Environment,
    /// A flag.
    Flag,
}

/// Settings that passed every check, and where each came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// By key, as in `fire.timeout_ms`; every key is there.
    pub sources: BTreeMap<String, Source>,
    /// The file that was read.
    pub file: Option<PathBuf>,
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The file is not a configuration.
    #[error("{} is larger than {CONFIG_BYTES_MAX} bytes: not a configuration", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The file is not TOML, holds an unknown key, or a value of a wrong type.
    #[error("{}: {error}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Draws the line and a caret.
        error: Box<toml::de::Error>,
    },
    /// A flag or a variable does not fit its setting; clap's message names it.
    #[error("{0}")]
    Flag(Box<clap::Error>),
    /// A value is out of bounds.
    #[error("{invalid} ({from})")]
    Invalid {
        /// Names the key.
        invalid: Invalid,
        /// Names where the value stands.
        from: String,
    },
}

impl Flags {
    /// Reads the file, lays variables and flags over it, and checks the result.
    pub fn load(mut self) -> Result<Loaded, LoadError> {
        let (mut config, in_file) = match &self.file {
            Some(path) => read_file(path)?,
            None => (Config::default(), toml::Table::new()),
        };
        let sources = self.sources(&in_file);
        let flag_error = |error| LoadError::Flag(Box::new(error));
        config
            .update_from_arg_matches_mut(&mut self.matches)
            .map_err(flag_error)?;
        config.validate().map_err(|invalid| {
            let from = self.describe(&invalid, &sources);
            LoadError::Invalid { invalid, from }
        })?;
        Ok(Loaded {
            config,
            sources,
            file: self.file,
        })
    }

    fn sources(&self, in_file: &toml::Table) -> BTreeMap<String, Source> {
        let source = |key: &str| match self.matches.value_source(key) {
            Some(ValueSource::CommandLine) => Source::Flag,
            Some(ValueSource::EnvVariable) => Source::Environment,
            _ if has(in_file, key) => Source::File,
            _ => Source::Default,
        };
        let keys = show::values(&Config::default()).into_iter().map(|(key, _)| key);
        keys.map(|key| (key.clone(), source(&key))).collect()
    }

    fn describe(&self, invalid: &Invalid, sources: &BTreeMap<String, Source>) -> String {
        match (sources.get(invalid.key()), &self.file) {
            (Some(Source::File), Some(path)) => format!("in {}", path.display()),
            (Some(Source::Environment), _) => format!("in the variable {}", variable(invalid.key())),
            (Some(Source::Flag), _) => format!("given as {}", flag(invalid.key())),
            _ => "by default".to_owned(),
        }
    }

    /// Names among `names` that look like settings but are none: most likely misspelt, so worth a warning.
    pub fn unknown_variables(names: impl IntoIterator<Item = String>) -> Vec<String> {
        let command = Self::augment_args(Command::new("xcron"));
        let known: BTreeSet<&str> = command
            .get_arguments()
            .filter_map(|arg| arg.get_env().and_then(|name| name.to_str()))
            .collect();
        names
            .into_iter()
            .filter(|name| name.starts_with("XCRON_") && !known.contains(name.as_str()))
            .collect()
    }
}

impl Args for Flags {
    fn augment_args(command: Command) -> Command {
        let file = Arg::new(FILE_ID)
            .long(FILE_ID)
            .env(FILE_ENV)
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help("TOML file of settings; flags and variables win over it");
        let defaults: BTreeMap<String, String> = show::values(&Config::default()).into_iter().collect();
        let with_default = |arg: Arg| match defaults.get(arg.get_id().as_str()) {
            Some(default) => {
                let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
                arg.help(format!("{help} [default: {}]", default.trim_matches('"')))
            }
            None => arg,
        };
        let command = command.arg(file).next_help_heading("Settings");
        Config::augment_args(command)
            .mut_args(with_default)
            .next_help_heading(None)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self {
            file: matches.get_one(FILE_ID).cloned(),
            matches: matches.clone(),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Checks a file alone, without flags and variables.
pub fn check_file(path: &Path) -> Result<(), LoadError> {
    let (config, _) = read_file(path)?;
    let from = format!("in {}", path.display());
    config
        .validate()
        .map_err(|invalid| LoadError::Invalid { invalid, from })
}

fn read_file(path: &Path) -> Result<(Config, toml::Table), LoadError> {
    let read_error = |error| LoadError::Read {
        path: path.to_owned(),
        error,
    };
    let mut text = String::new();
    let limit = CONFIG_BYTES_MAX as u64 + 1;
    File::open(path)
        .map_err(read_error)?
        .take(limit)
        .read_to_string(&mut text)
        .map_err(read_error)?;
    if text.len() > CONFIG_BYTES_MAX {
        return Err(LoadError::TooLarge { path: path.to_owned() });
    }
    let parse_error = |error| LoadError::Parse {
        path: path.to_owned(),
        error: Box::new(error),
    };
    let config = toml::from_str(&text).map_err(parse_error)?;
    let table = toml::from_str(&text).map_err(parse_error)?;
    Ok((config, table))
}

fn has(table: &toml::Table, key: &str) -> bool {
    match key.split_once('.') {
        Some((table_name, rest)) => table
            .get(table_name)
            .and_then(|v| v.as_table())
            .is_some_and(|t| has(t, rest)),
        None => table.contains_key(key),
    }
}

/// The variable of a key.
pub(super) fn variable(key: &str) -> String {
    format!("XCRON_{}", key.replace('.', "_").to_uppercase())
}

/// The flag of a key.
pub(super) fn flag(key: &str) -> String {
    format!("--{}", key.replace(['.', '_'], "-"))
}
