# Sourced after results.sh: tools of Rust that a check needs. STRICT=1 installs what is missing.

cargo_deny=0.20.2
cargo_cyclonedx=0.5.9

# needs_cargo_tool NAME VERSION: false when it cannot be had.
needs_cargo_tool() {
    had_after "$1 $2" "cargo install --locked $1@$2" cargo_tool_is_there "$1" "$2"
}

# needs_toolchain NAME: false when it cannot be had.
needs_toolchain() {
    had_after "Rust $1" "rustup toolchain install $1 --profile minimal" \
        rustup run "$1" rustc --version
}

cargo_tool_is_there() { cargo install --list | grep -Fx "$1 v$2:"; }

# had_after WHAT INSTALLATION TEST...: the words of INSTALLATION are also what a person would type.
had_after() {
    local what=$1 installation=$2
    shift 2
    "$@" >"$results_log" 2>&1 && return
    if [ "${STRICT:-}" = 1 ]; then
        $installation >"$results_log" 2>&1 </dev/null && return
        sed 's/^/        /' "$results_log"
    fi
    missing "$what not found: $installation"
    return 1
}
