//! What calls cost.

use super::{Node, REGEX, Range, Size, TEXT};
use crate::{check, functions::authorization};

/// A call of a function; methods are named with a leading dot, their target comes first.
pub(super) fn estimate(name: &str, args: &[Node]) -> Node {
    let given = args.iter().fold(Range::default(), |sum, arg| sum.plus(arg.cost));
    let length = |at: usize| args.get(at).map_or(Range::default(), Node::length);
    let text = |at: usize| length(at).part(TEXT);
    match name {
        "_&&_" | "_||_" => {
            let least = args.first().map_or(0, |left| left.cost.min);
            Node::scalar(Range { min: least, max: given.max })
        }
        "_?_:_" => conditional(args),
        "_+_" => sum(args, given),
        "_==_" | "_!=_" | "_<_" | "_<=_" | "_>_" | "_>=_" => compared(name, args, given),
        "@in" => match args {
            [_, Node { shape: Size::Map(..) | Size::Object(_), .. }] => Node::scalar(given.plus(Range::ONE)),
            _ => Node::scalar(given.plus(length(1))),
        },
        "_[_]" | "_[?_]" => {
            let shape = args.first().map(Node::inner).unwrap_or_default();
            Node { cost: given.plus(Range::ONE), length: None, shape }
        }
        ".startsWith" | ".endsWith" => Node::scalar(given.plus(text(1))),
        ".contains" => Node::scalar(given.plus(text(0).times(text(1)))),
        ".matches" | "matches" | ".find" | ".findAll" => {
            let subject = length(0).plus(Range::ONE).part(TEXT);
            let cost = given.plus(subject.times(length(1).part(REGEX)));
            let some = Range { min: 0, max: length(0).max };
            match name {
                ".find" => Node::text(cost, some),
                ".findAll" => {
                    Node { cost, length: Some(some), shape: Size::List(some.max, Size::Text(some.max).into()) }
                }
                _ => Node::scalar(cost),
            }
        }
        ".isSorted" | ".sum" | ".max" | ".min" | ".indexOf" | ".lastIndexOf" | ".distinct" | ".sort" => {
            searched(name, args, given)
        }
        ".lowerAscii" | ".upperAscii" | ".substring" | ".trim" | ".charAt" | ".reverse" => {
            let cost = given.plus(text(0));
            match args.first().map(|target| &target.shape) {
                Some(Size::List(..)) => Node { cost, ..args[0].clone() },
                _ => Node::text(cost, Range { min: 0, max: length(0).max }),
            }
        }
        ".replace" => replaced(args, given),
        ".split" => {
            let some = Range { min: 0, max: length(0).max };
            let cost = given.plus(length(0).part(2.0 * TEXT));
            Node { cost, length: Some(some), shape: Size::List(some.max, Size::Text(some.max).into()) }
        }
        ".join" => {
            let items = args.first().map(Node::inner).unwrap_or_default();
            let item = Node { shape: items, ..Node::default() }.length();
            let whole = length(0).times(item.plus(length(1)));
            Node::text(given.plus(whole.part(TEXT)), whole)
        }
        "string" | "bytes" => {
            let whole = length(0);
            Node::text(given.plus(whole.part(TEXT)), Range { min: whole.min / 4, max: whole.max.saturating_mul(4) })
        }
        ".format" | "strings.quote" | "base64.encode" | "base64.decode" | "jsonpatch.escapeKey" => {
            let whole = Range { min: 0, max: length(0).max.saturating_mul(2) };
            Node::text(given.plus(text(0)), whole)
        }
        "url" | "isURL" | "ip" | "isIP" | "ip.isCanonical" | "cidr" | "isCIDR" | "quantity" | "isQuantity"
        | "semver" | "isSemver" => {
            let cost = given.plus(text(0));
            if name.starts_with("is") || name == "ip.isCanonical" {
                Node::scalar(cost)
            } else {
                Node { cost, length: Some(length(0)), shape: Size::Text(length(0).max) }
            }
        }
        ".containsIP" | ".containsCIDR" | ".validate" => Node::unknown(given.plus(text(1)).plus(Range::ONE)),
        "sets.contains" | "sets.intersects" => Node::scalar(given.plus(length(0).times(length(1)))),
        "sets.equivalent" => Node::scalar(given.plus(length(0).times(length(1)).times(Range::exactly(2)))),
        "lists.range" => Node::unknown(given.plus(Range::ONE)),
        ".check" => Node::unknown(given.plus(Range::exactly(authorization::WORK.into()))),
        "optional.of" | "optional.ofNonZeroValue" | ".value" | ".or" | ".orValue" | "dyn" => {
            let first = args.first().cloned().unwrap_or_default();
            Node { cost: given.plus(Range::ONE), ..first }
        }
        _ if check::is_scalar(name) => Node::scalar(given.plus(Range::ONE)),
        _ => Node::unknown(given.plus(Range::ONE)),
    }
}

fn conditional(args: &[Node]) -> Node {
    let [condition, then, otherwise] = args else { return Node::default() };
    let cost = condition.cost.plus(then.cost.or(otherwise.cost));
    let shape = if then.shape == Size::Unknown { otherwise.shape.clone() } else { then.shape.clone() };
    Node { cost, length: Some(then.length().or(otherwise.length())), shape }
}

fn sum(args: &[Node], given: Range) -> Node {
    let [left, right] = args else { return Node::unknown(given) };
    let whole = left.length().plus(right.length());
    match (&left.shape, &right.shape) {
        (Size::Fixed, _) | (_, Size::Fixed) => Node::scalar(given.plus(Range::ONE)),
        (Size::List(_, inner), _) | (_, Size::List(_, inner)) => {
            let shape = Size::List(whole.max, inner.clone());
            Node { cost: given.plus(Range::ONE), length: Some(whole), shape }
        }
        _ => Node::text(given.plus(whole.part(TEXT)), whole),
    }
}

/// Comparisons end with the shorter side. What has one size is compared at once.
fn compared(name: &str, args: &[Node], given: Range) -> Node {
    let [left, right] = args else { return Node::scalar(given) };
    let by_length = matches!(name, "_==_" | "_!=_") || !(left.is_scalar() || right.is_scalar());
    if !by_length {
        return Node::scalar(given.plus(Range::ONE));
    }
    let most = left.length().max.min(right.length().max);
    let length = Range { min: u64::from(most > 0), max: most };
    Node::scalar(given.plus(length.part(TEXT)))
}

fn searched(name: &str, args: &[Node], given: Range) -> Node {
    let Some(target) = args.first() else { return Node::unknown(given) };
    let cost = match &target.shape {
        Size::List(_, inner) => {
            let item = Node { shape: (**inner).clone(), ..Node::default() };
            let each = match &item.shape {
                Size::Text(_) => Range::ONE.plus(item.length().part(TEXT)),
                _ => Range::ONE,
            };
            target.length().times(each)
        }
        _ => target.length().part(TEXT),
    };
    match name {
        ".isSorted" | ".indexOf" | ".lastIndexOf" => Node::scalar(given.plus(cost)),
        ".distinct" | ".sort" => Node { cost: given.plus(cost.times(target.length())), ..target.clone() },
        _ => Node { cost: given.plus(cost), length: None, shape: target.inner() },
    }
}

fn replaced(args: &[Node], given: Range) -> Node {
    let [target, wanted, with, ..] = args else { return Node::unknown(given) };
    let (whole, wanted, with) = (target.length(), wanted.length(), with.length());
    let most = match wanted.min {
        0 => whole.max.saturating_add(1).saturating_mul(with.max).saturating_add(whole.max),
        least if with.max <= least => whole.max,
        least => whole.max.div_ceil(least).saturating_mul(with.max),
    };
    Node::text(given.plus(whole.part(2.0 * TEXT)), Range { min: 0, max: most })
}
