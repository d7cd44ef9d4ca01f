//! Rust code from the `.proto` files.
//!
//! The generated code is committed, so that building the workspace needs no protobuf compiler, and
//! readers and reviewers see what changes. The protos are parsed by `protox`, which is Rust as
//! well: no `protoc` here either. `--check` generates anew and compares, which is how a hand edit
//! or a forgotten run is found.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use prost::Message as _;

use crate::source::files_below;

/// Protos that are compiled together, and where their code goes. Paths are relative to the
/// workspace.
struct ProtoSet {
    /// Every `.proto` file below this directory is compiled; imports are relative to it.
    protos: &'static str,
    /// One `PACKAGE.rs` per protobuf package is written here.
    output: &'static str,
    /// Where to put the encoded descriptors too, for gRPC reflection.
    descriptor: Option<&'static str>,
    /// The type that turns messages into bytes and back.
    codec: &'static str,
    /// The feature without which there are no clients and servers, and which messages only these say.
    services: Option<(&'static str, &'static [&'static str])>,
}

const PROTO_SETS: [ProtoSet; 2] = [
    ProtoSet {
        protos: "raft/proto",
        output: "raft/src/generated",
        descriptor: None,
        codec: "tonic_prost::ProstCodec",
        services: Some(("grpc", &[".lattice.raft.v1.Welcome"])),
    },
    ProtoSet {
        protos: "server/proto",
        output: "server/src/generated",
        descriptor: Some("server/src/generated/descriptor.bin"),
        codec: "crate::codec::Codec",
        services: None,
    },
];

/// Generated files by their path in the workspace.
type Generated = BTreeMap<PathBuf, Vec<u8>>;

/// Generates and writes everything, and removes generated files that no proto stands behind any
/// more.
pub(crate) fn write(root: &Path) -> Result<()> {
    for set in &PROTO_SETS {
        let generated = generate(root, set)?;
        for (path, content) in &generated {
            let target = root.join(path);
            if fs::read(&target).is_ok_and(|old| old == *content) {
                continue;
            }
            fs::create_dir_all(target.parent().context("a file has a directory")?)?;
            fs::write(&target, content)
                .with_context(|| format!("cannot write {}", target.display()))?;
            println!("wrote {}", path.display());
        }
        for path in committed(root, set)? {
            if !generated.contains_key(&path) {
                fs::remove_file(root.join(&path))?;
                println!("removed {}", path.display());
            }
        }
    }
    Ok(())
}

/// Fails, naming the files, if what is committed is not what would be generated.
pub(crate) fn check(root: &Path) -> Result<()> {
    let mut differing = Vec::new();
    for set in &PROTO_SETS {
        let generated = generate(root, set)?;
        let differs = |path: &Path, content: &[u8]| {
            fs::read(root.join(path)).map_or(true, |committed| committed != content)
        };
        differing.extend(
            generated
                .iter()
                .filter(|(path, content)| differs(path, content))
                .map(|(path, _)| path.display().to_string()),
        );
        let orphans =
            committed(root, set)?.into_iter().filter(|path| !generated.contains_key(path));
        differing.extend(orphans.map(|path| path.display().to_string()));
    }
    ensure!(
        differing.is_empty(),
        "not what `cargo xtask codegen` generates: {}; run it and commit the result",
        differing.join(", ")
    );
    println!("the generated code is up to date");
    Ok(())
}

/// What lies in the output directory of `set`.
fn committed(root: &Path, set: &ProtoSet) -> Result<Vec<PathBuf>> {
    let below = files_below(&root.join(set.output), &["rs", "bin"])?;
    below.into_iter().map(|path| Ok(path.strip_prefix(root)?.to_owned())).collect()
}

fn generate(root: &Path, set: &ProtoSet) -> Result<Generated> {
    let include = root.join(set.protos);
    let protos = files_below(&include, &["proto"])?;
    let mut generated = Generated::new();
    if protos.is_empty() {
        return Ok(generated);
    }
    let descriptors = protox::compile(&protos, [&include])
        .with_context(|| format!("cannot compile the protos in {}", set.protos))?;
    if let Some(path) = set.descriptor {
        generated.insert(PathBuf::from(path), descriptors.encode_to_vec());
    }
    let scratch = Scratch::new()?;
    let mut builder = tonic_prost_build::configure();
    if let Some((feature, messages)) = set.services {
        let condition = format!("#[cfg(feature = \"{feature}\")]");
        builder = builder.client_mod_attribute(".", &condition);
        builder = builder.server_mod_attribute(".", &condition);
        for message in messages {
            builder = builder.message_attribute(message, &condition);
        }
    }
    builder
        // Payloads become slices of what was received, not copies.
        .bytes(".")
        .codec_path(set.codec)
        .emit_rerun_if_changed(false)
        .out_dir(&scratch.0)
        .compile_fds(descriptors)
        .with_context(|| format!("cannot generate code for {}", set.protos))?;
    for file in files_below(&scratch.0, &["rs"])? {
        let name = file.file_name().context("a file has a name")?;
        generated.insert(Path::new(set.output).join(name), fs::read(&file)?);
    }
    Ok(generated)
}

/// A directory that is removed again.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("lattice-codegen-{}", std::process::id()));
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A directory left behind in the system's temporary place harms nobody.
        let _ = fs::remove_dir_all(&self.0);
    }
}
