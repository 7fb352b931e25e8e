//! The Common Expression Language with the libraries of Kubernetes.
//!
//! [`Program::compile`] parses an expression and checks it against the declared variables; [`Program::run`] evaluates
//! it within a [`Budget`]. Data is JSON, seen through a [`Type`]: nothing is copied until an expression makes something
//! new of it.

mod ast;
mod check;
mod cost;
mod eval;
mod functions;
mod lexer;
mod parser;
#[cfg(test)]
mod tests;
mod types;
mod value;

use std::fmt;

pub use self::{
    cost::{Range, Size},
    eval::{Activation, Budget, EvalError},
    functions::authorization::{Authorizer, Check, Decision},
    types::{Field, Type, escape},
    value::Val,
};

use self::ast::Expr;

/// Why an expression cannot be compiled, as the language's own tools would say it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompileError {
    issues: Vec<Issue>,
}

/// One thing that is wrong with an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// What is wrong.
    pub message: String,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// The line's text.
    source: String,
}

impl Issue {
    fn at(source: &str, offset: usize, message: String) -> Self {
        let offset = offset.min(source.len());
        let before = source.get(..offset).unwrap_or(source);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        let text = source.lines().nth(line - 1).unwrap_or("").replace('\t', " ");
        Self { message, line, column, source: text }
    }
}

impl CompileError {
    fn at(source: &str, offset: usize, message: String) -> Self {
        Self { issues: vec![Issue::at(source, offset, message)] }
    }

    fn of(mut issues: Vec<Issue>) -> Self {
        issues.sort_by_key(|issue| (issue.line, issue.column));
        Self { issues }
    }

    /// What is wrong, in the order of the source; at least one thing.
    pub fn issues(&self) -> &[Issue] {
        &self.issues
    }
}

impl fmt::Display for Issue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dots = ".".repeat(self.column.saturating_sub(1));
        write!(f, "ERROR: <input>:{}:{}: {}\n | {}\n | {dots}^", self.line, self.column, self.message, self.source)
    }
}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, issue) in self.issues.iter().enumerate() {
            let separator = if at == 0 { "" } else { "\n" };
            write!(f, "{separator}{issue}")?;
        }
        Ok(())
    }
}

/// Which structures expressions may make.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Structs {
    /// None.
    #[default]
    None,
    /// Those that describe changes: `Object{...}`, `Object.spec{...}` and `JSONPatch{...}`.
    Mutation,
}

/// A compiled expression.
#[derive(Debug)]
pub struct Program {
    root: Expr,
    result: Type,
    identifiers: Vec<String>,
}

impl Program {
    /// Parses and checks an expression over the given variables.
    pub fn compile(source: &str, variables: &[(&str, &Type)]) -> Result<Self, CompileError> {
        Self::compile_with(source, variables, Structs::None)
    }

    /// Parses and checks an expression that may make structures.
    pub fn compile_with(source: &str, variables: &[(&str, &Type)], structs: Structs) -> Result<Self, CompileError> {
        let root = parser::parse(source)?;
        let result = check::check(&root, source, variables, structs)?;
        let mut identifiers = Vec::new();
        root.identifiers(&mut identifiers);
        Ok(Self { root, result, identifiers })
    }

    /// The type of its values, as far as it is known.
    pub fn result(&self) -> &Type {
        &self.result
    }

    /// Whether it reads a variable.
    pub fn uses(&self, variable: &str) -> bool {
        self.identifiers.iter().any(|name| name == variable)
    }

    /// Evaluates the expression.
    pub fn run<'a>(&'a self, variables: &[(&'a str, Val<'a>)], budget: &mut Budget) -> Result<Val<'a>, EvalError> {
        self.run_in(&mut Activation::new(variables.to_vec()), budget)
    }

    /// Evaluates the expression among others that share variables.
    pub fn run_in<'a>(&'a self, activation: &mut Activation<'a>, budget: &mut Budget) -> Result<Val<'a>, EvalError> {
        eval::run(&self.root, activation, budget)
    }
}
