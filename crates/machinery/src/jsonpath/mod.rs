//! JSONPath templates, in the dialect of `-o jsonpath`.

mod parse;
#[cfg(test)]
mod tests;

use std::{cell::Cell, cmp::Ordering};

use serde_json::Value;

/// Why a template cannot be read or executed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PathError(String);

/// A parsed template.
#[derive(Debug)]
pub struct Template {
    text: String,
    nodes: Vec<Node>,
}

#[derive(Debug)]
enum Node {
    Text(String),
    Path(Vec<Step>),
    Range(Vec<Step>, Vec<Node>),
}

#[derive(Debug)]
enum Step {
    /// Keys, each perhaps a path of several.
    Keys(Vec<Vec<String>>),
    Wildcard,
    Recursive,
    Slices(Vec<Slice>),
    Filter(Filter),
}

#[derive(Debug)]
enum Slice {
    At(i64),
    Span { from: Option<i64>, to: Option<i64>, step: i64 },
}

#[derive(Debug)]
struct Filter {
    left: Operand,
    comparison: Option<(Comparison, Operand)>,
}

#[derive(Debug)]
enum Operand {
    Path(Vec<Step>),
    Literal(Value),
}

#[derive(Clone, Copy, Debug)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Template {
    /// Parses a template: text with `{...}` actions.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        parse::template(text).map(|nodes| Self { text: text.to_owned(), nodes })
    }

    /// Parses the relaxed form of columns and sort keys: braces and the leading dot may be left out.
    pub fn parse_relaxed(text: &str) -> Result<Self, PathError> {
        let inner = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')).unwrap_or(text);
        let dot = if inner.starts_with(['.', '[']) { "" } else { "." };
        Self::parse(&format!("{{{dot}{inner}}}"))
    }

    /// The template as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What the template prints for a value; with `lenient`, missing fields print nothing.
    pub fn print(&self, root: &Value, lenient: bool) -> Result<String, PathError> {
        let mut out = String::new();
        print(&self.nodes, root, lenient, &Work::on(root), &mut out)?;
        Ok(out)
    }

    /// The results of each action.
    pub fn results(&self, root: &Value, lenient: bool) -> Result<Vec<Vec<Value>>, PathError> {
        let mut all = Vec::new();
        collect(&self.nodes, root, lenient, &Work::on(root), &mut all)?;
        Ok(all)
    }

    /// What the first path of the template selects.
    pub fn find<'a>(&self, root: &'a Value) -> Result<Vec<&'a Value>, PathError> {
        match self.nodes.first() {
            Some(Node::Path(steps)) => select(steps, root, &Work::on(root)),
            _ => Ok(Vec::new()),
        }
    }
}

/// A result as it is printed.
pub fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Values that an evaluation may select altogether, whatever the data; and for each value that there is.
const SELECTED: usize = 1 << 20;
const SELECTED_EACH: usize = 16;

/// What an evaluation has done: steps that multiply each other would take all memory.
struct Work<'a> {
    root: &'a Value,
    selected: Cell<usize>,
    most: Cell<usize>,
}

impl<'a> Work<'a> {
    fn on(root: &'a Value) -> Self {
        Self { root, selected: Cell::new(0), most: Cell::new(SELECTED) }
    }

    fn add(&self, selected: usize) -> Result<(), PathError> {
        let all = self.selected.get().saturating_add(selected);
        self.selected.set(all);
        if all > self.most.get() {
            // Counted when it matters, which it seldom does.
            let mut values = Vec::new();
            descend(self.root, &mut values);
            self.most.set(SELECTED.max(values.len().saturating_mul(SELECTED_EACH)));
        }
        if all > self.most.get() { Err(PathError("the path selects too much".into())) } else { Ok(()) }
    }
}

fn print(nodes: &[Node], root: &Value, lenient: bool, work: &Work<'_>, out: &mut String) -> Result<(), PathError> {
    for node in nodes {
        match node {
            Node::Text(literal) => out.push_str(literal),
            Node::Path(steps) => {
                let found: Vec<String> = resolve(steps, root, lenient, work)?.into_iter().map(text).collect();
                out.push_str(&found.join(" "));
            }
            Node::Range(steps, body) => {
                for value in resolve(steps, root, lenient, work)? {
                    print(body, value, lenient, work, out)?;
                }
            }
        }
    }
    Ok(())
}

fn collect(
    nodes: &[Node],
    root: &Value,
    lenient: bool,
    work: &Work<'_>,
    all: &mut Vec<Vec<Value>>,
) -> Result<(), PathError> {
    for node in nodes {
        match node {
            Node::Text(literal) => all.push(vec![Value::String(literal.clone())]),
            Node::Path(steps) => all.push(resolve(steps, root, lenient, work)?.into_iter().cloned().collect()),
            Node::Range(steps, body) => {
                for value in resolve(steps, root, lenient, work)? {
                    collect(body, value, lenient, work, all)?;
                }
            }
        }
    }
    Ok(())
}

/// What a path selects; an error names the field that is missing unless that is allowed.
fn resolve<'a>(steps: &[Step], root: &'a Value, lenient: bool, work: &Work<'_>) -> Result<Vec<&'a Value>, PathError> {
    let mut current = vec![root];
    for step in steps {
        let next = advance(step, &current, work)?;
        if let (Step::Keys(keys), true, false) = (step, next.is_empty(), lenient) {
            let names: Vec<String> = keys.iter().map(|path| path.join(".")).collect();
            return Err(PathError(format!("{} is not found", names.join(" "))));
        }
        current = next;
    }
    Ok(current)
}

fn select<'a>(steps: &[Step], root: &'a Value, work: &Work<'_>) -> Result<Vec<&'a Value>, PathError> {
    let mut current = vec![root];
    for step in steps {
        current = advance(step, &current, work)?;
    }
    Ok(current)
}

fn advance<'a>(step: &Step, current: &[&'a Value], work: &Work<'_>) -> Result<Vec<&'a Value>, PathError> {
    let mut next = Vec::new();
    if let Step::Keys(keys) = step {
        // Of several keys, all results of one come before those of the next.
        for path in keys {
            let deep = |value: &&'a Value| path.iter().try_fold(*value, |v, key| v.as_object()?.get(key));
            next.extend(current.iter().filter_map(deep));
        }
        work.add(next.len())?;
        return Ok(next);
    }
    for value in current {
        let before = next.len();
        apply(step, value, work, &mut next)?;
        work.add(next.len() - before)?;
    }
    Ok(next)
}

fn apply<'a>(step: &Step, value: &'a Value, work: &Work<'_>, next: &mut Vec<&'a Value>) -> Result<(), PathError> {
    match step {
        // See `advance`.
        Step::Keys(_) => {}
        Step::Wildcard => next.extend(children(value)),
        Step::Recursive => descend(value, next),
        Step::Slices(slices) => {
            if let Some(list) = value.as_array() {
                for slice in slices {
                    cut(slice, list, next)?;
                }
            }
        }
        Step::Filter(filter) => {
            let Some(list) = value.as_array() else {
                return Err(PathError(format!("{value} is not array or slice and cannot be filtered")));
            };
            for item in list {
                if filter.admits(item, work)? {
                    next.push(item);
                }
            }
        }
    }
    Ok(())
}

fn children(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(list) => list.iter().collect(),
        Value::Object(map) => map.values().collect(),
        _ => Vec::new(),
    }
}

fn descend<'a>(value: &'a Value, next: &mut Vec<&'a Value>) {
    next.push(value);
    children(value).into_iter().for_each(|child| descend(child, next));
}

fn cut<'a>(slice: &Slice, list: &'a [Value], next: &mut Vec<&'a Value>) -> Result<(), PathError> {
    let length = i64::try_from(list.len()).unwrap_or(i64::MAX);
    let absolute = |index: i64| if index < 0 { index.saturating_add(length) } else { index };
    let item = |index: i64| usize::try_from(index).ok().and_then(|at| list.get(at));
    match slice {
        Slice::At(index) => next.push(item(absolute(*index)).ok_or_else(|| {
            PathError(format!("array index out of bounds: index {}, length {length}", absolute(*index)))
        })?),
        Slice::Span { from, to, step } => {
            let first = absolute(from.unwrap_or(0)).clamp(0, length);
            let end = absolute(to.unwrap_or(length)).clamp(0, length);
            let stride = usize::try_from(*step).ok().filter(|s| *s > 0);
            let stride = stride.ok_or_else(|| PathError("step must be > 0".into()))?;
            next.extend((first..end).step_by(stride).filter_map(item));
        }
    }
    Ok(())
}

impl Filter {
    fn admits(&self, item: &Value, work: &Work<'_>) -> Result<bool, PathError> {
        let left = self.left.values(item, work)?;
        let Some((comparison, right)) = &self.comparison else {
            return Ok(!left.is_empty());
        };
        let right = right.values(item, work)?;
        let (Some(left), Some(right)) = (left.first(), right.first()) else {
            return Ok(false);
        };
        let order = match (left, right) {
            (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
            (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
            _ => left.as_f64().zip(right.as_f64()).and_then(|(a, b)| a.partial_cmp(&b)),
        };
        Ok(match comparison {
            Comparison::Equal => order == Some(Ordering::Equal),
            Comparison::NotEqual => order != Some(Ordering::Equal),
            Comparison::Less => order == Some(Ordering::Less),
            Comparison::LessOrEqual => order.is_some_and(Ordering::is_le),
            Comparison::Greater => order == Some(Ordering::Greater),
            Comparison::GreaterOrEqual => order.is_some_and(Ordering::is_ge),
        })
    }
}

impl Operand {
    fn values<'a>(&'a self, item: &'a Value, work: &Work<'_>) -> Result<Vec<&'a Value>, PathError> {
        match self {
            Self::Path(steps) => select(steps, item, work),
            Self::Literal(value) => Ok(vec![value]),
        }
    }
}
