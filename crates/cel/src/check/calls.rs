//! What functions take and give.

use std::sync::Arc;

use crate::{Type, types::authorization};

const QUANTITY: Type = Type::Named("kubernetes.Quantity");
const IP: Type = Type::Named("net.IP");
const CIDR: Type = Type::Named("net.CIDR");
const URL: Type = Type::Named("kubernetes.URL");
const SEMVER: Type = Type::Named("kubernetes.Semver");

/// One form of a function: arguments (the target first) and result.
type Form = (&'static str, &'static [T], T);

/// Types in the table.
#[derive(Clone, Copy)]
enum T {
    Any,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Time,
    Span,

    List,
    Strings,
    Queries,
    Optional,
    Kind,
    Quantity,
    Ip,
    Cidr,
    Url,
    Semver,
    Format,
    Authorizer,
    PathCheck,
    GroupCheck,
    ResourceCheck,
    Decision,
}

use T::{
    Any, Authorizer, Bool, Bytes, Cidr, Decision, Double, Format, GroupCheck, Int, Ip, Kind, List, Optional, PathCheck,
    Quantity, Queries, ResourceCheck, Semver, Span, String as Str, Strings, Time, Uint, Url,
};

#[rustfmt::skip]
const FORMS: &[Form] = &[
    ("size", &[Any], Int), (".size", &[Any], Int), ("type", &[Any], Kind), ("dyn", &[Any], Any),
    ("int", &[Any], Int), ("uint", &[Any], Uint), ("double", &[Any], Double), ("string", &[Any], Str),
    ("bytes", &[Any], Bytes), ("bool", &[Any], Bool), ("timestamp", &[Any], Time), ("duration", &[Any], Span),
    (".contains", &[Str, Str], Bool), (".startsWith", &[Str, Str], Bool), (".endsWith", &[Str, Str], Bool),
    (".matches", &[Str, Str], Bool), ("matches", &[Str, Str], Bool), (".find", &[Str, Str], Str),
    (".findAll", &[Str, Str], Strings), (".findAll", &[Str, Str, Int], Strings),
    (".lowerAscii", &[Str], Str), (".upperAscii", &[Str], Str), (".trim", &[Str], Str), (".charAt", &[Str, Int], Str),
    (".indexOf", &[Str, Str], Int), (".indexOf", &[Str, Str, Int], Int), (".lastIndexOf", &[Str, Str], Int),
    (".lastIndexOf", &[Str, Str, Int], Int), (".indexOf", &[List, Any], Int), (".lastIndexOf", &[List, Any], Int),
    (".replace", &[Str, Str, Str], Str), (".replace", &[Str, Str, Str, Int], Str), (".split", &[Str, Str], Strings),
    (".split", &[Str, Str, Int], Strings), (".substring", &[Str, Int], Str), (".substring", &[Str, Int, Int], Str),
    (".format", &[Str, List], Str), (".join", &[List], Str), (".join", &[List, Str], Str), (".reverse", &[Str], Str),
    ("strings.quote", &[Str], Str), ("base64.encode", &[Bytes], Str), ("base64.decode", &[Str], Bytes),
    (".isSorted", &[List], Bool), (".flatten", &[List, Int], List), (".flatten", &[List], List),
    ("sets.contains", &[List, List], Bool), ("sets.equivalent", &[List, List], Bool),
    ("sets.intersects", &[List, List], Bool), ("lists.range", &[Int], List),
    ("math.abs", &[Any], Any), ("math.sign", &[Any], Any), ("math.ceil", &[Double], Double),
    ("math.floor", &[Double], Double), ("math.round", &[Double], Double), ("math.trunc", &[Double], Double),
    ("math.sqrt", &[Any], Double), ("math.isNaN", &[Double], Bool), ("math.isInf", &[Double], Bool),
    ("math.isFinite", &[Double], Bool), ("math.bitAnd", &[Any, Any], Any), ("math.bitOr", &[Any, Any], Any),
    ("math.bitXor", &[Any, Any], Any), ("math.bitNot", &[Any], Any),
    (".getFullYear", &[Time], Int), (".getFullYear", &[Time, Str], Int), (".getMonth", &[Time], Int),
    (".getMonth", &[Time, Str], Int), (".getDate", &[Time], Int), (".getDate", &[Time, Str], Int),
    (".getDayOfMonth", &[Time], Int), (".getDayOfMonth", &[Time, Str], Int), (".getDayOfWeek", &[Time], Int),
    (".getDayOfWeek", &[Time, Str], Int), (".getDayOfYear", &[Time], Int), (".getDayOfYear", &[Time, Str], Int),
    (".getHours", &[Time], Int), (".getHours", &[Time, Str], Int), (".getHours", &[Span], Int),
    (".getMinutes", &[Time], Int), (".getMinutes", &[Time, Str], Int), (".getMinutes", &[Span], Int),
    (".getSeconds", &[Time], Int), (".getSeconds", &[Time, Str], Int), (".getSeconds", &[Span], Int),
    (".getMilliseconds", &[Time], Int), (".getMilliseconds", &[Time, Str], Int), (".getMilliseconds", &[Span], Int),
    ("ip", &[Str], Ip), ("isIP", &[Str], Bool), ("ip.isCanonical", &[Str], Bool), (".family", &[Ip], Int),
    (".isUnspecified", &[Ip], Bool), (".isLoopback", &[Ip], Bool), (".isLinkLocalMulticast", &[Ip], Bool),
    (".isLinkLocalUnicast", &[Ip], Bool), (".isGlobalUnicast", &[Ip], Bool),
    ("cidr", &[Str], Cidr), ("isCIDR", &[Str], Bool), (".containsIP", &[Cidr, Ip], Bool),
    (".containsIP", &[Cidr, Str], Bool), (".containsCIDR", &[Cidr, Cidr], Bool), (".containsCIDR", &[Cidr, Str], Bool),
    (".ip", &[Cidr], Ip), (".masked", &[Cidr], Cidr), (".prefixLength", &[Cidr], Int),
    ("url", &[Str], Url), ("isURL", &[Str], Bool), (".getScheme", &[Url], Str), (".getHost", &[Url], Str),
    (".getHostname", &[Url], Str), (".getPort", &[Url], Str), (".getEscapedPath", &[Url], Str),
    (".getQuery", &[Url], Queries),
    ("quantity", &[Str], Quantity), ("isQuantity", &[Str], Bool), (".sign", &[Quantity], Int),
    (".isInteger", &[Quantity], Bool), (".asInteger", &[Quantity], Int), (".asApproximateFloat", &[Quantity], Double),
    (".add", &[Quantity, Quantity], Quantity), (".add", &[Quantity, Int], Quantity),
    (".sub", &[Quantity, Quantity], Quantity), (".sub", &[Quantity, Int], Quantity),
    (".isGreaterThan", &[Quantity, Quantity], Bool), (".isLessThan", &[Quantity, Quantity], Bool),
    (".compareTo", &[Quantity, Quantity], Int),
    ("semver", &[Str], Semver), ("semver", &[Str, Bool], Semver), ("isSemver", &[Str], Bool),
    ("isSemver", &[Str, Bool], Bool), (".major", &[Semver], Int), (".minor", &[Semver], Int), (".patch", &[Semver], Int),
    (".isGreaterThan", &[Semver, Semver], Bool), (".isLessThan", &[Semver, Semver], Bool),
    (".compareTo", &[Semver, Semver], Int),
    (".serviceAccount", &[Authorizer, Str, Str], Authorizer), (".path", &[Authorizer, Str], PathCheck),
    (".group", &[Authorizer, Str], GroupCheck), (".resource", &[GroupCheck, Str], ResourceCheck),
    (".subresource", &[ResourceCheck, Str], ResourceCheck), (".namespace", &[ResourceCheck, Str], ResourceCheck),
    (".name", &[ResourceCheck, Str], ResourceCheck), (".fieldSelector", &[ResourceCheck, Str], ResourceCheck),
    (".labelSelector", &[ResourceCheck, Str], ResourceCheck), (".check", &[PathCheck, Str], Decision),
    (".check", &[ResourceCheck, Str], Decision), (".allowed", &[Decision], Bool), (".reason", &[Decision], Str),
    (".errored", &[Decision], Bool), (".error", &[Decision], Str), ("jsonpatch.escapeKey", &[Str], Str),
    ("format.dns1123Label", &[], Format), ("format.dns1123Subdomain", &[], Format), ("format.dns1035Label", &[], Format),
    ("format.qualifiedName", &[], Format), ("format.dns1123LabelPrefix", &[], Format),
    ("format.dns1123SubdomainPrefix", &[], Format), ("format.dns1035LabelPrefix", &[], Format),
    ("format.labelValue", &[], Format), ("format.uri", &[], Format), ("format.uuid", &[], Format),
    ("format.byte", &[], Format), ("format.date", &[], Format), ("format.datetime", &[], Format),
    ("format.named", &[Str], Optional), (".validate", &[Format, Str], Optional), (".hasValue", &[Optional], Bool), ("optional.none", &[], Optional),
];

/// Operators and functions whose result follows from their arguments.
const SPECIAL: [&str; 37] = [
    "_==_",
    "_!=_",
    "_<_",
    "_<=_",
    "_>_",
    "_>=_",
    "_+_",
    "_-_",
    "_*_",
    "_/_",
    "_%_",
    "_&&_",
    "_||_",
    "!_",
    "-_",
    "_?_:_",
    "@in",
    "_[_]",
    "_[?_]",
    ".value",
    ".orValue",
    ".or",
    "optional.of",
    "optional.ofNonZeroValue",
    "optional.unwrap",
    ".unwrapOpt",
    ".min",
    ".max",
    ".sum",
    ".slice",
    ".first",
    ".last",
    ".sort",
    ".distinct",
    "math.greatest",
    "math.least",
    ".reverse",
];

/// Whether there is a function of that name.
pub(super) fn is_known(name: &str) -> bool {
    SPECIAL.contains(&name) || FORMS.iter().any(|(own, ..)| *own == name)
}

/// Whether what a function gives is always of one size.
pub(crate) fn is_scalar(name: &str) -> bool {
    let gives = FORMS.iter().find(|(own, ..)| *own == name).map(|(_, _, result)| *result);
    matches!(gives, Some(Bool | Int | Uint | Double | Time | Span))
        || matches!(name, "!_" | "-_" | "_-_" | "_*_" | "_/_" | "_%_")
}

fn takes(wanted: T, given: &Type) -> bool {
    let wanted = match wanted {
        Any => return true,

        List | Strings => return matches!(given, Type::Dyn | Type::List(_) | Type::Set(_)),
        Optional => return matches!(given, Type::Dyn | Type::Optional(_)),
        Format => return matches!(given, Type::Dyn | Type::Named("kubernetes.NamedFormat")),
        other => of(other),
    };
    wanted.fits(given)
}

fn of(kind: T) -> Type {
    match kind {
        Any => Type::Dyn,
        Bool => Type::Bool,
        Int => Type::Int,
        Uint => Type::Uint,
        Double => Type::Double,
        Str => Type::String,
        Bytes => Type::Bytes,
        Time => Type::Timestamp,
        Span => Type::Duration,
        List => Type::list(Type::Dyn),
        Strings => Type::list(Type::String),
        Queries => Type::map(Type::list(Type::String)),
        Optional => Type::Optional(Arc::new(Type::Dyn)),
        Kind => Type::Type,
        Quantity => QUANTITY,
        Ip => IP,
        Cidr => CIDR,
        Url => URL,
        Semver => SEMVER,
        Format => Type::Named("kubernetes.NamedFormat"),
        Authorizer => authorization::AUTHORIZER,
        PathCheck => authorization::PATH_CHECK,
        GroupCheck => authorization::GROUP_CHECK,
        ResourceCheck => authorization::RESOURCE_CHECK,
        Decision => authorization::DECISION,
    }
}

/// The result of a call, or `None` if no form of the function takes these arguments.
pub(super) fn result(name: &str, args: &[Type]) -> Option<Type> {
    let found = FORMS.iter().find(|(own, takes_, _)| {
        *own == name
            && takes_.len() == args.len()
            && takes_.iter().zip(args).all(|(wanted, given)| takes(*wanted, given))
    });
    if let Some((_, _, result)) = found {
        return Some(of(*result));
    }
    special(name, args)
}

fn special(name: &str, args: &[Type]) -> Option<Type> {
    let is_list = |kind: &Type| matches!(kind, Type::Dyn | Type::List(_) | Type::Set(_));
    Some(match (name, args) {
        ("_==_" | "_!=_", [a, b]) if a.fits(b) || (a.is_number() && b.is_number()) => Type::Bool,
        ("_<_" | "_<=_" | "_>_" | "_>=_", [a, b]) => comparable(a, b).then_some(Type::Bool)?,
        ("_&&_" | "_||_", [a, b]) if a.fits(&Type::Bool) && b.fits(&Type::Bool) => Type::Bool,
        ("!_", [a]) if a.fits(&Type::Bool) => Type::Bool,
        ("-_", [a]) if matches!(a, Type::Dyn | Type::Int | Type::Double) => a.clone(),
        ("_?_:_", [condition, a, b]) if condition.fits(&Type::Bool) && a.fits(b) => {
            if a.is_dyn() || *a == Type::Null {
                b.clone()
            } else {
                a.clone()
            }
        }
        ("@in", [item, range]) => match range {
            Type::Dyn | Type::Object(_) => Type::Bool,
            Type::List(own) | Type::Set(own) | Type::Map(own, _) if own.fits(item) => Type::Bool,
            Type::List(own) | Type::Set(own) if own.is_number() && item.is_number() => Type::Bool,
            _ => return None,
        },
        ("_[_]", [range, index]) => at(range, index)?,
        ("_[?_]", [range, index]) => match range {
            Type::Optional(inner) => Type::Optional(at(inner, index)?.into()),
            range => Type::Optional(at(range, index)?.into()),
        },
        ("_+_" | "_-_" | "_*_" | "_/_" | "_%_", [a, b]) => arithmetic(name, a, b)?,
        (".value", [Type::Optional(inner)]) => (**inner).clone(),
        (".orValue", [Type::Optional(inner), other]) if inner.fits(other) => {
            if inner.is_dyn() {
                other.clone()
            } else {
                (**inner).clone()
            }
        }
        (".or", [a @ Type::Optional(_), b]) if a.fits(b) => a.clone(),
        (".value" | ".orValue" | ".or", [Type::Dyn, ..]) => Type::Dyn,
        ("optional.of" | "optional.ofNonZeroValue", [inner]) => Type::Optional(inner.clone().into()),
        ("optional.unwrap" | ".unwrapOpt", [list]) if is_list(list) => match list.item() {
            Type::Optional(inner) => Type::List(inner),
            Type::Dyn => Type::list(Type::Dyn),
            _ => return None,
        },
        (".min" | ".max" | ".sum", [list]) if is_list(list) => list.item(),
        (".first" | ".last", [list]) if is_list(list) => Type::Optional(list.item().into()),
        (".sort" | ".distinct" | ".reverse", [list]) if is_list(list) => Type::list(list.item()),
        (".slice", [list, from, to]) if is_list(list) && from.fits(&Type::Int) && to.fits(&Type::Int) => {
            Type::list(list.item())
        }
        ("math.greatest" | "math.least", [one]) => {
            if is_list(one) {
                one.item()
            } else {
                one.clone()
            }
        }
        ("math.greatest" | "math.least", [first, ..]) => first.clone(),
        _ => return None,
    })
}

fn comparable(a: &Type, b: &Type) -> bool {
    let ordered = |kind: &Type| {
        kind.is_number()
            || matches!(kind, Type::Dyn | Type::Bool | Type::String | Type::Bytes | Type::Timestamp | Type::Duration)
    };
    ordered(a) && ordered(b) && (a.fits(b) || (a.is_number() && b.is_number()))
}

fn at(range: &Type, index: &Type) -> Option<Type> {
    match range {
        Type::Dyn => Some(Type::Dyn),
        Type::List(item) | Type::Set(item) if index.is_dyn() || index.is_number() => Some((**item).clone()),
        Type::Map(key, value) if key.fits(index) => Some((**value).clone()),
        Type::Optional(inner) => Some(Type::Optional(at(inner, index)?.into())),
        _ => None,
    }
}

fn arithmetic(name: &str, a: &Type, b: &Type) -> Option<Type> {
    let sum = matches!(name, "_+_" | "_-_");
    match (a, b) {
        (Type::Dyn, _) | (_, Type::Dyn) => Some(match (a, b) {
            (Type::Dyn, Type::Timestamp | Type::Duration | Type::Dyn)
            | (Type::Timestamp | Type::Duration, Type::Dyn) => Type::Dyn,
            (Type::Dyn, known) | (known, Type::Dyn) => known.clone(),
            _ => Type::Dyn,
        }),
        (Type::Int, Type::Int) | (Type::Uint, Type::Uint) => Some(a.clone()),
        (Type::Double, Type::Double) if name != "_%_" => Some(Type::Double),
        (Type::String, Type::String) | (Type::Bytes, Type::Bytes) if name == "_+_" => Some(a.clone()),
        (Type::List(_) | Type::Set(_), Type::List(_) | Type::Set(_)) if name == "_+_" && a.fits(b) => Some(a.clone()),
        (Type::Timestamp, Type::Duration) if sum => Some(Type::Timestamp),
        (Type::Duration, Type::Timestamp) if name == "_+_" => Some(Type::Timestamp),
        (Type::Timestamp, Type::Timestamp) if name == "_-_" => Some(Type::Duration),
        (Type::Duration, Type::Duration) if sum => Some(Type::Duration),
        _ => None,
    }
}
