//! Generates the C header from `src/ffi` into the build directory, and gives the shared library
//! its name. `make header` copies the header to `include/`; a build never changes a tracked file.

use std::env;
use std::path::{Path, PathBuf};

/// The files of `src/ffi` that the header is made of, in reading order.
const NOUNS: [&str; 12] = [
    "status",
    "table",
    "tuples",
    "cursor",
    "stop",
    "options",
    "with_lock",
    "guard",
    "across",
    "completions",
    "token",
    "lock_table",
];

fn main() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo"));
    generate_header(&root, &out.join("etslock.h"));
    name_the_library();
}

fn generate_header(root: &Path, header: &Path) {
    let config_file = root.join("cbindgen.toml");
    println!("cargo:rerun-if-changed={}", config_file.display());
    let mut config = cbindgen::Config::from_file(&config_file).expect("cbindgen.toml is valid");
    config.header = Some(opening(root));
    config.after_includes = Some(version_macros());

    let mut builder = cbindgen::Builder::new().with_config(config);
    for noun in NOUNS {
        let source = root.join("src/ffi").join(noun).with_extension("rs");
        println!("cargo:rerun-if-changed={}", source.display());
        builder = builder.with_src(source);
    }
    let mut text = Vec::new();
    builder.generate().expect("src/ffi can be read by cbindgen").write(&mut text);
    let text = String::from_utf8(text).expect("the sources are UTF-8");
    std::fs::write(header, without_rust_chapters(&text)).expect("OUT_DIR can be written");
    println!("cargo:rustc-env=ETSLOCK_GENERATED_HEADER={}", header.display());
}

/// The header without the "# Safety" chapters: they speak to Rust, and repeat the contracts that
/// the header's opening gives in full.
fn without_rust_chapters(header: &str) -> String {
    let mut text = String::with_capacity(header.len());
    let mut skipping = false;
    for line in header.lines() {
        match line.trim() {
            "* # Safety" => {
                skipping = true;
                // The blank line above the chapter.
                if text.ends_with("\n *\n") {
                    text.truncate(text.len() - " *\n".len());
                }
            }
            "*/" => skipping = false,
            _ => {}
        }
        if !skipping {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

fn version_macros() -> String {
    let part = |name: &str| env::var(format!("CARGO_PKG_VERSION{name}")).expect("set by cargo");
    format!(
        "\n/** The version of this header; `etslock_version()` is the library's. */\n\
         #define ETSLOCK_VERSION \"{}\"\n\
         #define ETSLOCK_VERSION_MAJOR {}\n\
         #define ETSLOCK_VERSION_MINOR {}\n\
         #define ETSLOCK_VERSION_PATCH {}\n",
        part(""),
        part("_MAJOR"),
        part("_MINOR"),
        part("_PATCH"),
    )
}

/// What stands above the first declaration: prose from a file of its own, and the version.
fn opening(root: &Path) -> String {
    let prose = root.join("src/ffi/header.txt");
    println!("cargo:rerun-if-changed={}", prose.display());
    let prose = std::fs::read_to_string(&prose).expect("src/ffi/header.txt can be read");
    prose.trim_end().to_owned()
}

fn name_the_library() {
    let major = env::var("CARGO_PKG_VERSION_MAJOR").expect("set by cargo");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libetslock.so.{major}");
        // A worker may be running this code when the program calls dlclose (C-16).
        println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    }
}
