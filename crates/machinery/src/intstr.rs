//! Values that are an integer or a percentage.

use serde_json::Value;

/// Which way a percentage of a total is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Round {
    Up,
    Down,
}

/// A value that is neither an integer nor a percentage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IntOrStringError {
    /// A text that is no percentage.
    #[error("invalid value for IntOrString: invalid type: string is not a percentage")]
    NotPercentage,
    /// Another JSON type.
    #[error("invalid type: neither int nor percentage")]
    Type,
}

/// An integer or a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IntOrString {
    /// JSON number.
    Int(i32),
    /// JSON text.
    Text(String),
}

impl IntOrString {
    /// Reads a JSON value; `None` for other types and numbers beyond 32 bits.
    pub fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Number(n) => i32::try_from(n.as_i64()?).ok().map(Self::Int),
            Value::String(text) => Some(Self::Text(text.clone())),
            _ => None,
        }
    }

    /// The percentage, if it is a text of digits with `%`.
    pub fn percent(&self) -> Option<i32> {
        match self {
            Self::Int(_) => None,
            Self::Text(text) => percent(text),
        }
    }

    /// The number itself, or the percentage of `total`.
    pub fn scaled(&self, total: i32, round: Round) -> Result<i32, IntOrStringError> {
        match self {
            Self::Int(n) => Ok(*n),
            Self::Text(text) => {
                let percent = percent(text).ok_or(IntOrStringError::NotPercentage)?;
                Ok(share(percent, total, round))
            }
        }
    }
}

/// The number of a JSON value itself, or its percentage of `total`.
pub fn scaled(value: &Value, total: i32, round: Round) -> Result<i32, IntOrStringError> {
    IntOrString::from_value(value).ok_or(IntOrStringError::Type)?.scaled(total, round)
}

fn percent(text: &str) -> Option<i32> {
    let digits = text.strip_suffix('%')?;
    (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok()).flatten()
}

fn share(percent: i32, total: i32, round: Round) -> i32 {
    let product = i64::from(percent) * i64::from(total);
    let up = i64::from(round == Round::Up && product.rem_euclid(100) != 0);
    let value = product.div_euclid(100) + up;
    i32::try_from(value).unwrap_or(if value < 0 { i32::MIN } else { i32::MAX })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn percentages_scale() {
        for (value, total, round, want) in [
            (json!(3), 10, Round::Up, 3),
            (json!("25%"), 10, Round::Up, 3),
            (json!("25%"), 10, Round::Down, 2),
            (json!("100%"), 7, Round::Down, 7),
            (json!("0%"), 7, Round::Up, 0),
            (json!("2147483647%"), i32::MAX, Round::Up, i32::MAX),
        ] {
            assert_eq!(scaled(&value, total, round), Ok(want), "{value}");
        }
        assert_eq!(scaled(&json!("5"), 1, Round::Up), Err(IntOrStringError::NotPercentage));
        assert_eq!(scaled(&json!("-5%"), 1, Round::Up), Err(IntOrStringError::NotPercentage));
        assert_eq!(scaled(&json!(true), 1, Round::Up), Err(IntOrStringError::Type));
    }
}
