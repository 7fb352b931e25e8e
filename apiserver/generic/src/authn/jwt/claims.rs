//! From claims to a user: mappings and rules, by name or by expression.

use std::{collections::BTreeMap, sync::LazyLock};

use cel::{Budget, Program, Type, Val};
use machinery::field::{ErrorList, Path};
use serde_json::{Map, Value, json};

use super::config::{JwtAuthenticator, Mapping};
use crate::{authn::CREDENTIAL_ID, user::User};

/// Work that one expression may do, steps.
const BUDGET: u64 = 1_000_000;

static CLAIMS: LazyLock<Type> = LazyLock::new(|| Type::map(Type::Dyn));
static USER: LazyLock<Type> = LazyLock::new(|| {
    Type::object([
        ("username".to_owned(), Type::String),
        ("uid".to_owned(), Type::String),
        ("groups".to_owned(), Type::list(Type::String)),
        ("extra".to_owned(), Type::map(Type::list(Type::String))),
    ])
});

/// Where a text or texts come from.
#[derive(Debug)]
enum Source {
    Claim { name: String, prefix: String },
    Expression(Program),
}

#[derive(Debug)]
struct Rule {
    text: String,
    message: String,
    program: Program,
}

impl Rule {
    fn check(&self, variable: (&str, Val<'_>)) -> Result<(), String> {
        match self.program.run(&[variable], &mut Budget::new(BUDGET)) {
            Ok(Val::Bool(true)) => Ok(()),
            Ok(_) if self.message.is_empty() => Err(format!("validation expression '{}' failed", self.text)),
            Ok(_) => Err(format!("validation expression '{}' failed: {}", self.text, self.message)),
            Err(error) => Err(format!("expression '{}' resulted in error: {error}", self.text)),
        }
    }
}

/// Mappings and rules of one issuer, compiled.
#[derive(Debug)]
pub(super) struct Claims {
    username: Source,
    groups: Option<Source>,
    uid: Option<Source>,
    extra: Vec<(String, Program)>,
    required: Vec<(String, String)>,
    claim_rules: Vec<Rule>,
    user_rules: Vec<Rule>,
}

struct Compiler<'a> {
    errors: &'a mut ErrorList,
}

impl Compiler<'_> {
    fn compile(&mut self, text: &str, variable: (&str, &Type), path: &Path, wanted: &[Type]) -> Option<Program> {
        let program = match Program::compile(text, &[variable]) {
            Ok(program) => program,
            Err(error) => {
                self.errors.invalid(path, &json!(text), &format!("compilation failed: {error}"));
                return None;
            }
        };
        if wanted.contains(program.result()) || *program.result() == Type::Dyn {
            return Some(program);
        }
        let names: Vec<String> = wanted.iter().map(ToString::to_string).collect();
        let text_of = match names.as_slice() {
            [one] => format!("must evaluate to {one}"),
            all => format!("must evaluate to one of [{}]", all.join(" ")),
        };
        self.errors.invalid(path, &json!(text), &text_of);
        None
    }

    fn source(&mut self, mapping: &Mapping, path: &Path, wanted: &[Type]) -> Option<Source> {
        if mapping.expression.is_empty() {
            let prefix = mapping.prefix.clone().unwrap_or_default();
            return (!mapping.claim.is_empty()).then(|| Source::Claim { name: mapping.claim.clone(), prefix });
        }
        let path = path.child("expression");
        self.compile(&mapping.expression, ("claims", &CLAIMS), &path, wanted).map(Source::Expression)
    }
}

impl Claims {
    /// Compiles the expressions of an issuer. `None` if one is wrong; `errors` tell which.
    pub(super) fn compile(config: &JwtAuthenticator, path: &Path, errors: &mut ErrorList) -> Option<Self> {
        let before = errors.len();
        let texts = [Type::String, Type::list(Type::String), Type::list(Type::Dyn)];
        let mut compiler = Compiler { errors };
        let mappings = path.child("claimMappings");
        let from = &config.claim_mappings;
        let username = compiler.source(&from.username, &mappings.child("username"), &texts[..1]);
        let groups = compiler.source(&from.groups, &mappings.child("groups"), &texts);
        let uid = compiler.source(&from.uid, &mappings.child("uid"), &texts[..1]);
        let mut extra = Vec::new();
        for (at, mapping) in from.extra.iter().enumerate() {
            let path = mappings.child("extra").index(at).child("valueExpression");
            let program = compiler.compile(&mapping.value_expression, ("claims", &CLAIMS), &path, &texts);
            extra.extend(program.map(|program| (mapping.key.clone(), program)));
        }
        let (mut required, mut claim_rules, mut user_rules) = (Vec::new(), Vec::new(), Vec::new());
        let truth = [Type::Bool];
        for (at, rule) in config.claim_validation_rules.iter().enumerate() {
            if rule.expression.is_empty() {
                required.push((rule.claim.clone(), rule.required_value.clone()));
                continue;
            }
            let path = path.child("claimValidationRules").index(at).child("expression");
            let program = compiler.compile(&rule.expression, ("claims", &CLAIMS), &path, &truth);
            let (text, message) = (rule.expression.clone(), rule.message.clone());
            claim_rules.extend(program.map(|program| Rule { text, message, program }));
        }
        for (at, rule) in config.user_validation_rules.iter().enumerate() {
            let path = path.child("userValidationRules").index(at).child("expression");
            let program = compiler.compile(&rule.expression, ("user", &USER), &path, &truth);
            let (text, message) = (rule.expression.clone(), rule.message.clone());
            user_rules.extend(program.map(|program| Rule { text, message, program }));
        }
        check_email(config, &mappings, errors);
        if errors.len() > before {
            return None;
        }
        Some(Self { username: username?, groups, uid, extra, required, claim_rules, user_rules })
    }

    /// The user that verified claims stand for.
    pub(super) fn user(&self, claims: &Map<String, Value>) -> Result<User, String> {
        let whole = Value::Object(claims.clone());
        for (claim, wanted) in &self.required {
            match claims.get(claim) {
                None => return Err(format!("required claim {claim} not present in ID token")),
                Some(Value::String(has)) if has == wanted => {}
                Some(Value::String(has)) => {
                    return Err(format!("required claim {claim} value does not match. Got = {has}, want = {wanted}"));
                }
                Some(_) => return Err(format!("parse claim {claim}: the value is no text")),
            }
        }
        for rule in &self.claim_rules {
            rule.check(("claims", Val::of(&whole, &CLAIMS)))?;
        }
        let name = one(&self.username, claims, &whole).map_err(|why| format!("parse username: {why}"))?;
        let name = name.filter(|name| !name.is_empty()).ok_or("username claim not present or empty")?;
        let groups = match &self.groups {
            Some(source) => many(source, claims, &whole).map_err(|why| format!("parse groups: {why}"))?,
            None => Vec::new(),
        };
        let uid = match &self.uid {
            Some(source) => one(source, claims, &whole).map_err(|why| format!("parse uid: {why}"))?,
            None => None,
        };
        let mut extra = BTreeMap::new();
        for (key, program) in &self.extra {
            let values = texts(&evaluate(program, &whole)?).map_err(|why| format!("parse extra {key}: {why}"))?;
            if !values.is_empty() {
                extra.insert(key.clone(), values);
            }
        }
        if let Some(id) = claims.get("jti").and_then(Value::as_str).filter(|id| !id.is_empty()) {
            extra.insert(CREDENTIAL_ID.to_owned(), vec![format!("JTI={id}")]);
        }
        let user = User { name, uid: uid.unwrap_or_default(), groups, extra };
        self.check_user(&user)?;
        Ok(user)
    }

    fn check_user(&self, user: &User) -> Result<(), String> {
        if self.user_rules.is_empty() {
            return Ok(());
        }
        let shown = json!({"username": user.name, "uid": user.uid, "groups": user.groups, "extra": user.extra});
        self.user_rules.iter().try_for_each(|rule| rule.check(("user", Val::of(&shown, &USER))))
    }
}

/// A name made of an e-mail address needs proof that the address is the user's.
fn check_email(config: &JwtAuthenticator, path: &Path, errors: &mut ErrorList) {
    let mappings = &config.claim_mappings;
    let uses = |text: &str, claim: &str| {
        let ends = |rest: &str| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        let dotted = format!("claims.{claim}");
        text.match_indices(&dotted).any(|(at, found)| ends(&text[at + found.len()..]))
            || text.contains(&format!("claims['{claim}']"))
            || text.contains(&format!("claims[\"{claim}\"]"))
    };
    let name = mappings.username.expression.as_str();
    if !uses(name, "email") {
        return;
    }
    let proves = uses(name, "email_verified")
        || mappings.extra.iter().any(|extra| uses(&extra.value_expression, "email_verified"))
        || config.claim_validation_rules.iter().any(|rule| uses(&rule.expression, "email_verified"));
    if !proves {
        let text = "claims.email_verified must be used in claimMappings.username.expression or \
                    claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is \
                    used in claimMappings.username.expression";
        errors.invalid(&path.child("username").child("expression"), &json!(name), text);
    }
}

fn evaluate(program: &Program, claims: &Value) -> Result<Value, String> {
    let value = program.run(&[("claims", Val::of(claims, &CLAIMS))], &mut Budget::new(BUDGET));
    value.map_err(|error| error.to_string())?.to_json()
}

fn one(source: &Source, claims: &Map<String, Value>, whole: &Value) -> Result<Option<String>, String> {
    match source {
        Source::Claim { name, prefix } => {
            let Some(value) = claims.get(name) else { return Ok(None) };
            let text = value.as_str().ok_or_else(|| format!("claim {name} is no text"))?;
            if name == "email" && claims.get("email_verified").is_some_and(|verified| *verified != json!(true)) {
                return Err("email not verified".into());
            }
            Ok((!text.is_empty()).then(|| format!("{prefix}{text}")))
        }
        Source::Expression(program) => match evaluate(program, whole)? {
            Value::String(text) => Ok(Some(text)),
            _ => Err("the value is no text".into()),
        },
    }
}

fn many(source: &Source, claims: &Map<String, Value>, whole: &Value) -> Result<Vec<String>, String> {
    match source {
        Source::Claim { name, prefix } => {
            let values = claims.get(name).map_or_else(|| Ok(Vec::new()), texts)?;
            Ok(values.into_iter().map(|value| format!("{prefix}{value}")).collect())
        }
        Source::Expression(program) => texts(&evaluate(program, whole)?),
    }
}

/// A text or a list of them; empty texts and null are nothing.
fn texts(value: &Value) -> Result<Vec<String>, String> {
    let wrong = || "the value is neither a text nor a list of texts".to_owned();
    let all = match value {
        Value::Null => Vec::new(),
        Value::String(text) => vec![text.clone()],
        Value::Array(list) => {
            list.iter().map(|item| item.as_str().map(str::to_owned).ok_or_else(wrong)).collect::<Result<_, _>>()?
        }
        _ => return Err(wrong()),
    };
    Ok(all.into_iter().filter(|text: &String| !text.is_empty()).collect())
}
