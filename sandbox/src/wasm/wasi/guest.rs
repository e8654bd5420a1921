//! Reads and writes the program's memory at places of its choice.

use super::Errno;

/// Most buffers of one read or write.
const MAX_BUFFERS: u32 = 1024;

/// The memory of the program that called.
#[derive(Debug)]
pub(super) struct Guest<'m>(pub(super) &'m mut [u8]);

impl Guest<'_> {
    pub(super) fn bytes(&self, at: u32, length: u32) -> Result<&[u8], Errno> {
        let at = at as usize;
        self.0.get(at..at.saturating_add(length as usize)).ok_or(Errno::Fault)
    }

    pub(super) fn bytes_mut(&mut self, at: u32, length: u32) -> Result<&mut [u8], Errno> {
        let at = at as usize;
        self.0.get_mut(at..at.saturating_add(length as usize)).ok_or(Errno::Fault)
    }

    pub(super) fn write(&mut self, at: u32, bytes: &[u8]) -> Result<(), Errno> {
        let length = u32::try_from(bytes.len()).map_err(|_| Errno::Fault)?;
        self.bytes_mut(at, length)?.copy_from_slice(bytes);
        Ok(())
    }

    pub(super) fn write_u32(&mut self, at: u32, value: u32) -> Result<(), Errno> {
        self.write(at, &value.to_le_bytes())
    }

    pub(super) fn write_u64(&mut self, at: u32, value: u64) -> Result<(), Errno> {
        self.write(at, &value.to_le_bytes())
    }

    fn read_u32(&self, at: u32) -> Result<u32, Errno> {
        let bytes = self.bytes(at, 4)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// Reads a list of buffers: address and length each.
    pub(super) fn buffers(&self, at: u32, count: u32) -> Result<Vec<(u32, u32)>, Errno> {
        if count > MAX_BUFFERS {
            return Err(Errno::Inval);
        }
        (0..count)
            .map(|n| {
                let entry = at.checked_add(n * 8).ok_or(Errno::Fault)?;
                let address = self.read_u32(entry)?;
                let length = self.read_u32(entry.checked_add(4).ok_or(Errno::Fault)?)?;
                self.bytes(address, length)?;
                Ok((address, length))
            })
            .collect()
    }
}

/// A number out of a structure that was read as bytes; 0 where it is too short.
pub(super) fn u64_in(bytes: &[u8], at: usize) -> u64 {
    let part = bytes.get(at..at + 8).and_then(|part| part.try_into().ok());
    u64::from_le_bytes(part.unwrap_or_default())
}

/// The same for 32 bits.
pub(super) fn u32_in(bytes: &[u8], at: usize) -> u32 {
    let part = bytes.get(at..at + 4).and_then(|part| part.try_into().ok());
    u32::from_le_bytes(part.unwrap_or_default())
}
