//! Expressions that select devices.

use std::{collections::HashMap, sync::Arc};

use cel::{Budget, EvalError, Program, Type, Val};
use parking_lot::Mutex;
use std::sync::LazyLock;

use crate::objects::DeviceView;

/// Work that one evaluation may take.
const MAX_COST: u64 = 1_000_000;
/// Compiled expressions that are kept.
const KEPT: usize = 1024;

static DEVICE: LazyLock<Type> = LazyLock::new(|| {
    let values = |kind| Type::map(Type::map(kind));
    Type::object([
        ("driver".to_owned(), Type::String),
        ("attributes".to_owned(), values(Type::Dyn)),
        ("capacity".to_owned(), values(Type::Named("kubernetes.Quantity"))),
        ("allowMultipleAllocations".to_owned(), Type::Bool),
    ])
});

/// A compiled expression.
#[derive(Debug)]
pub(super) struct Selector {
    program: Program,
    /// Domains that it looks into without asking whether they exist: those that do not are empty.
    attributes: Vec<Box<str>>,
    capacity: Vec<Box<str>>,
}

/// A compiled expression, or what the compiler says.
type Compiled = Result<Arc<Selector>, String>;

/// Compiled expressions by their text.
#[derive(Debug, Default)]
pub(super) struct Selectors(Mutex<HashMap<Box<str>, Compiled>>);

impl Selectors {
    /// The compiled form of an expression.
    pub(super) fn compile(&self, expression: &str) -> Compiled {
        let mut known = self.0.lock();
        if let Some(found) = known.get(expression) {
            return found.clone();
        }
        if known.len() >= KEPT {
            known.clear();
        }
        let made = Selector::compile(expression).map(Arc::new);
        known.insert(expression.into(), made.clone());
        made
    }
}

impl Selector {
    fn compile(expression: &str) -> Result<Self, String> {
        let program = Program::compile(expression, &[("device", &DEVICE)]).map_err(|e| e.to_string())?;
        if !matches!(program.result(), Type::Bool | Type::Dyn) {
            return Err(format!("must evaluate to bool or the unknown type, not {}", program.result()));
        }
        Ok(Self { program, attributes: domains(expression, "attributes"), capacity: domains(expression, "capacity") })
    }

    /// Whether a device is selected.
    pub(super) fn selects(&self, device: &DeviceView) -> Result<bool, String> {
        let group = |known: &HashMap<Box<str>, Vec<(Val<'static>, Val<'static>)>>, asked: &[Box<str>]| {
            let there = known.iter().map(|(domain, values)| (Val::text(&**domain), Val::Map(values.clone().into())));
            let missing = asked.iter().filter(|domain| !known.contains_key(*domain));
            let missing = missing.map(|domain| (Val::text(&**domain), Val::Map(Vec::new().into())));
            Val::Map(there.chain(missing).collect::<Vec<_>>().into())
        };
        let fields = vec![
            (Val::text("driver"), Val::text(&*device.id.driver)),
            (Val::text("attributes"), group(&device.seen.attributes, &self.attributes)),
            (Val::text("capacity"), group(&device.seen.capacity, &self.capacity)),
            (Val::text("allowMultipleAllocations"), Val::Bool(device.shareable)),
        ];
        match self.program.run(&[("device", Val::Map(fields.into()))], &mut Budget::new(MAX_COST)) {
            Ok(Val::Bool(selected)) => Ok(selected),
            Ok(_) => Err("CEL result of type other than bool".to_owned()),
            Err(EvalError::Failed(text)) => Err(text),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Domains that an expression indexes a group with. One that is asked for with `in` too is left as it is.
fn domains(expression: &str, group: &str) -> Vec<Box<str>> {
    let mut found: Vec<Box<str>> = Vec::new();
    let opening = format!("{group}[");
    for (at, _) in expression.match_indices(&opening) {
        let rest = expression[at + opening.len()..].trim_start();
        let Some(quote) = rest.chars().next().filter(|c| matches!(c, '"' | '\'')) else { continue };
        let Some((domain, _)) = rest[1..].split_once(quote) else { continue };
        let guarded = ['"', '\''].iter().any(|q| expression.contains(&format!("{q}{domain}{q} in device.{group}")));
        if !guarded && !found.iter().any(|known| **known == *domain) {
            found.push(domain.into());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::testing::device;

    #[test]
    fn expressions_see_attributes_and_capacities() {
        let gpu = device(serde_json::json!({"name": "gpu-0",
            "attributes": {"model": {"string": "A100"}, "other.example.com/numa": {"int": 1},
                "version": {"version": "1.2.3"}, "ecc": {"bool": true}},
            "capacity": {"memory": {"value": "40Gi"}}}));
        let cases = [
            ("device.driver == 'gpu.example.com'", Ok(true)),
            ("device.attributes['gpu.example.com'].model == 'A100'", Ok(true)),
            ("device.attributes['other.example.com'].numa > 1", Ok(false)),
            ("device.attributes['gpu.example.com'].version.isGreaterThan(semver('1.0.0'))", Ok(true)),
            ("device.attributes['gpu.example.com'].ecc && !device.allowMultipleAllocations", Ok(true)),
            ("device.capacity['gpu.example.com'].memory.compareTo(quantity('20Gi')) >= 0", Ok(true)),
            ("has(device.attributes['nobody.example.com'].model)", Ok(false)),
            ("'nobody.example.com' in device.attributes && device.attributes['nobody.example.com'].x", Ok(false)),
            ("device.attributes['gpu.example.com'].missing == 1", Err(())),
        ];
        for (text, expected) in cases {
            let selector = Selector::compile(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(selector.selects(&gpu).map_err(|_| ()), expected, "{text}");
        }
        assert!(Selector::compile("device.nothing").is_err());
        assert!(Selector::compile("device.driver").is_err());
    }

    #[test]
    fn each_expression_is_compiled_once() {
        let selectors = Selectors::default();
        let (a, b) = (selectors.compile("true").unwrap(), selectors.compile("true").unwrap());
        assert!(Arc::ptr_eq(&a, &b));
        assert!(selectors.compile("(").is_err());
    }
}
