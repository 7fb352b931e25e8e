//! `--sort-by`.

use std::cmp::Ordering;

use machinery::quantity::Quantity;
use serde_json::Value;

use crate::{error::CommandError, print::jsonpath::Template};

/// A sort key that the flag names.
pub(super) struct Sort {
    path: Template,
    text: String,
}

impl Sort {
    pub(super) fn parse(text: &str) -> Result<Option<Self>, CommandError> {
        if text.is_empty() {
            return Ok(None);
        }
        let path = Template::parse_relaxed(text).map_err(|e| CommandError::plain(e.to_string()))?;
        Ok(Some(Self { text: path.text().to_owned(), path }))
    }

    /// Sorts by the field of what `object` makes of an item; items without the field come first.
    pub(super) fn sort(&self, items: &mut [Value], object: impl Fn(&Value) -> &Value) -> Result<(), CommandError> {
        let mut keyed: Vec<(Option<Value>, Value)> = Vec::with_capacity(items.len());
        for item in items.iter_mut() {
            let found = self.path.find(object(item)).map_err(|e| CommandError::plain(e.to_string()))?;
            let key = found.first().map(|v| (*v).clone());
            keyed.push((key, item.take()));
        }
        let unknown = !keyed.is_empty() && keyed.iter().all(|(key, _)| key.is_none());
        keyed.sort_by(|(a, _), (b, _)| match (a, b) {
            (None, None) => Ordering::Equal,
            (None, Some(_)) => Ordering::Less,
            (Some(_), None) => Ordering::Greater,
            (Some(a), Some(b)) => compare(a, b),
        });
        for (slot, (_, item)) in items.iter_mut().zip(keyed) {
            *slot = item;
        }
        if unknown {
            return Err(CommandError::plain(format!(
                "couldn't find any field with path {:?} in the list of objects",
                self.text
            )));
        }
        Ok(())
    }
}

fn compare(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Number(_), Value::Number(_)) => a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(Ordering::Equal),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::String(a), Value::String(b)) => match (Quantity::parse(a), Quantity::parse(b)) {
            (Ok(x), Ok(y)) => x.partial_cmp(&y).unwrap_or(Ordering::Equal),
            _ => natural(a, b),
        },
        (Value::Array(a), Value::Array(b)) => {
            let pairs = a.iter().zip(b).map(|(x, y)| compare(x, y)).find(|o| o.is_ne());
            pairs.unwrap_or_else(|| a.len().cmp(&b.len()))
        }
        _ => Ordering::Equal,
    }
}

/// Runs of digits are compared as numbers.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut x, mut y) = (a.as_bytes(), b.as_bytes());
    while let (Some(p), Some(q)) = (x.first(), y.first()) {
        if p.is_ascii_digit() && q.is_ascii_digit() {
            let digits = |t: &[u8]| t.iter().take_while(|c| c.is_ascii_digit()).count();
            let zeros = |t: &[u8]| t.iter().take_while(|c| **c == b'0').count();
            let (m, n) = (digits(x), digits(y));
            let (i, j) = (zeros(&x[..m]), zeros(&y[..n]));
            let order = (m - i).cmp(&(n - j)).then_with(|| x[i..m].cmp(&y[j..n])).then(i.cmp(&j));
            if order.is_ne() {
                return order;
            }
            (x, y) = (&x[m..], &y[n..]);
        } else if p != q {
            return p.cmp(q);
        } else {
            (x, y) = (&x[1..], &y[1..]);
        }
    }
    x.len().cmp(&y.len())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn items_are_sorted_by_what_they_mean() {
        let sort = Sort::parse(".v").expect("a path").expect("a key");
        let mut items = vec![json!({"v": "10Mi"}), json!({"v": "2Gi"}), json!({}), json!({"v": "1Ki"})];
        sort.sort(&mut items, |v| v).expect("sorted");
        assert_eq!(items, [json!({}), json!({"v": "1Ki"}), json!({"v": "10Mi"}), json!({"v": "2Gi"})]);
        assert_eq!(natural("web-10", "web-9"), Ordering::Greater);
        let missing = Sort::parse("{.x}").expect("a path").expect("a key");
        assert!(missing.sort(&mut items, |v| v).is_err());
    }
}
