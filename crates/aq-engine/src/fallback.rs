//! Steps down of a whole model.

use std::collections::HashMap;

use crate::Fallback;

/// `rows` with one row about the job in place of those that say the same of each of the `layers` quantized layers, when there are
/// several.
pub(crate) fn of_all_layers(rows: Vec<Fallback>, layers: usize) -> Vec<Fallback> {
    let mut counts: HashMap<(String, String, String), usize> = HashMap::new();
    for row in rows.iter().filter(|row| row.tensor.is_some()) {
        *counts.entry(said(row)).or_default() += 1;
    }
    let mut told = Vec::new();
    for row in rows {
        match counts.get_mut(&said(&row)) {
            Some(0) => {}
            Some(count) if *count == layers && layers > 1 && row.tensor.is_some() => {
                *count = 0;
                told.push(Fallback { tensor: None, ..row });
            }
            _ => told.push(row),
        }
    }
    told
}

fn said(row: &Fallback) -> (String, String, String) {
    (row.from.clone(), row.to.clone(), row.reason.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(tensor: Option<&str>, reason: &str) -> Fallback {
        let tensor = tensor.map(str::to_string);
        Fallback { tensor, from: "a".into(), to: "b".into(), reason: reason.into() }
    }

    #[test]
    fn what_is_said_of_every_layer_is_said_once() {
        let rows =
            || vec![row(Some("x"), "same"), row(None, "job"), row(Some("y"), "same"), row(Some("y"), "own")];
        let told: Vec<_> = of_all_layers(rows(), 2).into_iter().map(|r| (r.tensor, r.reason)).collect();
        let expected = [(None, "same"), (None, "job"), (Some("y"), "own")];
        assert_eq!(told, expected.map(|(t, r)| (t.map(str::to_string), r.to_string())));
        assert_eq!(of_all_layers(rows(), 3).len(), 4);
        assert_eq!(of_all_layers(vec![row(Some("x"), "same")], 1).len(), 1);
    }
}
