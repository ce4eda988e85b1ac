//! Reads gzip, zstd and plain bytes alike.
//!
//! Files are recognized by their first bytes, never by their name. Request bodies say their
//! encoding and are bounded: a small body must not become a large one ([`decompress_bounded`]).

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use flate2::read::MultiGzDecoder;

use crate::pieces::Pieces;
use crate::{Error, Result};

/// How bytes are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Identity,
    Gzip,
    Zstd,
}

impl Encoding {
    /// Recognizes a format by its magic number.
    pub fn of_bytes(start: &[u8]) -> Encoding {
        match start {
            [0x1f, 0x8b, ..] => Encoding::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Encoding::Zstd,
            _ => Encoding::Identity,
        }
    }

    /// The encoding named by HTTP's `Content-Encoding`, or `None` for one that is not spoken here.
    pub fn of_content_encoding(name: &str) -> Option<Encoding> {
        match name.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Some(Encoding::Identity),
            "gzip" | "x-gzip" => Some(Encoding::Gzip),
            "zstd" => Some(Encoding::Zstd),
            _ => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Encoding::Identity => "identity",
            Encoding::Gzip => "gzip",
            Encoding::Zstd => "zstd",
        }
    }
}

/// Largest window a zstd frame may ask for (2^27 = 128 MiB, zstd's own default); it bounds the
/// memory that a hostile header can make us allocate.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// Compressed bytes read from a file at once.
const COMPRESSED_BUFFER_BYTES: usize = 256 * 1024;

/// Bytes of a body decompressed at once.
const DECOMPRESSED_BUFFER_BYTES: usize = 128 * 1024;

/// A file's content, decompressed while it is read.
pub enum FileReader {
    Plain(File),
    Gzip(Box<MultiGzDecoder<BufReader<File>>>),
    Zstd(Box<zstd::Decoder<'static, BufReader<File>>>),
}

impl FileReader {
    /// Opens `path` and looks at its first bytes.
    pub fn open(path: &Path) -> Result<FileReader> {
        FileReader::open_inner(path).map_err(|source| Error::File { path: path.to_path_buf(), source })
    }

    fn open_inner(path: &Path) -> io::Result<FileReader> {
        let mut file = File::open(path)?;
        let mut magic = [0u8; 4];
        let mut filled = 0;
        while filled < magic.len() {
            match file.read(&mut magic[filled..])? {
                0 => break,
                n => filled += n,
            }
        }
        // A pipe can't be rewound; files can, and only they are replayable.
        file.seek(SeekFrom::Start(0))?;
        Ok(match Encoding::of_bytes(&magic[..filled]) {
            Encoding::Identity => FileReader::Plain(file),
            Encoding::Gzip => FileReader::Gzip(Box::new(MultiGzDecoder::new(BufReader::with_capacity(
                COMPRESSED_BUFFER_BYTES,
                file,
            )))),
            Encoding::Zstd => {
                let reader = BufReader::with_capacity(COMPRESSED_BUFFER_BYTES, file);
                let mut decoder = zstd::Decoder::with_buffer(reader)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                FileReader::Zstd(Box::new(decoder))
            }
        })
    }

    /// Goes to a byte of the decompressed content, counted from the file's start; call it before
    /// anything was read. A compressed file is read up to there.
    pub fn skip_to(&mut self, offset: u64) -> io::Result<()> {
        if let FileReader::Plain(file) = self {
            let length = file.metadata()?.len();
            if offset > length {
                return Err(shorter_than(offset, length));
            }
            file.seek(SeekFrom::Start(offset))?;
            return Ok(());
        }
        let skipped = io::copy(&mut self.by_ref().take(offset), &mut io::sink())?;
        if skipped < offset {
            return Err(shorter_than(offset, skipped));
        }
        Ok(())
    }
}

fn shorter_than(offset: u64, length: u64) -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        format!("it has {length} bytes but was read up to byte {offset} before; was it replaced?"),
    )
}

impl Read for FileReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            FileReader::Plain(file) => file.read(buffer),
            FileReader::Gzip(decoder) => decoder.read(buffer),
            FileReader::Zstd(decoder) => decoder.read(buffer),
        }
    }
}

/// Decompresses a body that may be at most `bytes_max` long then.
///
/// # Errors
/// [`Error::TooLarge`] as soon as one byte more comes out, without decompressing the rest;
/// [`Error::Compressed`] when the bytes are damaged or cut off.
pub fn decompress_bounded(bytes: &[u8], encoding: Encoding, bytes_max: usize) -> Result<Vec<u8>> {
    let damaged = |source| Error::Compressed { encoding: encoding.name(), source };
    match encoding {
        Encoding::Identity if bytes.len() > bytes_max => Err(Error::TooLarge { bytes_max }),
        Encoding::Identity => Ok(bytes.to_vec()),
        Encoding::Gzip => read_bounded(MultiGzDecoder::new(bytes), encoding, bytes_max),
        Encoding::Zstd => {
            let mut decoder = zstd::Decoder::with_buffer(bytes).map_err(damaged)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(damaged)?;
            read_bounded(decoder, encoding, bytes_max)
        }
    }
}

fn read_bounded(mut reader: impl Read, encoding: Encoding, bytes_max: usize) -> Result<Vec<u8>> {
    let mut out = Pieces::default();
    let mut buffer = vec![0; DECOMPRESSED_BUFFER_BYTES];
    loop {
        let count = match reader.read(&mut buffer) {
            Ok(0) => return Ok(out.into_vec()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(source) => return Err(Error::Compressed { encoding: encoding.name(), source }),
        };
        if out.len() + count > bytes_max {
            return Err(Error::TooLarge { bytes_max });
        }
        out.push(&buffer[..count]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn compress(bytes: &[u8], encoding: Encoding) -> Vec<u8> {
        match encoding {
            Encoding::Identity => bytes.to_vec(),
            Encoding::Gzip => gzip(bytes),
            Encoding::Zstd => zstd::encode_all(bytes, 1).unwrap(),
        }
    }

    const ALL: [Encoding; 3] = [Encoding::Identity, Encoding::Gzip, Encoding::Zstd];

    #[test]
    fn the_limit_is_exact() {
        let body = vec![b'x'; 1000];
        for encoding in ALL {
            let sent = compress(&body, encoding);
            assert_eq!(decompress_bounded(&sent, encoding, 1000).unwrap(), body);
            let error = decompress_bounded(&sent, encoding, 999).unwrap_err();
            assert!(matches!(error, Error::TooLarge { bytes_max: 999 }), "{error}");
        }
    }

    #[test]
    fn a_bomb_is_stopped_and_a_cut_body_is_an_error() {
        let bomb = vec![0u8; 64 << 20];
        for encoding in [Encoding::Gzip, Encoding::Zstd] {
            let sent = compress(&bomb, encoding);
            assert!(sent.len() < 1 << 20);
            assert!(matches!(decompress_bounded(&sent, encoding, 1 << 20), Err(Error::TooLarge { .. })));
            let small = compress(b"some rows that are cut", encoding);
            let cut = &small[..small.len() - 3];
            assert!(matches!(decompress_bounded(cut, encoding, 1 << 20), Err(Error::Compressed { .. })));
            assert!(matches!(decompress_bounded(b"nonsense", encoding, 99), Err(Error::Compressed { .. })));
        }
    }

    #[test]
    fn files_are_recognized_by_content_and_skipped_into() {
        let dir = tempfile::tempdir().unwrap();
        let body: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
        for encoding in ALL {
            let path = dir.path().join("no_extension");
            std::fs::write(&path, compress(&body, encoding)).unwrap();
            let mut reader = FileReader::open(&path).unwrap();
            reader.skip_to(12_345).unwrap();
            let mut rest = Vec::new();
            reader.read_to_end(&mut rest).unwrap();
            assert_eq!(rest, &body[12_345..]);
            assert!(FileReader::open(&path).unwrap().skip_to(400_001).is_err());
        }
        assert!(FileReader::open(&dir.path().join("absent")).is_err());
    }
}
