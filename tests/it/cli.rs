//! The command line: help, settings from four places, and what is refused how.

use std::path::PathBuf;
use std::process::{Command, Output};

use tempfile::TempDir;

/// A directory to run the program in, without any setting from outside.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().expect("a directory for temporary files"),
        }
    }

    fn write(&self, text: &str) -> PathBuf {
        let path = self.dir.path().join("xcron.toml");
        std::fs::write(&path, text).expect("the directory can be written");
        path
    }

    fn xcron(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
        let inherited = std::env::vars_os().map(|(name, _)| name);
        let mut command = Command::new(env!("CARGO_BIN_EXE_xcron"));
        for name in inherited.filter(|name| name.to_string_lossy().starts_with("XCRON_")) {
            command.env_remove(name);
        }
        command
            .current_dir(self.dir.path())
            .args(arguments)
            .envs(variables.iter().copied());
        command.output().expect("the program is built and can be run")
    }
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("the program prints UTF-8")
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("the program prints UTF-8")
}

#[test]
fn help_shows_commands_and_examples() {
    let place = Place::new();
    let help = place.xcron(&["--help"], &[]);
    assert_eq!(code(&help), Some(0));
    for part in [
        "serve",
        "bench",
        "config",
        "Examples:",
        "xcron serve --config xcron.toml",
    ] {
        assert!(out(&help).contains(part), "{part} is missing in:\n{}", out(&help));
    }
    let serve = out(&place.xcron(&["serve", "--help"], &[]));
    for part in [
        "--listen <IP:PORT>",
        "[default: 127.0.0.1:8000]",
        "[env: XCRON_LISTEN=]",
        "--rejoin",
        "Examples:",
    ] {
        assert!(serve.contains(part), "{part} is missing in:\n{serve}");
    }
}

#[test]
fn version_is_the_package_s() {
    let version = Place::new().xcron(&["--version"], &[]);
    assert_eq!(code(&version), Some(0));
    assert_eq!(out(&version), concat!("xcron ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn an_unknown_command_or_flag_exits_2() {
    let place = Place::new();
    for arguments in [&["srve"][..], &["serve", "--lisen", "127.0.0.1:1"]] {
        let refused = place.xcron(arguments, &[]);
        assert_eq!(code(&refused), Some(2));
        assert!(
            err(&refused).contains(arguments[arguments.len() / 2]),
            "{}",
            err(&refused)
        );
    }
}

#[test]
fn an_unknown_key_prints_its_line_and_a_caret_and_exits_2() {
    let place = Place::new();
    let path = place.write("groups = 32\n\n[fire]\ntimout_ms = 5\n");
    let path = path.to_str().expect("temporary paths are UTF-8");
    for arguments in [
        &["serve", "--config", path][..],
        &["config", "show", "--config", path],
        &["config", "check", path],
    ] {
        let refused = place.xcron(arguments, &[]);
        assert_eq!(code(&refused), Some(2), "{arguments:?}");
        let text = err(&refused);
        assert!(text.contains(path) && text.contains("line 4, column 1"), "{text}");
        assert!(text.contains("4 | timout_ms = 5\n  | ^^^^^^^^^"), "{text}");
        assert!(text.contains("`timeout_ms`"), "{text}");
        assert_eq!(out(&refused), "");
    }
}

#[test]
fn a_bad_value_names_its_key_wherever_it_stands() {
    let place = Place::new();
    let refused = place.xcron(&["config", "show", "--groups", "33"], &[]);
    assert_eq!(code(&refused), Some(2));
    assert!(
        err(&refused).contains("--groups") && err(&refused).contains("10240"),
        "{}",
        err(&refused)
    );

    let refused = place.xcron(&["config", "show"], &[("XCRON_FIRE_TIMEOUT_MS", "0")]);
    assert_eq!(code(&refused), Some(2));
    assert!(err(&refused).contains("fire.timeout_ms = 0"), "{}", err(&refused));
    assert!(err(&refused).contains("XCRON_FIRE_TIMEOUT_MS"), "{}", err(&refused));

    // clap's own checks name the variable too, and not the flag that nobody gave.
    for (variable, value, part) in [
        ("XCRON_LISTEN", "timer:8000", "127.0.0.1:8000"),
        ("XCRON_GROUPS", "33", "10240"),
        ("XCRON_CONNECTIONS_MAX", "many", "invalid digit"),
    ] {
        let refused = place.xcron(&["config", "show"], &[(variable, value)]);
        assert_eq!(code(&refused), Some(2));
        let text = err(&refused);
        assert!(
            text.contains(variable) && text.contains(value) && text.contains(part),
            "{text}"
        );
        assert!(text.contains(&format!("for '{variable}'")), "{text}");
    }
    let refused = place.xcron(&["config", "show", "--listen", "x"], &[("XCRON_LISTEN", "127.0.0.1:1")]);
    assert!(err(&refused).contains("'--listen"), "{}", err(&refused));

    let path = place.write("[store]\ncache_bytes = 1\n");
    let refused = place.xcron(
        &["config", "check", path.to_str().expect("temporary paths are UTF-8")],
        &[],
    );
    assert_eq!(code(&refused), Some(2));
    assert!(
        err(&refused).contains("store.cache_bytes = 1: must be 1048576 to"),
        "{}",
        err(&refused)
    );
}

#[test]
fn flag_wins_over_variable_over_file_over_default() {
    let place = Place::new();
    let text = "request_timeout_ms = 6001\nheader_timeout_ms = 1001\nretention_secs = 61\n[fire]\nwindow_ms = 2001\n";
    let path = place.write(text);
    let path = path.to_str().expect("temporary paths are UTF-8");
    let shown = place.xcron(
        &[
            "config",
            "show",
            "--header-timeout-ms",
            "1003",
            "--fire-window-ms",
            "2003",
        ],
        &[
            ("XCRON_CONFIG", path),
            ("XCRON_HEADER_TIMEOUT_MS", "1002"),
            ("XCRON_RETENTION_SECS", "62"),
        ],
    );
    assert_eq!(code(&shown), Some(0), "{}", err(&shown));
    for line in [
        "header_timeout_ms = 1003 # --header-timeout-ms\n",
        "retention_secs = 62 # XCRON_RETENTION_SECS\n",
        "request_timeout_ms = 6001 # file\n",
        "connections_max = 10000 # default\n",
        "window_ms = 2003 # --fire-window-ms\n",
    ] {
        assert!(out(&shown).contains(line), "{line} is missing in:\n{}", out(&shown));
    }
}

#[test]
fn what_show_prints_passes_check() {
    let place = Place::new();
    let shown = place.xcron(&["config", "show", "--log-format", "json"], &[]);
    let path = place.write(&out(&shown));
    let checked = place.xcron(
        &["config", "check", path.to_str().expect("temporary paths are UTF-8")],
        &[],
    );
    assert_eq!(code(&checked), Some(0), "{}", err(&checked));
    assert!(out(&checked).ends_with("xcron.toml: ok\n"), "{}", out(&checked));
}

#[test]
fn an_address_that_others_reach_is_refused_with_what_to_do() {
    let refused = Place::new().xcron(&["serve", "--listen", "0.0.0.0:0"], &[]);
    assert_eq!(code(&refused), Some(2));
    for part in ["listen = 0.0.0.0:0", "127.0.0.1", "--allow-remote"] {
        assert!(err(&refused).contains(part), "{part} is missing in:\n{}", err(&refused));
    }
}
