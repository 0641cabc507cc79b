//! Reads Rust text just well enough for the rules: code without comments, literals and tests, and the paths in it.
//!
//! Pure functions over text; no rule lives here. Used by `tests/tidy/rules.rs`.

/// The text with the insides of comments and literals blanked out; every line keeps its number.
pub fn without_comments_and_literals(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = literal_or_comment_end(bytes, at);
        for byte in &mut code[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end.max(at + 1);
    }
    String::from_utf8_lossy(&code).into_owned()
}

/// Where the comment or literal that starts at `at` ends; `at` itself when none starts there.
fn literal_or_comment_end(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let starts_word = at == 0 || !is_word(bytes[at - 1]);
    match rest {
        [b'/', b'/', ..] => at + rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len()),
        [b'/', b'*', ..] => block_comment_end(bytes, at),
        [b'"', ..] => quoted_end(bytes, at + 1, b'"'),
        [b'r', b'"' | b'#', ..] if starts_word || matches!(bytes[at - 1], b'b' | b'c') => raw_string_end(bytes, at),
        [b'\'', b'\\', ..] => quoted_end(bytes, at + 1, b'\''),
        [b'\'', ..] => char_end(bytes, at),
        _ => at,
    }
}

fn block_comment_end(bytes: &[u8], start: usize) -> usize {
    let (mut depth, mut at) = (0_usize, start);
    while at < bytes.len() {
        match &bytes[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn quoted_end(bytes: &[u8], mut at: usize, quote: u8) -> usize {
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

fn raw_string_end(bytes: &[u8], start: usize) -> usize {
    let hashes = bytes[start + 1..].iter().take_while(|b| **b == b'#').count();
    let open = start + 1 + hashes;
    if bytes.get(open) != Some(&b'"') {
        return start;
    }
    let mut close = vec![b'#'; hashes + 1];
    close[0] = b'"';
    let inside = &bytes[open + 1..];
    let length = inside.windows(close.len()).position(|window| window == close);
    length.map_or(bytes.len(), |length| open + 1 + length + close.len())
}

/// A quote is a character's if another one follows it, else a lifetime's.
fn char_end(bytes: &[u8], at: usize) -> usize {
    let text = &bytes[at + 1..(at + 6).min(bytes.len())];
    let width = text
        .first()
        .map_or(1, |first| usize::try_from(first.leading_ones()).unwrap_or(0).max(1));
    if text.get(width) == Some(&b'\'') {
        at + width + 2
    } else {
        at
    }
}

/// Code with every item under `#[cfg(test)]` blanked out.
pub fn without_tests(code: &str) -> String {
    const TEST: &str = "#[cfg(test)]";
    let mut left = code.as_bytes().to_vec();
    let mut from = 0;
    while let Some(found) = code[from..].find(TEST) {
        let start = from + found;
        let end = item_end(code.as_bytes(), start + TEST.len());
        left[start..end]
            .iter_mut()
            .filter(|byte| **byte != b'\n')
            .for_each(|byte| *byte = b' ');
        from = end;
    }
    String::from_utf8_lossy(&left).into_owned()
}

/// Where the item that starts at `at` ends: behind its first `;`, or behind the brace that closes it.
fn item_end(code: &[u8], mut at: usize) -> usize {
    let mut depth = 0_usize;
    while at < code.len() {
        match code[at] {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' => depth = depth.saturating_sub(1),
            b'}' if depth <= 1 => return at + 1,
            b'}' => depth -= 1,
            b';' if depth == 0 => return at + 1,
            _ => {}
        }
        at += 1;
    }
    at
}

/// A path in the code, such as `crate::core::task`, and its line from 1.
pub type PathAt = (usize, Vec<String>);

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Separator,
    Other(char),
}

/// Every path of two parts or more, and every path that a `use` names, one for each leaf of its tree.
pub fn paths(code: &str) -> Vec<PathAt> {
    let tokens = tokens(code);
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at].1 {
            Token::Word(word) if word == "use" => at = use_tree(&tokens, at + 1, &[], &mut found),
            Token::Word(_) => {
                let (line, mut path) = (tokens[at].0, Vec::new());
                at = plain_path(&tokens, at, &mut path);
                if path.len() > 1 {
                    found.push((line, path));
                }
            }
            _ => at += 1,
        }
    }
    found
}

/// Reads `a::b::c` from `at`; stops behind its last word, or behind a last separator.
fn plain_path(tokens: &[(usize, Token)], mut at: usize, path: &mut Vec<String>) -> usize {
    while let Some((_, Token::Word(word))) = tokens.get(at) {
        path.push(word.clone());
        at += 1;
        if tokens.get(at).is_none_or(|(_, token)| *token != Token::Separator) {
            break;
        }
        at += 1;
    }
    at
}

fn use_tree(tokens: &[(usize, Token)], at: usize, prefix: &[String], found: &mut Vec<PathAt>) -> usize {
    let mut path = prefix.to_vec();
    let line = tokens.get(at).map_or(0, |(line, _)| *line);
    let absolute = usize::from(tokens.get(at).is_some_and(|(_, token)| *token == Token::Separator));
    let mut at = plain_path(tokens, at + absolute, &mut path);
    if tokens.get(at).is_none_or(|(_, token)| *token != Token::Other('{')) {
        // `impl Trait + use<'a>` names no path.
        if !path.is_empty() {
            found.push((line, path));
        }
        return at;
    }
    at += 1;
    while let Some((_, token)) = tokens.get(at) {
        match token {
            Token::Other('}') => return at + 1,
            Token::Word(word) if word == "as" => at += 2,
            Token::Word(_) | Token::Separator | Token::Other('{') => {
                at = use_tree(tokens, at, &path, found).max(at + 1);
            }
            Token::Other(_) => at += 1,
        }
    }
    at
}

fn tokens(code: &str) -> Vec<(usize, Token)> {
    let mut tokens = Vec::new();
    for (number, line) in code.lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let word = rest.len() - rest.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_').len();
            let (token, length) = if word > 0 {
                (Token::Word(rest[..word].to_owned()), word)
            } else if rest.starts_with("::") {
                (Token::Separator, 2)
            } else {
                (Token::Other(first), first.len_utf8())
            };
            tokens.push((number + 1, token));
            rest = rest[length..].trim_start();
        }
    }
    tokens
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}
