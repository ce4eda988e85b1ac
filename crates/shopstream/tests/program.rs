//! The program from outside: the built binary, real files, real kills.

mod program {
    mod data;
    mod disk;
    mod kill;
    mod replay;
    mod server;
    mod tutorial;
}
