//! What is said within a tag and between tags, for a reader of tags that is the library's.

use std::borrow::Cow;

use memchr::memchr;
use quick_xml::{
    escape::{resolve_predefined_entity, unescape},
    events::{BytesRef, BytesStart},
};

/// Attributes of an element; real ones have about ten.
const MAX_ATTRIBUTES: usize = 64;

/// Calls `each` with every attribute, entities replaced.
///
/// Tests are little else but attributes: the library's iterator, which keeps an account of every
/// name, takes a fifth of the time for all of a report.
pub(super) fn each_attribute<'a>(
    start: &'a BytesStart<'_>,
    mut each: impl FnMut(&str, Cow<'a, str>),
) -> Result<(), String> {
    let mut rest = start.attributes_raw().trim_ascii_start();
    let mut count = 0;
    while !rest.is_empty() {
        count += 1;
        if count > MAX_ATTRIBUTES {
            return Err("an element with too many attributes".into());
        }
        let end = rest.bytes().position(|byte| byte == b'=' || byte.is_ascii_whitespace());
        let (name, after) = rest.split_at(end.unwrap_or(rest.len()));
        let after = after.trim_ascii_start().strip_prefix('=').unwrap_or_default();
        let after = after.trim_ascii_start();
        let quote =
            after.bytes().next().filter(|byte| !name.is_empty() && matches!(byte, b'"' | b'\''));
        let quote = quote.ok_or("an attribute without a value in quotes")?;
        let end = memchr(quote, &after.as_bytes()[1..]).ok_or("an attribute without an end")?;
        let value = &after[1..=end];
        let value = match memchr(b'&', value.as_bytes()) {
            None => value.into(),
            Some(_) => unescape(value).map_err(|error| error.to_string())?,
        };
        each(name, value);
        rest = after[end + 2..].trim_ascii_start();
    }
    Ok(())
}

/// Returns what a reference in text stands for: a character, or one of the five that XML knows.
pub(super) fn resolve(reference: &BytesRef<'_>) -> Result<String, String> {
    let unknown = || "an entity that XML does not know".to_owned();
    match reference.resolve_char_ref() {
        Ok(Some(c)) => Ok(c.to_string()),
        Ok(None) => resolve_predefined_entity(reference).map(ToOwned::to_owned).ok_or_else(unknown),
        Err(_) => Err(unknown()),
    }
}
