//! Encrypted connections.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use distributed_cache::net::tls::{ClientCertificate, TlsOptions};
use distributed_cache::net::{BindError, Server, ServerOptions};
use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::node::{Client, Node, connect, request};

/// Writes an authority, and a certificate of it for `localhost` with its key, as `ca.pem`, `cert.pem` and `key.pem`.
fn write_certificates(directory: &Path) -> TlsOptions {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    let write = |name: &str, text: String| {
        let path = directory.join(name);
        write_file(&path, &text);
        path
    };
    TlsOptions {
        client_authorities: Some(write("ca.pem", authority.pem())),
        certificates: write("cert.pem", certificate.pem()),
        key: write("key.pem", key.serialize_pem()),
        client_certificate: ClientCertificate::Required,
    }
}

#[expect(clippy::disallowed_methods, reason = "certificates are files")]
fn write_file(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}

fn encrypted_node(tls: TlsOptions) -> Node {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    Node::start_with(|_, options| options.listen_tls = Some((address, tls)))
}

fn client(
    node: &Node,
    tls: &TlsOptions,
    has_certificate: bool,
) -> Client<StreamOwned<ClientConnection, TcpStream>> {
    let mut roots = RootCertStore::empty();
    let authority = tls.client_authorities.as_ref().unwrap();
    roots.add(CertificateDer::from_pem_file(authority).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = if has_certificate {
        let certificate = CertificateDer::from_pem_file(&tls.certificates).unwrap();
        let key = PrivateKeyDer::from_pem_file(&tls.key).unwrap();
        builder.with_client_auth_cert(vec![certificate], key).unwrap()
    } else {
        builder.with_no_client_auth()
    };
    let name = "localhost".try_into().unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    Client::new(StreamOwned::new(connection, connect(node.server.tls_addr().unwrap())))
}

#[test]
fn a_client_with_a_certificate_is_served_and_large_values_fit_through() {
    let directory = tempfile::tempdir().unwrap();
    let tls = write_certificates(directory.path());
    let node = encrypted_node(tls.clone());
    let mut client = client(&node, &tls, true);
    let value = vec![b'v'; 3 << 20];
    client.send(&request(&[b"SET", b"key", &value]));
    assert_eq!(client.reply(), "+OK");
    client.send(&request(&[b"GET", b"key"]));
    assert!(client.reply_bytes() == value);
    client.send(&request(&[b"ECHO", b"x"]).repeat(10_000));
    for _ in 0..10_000 {
        assert_eq!(client.reply(), "x");
    }
}

#[test]
fn a_client_without_a_certificate_is_served_only_if_none_is_required() {
    let directory = tempfile::tempdir().unwrap();
    let mut tls = write_certificates(directory.path());
    for (wanted, is_served) in [
        (ClientCertificate::Required, false),
        (ClientCertificate::Optional, true),
        (ClientCertificate::NotAsked, true),
    ] {
        tls.client_certificate = wanted;
        let node = encrypted_node(tls.clone());
        let mut client = client(&node, &tls, false);
        let written = std::io::Write::write_all(client.stream.get_mut(), b"PING\r\n");
        let read = written.and_then(|()| {
            let mut reply = [0; 7];
            std::io::Read::read_exact(&mut client.stream, &mut reply).map(|()| reply)
        });
        assert_eq!(read.is_ok_and(|reply| &reply == b"+PONG\r\n"), is_served, "{wanted:?}");
        node.wait_for_connections(usize::from(is_served));
    }
}

#[test]
fn one_who_does_not_speak_tls_is_disconnected() {
    let directory = tempfile::tempdir().unwrap();
    let tls = write_certificates(directory.path());
    let node = encrypted_node(tls);
    let mut client = Client::new(connect(node.server.tls_addr().unwrap()));
    client.send(b"PING\r\n");
    assert!(!client.until_closed().contains("PONG"));
    node.wait_for_connections(0);
}

#[test]
fn a_file_that_is_no_certificate_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let mut tls = write_certificates(directory.path());
    tls.certificates = directory.path().join("missing.pem");
    let node = Node::start();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let options = ServerOptions { listen_tls: Some((address, tls)), ..ServerOptions::default() };
    let error = Server::bind(options, Arc::clone(&node.engine)).unwrap_err();
    assert!(matches!(error, BindError::Tls { .. }), "{error}");
    assert!(error.to_string().contains("missing.pem"), "{error}");
}
