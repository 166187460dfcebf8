//! The `weft` command: see `weft --help`.

/// The system's allocator costs a tenth to a fifth more CPU time for each message (`docs/performance.md`).
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    weft::cli::run()
}
