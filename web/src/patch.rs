//! What has changed between two JSON documents, as a merge patch (RFC 7396).

use serde_json::{Map, Value};

/// The patch that makes `after` of `before`; `None` where nothing has changed.
///
/// What is null afterwards is absent for whoever applies it: the two mean the same here.
pub(crate) fn between(before: &Value, after: &Value) -> Option<Value> {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            let mut patch = Map::new();
            for (name, value) in after {
                let was = before.get(name).unwrap_or(&Value::Null);
                if let Some(change) = between(was, value) {
                    patch.insert(name.clone(), change);
                }
            }
            for name in before.keys().filter(|name| !after.contains_key(*name)) {
                patch.insert(name.clone(), Value::Null);
            }
            (!patch.is_empty()).then_some(Value::Object(patch))
        }
        (before, after) => (before != after).then(|| after.clone()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_patch_makes_the_one_of_the_other() {
        let documents = [
            json!({"a": 1, "b": {"c": [1, 2], "d": "x"}, "e": {"f": 1}}),
            json!({"a": 2, "b": {"c": [1, 2], "d": "x"}, "e": {}}),
            json!({"a": 2, "b": {"c": [2], "g": true}, "h": {"i": {"j": 1}}}),
            json!({}),
        ];
        for before in &documents {
            assert_eq!(between(before, before), None);
            for after in &documents {
                let mut patched = before.clone();
                if let Some(patch) = between(before, after) {
                    json_patch::merge(&mut patched, &patch);
                }
                assert_eq!(&patched, after, "from {before}");
            }
        }
        let small = between(
            &documents[0],
            &json!({"a": 1, "b": {"c": [1, 2], "d": "y"}, "e": {"f": 1}}),
        );
        assert_eq!(small, Some(json!({"b": {"d": "y"}})), "only what has changed");
    }
}
