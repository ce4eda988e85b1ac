//! The program from outside: the built binary, real files, real kills.

mod program {
    mod data;
    mod kill;
    mod server;
    mod tutorial;
}
