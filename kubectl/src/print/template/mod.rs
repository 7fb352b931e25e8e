//! Go templates: `-o go-template`.

mod exec;
mod functions;
mod lexer;
mod parse;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use serde_json::Value;

/// Why a template cannot be parsed or executed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TemplateError(String);

/// A parsed template.
#[derive(Debug)]
pub struct GoTemplate {
    text: String,
    body: Vec<Node>,
    defined: Defined,
    allow_missing: bool,
}

/// Templates by name.
type Defined = HashMap<String, Vec<Node>>;
/// Conditions with what they guard.
type Branches = Vec<(Pipeline, Vec<Node>)>;

/// A part of a template.
#[derive(Clone, Debug)]
enum Node {
    Text(String),
    Action(Pipeline),
    If(Branches, Vec<Node>),
    With(Branches, Vec<Node>),
    Range(Pipeline, Vec<Node>, Vec<Node>),
    Template(String, Option<Pipeline>),
    Break,
    Continue,
}

/// Commands whose results become last arguments of the next; variables that get the result.
#[derive(Clone, Debug, Default)]
struct Pipeline {
    variables: Vec<String>,
    declares: bool,
    commands: Vec<Vec<Operand>>,
    /// Where it begins, for failures.
    line: usize,
    column: usize,
}

#[derive(Clone, Debug)]
enum Operand {
    /// `.a.b`; `.` alone has no fields.
    Field(Vec<String>),
    /// `$x.a`.
    Variable(String, Vec<String>),
    /// `(pipeline).a`.
    Nested(Box<Pipeline>, Vec<String>),
    Function(String),
    Literal(Value),
    Nil,
}

impl Operand {
    /// The text of the source, for failures.
    fn source(&self) -> String {
        let fields = |f: &[String]| f.iter().map(|n| format!(".{n}")).collect::<String>();
        match self {
            Self::Field(names) if names.is_empty() => ".".to_owned(),
            Self::Field(names) => fields(names),
            Self::Variable(name, names) => format!("{name}{}", fields(names)),
            Self::Nested(_, names) => format!("(...){}", fields(names)),
            Self::Function(name) => name.clone(),
            Self::Literal(value) => value.to_string(),
            Self::Nil => "nil".to_owned(),
        }
    }
}

impl GoTemplate {
    /// Parses a template; with `allow_missing`, missing fields print `<no value>`.
    pub fn parse(text: &str, allow_missing: bool) -> Result<Self, TemplateError> {
        let (body, defined) = parse::template(text)?;
        Ok(Self { text: text.to_owned(), body, defined, allow_missing })
    }

    /// The template as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What the template prints; what was printed before a failure is kept.
    pub fn execute(&self, data: &Value) -> (String, Result<(), TemplateError>) {
        exec::run(self, data)
    }
}
