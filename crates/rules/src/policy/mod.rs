//! Expressions of admission policies: which variables they know, and what they must yield.

pub mod typecheck;

use std::{fmt, sync::LazyLock};

use cel::{Program, Structs, Type};

/// What an expression must yield.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Yields {
    /// Anything.
    Any,
    /// Truth.
    Bool,
    /// Text.
    Text,
    /// Text or null.
    TextOrNull,
    /// `Object{...}`.
    Object,
    /// A list of `JSONPatch{...}`.
    Patch,
}

impl Yields {
    fn takes(self, kind: &Type) -> bool {
        match self {
            Self::Any => true,
            Self::Bool => matches!(kind, Type::Bool | Type::Dyn),
            Self::Text => matches!(kind, Type::String | Type::Dyn),
            Self::TextOrNull => matches!(kind, Type::String | Type::Null | Type::Dyn),
            Self::Object => matches!(kind, Type::Dyn) || *kind == Type::of_struct("Object"),
            Self::Patch => match kind {
                Type::Dyn => true,
                Type::List(item) => **item == Type::Dyn || **item == Type::of_struct("JSONPatch"),
                _ => false,
            },
        }
    }

    fn wanted(self) -> &'static str {
        match self {
            Self::Any => "must evaluate to dyn",
            Self::Bool => "must evaluate to bool",
            Self::Text => "must evaluate to string",
            Self::TextOrNull => "must evaluate to one of [string null_type]",
            Self::Object => "must evaluate to Object",
            Self::Patch => "must evaluate to list(JSONPatch)",
        }
    }
}

/// Why an expression is no use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It does not compile.
    Syntax(String),
    /// It yields something else.
    Yields(&'static str),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(why) => write!(f, "compilation failed: {why}"),
            Self::Yields(wanted) => f.write_str(wanted),
        }
    }
}

/// Whether expressions may ask the authorizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// `authorizer` is a variable.
    Authorizer,
    /// It is not.
    Nobody,
}

/// The variables of the expressions of one policy.
#[derive(Clone, Debug)]
pub struct Scope {
    object: Type,
    params: Option<Type>,
    namespaces: bool,
    variables: Vec<(String, Type)>,
    structs: Structs,
}

impl Scope {
    /// Of conditions under which a webhook is asked: `object`, `oldObject`, `request`, `authorizer`.
    pub fn of_webhook() -> Self {
        Self { object: Type::Dyn, params: None, namespaces: false, variables: Vec::new(), structs: Structs::None }
    }

    /// Of a ValidatingAdmissionPolicy, with or without `params`.
    pub fn of_validation(has_params: bool) -> Self {
        Self { params: has_params.then_some(Type::Dyn), namespaces: true, ..Self::of_webhook() }
    }

    /// Of a MutatingAdmissionPolicy.
    pub fn of_mutation(has_params: bool) -> Self {
        Self { structs: Structs::Mutation, ..Self::of_validation(has_params) }
    }

    /// With what is known of the objects and parameters.
    #[must_use]
    pub fn typed(mut self, object: Type, params: Type) -> Self {
        self.object = object;
        self.params = self.params.map(|_| params);
        self
    }

    /// Adds `variables.<name>`.
    pub fn declare(&mut self, name: &str, kind: Type) {
        self.variables.push((name.to_owned(), kind));
    }

    /// Compiles an expression.
    pub fn compile(&self, expression: &str, yields: Yields, asks: Asks) -> Result<Program, Fault> {
        let authorizer = Type::authorizer();
        let composed = Type::record(self.variables.iter().cloned());
        let mut known = vec![("object", &self.object), ("oldObject", &self.object), ("request", &*REQUEST)];
        if let Some(params) = &self.params {
            known.push(("params", params));
        }
        if self.namespaces {
            known.extend([("namespaceObject", &*NAMESPACE), ("variables", &composed)]);
        }
        if asks == Asks::Authorizer {
            known.push(("authorizer", &authorizer));
        }
        let program = Program::compile_with(expression, &known, self.structs);
        let program = program.map_err(|error| Fault::Syntax(error.to_string()))?;
        if yields.takes(program.result()) { Ok(program) } else { Err(Fault::Yields(yields.wanted())) }
    }
}

fn object<const N: usize>(fields: [(&str, Type); N]) -> Type {
    Type::record(fields.map(|(name, kind)| (name.to_owned(), kind)))
}

/// What `request` is.
pub static REQUEST: LazyLock<Type> = LazyLock::new(|| {
    let kind = || object([("group", Type::String), ("version", Type::String), ("kind", Type::String)]);
    let resource = || object([("group", Type::String), ("version", Type::String), ("resource", Type::String)]);
    let user = object([
        ("username", Type::String),
        ("uid", Type::String),
        ("groups", Type::list(Type::String)),
        ("extra", Type::map(Type::list(Type::String))),
    ]);
    object([
        ("kind", kind()),
        ("resource", resource()),
        ("subResource", Type::String),
        ("requestKind", kind()),
        ("requestResource", resource()),
        ("requestSubResource", Type::String),
        ("name", Type::String),
        ("namespace", Type::String),
        ("operation", Type::String),
        ("userInfo", user),
        ("dryRun", Type::Bool),
        ("options", Type::Dyn),
    ])
});

/// What `namespaceObject` is.
pub static NAMESPACE: LazyLock<Type> = LazyLock::new(|| {
    let metadata = object([
        ("name", Type::String),
        ("generateName", Type::String),
        ("namespace", Type::String),
        ("labels", Type::map(Type::String)),
        ("annotations", Type::map(Type::String)),
        ("UID", Type::String),
        ("creationTimestamp", Type::Timestamp),
        ("deletionGracePeriodSeconds", Type::Int),
        ("deletionTimestamp", Type::Timestamp),
        ("generation", Type::Int),
        ("resourceVersion", Type::String),
        ("finalizers", Type::list(Type::String)),
    ]);
    object([
        ("metadata", metadata),
        ("spec", object([("finalizers", Type::list(Type::String))])),
        ("status", object([("phase", Type::String)])),
    ])
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_know_the_variables_of_their_policy() {
        let mut scope = Scope::of_validation(true);
        scope.declare("limit", Type::Int);
        let told = |expression: &str, yields, asks| {
            scope.compile(expression, yields, asks).map(|_| ()).map_err(|fault| fault.to_string())
        };
        for expression in [
            "object.spec.replicas <= params.max && variables.limit > 0",
            "request.userInfo.groups.exists(g, g == 'x') && request.?subResource.orValue('') == 'scale'",
            "namespaceObject.metadata.labels['env'] == 'prod' && oldObject == null && request.namespace != ''",
            "authorizer.requestResource.check('approve').allowed()",
        ] {
            assert_eq!(told(expression, Yields::Bool, Asks::Authorizer), Ok(()), "{expression}");
        }
        for (expression, yields, text) in [
            (
                "request.nothing == ''",
                Yields::Bool,
                "compilation failed: ERROR: <input>:1:8: undefined field 'nothing'",
            ),
            ("variables.none", Yields::Any, "compilation failed: ERROR: <input>:1:10: undefined field 'none'"),
            ("1 + 1", Yields::Bool, "must evaluate to bool"),
            ("1 + 1", Yields::TextOrNull, "must evaluate to one of [string null_type]"),
            ("authorizer.path('/').check('get').reason()", Yields::Text, "compilation failed: ERROR: "),
            ("Object{}", Yields::Any, "compilation failed: ERROR: "),
        ] {
            let told = told(expression, yields, Asks::Nobody).expect_err(expression);
            assert!(told.starts_with(text), "{told}");
        }
        let plain = Scope::of_webhook();
        assert!(plain.compile("params == null", Yields::Bool, Asks::Authorizer).is_err());
        let mutation = Scope::of_mutation(false);
        let object = "Object{metadata: Object.metadata{labels: {'a': 'b'}}}";
        assert!(mutation.compile(object, Yields::Object, Asks::Authorizer).is_ok());
        assert!(mutation.compile(object, Yields::Patch, Asks::Authorizer).is_err());
        let patch = "[JSONPatch{op: 'remove', path: '/spec'}]";
        assert!(mutation.compile(patch, Yields::Patch, Asks::Authorizer).is_ok());
    }
}
