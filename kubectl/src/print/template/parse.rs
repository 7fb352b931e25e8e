//! From text to parts.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::{
    Branches, Defined, Node, Operand, Pipeline, TemplateError, functions,
    lexer::{Token, tokens},
};

/// Actions inside each other at most.
const DEEPEST: usize = 200;

/// Text or an action, with the line and column where it begins.
struct Piece {
    action: bool,
    text: String,
    line: usize,
    column: usize,
}

fn fail(line: usize, text: impl std::fmt::Display) -> TemplateError {
    TemplateError(format!("template: output:{line}: {text}"))
}

/// Splits a template into texts and actions; blanks next to `{{-` and `-}}` are dropped.
fn pieces(text: &str) -> Result<Vec<Piece>, TemplateError> {
    let mut found: Vec<Piece> = Vec::new();
    let (mut rest, mut offset, mut trim) = (text, 0, false);
    let place = |offset: usize| {
        let before = &text[..offset];
        (before.matches('\n').count() + 1, offset - before.rfind('\n').map_or(0, |at| at + 1))
    };
    loop {
        let start = rest.find("{{");
        let literal = &rest[..start.unwrap_or(rest.len())];
        let after = start.map(|at| &rest[at + 2..]);
        let left = after.is_some_and(|a| a.starts_with("- ") || a.starts_with("-\n") || a.starts_with("-\t"));
        let mut shown = if trim { literal.trim_start() } else { literal };
        if left {
            shown = shown.trim_end();
        }
        if !shown.is_empty() {
            found.push(Piece { action: false, text: shown.to_owned(), line: 0, column: 0 });
        }
        let (Some(at), Some(after)) = (start, after) else { return Ok(found) };
        let (line, column) = place(offset + at);
        let inner_start = if left { 1 } else { 0 };
        let inner = &after[inner_start..];
        let length = end_of_action(inner).ok_or_else(|| fail(line, "unclosed action"))?;
        let mut body = &inner[..length];
        trim = body.ends_with('-') && body[..body.len() - 1].ends_with(char::is_whitespace);
        if trim {
            body = &body[..body.len() - 1];
        }
        let bare = body.trim();
        if !(bare.starts_with("/*") && bare.ends_with("*/")) {
            found.push(Piece { action: true, text: body.to_owned(), line, column: column + 2 });
        }
        let used = at + 2 + inner_start + length + 2;
        rest = &rest[used..];
        offset += used;
    }
}

/// Where `}}` is, outside of quotes.
fn end_of_action(text: &str) -> Option<usize> {
    if text.trim_start().starts_with("/*") {
        let end = text.find("*/")?;
        return text[end..].find("}}").map(|at| end + at);
    }
    let bytes = text.as_bytes();
    let (mut at, mut quote) = (0, None);
    while at < bytes.len() {
        match (quote, bytes[at]) {
            (None, b'}') if bytes.get(at + 1) == Some(&b'}') => return Some(at),
            (None, b'"' | b'`') => quote = Some(bytes[at]),
            (Some(b'"'), b'\\') => at += 1,
            (Some(q), b) if q == b => quote = None,
            _ => {}
        }
        at += 1;
    }
    None
}

/// Parses a whole template.
pub(super) fn template(text: &str) -> Result<(Vec<Node>, Defined), TemplateError> {
    let pieces = pieces(text)?;
    let mut parser = Parser { pieces, at: 0, defined: HashMap::new(), depth: 0 };
    let (body, end) = parser.list()?;
    if let Some(end) = end {
        return Err(fail(end.line, format!("unexpected {{{{{}}}}}", end.word)));
    }
    Ok((body, parser.defined))
}

struct Parser {
    pieces: Vec<Piece>,
    at: usize,
    defined: Defined,
    depth: usize,
}

/// `end` or `else`, with what follows it.
struct End {
    word: String,
    rest: String,
    line: usize,
    column: usize,
}

impl Parser {
    /// Parts up to `end`, `else` or the end of the text.
    fn list(&mut self) -> Result<(Vec<Node>, Option<End>), TemplateError> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(fail(1, "the template is too deep"));
        }
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.get(self.at) {
            self.at += 1;
            if !piece.action {
                nodes.push(Node::Text(piece.text.clone()));
                continue;
            }
            let (line, column) = (piece.line, piece.column);
            let trimmed = piece.text.trim().to_owned();
            let (word, rest) =
                match trimmed.find(|c: char| c.is_whitespace() || matches!(c, '(' | '"' | '`' | '.' | '$')) {
                    Some(at) => (trimmed[..at].to_owned(), trimmed[at..].to_owned()),
                    None => (trimmed.clone(), String::new()),
                };
            match word.as_str() {
                "end" | "else" => {
                    self.depth -= 1;
                    let end = End { word, rest: rest.trim().to_owned(), line, column };
                    return Ok((nodes, Some(end)));
                }
                "if" => nodes.push(self.branches(&rest, line, column, Node::If)?),
                "with" => nodes.push(self.branches(&rest, line, column, Node::With)?),
                "range" => nodes.push(self.range(&rest, line, column)?),
                "break" => nodes.push(Node::Break),
                "continue" => nodes.push(Node::Continue),
                "define" | "block" => {
                    let found = tokens(&rest, line)?;
                    let mut words = found.iter().filter(|t| **t != Token::Space);
                    let Some(Token::Text(name)) = words.next() else {
                        return Err(fail(line, format!("unexpected operand in {word} clause")));
                    };
                    let name = name.clone();
                    let (body, _) = self.closed(line)?;
                    self.defined.insert(name.clone(), body);
                    if word == "block" {
                        let at = found.iter().position(|t| matches!(t, Token::Text(_))).map_or(0, |p| p + 1);
                        nodes.push(Node::Template(name, Some(pipeline(&found[at..], line, column)?)));
                    }
                }
                "template" => {
                    let found = tokens(&rest, line)?;
                    let at = found.iter().position(|t| *t != Token::Space).unwrap_or(0);
                    let Some(Token::Text(name)) = found.get(at) else {
                        return Err(fail(line, "unexpected operand in template clause"));
                    };
                    let data = &found[at + 1..];
                    let empty = data.iter().all(|t| *t == Token::Space);
                    let data = if empty { None } else { Some(pipeline(data, line, column)?) };
                    nodes.push(Node::Template(name.clone(), data));
                }
                _ => {
                    let found = tokens(&trimmed, line)?;
                    if found.is_empty() {
                        return Err(fail(line, "missing value for command"));
                    }
                    nodes.push(Node::Action(pipeline(&found, line, column)?));
                }
            }
        }
        self.depth -= 1;
        Ok((nodes, None))
    }

    /// Parts that have to be ended; answers what ends them.
    fn closed(&mut self, line: usize) -> Result<(Vec<Node>, End), TemplateError> {
        let (nodes, end) = self.list()?;
        match end {
            Some(end) => Ok((nodes, end)),
            None => Err(fail(line, "unexpected EOF")),
        }
    }

    fn branches(
        &mut self,
        condition: &str,
        line: usize,
        column: usize,
        make: fn(Branches, Vec<Node>) -> Node,
    ) -> Result<Node, TemplateError> {
        let mut branches = Vec::new();
        let mut next = pipeline(&tokens(condition, line)?, line, column)?;
        loop {
            let (body, end) = self.closed(line)?;
            branches.push((next, body));
            if end.word == "end" {
                return Ok(make(branches, Vec::new()));
            }
            let chained = end.rest.strip_prefix("if").or_else(|| end.rest.strip_prefix("with"));
            match chained {
                Some(condition) => next = pipeline(&tokens(condition, end.line)?, end.line, end.column)?,
                None => {
                    let (otherwise, _) = self.closed(line)?;
                    return Ok(make(branches, otherwise));
                }
            }
        }
    }

    fn range(&mut self, text: &str, line: usize, column: usize) -> Result<Node, TemplateError> {
        let over = pipeline(&tokens(text, line)?, line, column)?;
        let (body, end) = self.closed(line)?;
        let otherwise = if end.word == "else" { self.closed(line)?.0 } else { Vec::new() };
        Ok(Node::Range(over, body, otherwise))
    }
}

fn pipeline(found: &[Token], line: usize, column: usize) -> Result<Pipeline, TemplateError> {
    let mut made = Pipeline { line, column, ..Pipeline::default() };
    let sign = found.iter().position(|t| matches!(t, Token::Declare | Token::Assign));
    let mut rest = found;
    if let Some(at) = sign {
        for token in &found[..at] {
            match token {
                Token::Variable(name) => made.variables.push(name.clone()),
                Token::Space | Token::Comma => {}
                _ => return Err(fail(line, "unexpected operand before an assignment")),
            }
        }
        made.declares = found[at] == Token::Declare;
        rest = &found[at + 1..];
    }
    let mut at = 0;
    made.commands = commands(rest, &mut at, line, column, 0)?;
    if at < rest.len() {
        return Err(fail(line, "unexpected right paren"));
    }
    Ok(made)
}

fn commands(
    found: &[Token],
    at: &mut usize,
    line: usize,
    column: usize,
    depth: usize,
) -> Result<Vec<Vec<Operand>>, TemplateError> {
    if depth > DEEPEST {
        return Err(fail(line, "the template is too deep"));
    }
    let mut all: Vec<Vec<Operand>> = vec![Vec::new()];
    let mut joined = false;
    while let Some(token) = found.get(*at) {
        *at += 1;
        let current = all.last_mut().map_or_else(|| unreachable_list(line), Ok)?;
        match token {
            Token::Space => {
                joined = false;
                continue;
            }
            Token::Pipe => {
                if current.is_empty() {
                    return Err(fail(line, "missing value for command"));
                }
                all.push(Vec::new());
                joined = false;
                continue;
            }
            Token::Close => {
                *at -= 1;
                break;
            }
            Token::Open => {
                let inner = commands(found, at, line, column, depth + 1)?;
                if found.get(*at) != Some(&Token::Close) {
                    return Err(fail(line, "unclosed left paren"));
                }
                *at += 1;
                let nested = Pipeline { commands: inner, line, column, ..Pipeline::default() };
                current.push(Operand::Nested(Box::new(nested), Vec::new()));
            }
            Token::Field(name) if joined && !name.is_empty() => match current.last_mut() {
                Some(Operand::Field(names) | Operand::Variable(_, names) | Operand::Nested(_, names)) => {
                    names.push(name.clone());
                }
                _ => return Err(fail(line, format!("unexpected . after term {name:?}"))),
            },
            Token::Field(name) if name.is_empty() => current.push(Operand::Field(Vec::new())),
            Token::Field(name) => current.push(Operand::Field(vec![name.clone()])),
            Token::Variable(name) => current.push(Operand::Variable(name.clone(), Vec::new())),
            Token::Text(text) => current.push(Operand::Literal(json!(text))),
            Token::Character(c) => current.push(Operand::Literal(json!(u32::from(*c)))),
            Token::Number(text) => current.push(Operand::Literal(literal(text, line)?)),
            Token::Word(word) => current.push(match word.as_str() {
                "true" => Operand::Literal(Value::Bool(true)),
                "false" => Operand::Literal(Value::Bool(false)),
                "nil" => Operand::Nil,
                name if functions::is_known(name) => Operand::Function(name.to_owned()),
                name => return Err(fail(line, format!("function {name:?} not defined"))),
            }),
            Token::Comma | Token::Assign | Token::Declare => return Err(fail(line, "unexpected token in operand")),
        }
        joined = true;
    }
    if all.iter().any(Vec::is_empty) {
        return Err(fail(line, "missing value for command"));
    }
    Ok(all)
}

fn unreachable_list<T>(line: usize) -> Result<T, TemplateError> {
    Err(fail(line, "missing value for command"))
}

fn literal(text: &str, line: usize) -> Result<Value, TemplateError> {
    let bare = text.replace('_', "");
    let unsigned = bare.trim_start_matches(['-', '+']);
    let negative = bare.starts_with('-');
    let hex = unsigned.strip_prefix("0x").and_then(|h| i64::from_str_radix(h, 16).ok());
    let whole = hex.or_else(|| unsigned.parse::<i64>().ok()).map(|n| if negative { -n } else { n });
    match (whole, bare.parse::<f64>()) {
        (Some(number), _) => Ok(json!(number)),
        (None, Ok(number)) => Ok(json!(number)),
        _ => Err(fail(line, format!("bad number syntax: {text:?}"))),
    }
}
