//! Whole and thousandth values of resource quantities; unreadable text counts as zero.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use machinery::quantity::{Format, Quantity as Number};

/// The quantity in whole units, rounded up.
pub fn value(quantity: &Quantity) -> i64 {
    Number::parse(&quantity.0).map_or(0, |number| number.value())
}

/// The quantity in thousandths, rounded up.
pub fn milli(quantity: &Quantity) -> i64 {
    Number::parse(&quantity.0).map_or(0, |number| number.milli_value())
}

/// A quantity of bytes in the binary form used in messages (`100Mi`, or the plain number).
pub fn bytes(value: i64) -> String {
    Number::from_units(value, Format::BinarySi).to_string()
}

/// A quantity of thousandths (`250m`, or whole numbers).
pub fn from_milli(milli: i64) -> Quantity {
    Quantity(Number::from_milli(milli, Format::DecimalSi).to_string())
}

/// A whole quantity of bytes.
pub fn from_bytes(value: i64) -> Quantity {
    Quantity(bytes(value))
}

/// A whole count.
pub fn from_count(value: i64) -> Quantity {
    Quantity(value.to_string())
}
