//! The log: one line an event on stderr, as text or JSON. Called by `cli/serve.rs` once, at start.
//!
//! Best effort: a log that cannot be written (a full disk, a closed pipe, a reader that has stopped reading) costs lines,
//! and never stops the node or makes one of its threads wait: `logging/lines.rs`.
//! Clients put text of their own into events (ids, URLs, zone names), so every line is cleaned on its way out: no such
//! text can end a line, forge another, or speak to a terminal.

use std::borrow::Cow;
use std::io::{self, Write};
use std::sync::OnceLock;

use anyhow::Context;
use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};
use crate::store::fjall_kv::OPENING_THREAD;
use lines::Lines;

mod lines;

/// Longest line; the rest of it is cut.
const LINE_BYTES_MAX: usize = 8 << 10;

/// The log of this process, once it is started.
static LINES: OnceLock<Lines> = OnceLock::new();

/// Starts the log; fails only when it has been started before, or when no thread can be started.
pub(super) fn start(log: &Log) -> anyhow::Result<()> {
    let filter = EnvFilter::builder().parse(with_defaults(&log.filter))?;
    let tell_lost = |lines| tracing::warn!(lines, "lines of the log were lost: they could not be written");
    let lines = Lines::start(io::stderr(), tell_lost).context("cannot start the log's thread")?;
    let lines = LINES.get_or_init(|| lines);
    // Colours would be cleaned away with everything else that speaks to a terminal.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        // That would go to stderr, which is what has failed.
        .log_internal_errors(false)
        .with_writer(|| OneLine(lines.clone()));
    let started = match log.format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    std::panic::set_hook(Box::new(|panic| {
        // What the store's files made it do there is told as damage, in words of its own.
        if std::thread::current().name() == Some(OPENING_THREAD) {
            tracing::debug!(%panic, "the store gave up on its files");
        } else {
            tracing::error!(%panic, "a part of the node has failed by a fault of its own; please report this");
        }
    }));
    started.map_err(|error| anyhow::anyhow!("cannot start the log: {error}"))
}

/// Waits until what was logged is written, within a bound: a log that nobody reads does not keep a process from ending.
pub(super) fn flush() {
    if let Some(lines) = LINES.get() {
        lines.flush();
    }
}

/// The filter with the Raft library silent, unless it names that: what the library meets, the node tells in its own words.
fn with_defaults(filter: &str) -> Cow<'_, str> {
    let names_it = filter.split(',').any(|part| part.trim_start().starts_with("openraft"));
    if names_it || filter.trim().is_empty() {
        return Cow::Borrowed(filter);
    }
    Cow::Owned(format!("{filter},openraft=off"))
}

/// Hands over each buffer as one line; the subscriber gives one event at a time.
struct OneLine(Lines);

impl Write for OneLine {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.0.push(line(event));
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One event as it is written: clean, and not too long.
fn line(event: &[u8]) -> Vec<u8> {
    let mut line = clean(&String::from_utf8_lossy(event)).into_owned();
    if line.len() > LINE_BYTES_MAX {
        line.truncate(line.floor_char_boundary(LINE_BYTES_MAX));
        line.push_str("...\n");
    }
    line.into_bytes()
}

/// Replaces every control character but the closing line feed by its Rust escape, which is plain ASCII.
fn clean(event: &str) -> Cow<'_, str> {
    let (line, end) = event.strip_suffix('\n').map_or((event, ""), |line| (line, "\n"));
    if !line.contains(is_control) {
        return Cow::Borrowed(event);
    }
    let mut cleaned = String::with_capacity(event.len() + 16);
    for character in line.chars() {
        if is_control(character) {
            cleaned.extend(character.escape_unicode());
        } else {
            cleaned.push(character);
        }
    }
    cleaned.push_str(end);
    Cow::Owned(cleaned)
}

/// Controls, and the characters that make a reader see lines or an order of text that are not there.
fn is_control(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}')
        || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    #[test]
    fn a_clean_line_is_left_alone() {
        assert_eq!(clean("zürich 料金 \"quoted\"\n"), "zürich 料金 \"quoted\"\n");
        assert_eq!(clean(""), "");
    }

    #[test]
    fn the_raft_library_is_silent_unless_it_is_named() {
        assert_eq!(with_defaults("debug"), "debug,openraft=off");
        assert_eq!(with_defaults("info, openraft=error"), "info, openraft=error");
        assert_eq!(with_defaults(""), "");
    }

    #[test]
    fn control_characters_become_text() {
        assert_eq!(
            clean("a\nb\r\t\u{1b}[2J\u{9b}\u{7f}\0\n"),
            "a\\u{a}b\\u{d}\\u{9}\\u{1b}[2J\\u{9b}\\u{7f}\\u{0}\n"
        );
        assert_eq!(clean("x\u{2028}y\u{202e}z"), "x\\u{2028}y\\u{202e}z");
    }

    #[test]
    fn a_line_is_cut_at_its_bound() {
        let long = line(format!("{}\n", "ü".repeat(LINE_BYTES_MAX)).as_bytes());
        assert!(long.len() <= LINE_BYTES_MAX + 4 && long.ends_with("ü...\n".as_bytes()));
        assert_eq!(line(b"short\n"), b"short\n");
    }

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_event_with_a_client_s_text_is_one_line() {
        let written = Shared::default();
        let lines = Lines::start(written.clone(), |_| {}).expect("a thread");
        let writing = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || OneLine(writing.clone()))
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(task_id = %"a\nERROR forged", "created {}", "\u{1b}[31mred\n");
        });
        lines.flush();
        let text = String::from_utf8(written.0.lock().clone()).expect("a log is text");
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(!text.trim_end_matches('\n').contains(is_control), "{text}");
        assert!(text.contains("ERROR forged"), "{text}");
    }
}
