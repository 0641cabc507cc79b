//! The log: one line an event on stderr, as text or JSON. Called by `cli/serve.rs` once, at start.
//!
//! Clients put text of their own into events (ids, URLs, zone names), so every line is cleaned on its way out: no such
//! text can end a line, forge another, or speak to a terminal.

use std::borrow::Cow;
use std::io::{self, Write};

use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};
use crate::store::fjall_kv::OPENING_THREAD;

/// Starts the log; fails only when it has been started before.
pub(super) fn start(log: &Log) -> anyhow::Result<()> {
    let filter = EnvFilter::builder().parse(&log.filter)?;
    // Colours would be cleaned away with everything else that speaks to a terminal.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(|| OneLine(io::stderr()));
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

/// Writes each buffer as one line; the subscriber hands over one event at a time.
struct OneLine<W>(W);

impl<W: Write> Write for OneLine<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.0.write_all(clean(&String::from_utf8_lossy(event)).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
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
    fn control_characters_become_text() {
        assert_eq!(
            clean("a\nb\r\t\u{1b}[2J\u{9b}\u{7f}\0\n"),
            "a\\u{a}b\\u{d}\\u{9}\\u{1b}[2J\\u{9b}\\u{7f}\\u{0}\n"
        );
        assert_eq!(clean("x\u{2028}y\u{202e}z"), "x\\u{2028}y\\u{202e}z");
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
        let writer = written.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || OneLine(writer.clone()))
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(task_id = %"a\nERROR forged", "created {}", "\u{1b}[31mred\n");
        });
        let text = String::from_utf8(written.0.lock().clone()).expect("a log is text");
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(!text.trim_end_matches('\n').contains(is_control), "{text}");
        assert!(text.contains("ERROR forged"), "{text}");
    }
}
