use std::process::ExitCode;

fn main() -> ExitCode {
    forewarn::commands::main()
}
