//! What a configuration says of logs.

use runtime::logging::Format;
use serde_json::Value;

/// The part of it that is read after the first lines were written.
#[derive(Debug, PartialEq, Eq)]
pub struct Logging {
    /// Form of lines.
    pub format: Format,
    /// Verbosity of files of their own.
    pub modules: Vec<(String, i32)>,
    /// Verbosity.
    pub verbosity: Option<i32>,
}

impl Logging {
    /// Reads it, or says what is wrong.
    pub fn read(logging: &Value) -> Result<Self, String> {
        let format = match logging.get("format").and_then(Value::as_str).unwrap_or("text") {
            "" | "text" => Format::Text,
            "json" => Format::Json,
            other => return Err(format!("format: Invalid value: {other:?}: Unsupported log format")),
        };
        let mut modules = Vec::new();
        for one in logging.get("vmodule").and_then(Value::as_array).into_iter().flatten() {
            let pattern = one.get("filePattern").and_then(Value::as_str).unwrap_or_default();
            if pattern.is_empty() || pattern.contains(['=', ',']) {
                return Err(format!(
                    "vmodule: Invalid value: {pattern:?}: File pattern must not be empty or contain equal signs or commas"
                ));
            }
            modules.push((pattern.to_owned(), number(one.get("verbosity")).unwrap_or(0)));
        }
        if format == Format::Json && !modules.is_empty() {
            return Err("vmodule: Forbidden: Only supported for text log format".to_owned());
        }
        for form in ["text", "json"] {
            let option = |name: &str| logging.get("options")?.get(form)?.get(name);
            let splits = option("splitStream").is_some_and(|value| *value == true);
            let buffers = option("infoBufferSize").is_some_and(|value| !matches!(value.as_str(), Some("" | "0")));
            if splits || buffers {
                return Err(format!("options.{form}: Forbidden: Feature LoggingAlphaOptions is disabled"));
            }
        }
        Ok(Self { format, modules, verbosity: number(logging.get("verbosity")) })
    }
}

fn number(value: Option<&Value>) -> Option<i32> {
    value.and_then(Value::as_i64).map(|number| i32::try_from(number).unwrap_or(i32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn files_have_forms_and_verbosities() {
        let read = Logging::read(&json!({ "vmodule": [{ "filePattern": "pleg*", "verbosity": 5 }], "verbosity": 2 }));
        let modules = vec![("pleg*".to_owned(), 5)];
        assert_eq!(read, Ok(Logging { format: Format::Text, modules, verbosity: Some(2) }));
        let both = json!({ "format": "json", "vmodule": [{ "filePattern": "a", "verbosity": 1 }] });
        assert_eq!(Logging::read(&both).unwrap_err(), "vmodule: Forbidden: Only supported for text log format");
        assert!(Logging::read(&json!({ "vmodule": [{ "filePattern": "a=b" }] })).is_err());
    }
}
