//! Settings in a TOML file.

use std::path::Path;

use serde::de::value::Error as Unread;
use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, forward_to_deserialize_any};

use super::{ConfigError, Settings};

impl Settings {
    /// The settings of a TOML file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.into(), source })?;
        Self::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let file = |error: toml::de::Error| ConfigError::File {
            path: path.into(),
            message: error.to_string(),
        };
        let table: toml::Table = text.parse().map_err(file)?;
        let known = keys();
        if let Some(key) = table.keys().find(|key| !known.contains(&key.as_str())) {
            let (path, key) = (path.into(), key.clone());
            let suggestion = nearest(&key, known);
            return Err(ConfigError::UnknownKey { path, key, suggestion });
        }
        // From the text once more: an error then names the line.
        toml::from_str(text).map_err(file)
    }
}

/// The keys that there are: what the settings ask for when they are read.
fn keys() -> &'static [&'static str] {
    let mut keys: &[&str] = &[];
    let unread = Settings::deserialize(Asked(&mut keys));
    debug_assert!(unread.is_err(), "there is nothing to read");
    keys
}

/// Has nothing to read, and keeps which fields a structure asks for.
struct Asked<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Asked<'_> {
    type Error = Unread;

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Unread> {
        Err(Unread::custom("there is nothing to read"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unread> {
        *self.0 = fields;
        self.deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// The known key nearest to `key`, if a few typing mistakes lead from one to the other.
fn nearest(key: &str, all: &[&'static str]) -> Option<&'static str> {
    let normal = key.replace('_', "-").to_ascii_lowercase();
    all.iter()
        .map(|known| (distance(&normal, known), *known))
        .min()
        .filter(|(distance, known)| *distance <= known.len() / 3)
        .map(|(_, known)| known)
}

/// Levenshtein's distance: insertions, deletions and replacements of one byte that lead from `a` to `b`.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// A list in a file: an array of strings, or one string with commas as on the command line.
pub(super) fn list<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<String>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum List {
        One(String),
        Many(Vec<String>),
    }
    Ok(Some(match List::deserialize(deserializer)? {
        List::One(text) => text.split(',').map(|item| item.trim().to_owned()).collect(),
        List::Many(items) => items,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Settings, ConfigError> {
        Settings::parse(Path::new("node.toml"), text)
    }

    fn some(text: &str) -> Option<Vec<String>> {
        Some(text.split(',').map(str::to_owned).collect())
    }

    #[test]
    fn a_file_takes_lists_in_both_forms() {
        let file = parse(
            "name = 'n1'\ninitial-cluster = 'n1=http://h:1, n2=http://h:2'\n\
             listen-client-urls = ['http://localhost:3']\nheartbeat-interval = 50",
        )
        .unwrap();
        assert_eq!(file.initial_cluster, some("n1=http://h:1,n2=http://h:2"));
        assert_eq!(file.listen_client_urls, some("http://localhost:3"));
        assert_eq!(file.heartbeat_interval, Some(50));
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_known_one() {
        let text = |key: &str| parse(&format!("{key} = 1")).unwrap_err().to_string();
        assert!(text("hearbeat-interval").contains("did you mean `heartbeat-interval`?"));
        assert!(text("data_dir").contains("did you mean `data-dir`?"));
        assert_eq!(text("colour"), "node.toml: unknown key `colour`");
    }

    #[test]
    fn a_wrong_type_names_its_line() {
        let error = parse("name = 'a'\nheartbeat-interval = 'soon'").unwrap_err().to_string();
        assert!(error.contains("line 2"), "{error}");
    }

    #[test]
    fn every_setting_can_be_in_a_file_and_outlives_the_layers() {
        let keys = keys();
        assert!(keys.contains(&"snapshot-bytes-per-second"), "{keys:?}");
        let mut all = String::new();
        for key in keys {
            let value = match *key {
                "initial-cluster-state" => "'existing'",
                "log-format" => "'json'",
                "read-policy" => "'lease-guard'",
                "heartbeat-interval"
                | "election-timeout"
                | "snapshot-count"
                | "snapshot-bytes-per-second"
                | "max-clock-drift" => "7",
                "insecure-no-auth" => "true",
                _ => "'x'",
            };
            let one = format!("{key} = {value}\n");
            assert_ne!(parse(&one).unwrap(), Settings::default(), "{key} is not kept");
            all += &one;
        }
        let file = parse(&all).unwrap();
        assert_eq!(file.clone().over(Settings::default()), file);
        assert_eq!(Settings::default().over(file.clone()), file);
    }
}
