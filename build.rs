//! Generates the C header from `src/ffi` into the build directory, and from that the one for the
//! parsers of other languages; gives the shared library its name. `make header` copies the header to `include/`; a build never changes a tracked file.

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
    let header = generate_header(&root, &out.join("etslock.h"));
    let declarations = declarations(&header);
    std::fs::write(out.join("etslock_ffi.h"), declarations).expect("OUT_DIR can be written");
    name_the_library();
}

fn generate_header(root: &Path, header: &Path) -> String {
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
    let text = without_rust_chapters(&text);
    std::fs::write(header, &text).expect("OUT_DIR can be written");
    println!("cargo:rustc-env=ETSLOCK_GENERATED_HEADER={}", header.display());
    text
}

/// The declarations of a header, for parsers without a preprocessor: no directive, no comment, one
/// function a line.
fn declarations(header: &str) -> String {
    let code = without_directives(&without_comments(header));
    let mut text = String::with_capacity(code.len());
    let (mut braces, mut parentheses) = (0, 0);
    for word in code.split_inclusive([' ', '{', '}', '(', ')', ',', ';']) {
        text.push_str(word);
        match word.chars().last() {
            Some('{') => braces += 1,
            Some('(') => parentheses += 1,
            Some(')') => parentheses -= 1,
            Some('}') => {
                braces -= 1;
                // The comma behind the last enumerator, and the end of the line before.
                let body = text[..text.len() - 1].trim_end().trim_end_matches(',').len();
                text.replace_range(body..text.len() - 1, "\n");
                continue;
            }
            _ => {}
        }
        let ends_line = match word.chars().last() {
            Some('{' | ';') => true,
            Some(',') => braces > 0 && parentheses == 0,
            _ => false,
        };
        if ends_line {
            text.push('\n');
            text.extend((0..braces).map(|_| "  "));
        }
    }
    // Blanks that stood behind what ends a line.
    let lines = text.lines().map(|line| {
        let indent = if line.starts_with("  ") { "  " } else { "" };
        format!("{indent}{}\n", line.trim())
    });
    lines.filter(|line| !line.trim().is_empty()).collect()
}

fn without_comments(header: &str) -> String {
    let mut text = String::with_capacity(header.len());
    let mut rest = header;
    while let Some(start) = rest.find("/*") {
        text.push_str(&rest[..start]);
        let end = rest[start..].find("*/").expect("a comment that ends");
        rest = &rest[start + end + 2..];
    }
    text.push_str(rest);
    text
}

/// The code in one line, without what is for C++ alone.
fn without_directives(header: &str) -> String {
    let mut for_cpp = false;
    let mut words = Vec::new();
    for line in header.lines() {
        match line.trim() {
            "#ifdef __cplusplus" => for_cpp = true,
            directive if directive.starts_with("#endif") => for_cpp = false,
            directive if directive.starts_with('#') => {}
            _ if for_cpp => {}
            code => words.extend(code.split_whitespace()),
        }
    }
    words.join(" ")
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
