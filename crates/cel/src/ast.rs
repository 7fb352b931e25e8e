//! Expressions.

use crate::value::Val;

/// An expression and where it begins in its source.
#[derive(Debug)]
pub(crate) struct Expr {
    pub(crate) at: usize,
    pub(crate) kind: Kind,
}

#[derive(Debug)]
pub(crate) enum Kind {
    Literal(Val<'static>),
    Ident(String),
    /// `a.b`, `a.?b`, `has(a.b)`.
    Select {
        operand: Box<Expr>,
        field: String,
        mode: Select,
    },
    /// `f(x)`, `a.f(x)`, operators by their names (`_+_`).
    Call {
        name: String,
        target: Option<Box<Expr>>,
        args: Vec<Expr>,
    },
    /// Items, each perhaps optional.
    List(Vec<(bool, Expr)>),
    Map(Vec<(bool, Expr, Expr)>),
    /// `Name{field: value}`.
    Struct {
        name: String,
        fields: Vec<(String, Expr)>,
    },
    Loop(Box<Loop>),
    /// `cel.bind(x, value, body)`.
    Bind {
        name: String,
        value: Box<Expr>,
        body: Box<Expr>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Select {
    Field,
    Optional,
    Test,
}

/// A macro over the elements of a list or the entries of a map.
#[derive(Debug)]
pub(crate) struct Loop {
    pub(crate) kind: LoopKind,
    pub(crate) range: Expr,
    /// One or two names.
    pub(crate) variables: Vec<String>,
    pub(crate) filter: Option<Expr>,
    pub(crate) body: Expr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LoopKind {
    All,
    Exists,
    ExistsOne,
    Map,
    Filter,
    TransformList,
    TransformMap,
    TransformMapEntry,
    OptMap,
    OptFlatMap,
    SortBy,
}

impl Expr {
    pub(crate) fn new(at: usize, kind: Kind) -> Self {
        Self { at, kind }
    }

    /// Names that the expression reads, macro variables among them.
    pub(crate) fn identifiers(&self, into: &mut Vec<String>) {
        match &self.kind {
            Kind::Literal(_) => {}
            Kind::Ident(name) => into.push(name.clone()),
            Kind::Select { operand, .. } => operand.identifiers(into),
            Kind::Call { target, args, .. } => {
                target.iter().for_each(|t| t.identifiers(into));
                args.iter().for_each(|a| a.identifiers(into));
            }
            Kind::List(items) => items.iter().for_each(|(_, item)| item.identifiers(into)),
            Kind::Map(entries) => entries.iter().for_each(|(_, key, value)| {
                key.identifiers(into);
                value.identifiers(into);
            }),
            Kind::Struct { fields, .. } => fields.iter().for_each(|(_, value)| value.identifiers(into)),
            Kind::Loop(one) => {
                one.range.identifiers(into);
                one.filter.iter().for_each(|f| f.identifiers(into));
                one.body.identifiers(into);
            }
            Kind::Bind { value, body, .. } => {
                value.identifiers(into);
                body.identifiers(into);
            }
        }
    }
}
