//! Just enough JSON for the QEMU machine protocol: a value, a strict reader, and string quoting.

use std::collections::BTreeMap;
use std::fmt::Write;

/// A JSON value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// Any number.
    Number(f64),
    /// A string, unescaped.
    Text(String),
    /// An array.
    List(Vec<Value>),
    /// An object.
    Object(BTreeMap<String, Value>),
}

impl Value {
    /// The member `key` of an object.
    pub fn get(&self, key: &str) -> Option<&Value> {
        match self {
            Value::Object(members) => members.get(key),
            _ => None,
        }
    }

    /// The text of a string.
    pub fn text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A number that counts something.
    pub fn number(&self) -> Option<u64> {
        match self {
            // What is counted here is far below where the two types part.
            Value::Number(number) if *number >= 0.0 => Some(*number as u64),
            _ => None,
        }
    }

    /// The elements of an array; none for anything else.
    pub fn list(&self) -> &[Value] {
        match self {
            Value::List(list) => list,
            _ => &[],
        }
    }

    /// Reads one value that fills `text`; `None` when it does not.
    pub fn parse(text: &str) -> Option<Value> {
        let mut reader = Reader { rest: text };
        let value = reader.value(0)?;
        reader.space();
        reader.rest.is_empty().then_some(value)
    }
}

/// `text` as a JSON string, quotes included.
pub fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if (c as u32) < 0x20 => drop(write!(out, "\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
    }

    fn eat(&mut self, word: &str) -> Option<()> {
        self.rest = self.rest.strip_prefix(word)?;
        Some(())
    }

    fn value(&mut self, depth: u32) -> Option<Value> {
        // Deeper than anything QEMU sends; keeps the stack finite.
        if depth > 64 {
            return None;
        }
        self.space();
        match self.rest.chars().next()? {
            'n' => self.eat("null").map(|()| Value::Null),
            't' => self.eat("true").map(|()| Value::Bool(true)),
            'f' => self.eat("false").map(|()| Value::Bool(false)),
            '"' => self.string().map(Value::Text),
            '[' => self.list(depth),
            '{' => self.object(depth),
            _ => self.number(),
        }
    }

    fn number(&mut self) -> Option<Value> {
        let end = self.rest.find(|c: char| !c.is_ascii_digit() && !"+-.eE".contains(c)).unwrap_or(self.rest.len());
        let (digits, rest) = self.rest.split_at(end);
        self.rest = rest;
        digits.parse().ok().map(Value::Number)
    }

    fn string(&mut self) -> Option<String> {
        self.eat("\"")?;
        let mut out = String::new();
        loop {
            let mut chars = self.rest.chars();
            let c = chars.next()?;
            self.rest = chars.as_str();
            match c {
                '"' => return Some(out),
                '\\' => out.push(self.escape()?),
                c => out.push(c),
            }
        }
    }

    fn escape(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let c = chars.next()?;
        self.rest = chars.as_str();
        Some(match c {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'u' => {
                let (code, rest) = self.rest.split_at_checked(4)?;
                self.rest = rest;
                // QEMU escapes nothing beyond the basic plane; a lone surrogate is shown as a replacement.
                char::from_u32(u32::from_str_radix(code, 16).ok()?).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            '"' | '\\' | '/' => c,
            _ => return None,
        })
    }

    fn list(&mut self, depth: u32) -> Option<Value> {
        self.eat("[")?;
        let mut list = Vec::new();
        self.space();
        if self.eat("]").is_some() {
            return Some(Value::List(list));
        }
        loop {
            list.push(self.value(depth + 1)?);
            self.space();
            if self.eat(",").is_none() {
                self.eat("]")?;
                return Some(Value::List(list));
            }
        }
    }

    fn object(&mut self, depth: u32) -> Option<Value> {
        self.eat("{")?;
        let mut members = BTreeMap::new();
        self.space();
        if self.eat("}").is_some() {
            return Some(Value::Object(members));
        }
        loop {
            self.space();
            let key = self.string()?;
            self.space();
            self.eat(":")?;
            members.insert(key, self.value(depth + 1)?);
            self.space();
            if self.eat(",").is_none() {
                self.eat("}")?;
                return Some(Value::Object(members));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_qemu_sends_is_read() {
        let value =
            Value::parse(r#"{"return": {"running": true, "n": -1.5e1, "list": [{"a": "x\"\u0041\n"}, null, []]}}"#);
        let value = value.unwrap();
        let inner = value.get("return").unwrap();
        assert_eq!(inner.get("running"), Some(&Value::Bool(true)));
        assert_eq!(inner.get("n"), Some(&Value::Number(-15.0)));
        assert_eq!(inner.get("list").unwrap().list()[0].get("a").unwrap().text(), Some("x\"A\n"));
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for text in ["", "{", "{}}", "{\"a\"}", "[1,]", "\"x", "tru", "{\"a\":1,}", "\"\\q\""] {
            assert_eq!(Value::parse(text), None, "{text}");
        }
        assert_eq!(Value::parse(&"[".repeat(100_000)), None);
    }

    #[test]
    fn quoting_and_reading_agree() {
        let text = "a\"b\\c\nd\u{1}é";
        assert_eq!(Value::parse(&quote(text)), Some(Value::Text(text.into())));
    }
}
