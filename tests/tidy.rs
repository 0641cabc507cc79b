//! Holds the rules of the source tree that the compiler does not: who may import whom, which part alone knows which
//! crate, and how files look. The rules are `tests/tidy/rules.rs`; each is proved here on a sample that breaks it.

#[path = "tidy/code.rs"]
mod code;
#[path = "tidy/rules.rs"]
mod rules;

use std::fs;
use std::path::Path;

use rules::{check_rust, check_text};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// Folders and files that are the project's own.
const OWN: [&str; 9] = [
    "src",
    "tests",
    "sim",
    "scripts",
    "doc",
    ".ci",
    "README.md",
    "Cargo.toml",
    "clippy.toml",
];

/// Every file under `path`, as a path relative to the root with `/` between its parts.
fn files(path: &Path, found: &mut Vec<String>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("a folder of the repository can be read") {
            let entry = entry.expect("a folder of the repository can be read");
            if entry.file_name() != "target" {
                files(&entry.path(), found);
            }
        }
    } else if path.is_file() {
        let relative = path.strip_prefix(ROOT).expect("it was found under the root");
        found.push(relative.to_str().expect("paths of the repository are UTF-8").to_owned());
    }
}

#[test]
fn the_repository_is_tidy() {
    let mut paths = Vec::new();
    for own in OWN {
        files(&Path::new(ROOT).join(own), &mut paths);
    }
    paths.sort();
    for expected in [
        "src/lib.rs",
        "src/core/task.rs",
        "tests/tidy.rs",
        "scripts/test.sh",
        "Cargo.toml",
    ] {
        assert!(
            paths.iter().any(|path| path == expected),
            "{expected} was not looked at"
        );
    }
    let mut wrong = Vec::new();
    for path in &paths {
        let bytes = fs::read(Path::new(ROOT).join(path)).expect("a file of the repository can be read");
        let text = String::from_utf8_lossy(&bytes);
        wrong.extend(
            if Path::new(path).extension().is_some_and(|extension| extension == "rs") {
                check_rust(path, &text)
            } else {
                check_text(path, &text)
            },
        );
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

/// Asserts that the sample breaks one rule, on its second line: the first is the header.
#[track_caller]
fn breaks(path: &str, sample: &str, what: &str) {
    let found = check_rust(path, &format!("//! Sample.\n{sample}\n"));
    assert_eq!(found.len(), 1, "{sample}: {found:?}");
    assert!(
        found[0].starts_with(&format!("{path}:2: ")) && found[0].contains(what),
        "{sample}: {found:?}"
    );
}

#[track_caller]
fn passes(path: &str, sample: &str) {
    assert_eq!(
        check_rust(path, &format!("//! Sample.\n{sample}\n")),
        Vec::<String>::new(),
        "{sample}"
    );
}

#[test]
fn a_layer_that_looks_up_is_found_however_it_is_written() {
    let what = "core may not import store";
    for sample in [
        "use crate::store::key;",
        "use crate::{id::TaskId, store::{key, Kv}};",
        "use crate::store;",
        "pub use super::super::store::key as k;",
        "fn f() { crate::store::open(); }",
        "fn f(x: Vec<crate::store::Kv>) {}",
    ] {
        breaks(
            "src/core/task/deep.rs",
            &sample.replace("super::super", "super::super::super"),
            what,
        );
        breaks("src/core/task.rs", sample, what);
    }
    breaks("src/core/mod.rs", "use super::store::Kv;", what);
    breaks("src/clock.rs", "use super::store::Kv;", "clock may not import store");
    breaks("src/store/mod.rs", "use crate::cli::run;", "store may not import cli");
    breaks(
        "src/core/retry.rs",
        "use crate::clock::Clock;",
        "core may not import clock",
    );
}

#[test]
fn a_node_id_in_the_log_is_hexadecimal() {
    let what = "%NodeHex(node)";
    breaks(
        "src/net/link.rs",
        "fn f() { tracing::info!(node, %address, \"x\"); }",
        what,
    );
    breaks("src/net/link.rs", "fn f() { warn!(%address, ?voters, \"x\"); }", what);
    passes(
        "src/net/link.rs",
        "fn f() { info!(node = %NodeHex(node), \"node, x\"); g(node); }",
    );
}

#[test]
fn a_layer_that_looks_down_passes() {
    passes(
        "src/core/task.rs",
        "use crate::id::TaskId;\nuse crate::limits::*;\nuse super::record;",
    );
    passes(
        "src/store/key.rs",
        "use crate::core::task;\nuse crate::clock::Clock;\nuse super::kv::Kv;",
    );
    passes("src/main.rs", "use xcron::cli;");
    passes("src/lib.rs", "pub use crate::store::Kv;");
    passes(
        "src/core/task.rs",
        "// use crate::store::key;\nconst TEXT: &str = \"crate::store::key\";",
    );
    passes(
        "src/core/task.rs",
        "#[cfg(test)]\nmod tests {\n    use crate::store::Kv;\n}\nuse crate::id::TaskId;",
    );
    for tests in ["src/core/task/tests.rs", "src/core/task_tests.rs", "src/core/suite.rs"] {
        passes(tests, "use crate::store::Kv;");
    }
    passes(
        "src/core/task.rs",
        "fn f<'a>(x: &'a X) -> impl Iterator + use<'a> { x.iter() }",
    );
}

#[test]
fn code_behind_a_test_module_is_looked_at() {
    let found = check_rust(
        "src/core/a.rs",
        "//! S.\n#[cfg(test)]\nmod t { fn f() { g('{', '\"'); } }\nuse crate::store::Kv;\n",
    );
    assert_eq!(found, ["src/core/a.rs:4: core may not import store"]);
    let found = check_rust(
        "src/core/a.rs",
        "//! S.\n#[cfg(test)]\nmod tests;\nuse crate::store::Kv;\n",
    );
    assert_eq!(found, ["src/core/a.rs:4: core may not import store"]);
}

#[test]
fn a_module_without_a_row_is_found() {
    let found = check_rust("src/extra/a.rs", "//! Sample.\n");
    assert_eq!(found.len(), 1);
    assert!(found[0].contains("extra has no row in LAYERS"), "{found:?}");
}

#[test]
fn each_limited_crate_is_found_outside_its_place() {
    for (name, home) in [
        ("fjall", "src/store/a.rs"),
        ("openraft", "src/raft/log.rs"),
        ("openraft_multi", "src/raft/network.rs"),
        ("chitchat", "src/membership/gossip.rs"),
        ("axum", "src/api/a.rs"),
        ("reqwest", "src/fire/deliver.rs"),
        ("hickory_resolver", "src/fire/deliver/names/system.rs"),
        ("rustls", "src/fire/deliver/tls.rs"),
        ("ring", "src/secret.rs"),
        ("snow", "src/net/session.rs"),
        ("hashring", "src/core/plan/ring.rs"),
        ("saffron", "src/core/schedule.rs"),
        ("jiff", "src/core/schedule/zone.rs"),
        ("prometheus_client", "src/metrics.rs"),
        ("clap", "src/config.rs"),
        ("toml", "src/config/load.rs"),
        ("tracing_subscriber", "src/cli/logging.rs"),
        ("anyhow", "src/main.rs"),
        ("rand", "src/entropy.rs"),
        ("std::env", "src/cli/a.rs"),
        ("std::fs", "src/wal/files.rs"),
        ("std::process", "src/cli/a.rs"),
        ("std::time::SystemTime", "src/clock.rs"),
        ("std::time::Instant", "src/clock.rs"),
    ] {
        for sample in [
            format!("use {name}::X;"),
            format!("fn f() {{ {name}::x(); }}"),
            format!("use ::{name};"),
        ] {
            breaks("src/wal/frame.rs", &sample, &format!("{name} may be named only in "));
            passes(home, &sample);
        }
    }
    assert_eq!(rules::ONLY.len(), 24, "each row has its sample above");
    breaks(
        "src/api/a.rs",
        "use std::{collections::BTreeMap, fs::File};",
        "std::fs may be named only in",
    );
    breaks(
        "src/core/task.rs",
        "use jiff::Zoned;",
        "jiff may be named only in src/core/instant, src/core/schedule",
    );
    passes(
        "src/raft/a.rs",
        "use crate::store::fjall_kv::X;\nuse std::fmt;\nlet fs = x.fs();",
    );
}

#[test]
fn core_neither_awaits_nor_does_io() {
    for name in ["tokio", "futures_util", "std::io", "std::net", "std::thread", "tracing"] {
        breaks(
            "src/core/a.rs",
            &format!("use {name}::X;"),
            &format!("core never names {name}"),
        );
        passes("src/raft/a.rs", &format!("use {name}::X;"));
    }
    breaks("src/core/a.rs", "async fn f() {}", "core never awaits");
    breaks("src/core/a.rs", "let x = f().await;", "core never awaits");
}

#[test]
fn unwrap_is_found_in_the_product_alone() {
    breaks("src/id.rs", "fn f() { g().unwrap(); }", ".unwrap()");
    passes(
        "src/id.rs",
        "fn f() { g().unwrap_or(1); }\n/// `.unwrap()` in a comment.\n#[cfg(test)]\nmod t { fn f() { g().unwrap() } }",
    );
}

#[test]
fn unfinished_work_is_found() {
    breaks("tests/it/a.rs", "#[ignore = \"slow\"]", "no test");
    breaks("src/id.rs", "#[ignore]", "no test");
    for sample in ["todo!()", "unimplemented!()", "dbg!(1)"] {
        breaks("src/id.rs", &format!("fn f() {{ {sample} }}"), "unfinished");
    }
    for note in [concat!("TO", "DO"), concat!("FIX", "ME")] {
        breaks("src/id.rs", &format!("// {note}: later"), "a note to self");
        assert_eq!(check_text("scripts/a.sh", &format!("# {note}\n")).len(), 1);
    }
    passes("src/id.rs", concat!("const AUTO", "DOC: u8 = 1; // mas", "TO", "DON"));
}

#[test]
fn a_path_of_one_machine_is_found() {
    for place in [
        concat!("/ho", "me/me/x"),
        concat!("/ro", "ot/x"),
        concat!("/Us", "ers/me"),
        concat!("/wo", "rk/x"),
    ] {
        breaks(
            "src/id.rs",
            &format!("const P: &str = \"{place}\";"),
            "a path of one machine",
        );
        assert_eq!(check_text("doc/a.md", &format!("in `{place}`\n")).len(), 1);
    }
    passes(
        "src/id.rs",
        concat!("const P: &str = \"http://127.0.0.1/api/wo", "rk/x\"; // $HO", "ME"),
    );
}

#[test]
fn the_look_of_a_file_is_checked() {
    assert_eq!(check_rust("src/id.rs", "use std::fmt;\n").len(), 1, "no header");
    let long = |lines| format!("//! Sample.{}", "\n".repeat(lines));
    assert_eq!(check_rust("src/id.rs", &long(600)), Vec::<String>::new());
    assert!(check_rust("src/id.rs", &long(601))[0].contains("at most 600 lines"));
}

#[test]
fn comments_and_literals_are_blanked_and_nothing_else() {
    for (text, code) in [
        ("a // b\nc", "a     \nc"),
        ("a /* b /* c */ d */ e", "a                   e"),
        (r#"f("a\"b", 'c', '"', '\'', b"d")"#, "f(      ,    ,    ,     , b   )"),
        ("r#\"a\"b\"# + r#type + br\"c\"", "         + r#type + b    "),
        (
            "fn f<'a>(x: &'a str) -> &'static str",
            "fn f<'a>(x: &'a str) -> &'static str",
        ),
        ("'\u{e4}' x 'a", "     x 'a"),
        ("\"open", "     "),
    ] {
        assert_eq!(code::without_comments_and_literals(text), code, "{text}");
    }
}
