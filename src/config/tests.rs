//! Tests of the settings: who wins, what is refused and how, and that file, flags and variables have the same names.

use std::net::SocketAddr;

use clap::{Args as _, Command, FromArgMatches};

use super::load::{flag, variable};
use super::*;

fn flags(arguments: &[&str]) -> Flags {
    let command = Flags::augment_args(Command::new("xcron").no_binary_name(true));
    let matches = command
        .try_get_matches_from(arguments)
        .expect("the flags are well-formed");
    Flags::from_arg_matches(&matches).expect("the matches are of this command")
}

fn load_file(text: &str, arguments: &[&str]) -> Result<Loaded, LoadError> {
    let dir = tempfile::tempdir().expect("a directory for temporary files");
    let path = dir.path().join("xcron.toml");
    std::fs::write(&path, text).expect("the directory can be written");
    let path = path.to_str().expect("temporary paths are UTF-8");
    flags(&[&["--config", path], arguments].concat()).load()
}

fn refusal(text: &str) -> String {
    load_file(text, &[]).expect_err("must be refused").to_string()
}

#[test]
fn defaults_are_valid_and_loopback() {
    let config = Config::default();
    assert_eq!(config.validate(), Ok(()));
    assert_eq!(config.listen, SocketAddr::from(([127, 0, 0, 1], 8_000)));
    assert_eq!(flags(&[]).load().expect("no file is needed").config, config);
}

#[test]
fn every_key_is_a_flag_and_a_variable_of_the_same_name() {
    let command = Flags::augment_args(Command::new("xcron"));
    let keys: Vec<String> = show::values(&Config::default())
        .into_iter()
        .map(|(key, _)| key)
        .collect();
    let mut settings = 0;
    for argument in command.get_arguments().filter(|argument| argument.get_id() != "config") {
        let key = argument.get_id().as_str();
        assert!(keys.iter().any(|known| known == key), "{key} is no key of the file");
        assert_eq!(argument.get_long().map(|long| format!("--{long}")), Some(flag(key)));
        assert_eq!(
            argument.get_env().and_then(|name| name.to_str()),
            Some(variable(key).as_str())
        );
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
        assert!(help.contains("[default: "), "{key} does not tell its default: {help}");
        settings += 1;
    }
    assert_eq!(settings, keys.len(), "each key has a flag");
}

#[test]
fn flags_win_over_the_file_and_the_file_over_defaults() {
    let text = "request_timeout_ms = 7000\nheader_timeout_ms = 6000\nallow_remote = true\n[fire]\ntimeout_ms = 4000\n";
    let loaded = load_file(text, &["--header-timeout-ms", "1000"]).expect("valid");
    assert_eq!(loaded.config.request_timeout_ms, 7_000);
    assert_eq!(loaded.config.header_timeout_ms, 1_000);
    assert!(
        loaded.config.allow_remote,
        "a flag that is not given leaves the file's value"
    );
    assert_eq!(
        loaded.config.fire,
        Fire {
            timeout_ms: 4_000,
            ..Fire::default()
        }
    );
    assert_eq!(loaded.sources["header_timeout_ms"], Source::Flag);
    assert_eq!(loaded.sources["fire.timeout_ms"], Source::File);
    assert_eq!(loaded.sources["fire.connect_timeout_ms"], Source::Default);
}

#[test]
fn an_unknown_key_is_refused_with_its_line_and_a_caret() {
    let text = refusal("groups = 32\nlisen = \"127.0.0.1:1\"\n");
    assert!(text.contains("line 2, column 1"), "{text}");
    assert!(text.contains("2 | lisen = \"127.0.0.1:1\"\n  | ^^^^^"), "{text}");
    assert!(
        text.contains("`listen`"),
        "the message offers the names there are: {text}"
    );
    assert!(refusal("[fire]\ntimeout = 5\n").contains("unknown field `timeout`"));
    assert!(
        refusal("rejoin = true\n").contains("unknown field `rejoin`"),
        "a decision of one start is no setting"
    );
}

#[test]
fn a_wrong_value_names_its_key() {
    for (text, key) in [
        ("groups = 33", "groups"),
        ("groups = 0", "groups"),
        ("connections_max = -1", "connections_max"),
        ("connections_max = 0", "connections_max"),
        ("listen = \"localhost\"", "listen"),
        ("data = \"\"", "data"),
        ("header_timeout_ms = 10001", "header_timeout_ms"),
        ("retention_secs = 0", "retention_secs"),
        ("clock_hold_secs = 86401", "clock_hold_secs"),
        ("replace_after_secs = 9", "replace_after_secs"),
        ("[fire]\nin_flight_max = 255", "fire.in_flight_per_target_max"),
        ("[fire]\nconnect_timeout_ms = 10001", "fire.connect_timeout_ms"),
        ("[fire]\nwindow_ms = 999", "fire.window_ms"),
        ("[fire]\nwindow_tasks_max = 0", "fire.window_tasks_max"),
        ("[retry]\nattempts_max = 0", "retry.attempts_max"),
        ("[retry]\nattempts_max = 1001", "retry.attempts_max"),
        ("[retry]\nfirst_delay_ms = 600001", "retry.first_delay_ms"),
        ("[retry]\ndelay_max_ms = 604800001", "retry.delay_max_ms"),
        ("[retry]\njitter_percent = 101", "retry.jitter_percent"),
        ("[store]\ncache_bytes = 0", "store.cache_bytes"),
        ("[log]\nformat = \"xml\"", "format"),
        ("[log]\nfilter = \"xcron=loud\"", "log.filter"),
        ("[log]\nfilter = \"inof\"", "log.filter"),
        ("[log]\nfilter = \"info,raft\"", "log.filter"),
    ] {
        let message = refusal(text);
        assert!(message.contains(key), "{text}: {message}");
    }
}

#[test]
fn a_bound_that_is_a_setting_is_named() {
    let message = refusal("[fire]\ntimeout_ms = 1000\n");
    assert!(
        message.contains("fire.connect_timeout_ms = 3000: must be 1 to 1000 (fire.timeout_ms)"),
        "{message}"
    );
}

#[test]
fn an_address_that_others_reach_needs_a_decision() {
    for address in ["0.0.0.0:8000", "[::]:8000", "192.0.2.1:8000", "[::ffff:192.0.2.1]:8000"] {
        let error = flags(&["--listen", address])
            .load()
            .expect_err("must be refused")
            .to_string();
        assert!(
            error.contains("--allow-remote") && error.contains("given as --listen"),
            "{error}"
        );
        assert!(
            flags(&["--listen", address, "--allow-remote"]).load().is_ok(),
            "{address}"
        );
    }
    for address in ["127.0.0.1:0", "127.9.9.9:1", "[::1]:8000", "[::ffff:127.0.0.1]:80"] {
        assert!(flags(&["--listen", address]).load().is_ok(), "{address}");
    }
    let error = load_file(
        "allow_remote = true\n",
        &["--allow-remote=false", "--listen", "0.0.0.0:1"],
    );
    assert!(
        matches!(
            error,
            Err(LoadError::Invalid {
                invalid: Invalid::Remote { .. },
                ..
            })
        ),
        "{error:?}"
    );
}

#[test]
fn the_address_that_peers_are_told_may_be_another() {
    let load = |arguments: &[&str]| flags(arguments).load().map_err(|error| error.to_string());
    let everywhere = "--peer-listen=0.0.0.0:8100";
    assert!(
        load(&[everywhere])
            .expect_err("nobody could call it")
            .contains("--peer-advertise")
    );
    assert!(load(&[everywhere, "--peer-advertise=192.0.2.7:8100"]).is_ok());
    for wrong in ["0.0.0.0:8100", "192.0.2.7:0", "[2001:db8::1]:8100"] {
        let error = load(&[everywhere, &format!("--peer-advertise={wrong}")]).expect_err("refused");
        assert!(
            error.contains(&format!("peer_advertise = {wrong}")) && error.contains("--peer-advertise"),
            "{error}"
        );
    }
    assert!(
        load(&["--peer-advertise=192.0.2.7:8100"]).is_err(),
        "there is nothing to advertise"
    );
}

#[test]
fn the_retry_table_becomes_the_policy() {
    let text = "[retry]\nattempts_max = 9\nfirst_delay_ms = 7\ndelay_max_ms = 70\njitter_percent = 0\n";
    let loaded = load_file(text, &["--retry-first-delay-ms", "8"]).expect("valid");
    let policy = RetryPolicy {
        attempts_max: 9,
        first_delay_ms: 8,
        delay_max_ms: 70,
        jitter_percent: 0,
    };
    assert_eq!(RetryPolicy::from(loaded.config.retry), policy);
    assert_eq!(RetryPolicy::from(Config::default().retry), RetryPolicy::default());
}

#[test]
fn what_show_prints_can_be_read_back() {
    let arguments = [
        "--data",
        "a \"dir\"\\\u{7f}料",
        "--groups",
        "64",
        "--fire-timeout-ms",
        "5000",
        "--allow-remote",
    ];
    let loaded = flags(&arguments).load().expect("valid");
    let shown = show(&loaded);
    assert!(shown.contains("groups = 64 # --groups\n"), "{shown}");
    assert!(
        shown.contains("\n[fire]\n") && shown.contains("timeout_ms = 5000 # --fire-timeout-ms\n"),
        "{shown}"
    );
    let again = load_file(&shown, &[]).expect("valid");
    assert_eq!(again.config, loaded.config);
    assert_eq!(again.sources["connections_max"], Source::File);
}

#[test]
fn a_file_that_cannot_be_used_is_named() {
    let error = flags(&["--config", "/nonexistent/xcron.toml"])
        .load()
        .expect_err("there is none")
        .to_string();
    assert!(error.starts_with("cannot read /nonexistent/xcron.toml: "), "{error}");
    let large = "#".repeat(crate::limits::CONFIG_BYTES_MAX + 1);
    assert!(matches!(load_file(&large, &[]), Err(LoadError::TooLarge { .. })));
    assert!(load_file(&large[1..], &[]).is_ok(), "the limit itself is allowed");
}

#[test]
fn a_misspelt_variable_is_noticed() {
    let names = [
        "XCRON_LISEN",
        "XCRON_LISTEN",
        "XCRON_FIRE_TIMEOUT_MS",
        "XCRON_CONFIG",
        "PATH",
    ];
    assert_eq!(Flags::unknown_variables(names.map(str::to_owned)), ["XCRON_LISEN"]);
}
