//! Prints settings as a TOML file that can be read back. Called by `cli/config.rs`.

use std::fmt::Write;

use serde_json::Value;

use super::load::{flag, variable};
use super::{Config, Loaded, Source};

/// The settings as TOML, each with a comment that says where its value came from.
pub fn show(loaded: &Loaded) -> String {
    let mut text = String::new();
    let mut table = "";
    let values = values(&loaded.config);
    for (key, value) in &values {
        let (of, name) = key.rsplit_once('.').unwrap_or(("", key));
        if of != table {
            writeln!(text, "\n[{of}]").expect("a String takes any text");
            table = of;
        }
        let from = match loaded.sources.get(key) {
            Some(Source::Flag) => flag(key),
            Some(Source::Environment) => variable(key),
            Some(Source::File) => "file".to_owned(),
            Some(Source::Default) | None => "default".to_owned(),
        };
        writeln!(text, "{name} = {value} # {from}").expect("a String takes any text");
    }
    text
}

/// Every key with its value as TOML; keys outside tables first, then table by table.
pub(super) fn values(config: &Config) -> Vec<(String, String)> {
    let value =
        serde_json::to_value(config).expect("validate() refuses the one value without a text, a path not UTF-8");
    let (mut plain, mut in_tables) = (Vec::new(), Vec::new());
    for (key, value) in value.as_object().into_iter().flatten() {
        match value {
            Value::Object(table) => {
                in_tables.extend(
                    table
                        .iter()
                        .map(|(name, value)| (format!("{key}.{name}"), toml_value(value))),
                );
            }
            value => plain.push((key.clone(), toml_value(value))),
        }
    }
    plain.append(&mut in_tables);
    plain
}

/// A JSON scalar is a TOML scalar, but for DEL, which TOML wants escaped.
fn toml_value(value: &Value) -> String {
    value.to_string().replace('\u{7f}', "\\u007F")
}
