//! The engine through its outermost Rust interface: a database in a directory, sessions, restarts.

mod engine {
    mod alter;
    mod building;
    mod checkpoints;
    mod clock;
    mod crashes;
    mod described;
    mod docs;
    mod generate;
    mod generate_select;
    mod generate_windows;
    mod harness;
    mod lookup_join;
    mod match_recognize;
    mod nexmark;
    mod oracle;
    mod over;
    mod parts;
    mod queries;
    mod slt;
    mod sources;
    mod statements;
    mod subscriptions;
    mod tpch;
    mod windows;
}
