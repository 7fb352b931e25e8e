//! What an expression may cost, estimated before there is data: the least and the most, given how large data may be.

mod calls;

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    Program,
    ast::{Expr, Kind, Loop, LoopKind, Select},
    functions,
    value::Val,
};

/// How large values may be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Size {
    /// Not known.
    #[default]
    Unknown,
    /// Of one size.
    Fixed,
    /// So many characters or bytes at most.
    Text(u64),
    /// So many items at most, each so large.
    List(u64, Arc<Self>),
    /// So many entries at most, whose values are so large.
    Map(u64, Arc<Self>),
    /// Fields, by the names that expressions use.
    Object(Arc<BTreeMap<String, Self>>),
}

/// The least and the most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// The least.
    pub min: u64,
    /// The most.
    pub max: u64,
}

/// What one character costs, and one character of a regular expression.
const TEXT: f64 = 0.1;
const REGEX: f64 = 0.25;

impl Range {
    pub(crate) const ONE: Self = Self { min: 1, max: 1 };
    const ANY: Self = Self { min: 0, max: u64::MAX };

    pub(crate) fn exactly(value: u64) -> Self {
        Self { min: value, max: value }
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self { min: self.min.saturating_add(other.min), max: self.max.saturating_add(other.max) }
    }

    pub(crate) fn times(self, other: Self) -> Self {
        Self { min: self.min.saturating_mul(other.min), max: self.max.saturating_mul(other.max) }
    }

    /// A part of it, rounded up.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub(crate) fn part(self, factor: f64) -> Self {
        // Casts of numbers that are too large end at the largest.
        let of = |value: u64| (value as f64 * factor).ceil() as u64;
        Self { min: of(self.min), max: of(self.max) }
    }

    pub(crate) fn or(self, other: Self) -> Self {
        Self { min: self.min.min(other.min), max: self.max.max(other.max) }
    }
}

/// What is known of the value of an expression, and what it costs to get.
#[derive(Clone, Debug, Default)]
pub(crate) struct Node {
    pub(crate) cost: Range,
    /// How long it is; `None`: as its `shape` says.
    pub(crate) length: Option<Range>,
    pub(crate) shape: Size,
}

impl Node {
    /// A number, truth value or time that an expression made.
    fn scalar(cost: Range) -> Self {
        Self { cost, length: Some(Range::ONE), shape: Size::Fixed }
    }

    fn unknown(cost: Range) -> Self {
        Self { cost, length: None, shape: Size::Unknown }
    }

    fn text(cost: Range, length: Range) -> Self {
        Self { cost, length: Some(length), shape: Size::Text(length.max) }
    }

    pub(crate) fn length(&self) -> Range {
        self.length.unwrap_or(match &self.shape {
            Size::Unknown => Range::ANY,
            Size::Fixed | Size::Object(_) => Range::default(),
            Size::Text(max) | Size::List(max, _) | Size::Map(max, _) => Range { min: 0, max: *max },
        })
    }

    fn is_scalar(&self) -> bool {
        self.shape == Size::Fixed
    }

    /// What `[...]` or a macro finds in it: items of lists, values of maps.
    fn inner(&self) -> Size {
        match &self.shape {
            Size::List(_, inner) | Size::Map(_, inner) => (**inner).clone(),
            _ => Size::Unknown,
        }
    }
}

impl Program {
    /// What the program may cost over variables of these sizes.
    pub fn estimate(&self, variables: &[(&str, &Size)]) -> Range {
        let scope = variables
            .iter()
            .map(|(name, size)| ((*name).to_owned(), Node { shape: (*size).clone(), ..Node::default() }))
            .collect();
        Estimate { scope }.of(&self.root).cost
    }
}

struct Estimate {
    scope: Vec<(String, Node)>,
}

impl Estimate {
    fn lookup(&self, name: &str) -> Option<&Node> {
        self.scope.iter().rev().find(|(own, _)| own == name).map(|(_, node)| node)
    }

    fn of(&mut self, expr: &Expr) -> Node {
        match &expr.kind {
            Kind::Literal(value) => literal(value),
            Kind::Ident(name) => {
                let known = self.lookup(name).cloned().unwrap_or_default();
                Node { cost: Range::ONE, ..known }
            }
            Kind::Select { operand, field, mode } => {
                let operand = self.of(operand);
                let shape = match &operand.shape {
                    Size::Object(fields) => fields.get(field).cloned().unwrap_or_default(),
                    Size::Map(_, values) => (**values).clone(),
                    _ => Size::Unknown,
                };
                match mode {
                    Select::Test => Node::scalar(operand.cost),
                    _ => Node { cost: operand.cost.plus(Range::ONE), length: None, shape },
                }
            }
            Kind::Call { name, target, args } => self.call(name, target.as_deref(), args),
            Kind::List(items) => {
                let items: Vec<Node> = items.iter().map(|(_, item)| self.of(item)).collect();
                let cost = items.iter().fold(Range::exactly(10), |sum, item| sum.plus(item.cost));
                let longest = items.iter().map(Node::length).reduce(Range::or).map(|length| length.max);
                let inner = match items.first() {
                    Some(first) if first.is_scalar() => Size::Fixed,
                    Some(Node { shape: Size::Text(_), .. }) => Size::Text(longest.unwrap_or(0)),
                    Some(first) => first.shape.clone(),
                    None => Size::Unknown,
                };
                let count = items.len() as u64;
                Node { cost, length: Some(Range::exactly(count)), shape: Size::List(count, inner.into()) }
            }
            Kind::Map(entries) => {
                let mut cost = Range::exactly(30);
                let mut inner = Size::Unknown;
                for (_, key, value) in entries {
                    let (key, value) = (self.of(key), self.of(value));
                    cost = cost.plus(key.cost).plus(value.cost);
                    inner = value.shape;
                }
                let count = entries.len() as u64;
                Node { cost, length: Some(Range::exactly(count)), shape: Size::Map(count, inner.into()) }
            }
            Kind::Struct { fields, .. } => {
                let cost = fields.iter().fold(Range::exactly(40), |sum, (_, _, value)| sum.plus(self.of(value).cost));
                Node::unknown(cost)
            }
            Kind::Loop(one) => self.repeat(one),
            Kind::Bind { name, value, body } => {
                let value = self.of(value);
                let cost = value.cost;
                self.scope.push((name.clone(), value));
                let body = self.of(body);
                self.scope.pop();
                Node { cost: cost.plus(body.cost), ..body }
            }
        }
    }

    fn call(&mut self, name: &str, target: Option<&Expr>, args: &[Expr]) -> Node {
        let mut nodes = Vec::with_capacity(args.len() + 1);
        let (full, target) = functions::called(name, target, |space| self.lookup(space).is_some());
        if let Some(target) = target {
            nodes.push(self.of(target));
        }
        for arg in args {
            nodes.push(self.of(arg));
        }
        calls::estimate(&full, &nodes)
    }

    /// Macros are priced as the loops that they stand for.
    fn repeat(&mut self, one: &Loop) -> Node {
        let range = self.of(&one.range);
        let of_map = matches!(range.shape, Size::Map(..) | Size::Object(_));
        let key = Node { shape: Size::Fixed, ..Node::default() };
        let item = Node { shape: range.inner(), ..Node::default() };
        let variables = match (one.variables.len(), of_map) {
            (1, true) => vec![key],
            (1, false) => vec![item.clone()],
            _ => vec![key, item.clone()],
        };
        let depth = self.scope.len();
        self.scope.extend(one.variables.iter().cloned().zip(variables));
        let element = self.scope.get(depth).map(|(_, node)| node.shape.clone()).unwrap_or_default();
        let filter = one.filter.as_ref().map(|filter| self.of(filter).cost);
        let body = self.of(&one.body);
        self.scope.truncate(depth);
        let accumulated = Range::ONE;
        let step = match one.kind {
            LoopKind::All => Range { min: 3, max: 3 + body.cost.max.min(u64::MAX - 3) },
            LoopKind::Exists => Range { min: 4, max: 4 + body.cost.max.min(u64::MAX - 4) },
            LoopKind::ExistsOne => body.cost.plus(Range { min: 1, max: 2 }),
            LoopKind::Filter => body.cost.plus(Range { min: 1, max: 13 }),
            LoopKind::Map | LoopKind::TransformList | LoopKind::SortBy => {
                let made = body.cost.plus(Range::exactly(12));
                filter.map_or(made, |filter| filter.plus(made.or(accumulated)))
            }
            LoopKind::TransformMap | LoopKind::TransformMapEntry => {
                let made = body.cost.plus(Range::exactly(32));
                filter.map_or(made, |filter| filter.plus(made.or(accumulated)))
            }
            LoopKind::OptMap | LoopKind::OptFlatMap => {
                return Node { cost: range.cost.plus(body.cost).plus(Range::exactly(2)), ..body };
            }
        };
        let rounds = range.length();
        let around = match one.kind {
            LoopKind::Map | LoopKind::Filter | LoopKind::TransformList | LoopKind::SortBy => Range::exactly(11),
            LoopKind::TransformMap | LoopKind::TransformMapEntry => Range::exactly(31),
            LoopKind::ExistsOne => Range::exactly(2),
            _ => Range::ONE,
        };
        let cost = range.cost.plus(around).plus(rounds.times(step));
        let some = Range { min: 0, max: rounds.max };
        match one.kind {
            LoopKind::All | LoopKind::Exists | LoopKind::ExistsOne => Node::scalar(cost),
            LoopKind::Filter | LoopKind::SortBy => {
                Node { cost, length: Some(some), shape: Size::List(rounds.max, element.into()) }
            }
            LoopKind::Map | LoopKind::TransformList => {
                let inner = if body.is_scalar() { Size::Fixed } else { body.shape };
                Node { cost, length: Some(some), shape: Size::List(rounds.max, inner.into()) }
            }
            _ => Node { cost, length: Some(some), shape: Size::Map(rounds.max, body.shape.into()) },
        }
    }
}

fn literal(value: &Val<'_>) -> Node {
    match (value.size(), value) {
        (Some(length), Val::String(_) | Val::Text(_) | Val::Bytes(_)) => {
            Node::text(Range::default(), Range::exactly(length as u64))
        }
        _ => Node::scalar(Range::default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Type;

    fn estimate(source: &str) -> Range {
        let own = Type::object([
            ("n".to_owned(), Type::Int),
            ("text".to_owned(), Type::String),
            ("list".to_owned(), Type::list(Type::String)),
            ("map".to_owned(), Type::map(Type::Int)),
        ]);
        let sizes = [
            ("n", Size::Fixed),
            ("text", Size::Text(100)),
            ("list", Size::List(10, Size::Text(20).into())),
            ("map", Size::Map(5, Size::Fixed.into())),
        ];
        let fields: BTreeMap<String, Size> = sizes.into_iter().map(|(name, size)| (name.to_owned(), size)).collect();
        let program = Program::compile(source, &[("self", &own)]).unwrap_or_else(|error| panic!("{error}"));
        program.estimate(&[("self", &Size::Object(Arc::new(fields)))])
    }

    #[test]
    fn costs_follow_the_sizes_of_data() {
        for (source, min, max) in [
            ("true", 0, 0),
            ("self.n > 1", 3, 3),
            ("self.n > 1 && self.n < 5", 3, 6),
            ("self.text == 'abc'", 3, 3),
            ("self.text.startsWith('abc')", 3, 3),
            ("self.text.contains('0123456789')", 2, 12),
            ("self.text.matches('0123456789ab')", 5, 35),
            ("self.text + self.text == 'x'", 5, 25),
            ("'x' in self.list", 2, 12),
            ("self.list.all(i, i == 'abc')", 3, 3 + 10 * (3 + 2)),
            ("self.list.exists(i, i == 'abc')", 3, 3 + 10 * (4 + 2)),
            ("self.list.map(i, i).size() > 1", 15, 15 + 10 * 13),
            ("self.list.all(i, self.list.all(j, i != j))", 3, 3 + 10 * (3 + 3 + 10 * (3 + 4))),
            ("self.map.all(k, self.map[k] > 1)", 3, 3 + 5 * (3 + 2 + 1 + 1 + 1)),
            ("self.n > 1 ? self.text : 'x'", 3, 5),
            ("has(self.n)", 1, 1),
        ] {
            assert_eq!(estimate(source), Range { min, max }, "{source}");
        }
        assert_eq!(estimate("dyn(self).a.b.all(x, x > 1)").max, u64::MAX);
    }
}
