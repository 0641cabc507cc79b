//! What can be typed while `xcron dev` runs. Pure; called by `mod.rs` for each line of standard input.

/// Most tasks of one `load`: each is remembered until the end.
pub const LOAD_MAX: u32 = 10_000;
/// Tasks of a `load` that does not say how many.
pub const LOAD_DEFAULT: u32 = 60;

/// A typed command; nodes count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// `kill -9` a node.
    Kill(usize),
    /// Start a killed node again.
    Restart(usize),
    /// Show the nodes and the tally.
    Status,
    /// Create so many tasks that are due in the next seconds.
    Load(u32),
    /// Say what can be typed.
    Help,
    /// End everything.
    Quit,
    /// An empty line.
    Nothing,
}

/// What to say to somebody who asks, or who typed something else.
pub const HELP: &str = "  k N   kill -9 node N            r N   start it again
  l [N] create N tasks (60) that fall due in the next 20 s, through all nodes in turn
  s     status: the nodes, and which callbacks came
  q     quit                      h     this help
";

/// Reads one line, for a cluster of so many nodes. The error is what to print.
pub fn parse(line: &str, nodes: usize) -> Result<Command, String> {
    let mut words = line.split_whitespace();
    let Some(word) = words.next() else {
        return Ok(Command::Nothing);
    };
    let argument = words.next();
    if words.next().is_some() {
        return Err(format!(
            "'{}': one command a line, with one number at most\n{HELP}",
            line.trim()
        ));
    }
    let node = || {
        let number = argument.and_then(|argument| argument.parse().ok());
        number
            .filter(|number| (1..=nodes).contains(number))
            .ok_or_else(|| format!("'{word}' needs the number of a node, 1 to {nodes}: for example '{word} 1'\n"))
    };
    let plain = |command: Command| match argument {
        None => Ok(command),
        Some(argument) => Err(format!(
            "'{word}' takes nothing after it, and '{argument}' stands there\n"
        )),
    };
    match word {
        "k" | "kill" => node().map(Command::Kill),
        "r" | "restart" => node().map(Command::Restart),
        "l" | "load" => match argument.map_or(Ok(LOAD_DEFAULT), str::parse) {
            Ok(tasks) if (1..=LOAD_MAX).contains(&tasks) => Ok(Command::Load(tasks)),
            _ => Err(format!("'{word}' takes a number of tasks, 1 to {LOAD_MAX}\n")),
        },
        "s" | "status" => plain(Command::Status),
        "h" | "help" | "?" => plain(Command::Help),
        "q" | "quit" | "exit" => plain(Command::Quit),
        _ => Err(format!("there is no command '{word}':\n{HELP}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read() {
        for (line, command) in [
            ("k 1", Command::Kill(1)),
            ("  kill\t3 ", Command::Kill(3)),
            ("r 2", Command::Restart(2)),
            ("s", Command::Status),
            ("l", Command::Load(LOAD_DEFAULT)),
            ("l 10000", Command::Load(LOAD_MAX)),
            ("?", Command::Help),
            ("q", Command::Quit),
            ("", Command::Nothing),
            (" \t", Command::Nothing),
        ] {
            assert_eq!(parse(line, 3), Ok(command), "{line}");
        }
    }

    #[test]
    fn anything_else_is_told_what_to_do() {
        for (line, told) in [
            ("k", "number of a node, 1 to 3"),
            ("k 0", "1 to 3"),
            ("k 4", "1 to 3"),
            ("r x", "1 to 3"),
            ("k 1 2", "one command a line"),
            ("l 0", "1 to 10000"),
            ("l 10001", "1 to 10000"),
            ("l -1", "1 to 10000"),
            ("q now", "nothing after it"),
            ("start 1", "there is no command 'start'"),
        ] {
            let error = parse(line, 3).expect_err(line);
            assert!(error.contains(told), "{line}: {error}");
        }
    }
}
