//! Tokens.

use crate::CompileError;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token {
    Int(i64),
    /// 2^63, which only a minus makes a number.
    IntLimit,
    Uint(u64),
    Double(f64),
    Text(String),
    Bytes(Vec<u8>),
    Ident(String),
    /// `` `a-b` ``, allowed as a field only.
    Quoted(String),
    Symbol(&'static str),
    End,
}

const SYMBOLS: [&str; 27] = [
    "&&", "||", "<=", ">=", "==", "!=", "<", ">", "+", "-", "*", "/", "%", "!", "?", ":", ".", ",", "(", ")", "[", "]",
    "{", "}", "=", "@", ";",
];

/// Splits a source into tokens with their offsets.
pub(crate) fn tokens(source: &str) -> Result<Vec<(usize, Token)>, CompileError> {
    let mut lexer = Lexer { source, at: 0 };
    let mut all = Vec::new();
    loop {
        let token = lexer.next()?;
        let is_end = token.1 == Token::End;
        all.push(token);
        if is_end {
            return Ok(all);
        }
    }
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        self.source.get(self.at..).unwrap_or("")
    }

    fn error<T>(&self, at: usize, message: impl Into<String>) -> Result<T, CompileError> {
        Err(CompileError::at(self.source, at, format!("Syntax error: {}", message.into())))
    }

    fn skip_blank(&mut self) {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start_matches([' ', '\t', '\n', '\r', '\u{c}']);
            self.at += rest.len() - trimmed.len();
            if !trimmed.starts_with("//") {
                return;
            }
            self.at += trimmed.find('\n').unwrap_or(trimmed.len());
        }
    }

    fn next(&mut self) -> Result<(usize, Token), CompileError> {
        self.skip_blank();
        let at = self.at;
        let rest = self.rest();
        let Some(first) = rest.chars().next() else { return Ok((at, Token::End)) };
        if let Some(token) = self.string(at)? {
            return Ok((at, token));
        }
        let next_is_digit = rest[first.len_utf8()..].starts_with(|c: char| c.is_ascii_digit());
        if first.is_ascii_digit() || (first == '.' && next_is_digit) {
            return Ok((at, self.number(at)?));
        }
        if first.is_ascii_alphabetic() || first == '_' {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            self.at += end;
            return Ok((at, Token::Ident(rest[..end].to_owned())));
        }
        if first == '`' {
            let Some(end) = rest[1..].find('`') else { return self.error(at, "unterminated quoted field") };
            self.at += end + 2;
            return Ok((at, Token::Quoted(rest[1..=end].to_owned())));
        }
        match SYMBOLS.iter().find(|s| rest.starts_with(**s)) {
            Some(symbol) => {
                self.at += symbol.len();
                Ok((at, Token::Symbol(symbol)))
            }
            None => self.error(at, format!("token recognition error at: '{first}'")),
        }
    }

    fn number(&mut self, at: usize) -> Result<Token, CompileError> {
        let rest = self.rest();
        let hex = rest.starts_with("0x") || rest.starts_with("0X");
        let mut end = if hex { 2 } else { 0 };
        let mut is_double = false;
        let bytes = rest.as_bytes();
        while let Some(byte) = bytes.get(end) {
            match byte {
                b'0'..=b'9' => {}
                b'a'..=b'f' | b'A'..=b'F' if hex => {}
                b'.' if !is_double && bytes.get(end + 1).is_some_and(u8::is_ascii_digit) => is_double = true,
                b'e' | b'E' if end > 0 => {
                    is_double = true;
                    if matches!(bytes.get(end + 1), Some(b'+' | b'-')) {
                        end += 1;
                    }
                }
                _ => break,
            }
            end += 1;
        }
        let text = &rest[..end];
        self.at += end;
        if is_double && !hex {
            return text.parse().map(Token::Double).or_else(|_| self.error(at, "invalid double literal"));
        }
        let (digits, radix) = if hex { (&text[2..], 16) } else { (text, 10) };
        let value = u64::from_str_radix(digits, radix);
        if matches!(bytes.get(end), Some(b'u' | b'U')) {
            self.at += 1;
            return value.map(Token::Uint).or_else(|_| self.error(at, "invalid uint literal"));
        }
        match value {
            Ok(limit) if limit == 1 << 63 => Ok(Token::IntLimit),
            Ok(value) => i64::try_from(value).map(Token::Int).or_else(|_| self.error(at, "invalid int literal")),
            Err(_) => self.error(at, "invalid int literal"),
        }
    }

    /// A string or bytes literal, if one begins here.
    fn string(&mut self, at: usize) -> Result<Option<Token>, CompileError> {
        let rest = self.rest();
        let prefix = rest.bytes().take_while(|b| matches!(b, b'r' | b'R' | b'b' | b'B')).take(2).count();
        let marks = rest[..prefix].to_ascii_lowercase();
        let body = &rest[prefix..];
        let Some(quote) = ["\"\"\"", "'''", "\"", "'"].into_iter().find(|q| body.starts_with(*q)) else {
            return Ok(None);
        };
        let (raw, bytes) = (marks.contains('r'), marks.contains('b'));
        self.at += prefix + quote.len();
        let mut out: Vec<u8> = Vec::new();
        loop {
            let rest = self.rest();
            if rest.starts_with(quote) {
                self.at += quote.len();
                break;
            }
            let Some(c) = rest.chars().next() else { return self.error(at, "unterminated string literal") };
            if c == '\n' && quote.len() == 1 {
                return self.error(at, "unterminated string literal");
            }
            if c == '\\' && !raw {
                self.escape(bytes, &mut out)?;
                continue;
            }
            self.at += c.len_utf8();
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
        if bytes {
            return Ok(Some(Token::Bytes(out)));
        }
        String::from_utf8(out).map(|t| Some(Token::Text(t))).or_else(|_| self.error(at, "invalid string literal"))
    }

    fn escape(&mut self, bytes: bool, out: &mut Vec<u8>) -> Result<(), CompileError> {
        let at = self.at;
        let rest = &self.rest()[1..];
        let Some(c) = rest.chars().next() else { return self.error(at, "unterminated escape") };
        let simple = match c {
            'a' => Some('\u{7}'),
            'b' => Some('\u{8}'),
            'f' => Some('\u{c}'),
            'n' => Some('\n'),
            'r' => Some('\r'),
            't' => Some('\t'),
            'v' => Some('\u{b}'),
            '\\' | '\'' | '"' | '`' | '?' => Some(c),
            _ => None,
        };
        if let Some(c) = simple {
            self.at += 1 + c.len_utf8().max(1);
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            return Ok(());
        }
        let (skip, length, radix) = match c {
            'x' | 'X' => (1, 2, 16),
            'u' => (1, 4, 16),
            'U' => (1, 8, 16),
            '0'..='3' => (0, 3, 8),
            _ => return self.error(at, "unable to unescape string"),
        };
        let value = rest.get(skip..skip + length).and_then(|digits| u32::from_str_radix(digits, radix).ok());
        let Some(value) = value else { return self.error(at, "unable to unescape string") };
        self.at += 1 + skip + length;
        match (bytes && matches!(c, 'x' | 'X' | '0'..='3'), u8::try_from(value), char::from_u32(value)) {
            (true, Ok(byte), _) => out.push(byte),
            (_, _, Some(c)) => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            _ => return self.error(at, "unable to unescape string"),
        }
        Ok(())
    }
}
