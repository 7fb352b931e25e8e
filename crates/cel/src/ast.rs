//! Expressions.

use crate::value::Val;

/// An expression and where it begins in its source.
#[derive(Debug)]
pub(crate) struct Expr {
    pub(crate) at: usize,
    pub(crate) kind: Kind,
    /// Expressions within expressions, this one included.
    pub(crate) depth: usize,
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
    /// `Name{field: value}`; values may be optional.
    Struct {
        name: String,
        fields: Vec<(String, bool, Expr)>,
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
        let mut depth = 0;
        kind.parts(&mut |part| depth = depth.max(part.depth));
        Self { at, kind, depth: depth + 1 }
    }

    /// Names that the expression reads, macro variables among them.
    pub(crate) fn identifiers(&self, into: &mut Vec<String>) {
        if let Kind::Ident(name) = &self.kind {
            into.push(name.clone());
        }
        self.kind.parts(&mut |part| part.identifiers(into));
    }
}

impl Kind {
    /// Visits the expressions that this one is made of.
    fn parts(&self, visit: &mut dyn FnMut(&Expr)) {
        match self {
            Self::Literal(_) | Self::Ident(_) => {}
            Self::Select { operand, .. } => visit(operand),
            Self::Call { target, args, .. } => {
                target.iter().for_each(|target| visit(target));
                args.iter().for_each(visit);
            }
            Self::List(items) => items.iter().for_each(|(_, item)| visit(item)),
            Self::Map(entries) => entries.iter().for_each(|(_, key, value)| {
                visit(key);
                visit(value);
            }),
            Self::Struct { fields, .. } => fields.iter().for_each(|(_, _, value)| visit(value)),
            Self::Loop(one) => {
                visit(&one.range);
                one.filter.iter().for_each(&mut *visit);
                visit(&one.body);
            }
            Self::Bind { value, body, .. } => {
                visit(value);
                visit(body);
            }
        }
    }
}
