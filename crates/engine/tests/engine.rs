//! The engine through its outermost Rust interface: a database in a directory, sessions, restarts.

mod engine {
    mod described;
    mod docs;
    mod generate;
    mod harness;
    mod match_recognize;
    mod oracle;
    mod slt;
    mod statements;
    mod windows;
}
