//! The rules of the source tree, as tables and pure functions over one file's path and text.
//!
//! A new module gets a row in [`LAYERS`]; a new crate that one part alone may know gets a row in [`ONLY`]. Used by
//! `tests/tidy.rs`, which reads the files.

use crate::code::{self, PathAt};

/// Longest file, in lines, its tests included.
const LINES_MAX: usize = 600;

/// Modules that any other may import, but for those whose own row is shorter (`core` among them: it reads no clock).
const BASE: &[&str] = &["clock", "entropy", "id", "limits", "log_limit"];
/// Modules whose rows do not get [`BASE`].
const BELOW_BASE: &[&str] = &["clock", "core", "entropy", "id", "limits", "log_limit"];

/// Each module of `src/`, and the modules it may import besides itself and [`BASE`].
pub const LAYERS: &[(&str, &[&str])] = &[
    ("limits", &[]),
    ("clock", &[]),
    ("entropy", &[]),
    ("id", &["limits"]),
    ("open_files", &[]),
    ("log_limit", &[]),
    ("core", &["id", "limits"]),
    ("blocking", &[]),
    ("failure", &[]),
    ("readiness", &[]),
    ("steady", &[]),
    ("space", &["blocking", "metrics"]),
    ("identity", &["core", "store", "wal"]),
    ("store", &["blocking", "core"]),
    ("wal", &[]),
    ("secret", &[]),
    ("net", &["secret"]),
    ("membership", &[]),
    ("metrics", &["core"]),
    ("peer", &["net"]),
    (
        "raft",
        &["blocking", "core", "failure", "metrics", "net", "peer", "store", "wal"],
    ),
    (
        "fire",
        &["blocking", "core", "failure", "metrics", "raft", "steady", "store"],
    ),
    ("router", &["core", "metrics", "net", "peer", "raft", "space", "store"]),
    ("placement", &["core", "membership", "raft", "steady"]),
    (
        "cluster",
        &[
            "core",
            "membership",
            "metrics",
            "net",
            "peer",
            "placement",
            "raft",
            "router",
            "steady",
        ],
    ),
    ("api", &["cluster", "core", "metrics", "readiness", "router"]),
    ("config", &["core", "open_files"]),
    (
        "node",
        &[
            "api",
            "blocking",
            "cluster",
            "config",
            "core",
            "failure",
            "fire",
            "identity",
            "membership",
            "metrics",
            "net",
            "peer",
            "placement",
            "raft",
            "readiness",
            "router",
            "secret",
            "space",
            "steady",
            "store",
            "wal",
        ],
    ),
    ("cli", &["cluster", "config", "core", "node", "open_files", "store"]),
];

/// A path that product code may name in some files only.
pub struct Only {
    path: &'static str,
    /// Beginnings of file paths.
    within: &'static [&'static str],
}

/// Crates and modules that one part alone may know, so that they can be replaced there.
pub const ONLY: &[Only] = &[
    Only {
        path: "fjall",
        within: &["src/store/"],
    },
    Only {
        path: "chitchat",
        within: &["src/membership/"],
    },
    Only {
        path: "openraft",
        within: &["src/raft/"],
    },
    Only {
        path: "openraft_multi",
        within: &["src/raft/"],
    },
    Only {
        path: "axum",
        within: &["src/api/"],
    },
    Only {
        path: "reqwest",
        within: &["src/fire/deliver"],
    },
    Only {
        path: "hickory_resolver",
        within: &["src/fire/deliver/names/"],
    },
    Only {
        path: "rustls",
        within: &["src/fire/deliver"],
    },
    Only {
        path: "ring",
        // core/plan has a module of this name.
        within: &["src/core/plan/", "src/membership/seal", "src/secret"],
    },
    Only {
        path: "snow",
        within: &["src/net/session"],
    },
    Only {
        path: "hashring",
        within: &["src/core/plan/"],
    },
    Only {
        path: "saffron",
        within: &["src/core/schedule"],
    },
    Only {
        path: "jiff",
        within: &["src/core/instant", "src/core/schedule"],
    },
    Only {
        path: "prometheus_client",
        within: &["src/metrics"],
    },
    Only {
        path: "clap",
        within: &["src/cli/", "src/config"],
    },
    Only {
        path: "toml",
        within: &["src/config"],
    },
    Only {
        path: "tracing_subscriber",
        within: &["src/cli/", "src/config"],
    },
    Only {
        path: "anyhow",
        within: &["src/cli/", "src/main.rs", "src/membership/transport"],
    },
    Only {
        path: "rand",
        within: &["src/entropy.rs"],
    },
    Only {
        path: "std::env",
        within: &["src/cli/", "src/main.rs"],
    },
    Only {
        path: "std::fs",
        within: &[
            "src/cli/",
            "src/config",
            "src/fire/deliver/names/",
            "src/identity",
            "src/metrics/process",
            "src/node",
            "src/store/",
            "src/wal/files",
        ],
    },
    Only {
        path: "std::process",
        within: &["src/cli/", "src/main.rs"],
    },
    Only {
        path: "std::time::SystemTime",
        within: &["src/cli/bench/", "src/clock.rs"],
    },
    Only {
        path: "std::time::Instant",
        within: &["src/cli/bench/", "src/clock.rs"],
    },
];

/// What `src/core/` never names: it decides, and everything it decides upon is handed to it.
const NOT_IN_CORE: &[&str] = &[
    "tokio",
    "futures_util",
    "std::fs",
    "std::io",
    "std::net",
    "std::thread",
    "tracing",
];

/// Everything wrong with one Rust file, as `path:line: what`.
pub fn check_rust(path: &str, text: &str) -> Vec<String> {
    let code = code::without_comments_and_literals(text);
    let is_test = is_test_file(path);
    let product = if is_test {
        String::new()
    } else {
        code::without_tests(&code)
    };
    let paths: Vec<PathAt> = code::paths(&product)
        .into_iter()
        .map(|(line, parts)| (line, absolute(path, parts)))
        .collect();
    let mut found = Vec::new();
    if !text.starts_with("//!") {
        found.push((1, "a file opens with //! and says what it owns".to_owned()));
    }
    if text.lines().count() > LINES_MAX {
        found.push((LINES_MAX, format!("a file has at most {LINES_MAX} lines")));
    }
    layers(path, &paths, &mut found);
    only(path, &paths, &mut found);
    core(path, &product, &paths, &mut found);
    words(
        &product,
        &[".unwrap()"],
        "say with expect() why it holds, or return the error",
        &mut found,
    );
    words(
        &code,
        &["#[ignore", "#![ignore"],
        "a test that does not run is no test",
        &mut found,
    );
    // The simulation counts its nodes from 0.
    if path.starts_with("src/") {
        node_ids(&product, &mut found);
    }
    words(&code, &["todo!", "unimplemented!", "dbg!"], "unfinished", &mut found);
    found.sort();
    found.dedup();
    let mut all: Vec<String> = found
        .into_iter()
        .map(|(line, what)| format!("{path}:{line}: {what}"))
        .collect();
    all.extend(check_text(path, text));
    all
}

/// What is wrong with any file of text: notes that belong elsewhere, and paths that exist on one machine.
pub fn check_text(path: &str, text: &str) -> Vec<String> {
    // In pieces, so that this file passes its own rules.
    let notes = [concat!("TO", "DO"), concat!("FIX", "ME")];
    let places = [
        concat!("/ho", "me/"),
        concat!("/ro", "ot/"),
        concat!("/Us", "ers/"),
        concat!("/wo", "rk/"),
    ];
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let at = |needle: &str| {
            let starts = line.match_indices(needle).map(|(start, _)| start);
            starts
                .into_iter()
                .any(|start| !line[..start].ends_with(|c: char| c.is_alphanumeric() || "_-.}".contains(c)))
        };
        if notes.iter().any(|note| at(note)) {
            found.push(format!(
                "{path}:{}: a note to self: do it, or write an issue",
                number + 1
            ));
        }
        if places.iter().any(|place| at(place)) {
            found.push(format!("{path}:{}: a path of one machine", number + 1));
        }
    }
    found
}

/// Files that are compiled for tests alone: what tests share is `testing.rs`; `suite.rs` runs a library's own tests on our implementation.
fn is_test_file(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    path.starts_with("tests/")
        || path.contains("/tests/")
        || ["tests.rs", "testing.rs", "suite.rs"].contains(&name)
        || name.ends_with("_tests.rs")
}

/// The module under `src/` that a file belongs to; `None` for the roots, which see everything.
fn module(path: &str) -> Option<&str> {
    let path = path.strip_prefix("src/")?;
    let module = path.split('/').next()?.trim_end_matches(".rs");
    (module != "lib" && module != "main").then_some(module)
}

/// A path as seen from the crate's root: `super` and `self` are resolved by where the file is.
fn absolute(file: &str, parts: Vec<String>) -> Vec<String> {
    let first = parts.first().map(String::as_str);
    if first != Some("super") && first != Some("self") {
        return parts;
    }
    let file = file
        .trim_start_matches("src/")
        .trim_end_matches(".rs")
        .trim_end_matches("/mod");
    let mut from: Vec<String> = std::iter::once("crate")
        .chain(file.split('/'))
        .map(str::to_owned)
        .collect();
    let mut rest = parts.into_iter().peekable();
    while let Some(part) = rest.next_if(|part| part == "super" || part == "self") {
        if part == "super" {
            from.pop();
        }
    }
    from.extend(rest);
    from
}

fn layers(file: &str, paths: &[PathAt], found: &mut Vec<(usize, String)>) {
    let Some(own) = module(file) else { return };
    let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == own) else {
        found.push((
            1,
            format!("the module {own} has no row in LAYERS (tests/tidy/rules.rs)"),
        ));
        return;
    };
    for (line, path) in paths.iter().filter(|(_, path)| path[0] == "crate" && path.len() > 1) {
        let used = path[1].as_str();
        let is_base = BASE.contains(&used) && !BELOW_BASE.contains(&own);
        let is_module = LAYERS.iter().any(|(name, _)| *name == used);
        if is_module && used != own && !is_base && !allowed.contains(&used) {
            found.push((*line, format!("{own} may not import {used}")));
        }
    }
}

fn only(file: &str, paths: &[PathAt], found: &mut Vec<(usize, String)>) {
    for Only { path: limited, within } in ONLY {
        if !file.starts_with("src/") || within.iter().any(|start| file.starts_with(start)) {
            continue;
        }
        for (line, _) in paths.iter().filter(|(_, path)| is_under(path, limited)) {
            found.push((*line, format!("{limited} may be named only in {}", within.join(", "))));
        }
    }
}

fn core(file: &str, product: &str, paths: &[PathAt], found: &mut Vec<(usize, String)>) {
    if !file.starts_with("src/core/") {
        return;
    }
    for banned in NOT_IN_CORE {
        for (line, _) in paths.iter().filter(|(_, path)| is_under(path, banned)) {
            found.push((*line, format!("core never names {banned}")));
        }
    }
    words(product, &["async ", ".await"], "core never awaits", found);
}

fn is_under(path: &[String], limited: &str) -> bool {
    let mut parts = path.iter();
    limited
        .split("::")
        .all(|part| parts.next().is_some_and(|own| own == part))
}

/// Node ids in log lines are shown as they are everywhere else: in hexadecimal.
fn node_ids(product: &str, found: &mut Vec<(usize, String)>) {
    const MACROS: [&str; 4] = ["debug!(", "info!(", "warn!(", "error!("];
    const NAMES: [&str; 5] = ["node", "nodes", "leader", "voters", "step"];
    for (at, opened) in MACROS.iter().flat_map(|name| product.match_indices(name)) {
        let arguments = &product[at + opened.len()..];
        let arguments = &arguments[..arguments.find(';').unwrap_or(arguments.len())];
        for argument in arguments.split(',').map(str::trim) {
            if NAMES.contains(&argument.trim_start_matches('?')) {
                let line = product[..at].matches('\n').count() + 1;
                found.push((line, "a node's id in the log is written as %NodeHex(node)".to_owned()));
            }
        }
    }
}

fn words(code: &str, needles: &[&str], what: &str, found: &mut Vec<(usize, String)>) {
    for (number, line) in code.lines().enumerate() {
        for needle in needles.iter().filter(|needle| line.contains(*needle)) {
            found.push((number + 1, format!("{needle}: {what}")));
        }
    }
}
