//! Bytes on their way from an archive to files: counted, digested, decompressed, never too many.

use std::{
    cell::Cell,
    io::{self, BufRead, BufReader, Read},
    rc::Rc,
};

use flate2::bufread::MultiGzDecoder;
use sha2::{Digest as _, Sha256};

use crate::Digest;

/// A stream that knows the digest of what was read of it.
pub(crate) struct Digested<R> {
    from: R,
    hasher: Sha256,
    /// Bytes read.
    pub(crate) bytes: u64,
    /// How many of the last ones are zeros.
    pub(crate) zeros: u64,
}

impl<R: Read> Digested<R> {
    pub(crate) fn new(from: R) -> Self {
        Self { from, hasher: Sha256::new(), bytes: 0, zeros: 0 }
    }

    /// Reads what is left, and returns the digest of everything.
    pub(crate) fn finish(mut self) -> io::Result<(Digest, u64)> {
        io::copy(&mut self, &mut io::sink())?;
        Ok((Digest::from_hash(&self.hasher.finalize()), self.bytes))
    }
}

impl<R: Read> Read for Digested<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.from.read(buffer)?;
        let read = &buffer[..length];
        self.hasher.update(read);
        self.bytes += length as u64;
        match read.iter().rposition(|byte| *byte != 0) {
            Some(last) => self.zeros = (length - 1 - last) as u64,
            None => self.zeros += length as u64,
        }
        Ok(length)
    }
}

/// How many more bytes a [`Metered`] stream gives before it fails.
#[derive(Clone, Debug)]
pub(crate) struct Meter(Rc<Cell<u64>>);

impl Meter {
    pub(crate) fn new(bytes: u64) -> Self {
        Self(Rc::new(Cell::new(bytes)))
    }

    pub(crate) fn set(&self, bytes: u64) {
        self.0.set(bytes);
    }
}

/// A stream that fails when its meter has run out, with [`io::ErrorKind::FileTooLarge`].
pub(crate) struct Metered<R> {
    pub(crate) from: R,
    pub(crate) meter: Meter,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.meter.0.get();
        if left == 0 && !buffer.is_empty() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let length = self.from.read(&mut buffer[..most])?;
        self.meter.set(left - length as u64);
        Ok(length)
    }
}

/// Decompresses gzip and zstd, by their first bytes; anything else comes as it is. What media types
/// say is not looked at: `docker save` writes of compressed layers that they aren't.
pub(crate) fn decompress<'r>(from: impl Read + 'r) -> io::Result<Box<dyn Read + 'r>> {
    let mut from = BufReader::with_capacity(128 << 10, from);
    let start = from.fill_buf()?;
    Ok(match start {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(from)),
        // A frame, or one that is to be skipped (magic number 0x184D2A50 to 0x184D2A5F) before it.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
            Box::new(zstd::stream::read::Decoder::with_buffer(from)?)
        }
        _ => Box::new(from),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decompresses_by_the_first_bytes() {
        let text = b"the same".repeat(1000);
        let gzip = || {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            io::Write::write_all(&mut gzip, &text).unwrap();
            gzip.finish().unwrap()
        };
        let zstd = || zstd::encode_all(&text[..], 1).unwrap();
        let skipped = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..], &zstd()].concat();
        for (name, bytes, times) in [
            ("plain", text.clone(), 1),
            ("gzip", gzip(), 1),
            ("two gzip members", [gzip(), gzip()].concat(), 2),
            ("zstd", zstd(), 1),
            ("two zstd frames", [zstd(), zstd()].concat(), 2),
            ("a zstd frame after one to skip", skipped, 1),
        ] {
            let mut stream = Digested::new(decompress(&bytes[..]).unwrap());
            let mut start = [0; 10];
            stream.read_exact(&mut start).unwrap();
            let (digest, length) = stream.finish().unwrap();
            assert_eq!(length as usize, text.len() * times, "{name}");
            assert_eq!(digest, Digest::of(text.repeat(times)), "{name}");
            if name != "plain" {
                let cut = Digested::new(decompress(&bytes[..bytes.len() - 1]).unwrap()).finish();
                assert!(cut.is_err(), "{name}, cut off");
            }
        }
    }

    #[test]
    fn a_meter_runs_out() {
        let meter = Meter::new(4);
        let mut stream = Metered { from: &b"abcdefgh"[..], meter: meter.clone() };
        let mut text = [0; 4];
        stream.read_exact(&mut text).unwrap();
        let error = stream.read(&mut text).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        meter.set(2);
        assert_eq!(stream.read(&mut text).unwrap(), 2);
    }
}
