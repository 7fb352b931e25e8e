//! Quantities: fixed-point numbers with SI suffixes, kept in nano units.

use std::{
    cmp::Ordering,
    fmt,
    ops::{Add, AddAssign, Sub, SubAssign},
};

const NANO: i128 = 1_000_000_000;
/// Largest magnitude kept, in nano units: values beyond are capped.
const CAP: i128 = i64::MAX as i128 * NANO;

/// The family of suffixes a quantity is written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Format {
    #[default]
    DecimalSi,
    BinarySi,
    DecimalExponent,
}

/// A text that is no quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// The text does not have the form.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// The number does not parse.
    #[error("unable to parse numeric part of quantity")]
    Numeric,
    /// The suffix is unknown.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// A quantity. Comparison is numeric; the format only matters for printing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nano: i128,
    format: Format,
}

const BINARY: [(&str, u32); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];
const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];

enum Scale {
    Two(u32),
    Ten(i32),
}

fn suffix(text: &str) -> Option<(Scale, Format)> {
    if let Some((_, bits)) = BINARY.iter().find(|(name, _)| *name == text) {
        return Some((Scale::Two(*bits), Format::BinarySi));
    }
    if let Some((_, exponent)) = DECIMAL.iter().find(|(name, _)| *name == text) {
        return Some((Scale::Ten(*exponent), Format::DecimalSi));
    }
    let exponent = text.strip_prefix(['e', 'E'])?.parse::<i32>().ok()?;
    Some((Scale::Ten(exponent), Format::DecimalExponent))
}

impl Quantity {
    /// A whole number.
    pub fn from_units(units: i64, format: Format) -> Self {
        Self { nano: i128::from(units) * NANO, format }
    }

    /// Thousandths.
    pub fn from_milli(milli: i64, format: Format) -> Self {
        Self { nano: i128::from(milli) * (NANO / 1000), format }
    }

    /// Parses a quantity. Finer than nano is rounded away from zero; too large is capped.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        let split = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
        let (number, tail) = unsigned.split_at(split);
        let tail_fits = tail.chars().all(|c| "eEinumkKMGTP+-".contains(c) || c.is_ascii_digit());
        if number.is_empty() || !tail_fits {
            return Err(QuantityError::Format);
        }
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
            return Err(QuantityError::Numeric);
        }
        let (scale, format) = suffix(tail).ok_or(QuantityError::Suffix)?;
        let magnitude = magnitude(whole, fraction, &scale);
        let nano = if text.starts_with('-') { -magnitude } else { magnitude };
        let small = format == Format::BinarySi && magnitude > 0 && magnitude < NANO;
        Ok(Self { nano, format: if small { Format::DecimalSi } else { format } })
    }

    /// Whether it is zero.
    pub fn is_zero(&self) -> bool {
        self.nano == 0
    }

    /// Whether it is below zero.
    pub fn is_negative(&self) -> bool {
        self.nano < 0
    }

    /// As a whole number, rounded up (away from zero), capped.
    pub fn value(&self) -> i64 {
        self.scaled(NANO)
    }

    /// In thousandths, rounded up (away from zero), capped.
    pub fn milli_value(&self) -> i64 {
        self.scaled(NANO / 1000)
    }

    fn scaled(&self, unit: i128) -> i64 {
        let whole = self.nano / unit;
        let up = if self.nano % unit == 0 { whole } else { whole + self.nano.signum() };
        i64::try_from(up).unwrap_or(if up < 0 { i64::MIN } else { i64::MAX })
    }

    /// As a floating-point number.
    #[allow(clippy::cast_precision_loss)]
    pub fn as_f64(&self) -> f64 {
        self.nano as f64 / NANO as f64
    }

    /// Rounded up (away from zero) to thousandths.
    pub fn round_up_milli(self) -> Self {
        let unit = NANO / 1000;
        let rest = self.nano % unit;
        let nano = if rest == 0 { self.nano } else { self.nano - rest + unit * self.nano.signum() };
        Self { nano, ..self }
    }

    /// The format it prints in.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The same number in another format.
    pub fn with_format(self, format: Format) -> Self {
        Self { format, ..self }
    }

    /// Times a whole number, capped.
    pub fn times(self, factor: i64) -> Self {
        Self { nano: self.nano.saturating_mul(i128::from(factor)).clamp(-CAP, CAP), ..self }
    }
}

fn magnitude(whole: &str, fraction: &str, scale: &Scale) -> i128 {
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    // Beyond this many digits the value is above the cap, or its tail is below a nano.
    const KEPT: usize = 30;
    let kept = &digits[..digits.len().min(KEPT)];
    let dropped = digits.len() - kept.len();
    let Ok(mantissa) = kept.parse::<i128>() else { return 0 };
    let lost = digits[kept.len()..].bytes().any(|b| b != b'0');
    let places = i64::try_from(fraction.len()).unwrap_or(i64::MAX) - i64::try_from(dropped).unwrap_or(0);
    match scale {
        Scale::Ten(exponent) => by_ten(mantissa, i64::from(*exponent) - places + 9, lost),
        Scale::Two(bits) => {
            let scaled = mantissa.checked_mul(1_i128 << bits);
            match scaled {
                Some(scaled) => by_ten(scaled, 9 - places, lost),
                None => CAP,
            }
        }
    }
}

/// `value * 10^exponent`, rounded up, capped.
fn by_ten(value: i128, exponent: i64, lost: bool) -> i128 {
    if value == 0 {
        return i128::from(lost);
    }
    if exponent >= 0 {
        let factor = u32::try_from(exponent).ok().and_then(|e| 10_i128.checked_pow(e));
        return factor.and_then(|f| value.checked_mul(f)).map_or(CAP, |v| v.min(CAP));
    }
    let divisor = u32::try_from(-exponent).ok().and_then(|e| 10_i128.checked_pow(e));
    let Some(divisor) = divisor else { return 1 };
    let up = i128::from(value % divisor != 0 || lost);
    (value / divisor + up).min(CAP)
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nano == 0 {
            return f.write_str("0");
        }
        let whole = self.nano % NANO == 0;
        let units = self.nano / NANO;
        if self.format == Format::BinarySi && whole && units.abs() >= 1024 {
            let best = BINARY.iter().rev().find(|(_, bits)| units % (1_i128 << bits) == 0);
            return match best {
                Some((name, bits)) => write!(f, "{}{name}", units >> bits),
                None => write!(f, "{units}"),
            };
        }
        let (mut mantissa, mut exponent) = (self.nano, -9);
        while mantissa % 1000 == 0 && exponent < 18 {
            mantissa /= 1000;
            exponent += 3;
        }
        if self.format == Format::DecimalExponent {
            return if exponent == 0 { write!(f, "{mantissa}") } else { write!(f, "{mantissa}e{exponent}") };
        }
        let name = DECIMAL.iter().find(|(_, e)| *e == exponent).map_or("", |(name, _)| *name);
        write!(f, "{mantissa}{name}")
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nano == other.nano
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nano.cmp(&other.nano)
    }
}

impl AddAssign for Quantity {
    fn add_assign(&mut self, other: Self) {
        if self.nano == 0 {
            self.format = other.format;
        }
        self.nano = (self.nano + other.nano).clamp(-CAP, CAP);
    }
}

impl Add for Quantity {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        self += other;
        self
    }
}

impl SubAssign for Quantity {
    fn sub_assign(&mut self, other: Self) {
        if self.nano == 0 {
            self.format = other.format;
        }
        self.nano = (self.nano - other.nano).clamp(-CAP, CAP);
    }
}

impl Sub for Quantity {
    type Output = Self;

    fn sub(mut self, other: Self) -> Self {
        self -= other;
        self
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical(text: &str) -> String {
        Quantity::parse(text).expect(text).to_string()
    }

    #[test]
    fn canonical_forms() {
        for (text, want) in [
            ("1.5", "1500m"),
            ("1.5Gi", "1536Mi"),
            ("1024Ki", "1Mi"),
            ("1000m", "1"),
            ("0.5Ki", "512"),
            ("1.1Mi", "1153433600m"),
            ("1000k", "1M"),
            ("1e3", "1e3"),
            ("1000e0", "1e3"),
            ("100Mi", "100Mi"),
            ("0", "0"),
            ("-1", "-1"),
            ("1E", "1E"),
            ("1E3", "1e3"),
            ("0.0000000001", "1n"),
            ("1025", "1025"),
        ] {
            assert_eq!(canonical(text), want, "{text}");
        }
    }

    #[test]
    fn errors() {
        assert_eq!(Quantity::parse(""), Err(QuantityError::Format));
        assert_eq!(Quantity::parse("abc"), Err(QuantityError::Format));
        assert_eq!(Quantity::parse("1.2.3"), Err(QuantityError::Numeric));
        assert_eq!(Quantity::parse("1K"), Err(QuantityError::Suffix));
        assert_eq!(Quantity::parse("1Kii"), Err(QuantityError::Suffix));
    }

    #[test]
    fn huge_values_are_capped() {
        assert_eq!(Quantity::parse("99999999999999999999999999999999999999999Ei").expect("capped").value(), i64::MAX);
        assert_eq!(Quantity::parse("1e999").expect("capped").value(), i64::MAX);
    }

    proptest! {
        #[test]
        fn canonical_text_is_a_fixed_point(n in -1_000_000_000_i64..1_000_000_000, s in "(n|u|m||k|M|G|Ki|Mi|Gi|e3)") {
            let once = canonical(&format!("{n}{s}"));
            prop_assert_eq!(&canonical(&once), &once);
        }

        #[test]
        fn sums_compare(a in 0_i64..1_000_000, b in 0_i64..1_000_000) {
            let sum = Quantity::from_milli(a, Format::DecimalSi) + Quantity::from_milli(b, Format::DecimalSi);
            prop_assert_eq!(sum.milli_value(), a + b);
            prop_assert_eq!(sum - Quantity::from_milli(b, Format::DecimalSi), Quantity::from_milli(a, Format::DecimalSi));
        }
    }
}
