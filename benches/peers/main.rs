//! tmp
mod floor;
mod servers;
fn main() -> anyhow::Result<()> {
    let a: Vec<String> = std::env::args().collect();
    floor::serve(a[2].parse()?)
}
