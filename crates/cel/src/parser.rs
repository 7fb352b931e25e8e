//! From source to expression; macros are expanded on the way.

use crate::{
    CompileError,
    ast::{Expr, Kind, Loop, LoopKind, Select},
    lexer::{Token, tokens},
    value::Val,
};

/// Nesting beyond which an expression is refused: of parentheses and the like, and of expressions in expressions.
const MAX_DEPTH: usize = 100;
const MAX_EXPRESSION_DEPTH: usize = 250;
/// What an expression may begin with.
const BEGINNINGS: &str = "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, \
                          STRING, BYTES, IDENTIFIER}";
/// Length beyond which an expression is refused, bytes.
const MAX_LENGTH: usize = 100_000;

/// Words that are no identifiers.
pub(crate) const RESERVED: [&str; 17] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// Parses an expression.
pub(crate) fn parse(source: &str) -> Result<Expr, CompileError> {
    if source.len() > MAX_LENGTH {
        let text = format!("expression code point size exceeds limit: size: {}, limit {MAX_LENGTH}", source.len());
        return Err(CompileError::at("", 0, text));
    }
    let mut parser = Parser { source, tokens: tokens(source)?, next: 0, depth: 0 };
    let expr = parser.expression()?;
    match parser.peek() {
        Token::End => Ok(expr),
        _ => {
            let is_last = matches!(parser.peek_second(), Token::End);
            parser.syntax(if is_last { "extraneous" } else { "mismatched" }, "<EOF>")
        }
    }
}

struct Parser<'a> {
    source: &'a str,
    tokens: Vec<(usize, Token)>,
    next: usize,
    depth: usize,
}

type Parsed = Result<Expr, CompileError>;

fn call(at: usize, name: &str, args: Vec<Expr>) -> Expr {
    Expr::new(at, Kind::Call { name: name.to_owned(), target: None, args })
}

impl Parser<'_> {
    fn peek(&self) -> &Token {
        self.tokens.get(self.next).map_or(&Token::End, |(_, token)| token)
    }

    fn peek_second(&self) -> &Token {
        self.tokens.get(self.next + 1).map_or(&Token::End, |(_, token)| token)
    }

    fn at(&self) -> usize {
        self.tokens.get(self.next).map_or(self.source.len(), |(at, _)| *at)
    }

    fn take(&mut self) -> Token {
        let token = self.peek().clone();
        self.next += 1;
        token
    }

    fn is(&self, symbol: &str) -> bool {
        matches!(self.peek(), Token::Symbol(s) if *s == symbol)
    }

    fn accept(&mut self, symbol: &str) -> bool {
        let is = self.is(symbol);
        if is {
            self.next += 1;
        }
        is
    }

    fn expect(&mut self, symbol: &str) -> Result<(), CompileError> {
        if self.accept(symbol) {
            return Ok(());
        }
        if matches!(self.peek(), Token::End) {
            return self.error(self.at(), format!("Syntax error: missing '{symbol}' at '<EOF>'"));
        }
        self.syntax("mismatched", &format!("'{symbol}'"))
    }

    fn error<T>(&self, at: usize, message: impl Into<String>) -> Result<T, CompileError> {
        Err(CompileError::at(self.source, at, message.into()))
    }

    /// The text of the next token.
    fn shown(&self) -> String {
        if matches!(self.peek(), Token::End) {
            return "<EOF>".to_owned();
        }
        let end = self.tokens.get(self.next + 1).map_or(self.source.len(), |(at, _)| *at);
        self.source.get(self.at()..end).unwrap_or("").trim().to_owned()
    }

    fn syntax<T>(&self, what: &str, expected: &str) -> Result<T, CompileError> {
        self.error(self.at(), format!("Syntax error: {what} input '{}' expecting {expected}", self.shown()))
    }

    fn unexpected<T>(&self) -> Result<T, CompileError> {
        self.syntax("mismatched", BEGINNINGS)
    }

    fn expression(&mut self) -> Parsed {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return self.error(self.at(), format!("expression recursion limit exceeded: {MAX_DEPTH}"));
        }
        let condition = self.or()?;
        let at = self.at();
        let expr = if self.accept("?") {
            let then = self.or()?;
            self.expect(":")?;
            let otherwise = self.expression()?;
            call(at, "_?_:_", vec![condition, then, otherwise])
        } else {
            condition
        };
        self.depth -= 1;
        if expr.depth > MAX_EXPRESSION_DEPTH {
            return self.error(at, format!("expression recursion limit exceeded: {MAX_EXPRESSION_DEPTH}"));
        }
        Ok(expr)
    }

    fn binary(&mut self, symbols: &[(&str, &'static str)], operand: fn(&mut Self) -> Parsed) -> Parsed {
        let mut left = operand(self)?;
        let mut count = 0;
        loop {
            let at = self.at();
            let Some((_, name)) = symbols.iter().find(|(symbol, _)| self.is(symbol)) else { return Ok(left) };
            count += 1;
            if count > MAX_DEPTH {
                return self.error(at, format!("expression recursion limit exceeded: {MAX_DEPTH}"));
            }
            self.next += 1;
            let right = operand(self)?;
            left = call(at, name, vec![left, right]);
        }
    }

    fn or(&mut self) -> Parsed {
        self.binary(&[("||", "_||_")], Self::and)
    }

    fn and(&mut self) -> Parsed {
        self.binary(&[("&&", "_&&_")], Self::relation)
    }

    fn relation(&mut self) -> Parsed {
        let mut left = self.sum()?;
        loop {
            let at = self.at();
            let name = match self.peek() {
                Token::Symbol("<") => "_<_",
                Token::Symbol("<=") => "_<=_",
                Token::Symbol(">") => "_>_",
                Token::Symbol(">=") => "_>=_",
                Token::Symbol("==") => "_==_",
                Token::Symbol("!=") => "_!=_",
                Token::Ident(word) if word == "in" => "@in",
                _ => return Ok(left),
            };
            self.next += 1;
            let right = self.sum()?;
            left = call(at, name, vec![left, right]);
        }
    }

    fn sum(&mut self) -> Parsed {
        self.binary(&[("+", "_+_"), ("-", "_-_")], Self::product)
    }

    fn product(&mut self) -> Parsed {
        self.binary(&[("*", "_*_"), ("/", "_/_"), ("%", "_%_")], Self::unary)
    }

    fn unary(&mut self) -> Parsed {
        let at = self.at();
        let (mut nots, mut minuses) = (0, 0);
        while self.accept("!") {
            nots += 1;
        }
        if nots == 0 {
            while self.is("-") {
                // A literal takes its sign with it.
                match self.peek_second().clone() {
                    Token::Int(value) => {
                        self.next += 2;
                        let literal = Expr::new(at, Kind::Literal(Val::Int(-value)));
                        let member = self.members(literal)?;
                        return Ok(negated(at, minuses, member));
                    }
                    Token::IntLimit => {
                        self.next += 2;
                        let member = self.members(Expr::new(at, Kind::Literal(Val::Int(i64::MIN))))?;
                        return Ok(negated(at, minuses, member));
                    }
                    Token::Double(value) => {
                        self.next += 2;
                        let member = self.members(Expr::new(at, Kind::Literal(Val::Double(-value))))?;
                        return Ok(negated(at, minuses, member));
                    }
                    _ => {}
                }
                self.next += 1;
                minuses += 1;
            }
        }
        let primary = self.primary()?;
        let member = self.members(primary)?;
        if nots % 2 == 1 {
            return Ok(call(at, "!_", vec![member]));
        }
        Ok(negated(at, minuses, member))
    }

    fn members(&mut self, mut operand: Expr) -> Parsed {
        let mut count = 0;
        loop {
            count += 1;
            let at = self.at();
            if count > MAX_DEPTH {
                return self.error(at, format!("expression recursion limit exceeded: {MAX_DEPTH}"));
            }
            if self.accept(".") {
                let mode = if self.accept("?") { Select::Optional } else { Select::Field };
                let field = match self.take() {
                    Token::Ident(name) | Token::Quoted(name) => name,
                    _ => {
                        self.next -= 1;
                        return self.unexpected();
                    }
                };
                operand = if mode == Select::Field && self.is("(") {
                    let at = self.at();
                    let args = self.arguments()?;
                    self.method(at, operand, field, args)?
                } else {
                    Expr::new(at, Kind::Select { operand: Box::new(operand), field, mode })
                };
            } else if self.accept("[") {
                let name = if self.accept("?") { "_[?_]" } else { "_[_]" };
                let index = self.expression()?;
                self.expect("]")?;
                operand = call(at, name, vec![operand, index]);
            } else if self.is("{")
                && let Some(name) = type_name(&operand)
            {
                operand = self.structure(at, name)?;
            } else {
                return Ok(operand);
            }
        }
    }

    fn structure(&mut self, at: usize, name: String) -> Parsed {
        self.expect("{")?;
        let mut fields = Vec::new();
        while !self.accept("}") {
            let is_optional = self.accept("?");
            let field = match self.peek().clone() {
                Token::Ident(name) | Token::Quoted(name) => name,
                _ => return self.syntax("mismatched", "IDENTIFIER"),
            };
            self.next += 1;
            self.expect(":")?;
            fields.push((field, is_optional, self.expression()?));
            if !self.accept(",") {
                self.expect("}")?;
                break;
            }
        }
        Ok(Expr::new(at, Kind::Struct { name, fields }))
    }

    fn arguments(&mut self) -> Result<Vec<Expr>, CompileError> {
        self.expect("(")?;
        let mut args = Vec::new();
        while !self.accept(")") {
            args.push(self.expression()?);
            if !self.accept(",") {
                self.expect(")")?;
                break;
            }
        }
        Ok(args)
    }

    fn primary(&mut self) -> Parsed {
        let at = self.at();
        let literal = |value| Ok(Expr::new(at, Kind::Literal(value)));
        match self.take() {
            Token::Int(value) => literal(Val::Int(value)),
            Token::Uint(value) => literal(Val::Uint(value)),
            Token::Double(value) => literal(Val::Double(value)),
            Token::Text(text) => literal(Val::text(text)),
            Token::Bytes(bytes) => literal(Val::Bytes(bytes.into())),
            Token::Symbol("(") => {
                let inner = self.expression()?;
                self.expect(")")?;
                Ok(inner)
            }
            Token::Symbol("[") => self.list(at),
            Token::Symbol("{") => self.map(at),
            Token::Symbol(".") => match self.take() {
                Token::Ident(name) => self.named(at, name),
                _ => {
                    self.next -= 1;
                    self.unexpected()
                }
            },
            Token::Ident(name) => match name.as_str() {
                "true" => literal(Val::Bool(true)),
                "false" => literal(Val::Bool(false)),
                "null" => literal(Val::Null),
                "in" => {
                    self.next -= 1;
                    self.unexpected()
                }
                word if RESERVED.contains(&word) => self.error(at, format!("reserved identifier: {word}")),
                _ => self.named(at, name),
            },
            _ => {
                self.next -= 1;
                self.unexpected()
            }
        }
    }

    fn named(&mut self, at: usize, name: String) -> Parsed {
        if !self.is("(") {
            return Ok(Expr::new(at, Kind::Ident(name)));
        }
        let at = self.at();
        let mut args = self.arguments()?;
        if name != "has" {
            return Ok(call(at, &name, args));
        }
        match (args.pop().map(|a| (a.at, a.kind)), args.is_empty()) {
            (Some((_, Kind::Select { operand, field, mode: Select::Field })), true) => {
                Ok(Expr::new(at, Kind::Select { operand, field, mode: Select::Test }))
            }
            _ => self.error(at, "invalid argument to has() macro"),
        }
    }

    fn list(&mut self, at: usize) -> Parsed {
        let mut items = Vec::new();
        while !self.accept("]") {
            let is_optional = self.accept("?");
            items.push((is_optional, self.expression()?));
            if !self.accept(",") {
                self.expect("]")?;
                break;
            }
        }
        Ok(Expr::new(at, Kind::List(items)))
    }

    fn map(&mut self, at: usize) -> Parsed {
        let mut entries = Vec::new();
        while !self.accept("}") {
            let is_optional = self.accept("?");
            let key = self.expression()?;
            self.expect(":")?;
            entries.push((is_optional, key, self.expression()?));
            if !self.accept(",") {
                self.expect("}")?;
                break;
            }
        }
        Ok(Expr::new(at, Kind::Map(entries)))
    }

    /// `operand.name(args)`, which may be a macro.
    fn method(&mut self, at: usize, operand: Expr, name: String, args: Vec<Expr>) -> Parsed {
        if let (Kind::Ident(owner), "bind") = (&operand.kind, name.as_str())
            && owner == "cel"
            && args.len() == 3
        {
            return self.bind(at, args);
        }
        let (kind, bodies) = match (name.as_str(), args.len()) {
            ("all", 2 | 3) => (LoopKind::All, 1),
            ("exists", 2 | 3) => (LoopKind::Exists, 1),
            ("exists_one" | "existsOne", 2 | 3) => (LoopKind::ExistsOne, 1),
            ("map", 2) => (LoopKind::Map, 1),
            ("map", 3) => (LoopKind::Map, 2),
            ("filter", 2) => (LoopKind::Filter, 1),
            ("transformList", 3) => (LoopKind::TransformList, 1),
            ("transformList", 4) => (LoopKind::TransformList, 2),
            ("transformMap", 3) => (LoopKind::TransformMap, 1),
            ("transformMap", 4) => (LoopKind::TransformMap, 2),
            ("transformMapEntry", 3) => (LoopKind::TransformMapEntry, 1),
            ("transformMapEntry", 4) => (LoopKind::TransformMapEntry, 2),
            ("optMap", 2) => (LoopKind::OptMap, 1),
            ("optFlatMap", 2) => (LoopKind::OptFlatMap, 1),
            ("sortBy", 2) => (LoopKind::SortBy, 1),
            _ => return Ok(Expr::new(at, Kind::Call { name, target: Some(Box::new(operand)), args })),
        };
        let mut variables = Vec::new();
        let names = args.len() - bodies;
        let mut rest = Vec::new();
        for (index, arg) in args.into_iter().enumerate() {
            match (index < names, arg.kind) {
                (true, Kind::Ident(name)) => variables.push(name),
                (true, _) => return self.error(arg.at, "argument must be a simple name"),
                (false, kind) => rest.push(Expr::new(arg.at, kind)),
            }
        }
        let Some(body) = rest.pop() else { return self.unexpected() };
        let one = Loop { kind, range: operand, variables, filter: rest.pop(), body };
        Ok(Expr::new(at, Kind::Loop(Box::new(one))))
    }

    fn bind(&mut self, at: usize, args: Vec<Expr>) -> Parsed {
        let mut args = args.into_iter();
        match (args.next(), args.next(), args.next()) {
            (Some(Expr { kind: Kind::Ident(name), .. }), Some(value), Some(body)) => {
                Ok(Expr::new(at, Kind::Bind { name, value: Box::new(value), body: Box::new(body) }))
            }
            _ => self.error(at, "cel.bind() variable names must be simple identifiers"),
        }
    }
}

fn negated(at: usize, minuses: usize, member: Expr) -> Expr {
    if minuses % 2 == 1 { call(at, "-_", vec![member]) } else { member }
}

/// The dotted name that an expression is, if it may name a type: types begin in upper case.
fn type_name(expr: &Expr) -> Option<String> {
    fn dotted(expr: &Expr) -> Option<String> {
        match &expr.kind {
            Kind::Ident(name) => Some(name.clone()),
            Kind::Select { operand, field, mode: Select::Field } => Some(format!("{}.{field}", dotted(operand)?)),
            _ => None,
        }
    }
    dotted(expr).filter(|name| name.starts_with(|c: char| c.is_ascii_uppercase()))
}
