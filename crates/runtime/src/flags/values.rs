//! Values of flags in Go's syntax.

use std::{collections::BTreeMap, time::Duration};

use machinery::duration::{self, GoDuration};

/// A Go duration that is not negative.
pub fn duration(text: &str) -> Result<Duration, String> {
    let parsed = duration::parse(text).map_err(|e| e.to_string())?;
    Duration::try_from(parsed).map_err(|_| format!("time: negative duration {text:?}"))
}

/// A duration as Go prints it.
pub fn format_duration(value: Duration) -> String {
    duration::format(GoDuration(i64::try_from(value.as_nanos()).unwrap_or(i64::MAX)))
}

/// A path; an empty one means none, which clap's own parser refuses.
pub(super) fn path(text: &str) -> Result<std::path::PathBuf, String> {
    Ok(text.into())
}

/// A boolean as `strconv.ParseBool` takes it.
pub fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing {text:?}: invalid syntax")),
    }
}

/// Splits one line of comma-separated values; a value may be in double quotes.
pub fn comma_separated(text: &str) -> Result<Vec<String>, String> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let Some(quoted) = rest.strip_prefix('"') else {
            let end = rest.find(',').unwrap_or(rest.len());
            if rest[..end].contains('"') {
                return Err("parse error: bare \" in non-quoted field".into());
            }
            fields.push(rest[..end].to_owned());
            match rest.get(end + 1..) {
                Some(next) if end < rest.len() => rest = next,
                _ => return Ok(fields),
            }
            continue;
        };
        let (field, after) = quoted_field(quoted)?;
        fields.push(field);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None if after.is_empty() => return Ok(fields),
            None => return Err("parse error: extraneous or missing \" in quoted-field".into()),
        }
    }
}

fn quoted_field(text: &str) -> Result<(String, &str), String> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let end = rest.find('"').ok_or("parse error: extraneous or missing \" in quoted-field")?;
        field.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(next) => {
                field.push('"');
                rest = next;
            }
            None => return Ok((field, rest)),
        }
    }
}

/// `k=v,k2=v2`; repeated use of the flag adds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StringMap(pub BTreeMap<String, String>);

impl std::str::FromStr for StringMap {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        pairs(text, '=', "malformed pair, expect string=string").map(Self)
    }
}

impl std::fmt::Display for StringMap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let pairs: Vec<String> = self.0.iter().map(|(k, v)| format!("{k}={v}")).collect();
        f.write_str(&pairs.join(","))
    }
}

/// `k<v,k2<v2`, as eviction thresholds are written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ThresholdMap(pub BTreeMap<String, String>);

impl std::str::FromStr for ThresholdMap {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        pairs(text, '<', "malformed pair, expect string<string").map(Self)
    }
}

impl std::fmt::Display for ThresholdMap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let pairs: Vec<String> = self.0.iter().map(|(k, v)| format!("{k}<{v}")).collect();
        f.write_str(&pairs.join(","))
    }
}

/// `A=true,B=false`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BoolMap(pub BTreeMap<String, bool>);

impl std::str::FromStr for BoolMap {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut out = BTreeMap::new();
        for (key, value) in pairs(text, '=', "malformed pair, expect string=bool")? {
            let parsed = boolean(&value).map_err(|e| format!("invalid value of {key}: {value}, err: {e}"))?;
            out.insert(key, parsed);
        }
        Ok(Self(out))
    }
}

impl std::fmt::Display for BoolMap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let pairs: Vec<String> = self.0.iter().map(|(k, v)| format!("{k}={v}")).collect();
        f.write_str(&pairs.join(","))
    }
}

fn pairs(text: &str, separator: char, malformed: &str) -> Result<BTreeMap<String, String>, String> {
    let mut out = BTreeMap::new();
    for pair in text.split(',').filter(|p| !p.is_empty()) {
        let (key, value) = pair.split_once(separator).ok_or(malformed)?;
        out.insert(key.trim().to_owned(), value.trim().to_owned());
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_inside_quotes() {
        assert_eq!(comma_separated(r#"a,"b,c",d"#), Ok(vec!["a".into(), "b,c".into(), "d".into()]));
        assert_eq!(comma_separated(r#""a""b""#), Ok(vec![r#"a"b"#.into()]));
        assert_eq!(comma_separated("a,"), Ok(vec!["a".into(), String::new()]));
        assert!(comma_separated(r#""a"#).is_err());
        assert!(comma_separated(r#"a"b"#).is_err());
        assert_eq!(comma_separated(""), Ok(vec![]));
    }

    #[test]
    fn maps_fail_as_gos_do() {
        assert_eq!("a".parse::<StringMap>(), Err("malformed pair, expect string=string".into()));
        assert_eq!("a=x".parse::<BoolMap>().map_err(|e| e.starts_with("invalid value of a: x, err: ")), Err(true));
        assert_eq!(
            "memory.available<1Gi".parse::<ThresholdMap>().map(|m| m.to_string()),
            Ok("memory.available<1Gi".into())
        );
    }
}
