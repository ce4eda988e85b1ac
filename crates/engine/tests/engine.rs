//! The engine through its outermost Rust interface: a database in a directory, sessions, restarts.

mod engine {
    mod generate;
    mod harness;
    mod match_recognize;
    mod nexmark;
    mod oracle;
    mod queries;
    mod slt;
    mod sources;
    mod statements;
    mod tpch;
    mod windows;
}
