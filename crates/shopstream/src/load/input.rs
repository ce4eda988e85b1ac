//! A file or standard input, unpacked while it is read.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek};
use std::path::Path;

use crate::failure::{Failure, Result};

const BUFFER_BYTES: usize = 256 * 1024;

pub(crate) struct Input {
    pub(crate) reader: Box<dyn BufRead + Send>,
    /// Bytes of the file as it is stored; unknown for standard input.
    pub(crate) length: Option<u64>,
    file: Option<File>,
}

/// How far a file was read, as it is stored.
pub(crate) struct Position {
    file: Option<File>,
}

impl Input {
    /// Compression is recognized by the first bytes.
    pub(crate) fn open(path: &Path) -> Result<Input> {
        if path.as_os_str() == "-" {
            let stdin = BufReader::with_capacity(BUFFER_BYTES, std::io::stdin());
            let reader = unpack(Box::new(stdin)).map_err(|e| Failure::io("read", "standard input", &e))?;
            return Ok(Input { reader, length: None, file: None });
        }
        let open = || {
            let file = File::open(path)?;
            let length = file.metadata()?.len();
            // A duplicate shares the position, which is how progress is known below decompression.
            let shared = file.try_clone()?;
            let reader = unpack(Box::new(BufReader::with_capacity(BUFFER_BYTES, file)))?;
            Ok(Input { reader, length: Some(length), file: Some(shared) })
        };
        open().map_err(|error| Failure::io("open", path.display(), &error))
    }

    pub(crate) fn position(&self) -> Position {
        Position { file: self.file.as_ref().and_then(|file| file.try_clone().ok()) }
    }
}

impl Position {
    pub(crate) fn bytes(&self) -> u64 {
        self.file.as_ref().and_then(|mut file| file.stream_position().ok()).unwrap_or(0)
    }
}

fn unpack(mut packed: Box<dyn BufRead + Send>) -> std::io::Result<Box<dyn BufRead + Send>> {
    let start = packed.fill_buf()?;
    let unpacked: Box<dyn Read + Send> = if start.starts_with(&[0x1f, 0x8b]) {
        Box::new(flate2::bufread::MultiGzDecoder::new(packed))
    } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Box::new(zstd::Decoder::with_buffer(packed)?)
    } else {
        return Ok(packed);
    };
    Ok(Box::new(BufReader::with_capacity(BUFFER_BYTES, unpacked)))
}
