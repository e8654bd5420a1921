//! When an answer is no longer of use: the gRPC deadline and the request's own.

use std::time::Duration;

use tonic::metadata::MetadataMap;

/// Taken off a gRPC deadline, so that the service answers before the transport hangs up.
const ANSWER: Duration = Duration::from_millis(5);

/// Reads the time that the caller waits at most: `grpc-timeout`, such as `1500m`.
///
/// `None` without the header, and with a malformed one, which the protocol says to ignore.
pub(super) fn caller_waits(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    let timeout = match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    };
    Some(timeout.saturating_sub(ANSWER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_unit() {
        let cases = [
            ("1S", Some(Duration::from_millis(995))),
            ("1500m", Some(Duration::from_millis(1495))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600) - ANSWER)),
            ("6000u", Some(Duration::from_millis(1))),
            ("1n", Some(Duration::ZERO)),
            ("100000000S", None),
            ("S", None),
            ("", None),
            ("-1S", None),
            ("1s", None),
            ("1.5S", None),
        ];
        for (text, expected) in cases {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().unwrap());
            assert_eq!(caller_waits(&metadata), expected, "{text:?}");
        }
        assert_eq!(caller_waits(&MetadataMap::new()), None);
    }
}
