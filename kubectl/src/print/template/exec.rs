//! Running templates.

use serde_json::{Value, json};

use super::{GoTemplate, Node, Operand, Pipeline, TemplateError, functions};

/// Templates that call each other at most.
const DEEPEST: usize = 100;

/// How a list of parts ended.
enum Flow {
    On,
    Break,
    Continue,
}

struct Run<'a> {
    template: &'a GoTemplate,
    variables: Vec<(String, Value)>,
    out: String,
    depth: usize,
}

/// A value, or the knowledge that a field is missing.
type Found = Option<Value>;

pub(super) fn run(template: &GoTemplate, data: &Value) -> (String, Result<(), TemplateError>) {
    // Numbers of data are floats; those of templates are what they look like.
    let data = floats(data);
    let variables = vec![("$".to_owned(), data.clone())];
    let mut run = Run { template, variables, out: String::new(), depth: 0 };
    let outcome = run.list(&template.body, &data).map(drop);
    (run.out, outcome)
}

fn floats(value: &Value) -> Value {
    match value {
        Value::Number(number) => number.as_f64().map_or(Value::Null, |n| json!(n)),
        Value::Array(list) => Value::Array(list.iter().map(floats).collect()),
        Value::Object(map) => Value::Object(map.iter().map(|(k, v)| (k.clone(), floats(v))).collect()),
        other => other.clone(),
    }
}

impl Run<'_> {
    fn list(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow, TemplateError> {
        for node in nodes {
            match node {
                Node::Text(text) => self.out.push_str(text),
                Node::Action(pipeline) => {
                    let found = self.pipeline(pipeline, dot)?;
                    if pipeline.variables.is_empty() {
                        let text = match &found {
                            None => "<no value>".to_owned(),
                            Some(Value::Null) => "<no value>".to_owned(),
                            Some(value) => functions::text(value),
                        };
                        self.out.push_str(&text);
                    }
                }
                Node::Break => return Ok(Flow::Break),
                Node::Continue => return Ok(Flow::Continue),
                Node::If(branches, otherwise) => match self.branch(branches, otherwise, dot, false)? {
                    Flow::On => {}
                    other => return Ok(other),
                },
                Node::With(branches, otherwise) => match self.branch(branches, otherwise, dot, true)? {
                    Flow::On => {}
                    other => return Ok(other),
                },
                Node::Range(over, body, otherwise) => self.range(over, body, otherwise, dot)?,
                Node::Template(name, data) => self.call(name, data.as_ref(), dot)?,
            }
        }
        Ok(Flow::On)
    }

    fn branch(
        &mut self,
        branches: &[(Pipeline, Vec<Node>)],
        otherwise: &[Node],
        dot: &Value,
        with: bool,
    ) -> Result<Flow, TemplateError> {
        let mark = self.variables.len();
        for (condition, body) in branches {
            let value = self.pipeline(condition, dot)?.unwrap_or_default();
            if functions::truth(&value) {
                let flow = self.list(body, if with { &value } else { dot });
                self.variables.truncate(mark);
                return flow;
            }
        }
        let flow = self.list(otherwise, dot);
        self.variables.truncate(mark);
        flow
    }

    fn range(&mut self, over: &Pipeline, body: &[Node], otherwise: &[Node], dot: &Value) -> Result<(), TemplateError> {
        let mark = self.variables.len();
        let plain = Pipeline { variables: Vec::new(), ..over.clone() };
        let value = self.pipeline(&plain, dot)?.unwrap_or_default();
        let items: Vec<(Value, Value)> = match value {
            Value::Array(list) => list.into_iter().enumerate().map(|(at, v)| (json!(at), v)).collect(),
            Value::Object(map) => map.into_iter().map(|(k, v)| (json!(k), v)).collect(),
            Value::Null => Vec::new(),
            Value::Number(number) if !number.is_f64() => {
                (0..number.as_i64().unwrap_or(0)).map(|n| (json!(n), json!(n))).collect()
            }
            other => {
                return Err(self.fail(over, &format!("range can't iterate over {}", functions::text(&other))));
            }
        };
        if items.is_empty() {
            self.list(otherwise, dot)?;
        }
        for (key, item) in items {
            match over.variables.as_slice() {
                [one] => self.variables.push((one.clone(), item.clone())),
                [first, second, ..] => {
                    self.variables.push((first.clone(), key));
                    self.variables.push((second.clone(), item.clone()));
                }
                [] => {}
            }
            let flow = self.list(body, &item)?;
            self.variables.truncate(mark);
            if matches!(flow, Flow::Break) {
                break;
            }
        }
        Ok(())
    }

    fn call(&mut self, name: &str, data: Option<&Pipeline>, dot: &Value) -> Result<(), TemplateError> {
        let value = match data {
            Some(data) => self.pipeline(data, dot)?.unwrap_or_default(),
            None => Value::Null,
        };
        let Some(body) = self.template.defined.get(name) else {
            return Err(TemplateError(format!("template: output: template {name:?} not defined")));
        };
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(TemplateError(format!("template: output: exceeded maximum template depth ({DEEPEST})")));
        }
        let outer = std::mem::replace(&mut self.variables, vec![("$".to_owned(), value.clone())]);
        let outcome = self.list(body, &value);
        self.variables = outer;
        self.depth -= 1;
        outcome.map(drop)
    }

    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Found, TemplateError> {
        let mut last: Option<Found> = None;
        for command in &pipeline.commands {
            last = Some(self.command(pipeline, command, dot, last)?);
        }
        let found = last.unwrap_or_default();
        for name in &pipeline.variables {
            let value = found.clone().unwrap_or_default();
            match self.variables.iter_mut().rev().find(|(n, _)| n == name) {
                Some((_, held)) if !pipeline.declares => *held = value,
                _ => self.variables.push((name.clone(), value)),
            }
        }
        Ok(found)
    }

    fn command(
        &mut self,
        pipeline: &Pipeline,
        command: &[Operand],
        dot: &Value,
        last: Option<Found>,
    ) -> Result<Found, TemplateError> {
        let Some((first, rest)) = command.split_first() else { return Ok(None) };
        let Operand::Function(name) = first else {
            if !rest.is_empty() || last.is_some() {
                let text = format!("can't give argument to non-function {}", first.source());
                return Err(self.fail_at(pipeline, first, &text));
            }
            return self.operand(pipeline, first, dot);
        };
        let mut arguments = Vec::new();
        for operand in rest {
            let value = self.operand(pipeline, operand, dot)?.unwrap_or_default();
            // What decides ends the evaluation.
            let decided = (name == "and" && !functions::truth(&value)) || (name == "or" && functions::truth(&value));
            arguments.push(value);
            if decided {
                return Ok(arguments.pop());
            }
        }
        arguments.extend(last.map(Option::unwrap_or_default));
        functions::call(name, &arguments).map(Some).map_err(|e| self.fail_at(pipeline, first, &e))
    }

    fn operand(&mut self, pipeline: &Pipeline, operand: &Operand, dot: &Value) -> Result<Found, TemplateError> {
        match operand {
            Operand::Literal(value) => Ok(Some(value.clone())),
            Operand::Nil => Err(self.fail_at(pipeline, operand, "nil is not a command")),
            Operand::Function(name) => {
                functions::call(name, &[]).map(Some).map_err(|e| self.fail_at(pipeline, operand, &e))
            }
            Operand::Field(names) => self.fields(pipeline, operand, dot.clone(), names),
            Operand::Variable(name, names) => {
                let held = self.variables.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.clone());
                let value = held.ok_or_else(|| TemplateError(format!("undefined variable: {name}")))?;
                self.fields(pipeline, operand, value, names)
            }
            Operand::Nested(inner, names) => {
                let value = self.pipeline(inner, dot)?.unwrap_or_default();
                self.fields(pipeline, operand, value, names)
            }
        }
    }

    fn fields(
        &self,
        pipeline: &Pipeline,
        operand: &Operand,
        start: Value,
        names: &[String],
    ) -> Result<Found, TemplateError> {
        let mut current = Some(start);
        for name in names {
            let next = match &current {
                Some(Value::Object(map)) => match map.get(name) {
                    None if !self.template.allow_missing => {
                        return Err(self.fail_at(pipeline, operand, &format!("map has no entry for key {name:?}")));
                    }
                    found => found.cloned(),
                },
                // What is missing has no fields either.
                None | Some(Value::Null) => None,
                Some(other) => {
                    let kind = match other {
                        Value::String(_) => "string",
                        Value::Bool(_) => "bool",
                        Value::Array(_) => "[]interface {}",
                        Value::Number(number) if !number.is_f64() => "int",
                        _ => "float64",
                    };
                    return Err(self.fail_at(
                        pipeline,
                        operand,
                        &format!("can't evaluate field {name} in type {kind}"),
                    ));
                }
            };
            current = next;
        }
        Ok(current)
    }

    fn fail(&self, pipeline: &Pipeline, text: &str) -> TemplateError {
        match pipeline.commands.first().and_then(|c| c.first()) {
            Some(operand) => self.fail_at(pipeline, operand, text),
            None => TemplateError(text.to_owned()),
        }
    }

    fn fail_at(&self, pipeline: &Pipeline, operand: &Operand, text: &str) -> TemplateError {
        TemplateError(format!(
            "template: output:{}:{}: executing \"output\" at <{}>: {text}",
            pipeline.line,
            pipeline.column,
            operand.source()
        ))
    }
}
