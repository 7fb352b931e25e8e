//! Reading templates.

use serde_json::Value;

use super::{Comparison, Filter, Node, Operand, PathError, Slice, Step};

/// Splits a template into text and actions; ranges nest.
pub(super) fn template(text: &str) -> Result<Vec<Node>, PathError> {
    // One list of nodes per open range, with the path that the range walks.
    let mut open: Vec<(Vec<Step>, Vec<Node>)> = Vec::new();
    let mut nodes = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find('{') {
        if start > 0 {
            nodes.push(Node::Text(rest[..start].to_owned()));
        }
        let inside = &rest[start + 1..];
        let end = closing(inside).ok_or_else(|| PathError("unclosed action".into()))?;
        let action = inside[..end].trim();
        rest = &inside[end + 1..];
        if let Some(walked) = action.strip_prefix("range ") {
            open.push((path(walked.trim())?, std::mem::take(&mut nodes)));
        } else if action == "end" {
            let (walked, before) = open.pop().ok_or_else(|| PathError("not in range, nothing to end".into()))?;
            let body = std::mem::replace(&mut nodes, before);
            nodes.push(Node::Range(walked, body));
        } else if action.starts_with(['"', '\'']) {
            nodes.push(Node::Text(quoted(action)?));
        } else {
            nodes.push(Node::Path(path(action)?));
        }
    }
    if !open.is_empty() {
        return Err(PathError("unexpected end of range: missing {end}".into()));
    }
    if !rest.is_empty() {
        nodes.push(Node::Text(rest.to_owned()));
    }
    Ok(nodes)
}

/// Where a delimiter stands that no quotes, parentheses or brackets hide.
fn visible(text: &str, wanted: impl Fn(char) -> bool) -> Option<usize> {
    let (mut quote, mut depth, mut escaped) = (None, 0_usize, false);
    for (at, c) in text.char_indices() {
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if let Some(mark) = quote {
            if c == mark {
                quote = None;
            }
        } else if depth == 0 && wanted(c) {
            return Some(at);
        } else {
            match c {
                '"' | '\'' => quote = Some(c),
                '[' | '(' => depth += 1,
                ']' | ')' => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
    }
    None
}

fn closing(text: &str) -> Option<usize> {
    visible(text, |c| c == '}')
}

fn quoted(text: &str) -> Result<String, PathError> {
    let mark = text.chars().next().unwrap_or('"');
    let inner = text.get(1..).and_then(|t| t.strip_suffix(mark));
    let mut chars = inner.ok_or_else(|| PathError("unterminated quoted string".into()))?.chars();
    let mut out = String::new();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some('r') => out.push('\r'),
                Some(other) => out.push(other),
                None => return Err(PathError("invalid syntax".into())),
            },
            other => out.push(other),
        }
    }
    Ok(out)
}

fn path(text: &str) -> Result<Vec<Step>, PathError> {
    let mut rest = text.strip_prefix(['$', '@']).unwrap_or(text);
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("..") {
            steps.push(Step::Recursive);
            rest = key(after, &mut steps);
        } else if let Some(after) = rest.strip_prefix('.') {
            rest = key(after, &mut steps);
        } else if let Some(after) = rest.strip_prefix('[') {
            let end = visible(after, |c| c == ']').ok_or_else(|| PathError("unterminated array".into()))?;
            steps.push(bracket(after[..end].trim())?);
            rest = &after[end + 1..];
        } else if steps.is_empty() && rest.starts_with(char::is_alphanumeric) {
            return Err(PathError(format!("unrecognized identifier {rest}")));
        } else {
            return Err(PathError(format!(
                "unrecognized character in action: {:?}",
                rest.chars().next().unwrap_or(' ')
            )));
        }
    }
    Ok(steps)
}

/// Takes a key (dots escaped by a backslash) or `*` off the front.
fn key<'a>(text: &'a str, steps: &mut Vec<Step>) -> &'a str {
    let end = visible(text, |c| c == '.' || c == '[' || c.is_whitespace()).unwrap_or(text.len());
    match &text[..end] {
        "" => {}
        "*" => steps.push(Step::Wildcard),
        name => steps.push(Step::Keys(vec![vec![name.replace('\\', "")]])),
    }
    &text[end..]
}

fn bracket(text: &str) -> Result<Step, PathError> {
    if text == "*" {
        return Ok(Step::Wildcard);
    }
    if let Some(inner) = text.strip_prefix("?(").and_then(|t| t.strip_suffix(')')) {
        return filter(inner).map(Step::Filter);
    }
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(comma) = visible(rest, |c| c == ',') {
        parts.push(rest[..comma].trim());
        rest = &rest[comma + 1..];
    }
    parts.push(rest.trim());
    let is_number = |part: &&str| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit() || "-:".contains(c));
    if parts.iter().all(is_number) {
        return parts.into_iter().map(slice).collect::<Result<_, _>>().map(Step::Slices);
    }
    let name = |part: &str| {
        let mark = part.chars().next().filter(|c| matches!(c, '"' | '\''));
        let inner = mark.and_then(|m| part.strip_prefix(m)?.strip_suffix(m));
        inner.map(dotted).ok_or_else(|| PathError(format!("invalid array index {part}")))
    };
    parts.into_iter().map(name).collect::<Result<_, _>>().map(Step::Keys)
}

/// The keys of a path; a dot that belongs to a key has a backslash before it.
fn dotted(text: &str) -> Vec<String> {
    let (mut keys, mut key, mut chars) = (Vec::new(), String::new(), text.chars());
    while let Some(c) = chars.next() {
        match c {
            '\\' => key.extend(chars.next()),
            '.' => keys.push(std::mem::take(&mut key)),
            other => key.push(other),
        }
    }
    keys.push(key);
    keys.retain(|k| !k.is_empty());
    keys
}

fn slice(text: &str) -> Result<Slice, PathError> {
    let invalid = || PathError(format!("invalid array index {text}"));
    let fields = text.split(':').map(|f| if f.is_empty() { Ok(None) } else { f.parse().map(Some) });
    let fields: Vec<Option<i64>> = fields.collect::<Result<_, _>>().map_err(|_| invalid())?;
    match fields.as_slice() {
        [Some(index)] => Ok(Slice::At(*index)),
        [from, to] => Ok(Slice::Span { from: *from, to: *to, step: 1 }),
        [from, to, step] => Ok(Slice::Span { from: *from, to: *to, step: step.unwrap_or(1) }),
        _ => Err(invalid()),
    }
}

fn filter(text: &str) -> Result<Filter, PathError> {
    let Some(at) = visible(text, |c| "=!<>".contains(c)) else {
        return Ok(Filter { left: operand(text)?, comparison: None });
    };
    let symbols = [
        ("==", Comparison::Equal),
        ("!=", Comparison::NotEqual),
        ("<=", Comparison::LessOrEqual),
        (">=", Comparison::GreaterOrEqual),
        ("<", Comparison::Less),
        (">", Comparison::Greater),
    ];
    let (left, rest) = text.split_at(at);
    let found = symbols.iter().find_map(|(symbol, op)| Some((*op, rest.strip_prefix(symbol)?)));
    let (op, right) = found.ok_or_else(|| PathError(format!("unrecognized filter operator in {text}")))?;
    Ok(Filter { left: operand(left)?, comparison: Some((op, operand(right)?)) })
}

fn operand(text: &str) -> Result<Operand, PathError> {
    let text = text.trim();
    if text.starts_with(['"', '\'']) {
        return quoted(text).map(|s| Operand::Literal(Value::String(s)));
    }
    match serde_json::from_str(text) {
        Ok(value) => Ok(Operand::Literal(value)),
        Err(_) => path(text).map(Operand::Path),
    }
}
