//! Words of actions.

use super::TemplateError;

/// A word.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// `.a`, or `.` with an empty name.
    Field(String),
    /// `$x`.
    Variable(String),
    Word(String),
    Text(String),
    Number(String),
    Character(char),
    Pipe,
    Open,
    Close,
    Comma,
    Assign,
    Declare,
    /// A blank, where it ends an operand.
    Space,
}

fn fail(line: usize, text: impl std::fmt::Display) -> TemplateError {
    TemplateError(format!("template: output:{line}: {text}"))
}

/// Splits an action into words.
pub(super) fn tokens(text: &str, line: usize) -> Result<Vec<Token>, TemplateError> {
    let chars: Vec<char> = text.chars().collect();
    let mut found = Vec::new();
    let mut at = 0;
    let word_end = |from: usize| {
        chars[from..].iter().position(|c| !(c.is_alphanumeric() || *c == '_')).map_or(chars.len(), |n| from + n)
    };
    while at < chars.len() {
        let c = chars[at];
        match c {
            c if c.is_whitespace() => {
                while at < chars.len() && chars[at].is_whitespace() {
                    at += 1;
                }
                found.push(Token::Space);
                continue;
            }
            '"' => {
                let (text, end) = quoted(&chars, at).ok_or_else(|| fail(line, "unterminated quoted string"))?;
                found.push(Token::Text(text));
                at = end;
                continue;
            }
            '`' => {
                let end = chars[at + 1..].iter().position(|c| *c == '`');
                let end = at + 1 + end.ok_or_else(|| fail(line, "unterminated raw quoted string"))?;
                found.push(Token::Text(chars[at + 1..end].iter().collect()));
                at = end + 1;
                continue;
            }
            '\'' => match (chars.get(at + 1), chars.get(at + 2)) {
                (Some(c), Some('\'')) => {
                    found.push(Token::Character(*c));
                    at += 3;
                    continue;
                }
                _ => return Err(fail(line, "unterminated character constant")),
            },
            '.' if chars.get(at + 1).is_some_and(char::is_ascii_digit) => {
                at = number(&chars, at, &mut found);
                continue;
            }
            '.' => {
                let end = word_end(at + 1);
                found.push(Token::Field(chars[at + 1..end].iter().collect()));
                at = end;
                continue;
            }
            '$' => {
                let end = word_end(at + 1);
                found.push(Token::Variable(chars[at..end].iter().collect()));
                at = end;
                continue;
            }
            '|' => found.push(Token::Pipe),
            '(' => found.push(Token::Open),
            ')' => found.push(Token::Close),
            ',' => found.push(Token::Comma),
            '=' => found.push(Token::Assign),
            ':' if chars.get(at + 1) == Some(&'=') => {
                found.push(Token::Declare);
                at += 1;
            }
            c if c.is_ascii_digit()
                || (matches!(c, '-' | '+') && chars.get(at + 1).is_some_and(|n| n.is_ascii_digit() || *n == '.')) =>
            {
                at = number(&chars, at, &mut found);
                continue;
            }
            c if c.is_alphabetic() || c == '_' => {
                let end = word_end(at);
                found.push(Token::Word(chars[at..end].iter().collect()));
                at = end;
                continue;
            }
            other => {
                return Err(fail(
                    line,
                    format!("unexpected bad character U+{:04X} {other:?} in command", u32::from(other)),
                ));
            }
        }
        at += 1;
    }
    Ok(found)
}

fn number(chars: &[char], from: usize, found: &mut Vec<Token>) -> usize {
    let mut end = from + 1;
    while let Some(c) = chars.get(end) {
        let signed_exponent = matches!(c, '-' | '+') && matches!(chars[end - 1], 'e' | 'E');
        if !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_') || signed_exponent) {
            break;
        }
        end += 1;
    }
    found.push(Token::Number(chars[from..end].iter().collect()));
    end
}

/// A quoted text that begins at `from`; answers it and where it ends.
fn quoted(chars: &[char], from: usize) -> Option<(String, usize)> {
    let mut text = String::new();
    let mut at = from + 1;
    loop {
        match chars.get(at)? {
            '"' => return Some((text, at + 1)),
            '\n' => return None,
            '\\' => {
                at += 1;
                match chars.get(at)? {
                    'n' => text.push('\n'),
                    't' => text.push('\t'),
                    'r' => text.push('\r'),
                    'a' => text.push('\u{7}'),
                    'b' => text.push('\u{8}'),
                    'f' => text.push('\u{c}'),
                    'v' => text.push('\u{b}'),
                    'x' => at = escaped(chars, at, 2, &mut text)?,
                    'u' => at = escaped(chars, at, 4, &mut text)?,
                    'U' => at = escaped(chars, at, 8, &mut text)?,
                    other => text.push(*other),
                }
            }
            other => text.push(*other),
        }
        at += 1;
    }
}

fn escaped(chars: &[char], at: usize, digits: usize, text: &mut String) -> Option<usize> {
    let hex: String = chars.get(at + 1..=at + digits)?.iter().collect();
    text.push(char::from_u32(u32::from_str_radix(&hex, 16).ok()?)?);
    Some(at + digits)
}
