//! Messages as bytes.

/// Longer messages are not taken.
pub(super) const MAX_MESSAGE: usize = 1 << 20;
/// Bytes of a header without its fields.
const FIXED: usize = 16;
const VERSION: u8 = 1;

/// What is wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// It ends too early.
    #[error("the message is cut off")]
    Short,
    /// It is longer than anything expected here.
    #[error("the message is too long")]
    Long,
    /// It breaks a rule.
    #[error("the message is malformed")]
    Malformed,
}

/// What a message is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Asks for something.
    #[default]
    Call,
    /// Answers.
    Return,
    /// Answers that it failed.
    Error,
    /// Tells something.
    Signal,
}

/// One argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `b`
    Bool(bool),
    /// `i`
    Int(i32),
    /// `u`
    Uint(u32),
    /// `t`
    Long(u64),
    /// `s`
    Text(String),
    /// `o`
    Path(String),
    /// `g`
    Signature(String),
    /// `h`, an index into what came along
    Descriptor(u32),
    /// `v`
    Variant(Box<Value>),
}

impl Value {
    /// A string.
    pub fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    fn signature(&self) -> char {
        match self {
            Self::Bool(_) => 'b',
            Self::Int(_) => 'i',
            Self::Uint(_) => 'u',
            Self::Long(_) => 't',
            Self::Text(_) => 's',
            Self::Path(_) => 'o',
            Self::Signature(_) => 'g',
            Self::Descriptor(_) => 'h',
            Self::Variant(_) => 'v',
        }
    }
}

/// One message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// What it is for.
    pub kind: Kind,
    /// The sender's number.
    pub serial: u32,
    /// What it answers.
    pub reply_to: Option<u32>,
    /// Object.
    pub path: String,
    /// Interface.
    pub interface: String,
    /// Method or signal.
    pub member: String,
    /// Name of an error.
    pub error: String,
    /// To whom.
    pub destination: String,
    /// From whom.
    pub sender: String,
    /// File descriptors that come along.
    pub descriptors: u32,
    /// Arguments.
    pub body: Vec<Value>,
}

#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn uint(&mut self, value: u32) {
        self.align(4);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.uint(u32::try_from(text.len()).unwrap_or(u32::MAX));
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, text: &str) {
        self.0.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Bool(value) => self.uint(u32::from(*value)),
            Value::Int(value) => {
                self.align(4);
                self.0.extend_from_slice(&value.to_le_bytes());
            }
            Value::Uint(value) | Value::Descriptor(value) => self.uint(*value),
            Value::Long(value) => {
                self.align(8);
                self.0.extend_from_slice(&value.to_le_bytes());
            }
            Value::Text(text) | Value::Path(text) => self.text(text),
            Value::Signature(text) => self.signature(text),
            Value::Variant(inner) => {
                self.signature(&inner.signature().to_string());
                self.value(inner);
            }
        }
    }

    fn field(&mut self, code: u8, value: &Value) {
        self.align(8);
        self.0.push(code);
        self.signature(&value.signature().to_string());
        self.value(value);
    }
}

impl Message {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Writer::default();
        self.body.iter().for_each(|value| body.value(value));
        let kind = match self.kind {
            Kind::Call => 1,
            Kind::Return => 2,
            Kind::Error => 3,
            Kind::Signal => 4,
        };
        let mut out = Writer(vec![b'l', kind, 0, VERSION]);
        out.uint(u32::try_from(body.0.len()).unwrap_or(u32::MAX));
        out.uint(self.serial);
        out.uint(0);
        let signature: String = self.body.iter().map(Value::signature).collect();
        if !self.path.is_empty() {
            out.field(1, &Value::Path(self.path.clone()));
        }
        for (code, text) in
            [(2, &self.interface), (3, &self.member), (4, &self.error), (6, &self.destination), (7, &self.sender)]
        {
            if !text.is_empty() {
                out.field(code, &Value::text(text));
            }
        }
        if let Some(serial) = self.reply_to {
            out.field(5, &Value::Uint(serial));
        }
        if !signature.is_empty() {
            out.field(8, &Value::Signature(signature));
        }
        if self.descriptors > 0 {
            out.field(9, &Value::Uint(self.descriptors));
        }
        let fields = u32::try_from(out.0.len() - FIXED).unwrap_or(u32::MAX);
        out.0[FIXED - 4..FIXED].copy_from_slice(&fields.to_le_bytes());
        out.align(8);
        out.0.extend_from_slice(&body.0);
        out.0
    }

    /// How long the message at the beginning of some bytes is, once that can be told.
    pub fn length(bytes: &[u8]) -> Result<Option<usize>, WireError> {
        let Some(head) = bytes.get(..FIXED) else { return Ok(None) };
        let big = is_big_endian(head[0])?;
        if head[3] != VERSION {
            return Err(WireError::Malformed);
        }
        let mut reader = Reader { bytes: head, at: 4, big };
        let body = reader.length()?;
        reader.at = FIXED - 4;
        let fields = reader.length()?;
        let whole = (FIXED + fields).next_multiple_of(8) + body;
        if whole > MAX_MESSAGE { Err(WireError::Long) } else { Ok(Some(whole)) }
    }

    /// Reads one whole message.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let whole = Self::length(bytes)?.ok_or(WireError::Short)?;
        let bytes = bytes.get(..whole).ok_or(WireError::Short)?;
        let big = is_big_endian(bytes[0])?;
        let kind = match bytes[1] {
            1 => Kind::Call,
            2 => Kind::Return,
            3 => Kind::Error,
            4 => Kind::Signal,
            _ => return Err(WireError::Malformed),
        };
        let mut reader = Reader { bytes, at: 8, big };
        let mut message = Self { kind, serial: reader.uint()?, ..Self::default() };
        let fields = reader.length()?;
        let end = FIXED.checked_add(fields).ok_or(WireError::Long)?;
        let mut signature = String::new();
        while reader.at < end {
            reader.align(8)?;
            let code = reader.byte()?;
            let kind = reader.signature()?;
            match (code, reader.value(&kind)?) {
                (1, Value::Path(text)) => message.path = text,
                (2, Value::Text(text)) => message.interface = text,
                (3, Value::Text(text)) => message.member = text,
                (4, Value::Text(text)) => message.error = text,
                (5, Value::Uint(serial)) => message.reply_to = Some(serial),
                (6, Value::Text(text)) => message.destination = text,
                (7, Value::Text(text)) => message.sender = text,
                (8, Value::Signature(text)) => signature = text,
                (9, Value::Uint(count)) => message.descriptors = count,
                (1..=9, _) => return Err(WireError::Malformed),
                _ => {}
            }
        }
        if reader.at != end {
            return Err(WireError::Malformed);
        }
        reader.align(8)?;
        for kind in signature.chars() {
            if !"biutsoghv".contains(kind) {
                // Nobody here asks for anything else; what came before is what may be read.
                break;
            }
            message.body.push(reader.value(&kind.to_string())?);
        }
        Ok(message)
    }
}

fn is_big_endian(mark: u8) -> Result<bool, WireError> {
    match mark {
        b'l' => Ok(false),
        b'B' => Ok(true),
        _ => Err(WireError::Malformed),
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    big: bool,
}

impl Reader<'_> {
    fn take(&mut self, count: usize) -> Result<&[u8], WireError> {
        let end = self.at.checked_add(count).ok_or(WireError::Long)?;
        let taken = self.bytes.get(self.at..end).ok_or(WireError::Short)?;
        self.at = end;
        Ok(taken)
    }

    fn align(&mut self, to: usize) -> Result<(), WireError> {
        let gap = self.at.next_multiple_of(to) - self.at;
        if self.take(gap)?.iter().all(|byte| *byte == 0) { Ok(()) } else { Err(WireError::Malformed) }
    }

    fn byte(&mut self) -> Result<u8, WireError> {
        Ok(self.take(1)?[0])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        self.align(N)?;
        let big = self.big;
        let mut bytes: [u8; N] = self.take(N)?.try_into().map_err(|_| WireError::Short)?;
        if big {
            bytes.reverse();
        }
        Ok(bytes)
    }

    fn uint(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_le_bytes)
    }

    fn length(&mut self) -> Result<usize, WireError> {
        let length = usize::try_from(self.uint()?).map_err(|_| WireError::Long)?;
        if length > MAX_MESSAGE { Err(WireError::Long) } else { Ok(length) }
    }

    fn string(&mut self, length: usize) -> Result<String, WireError> {
        let text = String::from_utf8(self.take(length)?.to_vec()).map_err(|_| WireError::Malformed)?;
        if self.byte()? == 0 && !text.contains('\0') { Ok(text) } else { Err(WireError::Malformed) }
    }

    fn signature(&mut self) -> Result<String, WireError> {
        let length = usize::from(self.byte()?);
        self.string(length)
    }

    fn value(&mut self, kind: &str) -> Result<Value, WireError> {
        Ok(match kind {
            "b" => match self.uint()? {
                0 => Value::Bool(false),
                1 => Value::Bool(true),
                _ => return Err(WireError::Malformed),
            },
            "i" => Value::Int(self.array().map(i32::from_le_bytes)?),
            "u" => Value::Uint(self.uint()?),
            "t" => Value::Long(self.array().map(u64::from_le_bytes)?),
            "h" => Value::Descriptor(self.uint()?),
            "s" | "o" => {
                let length = self.length()?;
                let text = self.string(length)?;
                if kind == "s" { Value::Text(text) } else { Value::Path(text) }
            }
            "g" => Value::Signature(self.signature()?),
            "v" => {
                let inner = self.signature()?;
                // A variant in a variant could go on for ever.
                if inner == "v" {
                    return Err(WireError::Malformed);
                }
                Value::Variant(Box::new(self.value(&inner)?))
            }
            _ => return Err(WireError::Malformed),
        })
    }
}
