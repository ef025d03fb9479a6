//! What values a key takes.

use serde_json::{Value, json};

/// The kind of value of a configuration key; decides what is accepted, and what the schema says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
    /// `true`, `false`, `on` or `off`.
    Switch,
    /// One of a few whole numbers.
    OneOf(&'static [u64]),
    /// A multiple of 8 from 16 to 1024, or `row`.
    GroupSize,
    /// A whole number within these bounds.
    Whole(u64, u64),
    /// A number within these bounds.
    Number(f64, f64),
    /// One of a few words.
    Choice(&'static [&'static str]),
    /// `off` or another text, maybe a number.
    OffOrText,
    /// Any text.
    Text,
    /// A size such as `512MiB`, or a number of bytes.
    Size,
    /// A list of texts, or one.
    Texts,
    /// A list of rules.
    Rules,
}

impl Kind {
    /// `value` in the one form that keys are set from: lists for lists, texts for sizes, a boolean for `on`.
    ///
    /// # Errors
    /// What was expected and what was found.
    pub(super) fn check(self, value: &Value) -> Result<Value, String> {
        let expected = |what: String| format!("expected {what}, found {value}");
        match self {
            Kind::Switch => switch(value).map(Value::Bool).ok_or_else(|| expected("true or false".into())),
            Kind::OneOf(numbers) => value
                .as_u64()
                .filter(|n| numbers.contains(n))
                .map(Value::from)
                .ok_or_else(|| expected(either(numbers.iter().map(u64::to_string)))),
            Kind::GroupSize if value == "row" => Ok(json!(0)),
            Kind::GroupSize => value
                .as_u64()
                .filter(|&g| g != 0 && u32::try_from(g).is_ok_and(|g| aq_core::GroupSize::new(g).is_ok()))
                .map(Value::from)
                .ok_or_else(|| expected("a multiple of 8 from 16 to 1024, or row".into())),
            Kind::Whole(least, most) => value
                .as_u64()
                .filter(|n| (least..=most).contains(n))
                .map(Value::from)
                .ok_or_else(|| expected(format!("a whole number{}", between(least, most, u64::MAX)))),
            Kind::Number(least, most) => value
                .as_f64()
                .filter(|n| (least..=most).contains(n))
                .map(Value::from)
                .ok_or_else(|| expected(format!("a number{}", between(least, most, f64::INFINITY)))),
            Kind::Choice(words) => value
                .as_str()
                .map(str::to_ascii_lowercase)
                .filter(|text| words.contains(&text.as_str()))
                .map(Value::from)
                .ok_or_else(|| expected(either(words.iter().map(ToString::to_string)))),
            Kind::OffOrText if value == &Value::Bool(false) => Ok(json!("off")),
            Kind::Text | Kind::Size | Kind::OffOrText => {
                text(value).map(Value::from).ok_or_else(|| expected("text".into()))
            }
            Kind::Texts => {
                let items = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
                let texts: Option<Vec<String>> = items.iter().map(text).collect();
                texts.map(Value::from).ok_or_else(|| expected("a list of texts".into()))
            }
            Kind::Rules => match value {
                Value::Array(_) => Ok(value.clone()),
                _ => Err(expected("a list of rules".into())),
            },
        }
    }

    /// The value that a variable of the environment says: numbers and switches as they are written, lists separated by semicolons.
    pub(super) fn of_text(self, text: &str) -> Value {
        let number = || serde_json::from_str::<Value>(text).ok().filter(Value::is_number);
        match self {
            Kind::Switch => match text.to_ascii_lowercase().as_str() {
                "1" | "true" | "yes" => json!(true),
                "0" | "false" | "no" | "" => json!(false),
                other => json!(other),
            },
            Kind::OneOf(_) | Kind::GroupSize | Kind::Whole(..) | Kind::Number(..) => {
                number().unwrap_or_else(|| json!(text))
            }
            Kind::Texts => text.split(';').map(str::trim).filter(|t| !t.is_empty()).collect(),
            Kind::Rules => serde_json::from_str(text).unwrap_or_else(|_| json!(text)),
            Kind::Choice(_) | Kind::OffOrText | Kind::Text | Kind::Size => json!(text),
        }
    }

    /// What a JSON Schema says of such values.
    pub(super) fn schema(self) -> Value {
        match self {
            Kind::Switch => json!({"enum": [true, false, "on", "off"]}),
            Kind::OneOf(numbers) => json!({"enum": numbers}),
            Kind::GroupSize => json!({"anyOf": [
                {"type": "integer", "minimum": 16, "maximum": 1024, "multipleOf": 8}, {"const": "row"}]}),
            Kind::Whole(least, u64::MAX) => json!({"type": "integer", "minimum": least}),
            Kind::Whole(least, most) => json!({"type": "integer", "minimum": least, "maximum": most}),
            Kind::Number(least, most) if most.is_infinite() => json!({"type": "number", "minimum": least}),
            Kind::Number(least, most) => json!({"type": "number", "minimum": least, "maximum": most}),
            Kind::Choice(words) => json!({"enum": words}),
            Kind::OffOrText => json!({"anyOf": [{"type": ["string", "number"]}, {"const": false}]}),
            Kind::Text => json!({"type": "string"}),
            Kind::Size => json!({"type": ["string", "integer"]}),
            Kind::Texts => {
                json!({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]})
            }
            Kind::Rules => json!({"type": "array", "items": crate::rules::schema()}),
        }
    }
}

/// `a`, `a or b`, `a, b or c`.
fn either(words: impl Iterator<Item = String>) -> String {
    let words: Vec<String> = words.collect();
    match words.as_slice() {
        [first @ .., last] if !first.is_empty() => format!("{} or {last}", first.join(", ")),
        _ => words.concat(),
    }
}

fn between<T: PartialEq + std::fmt::Display>(least: T, most: T, unbounded: T) -> String {
    if most == unbounded { format!(" from {least} on") } else { format!(" from {least} to {most}") }
}

fn switch(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(on) => Some(*on),
        Value::String(s) if s.eq_ignore_ascii_case("on") => Some(true),
        Value::String(s) if s.eq_ignore_ascii_case("off") => Some(false),
        _ => None,
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(s) => Some(s.clone()),
        Value::Number(n) => Some(n.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_variables_become_the_values_of_files() {
        let read = |kind: Kind, text: &str| kind.check(&kind.of_text(text));
        assert_eq!(read(Kind::Switch, "1"), Ok(json!(true)));
        assert_eq!(read(Kind::Switch, "Off"), Ok(json!(false)));
        assert_eq!(read(Kind::Whole(0, 9), "7"), Ok(json!(7)));
        assert_eq!(read(Kind::Number(0.0, 1.0), "0.5"), Ok(json!(0.5)));
        assert_eq!(read(Kind::GroupSize, "row"), Ok(json!(0)));
        assert_eq!(read(Kind::Size, "512MiB"), Ok(json!("512MiB")));
        assert_eq!(read(Kind::Texts, r"a\.b=4; c=skip"), Ok(json!([r"a\.b=4", "c=skip"])));
        assert_eq!(
            read(Kind::Whole(0, 9), "10"),
            Err("expected a whole number from 0 to 9, found 10".into())
        );
        assert_eq!(read(Kind::OneOf(&[4, 6, 8]), "x"), Err("expected 4, 6 or 8, found \"x\"".into()));
        assert_eq!(read(Kind::OffOrText, "off"), Ok(json!("off")));
        assert_eq!(Kind::OffOrText.check(&json!(false)), Ok(json!("off")));
        assert!(Kind::Switch.check(&json!(3)).is_err() && Kind::Rules.check(&json!("x")).is_err());
    }
}
