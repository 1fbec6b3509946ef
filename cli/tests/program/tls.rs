//! TLS, as libpq's `sslmode` selects it.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use advisory_locking::LockKey;
use openssl::asn1::Asn1Time;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509, X509NameBuilder};
use rustix::process::Signal;
use testkit::cluster::ClusterGuard;
use testkit::observer::Observe;
use testkit::server::fresh_name;

use crate::processes::{fresh_sleep, send, wait_for_sleep};
use crate::program::{Running, program, run_on};

type Issuer<'a> = Option<(&'a X509, &'a PKey<Private>)>;

/// Makes a certificate. Without an issuer it is an authority.
fn certificate(host: &str, issuer: Issuer<'_>) -> (X509, PKey<Private>) {
    let curve = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    let key = PKey::from_ec_key(EcKey::generate(&curve).unwrap()).unwrap();
    let mut name = X509NameBuilder::new().unwrap();
    name.append_entry_by_text("CN", host).unwrap();
    let name = name.build();
    let mut certificate = X509::builder().unwrap();
    certificate.set_version(2).unwrap();
    certificate.set_subject_name(&name).unwrap();
    certificate
        .set_issuer_name(issuer.map_or(&name, |(issuer, _)| issuer.subject_name()))
        .unwrap();
    certificate.set_pubkey(&key).unwrap();
    let [from, to] = [0, 1].map(|days| Asn1Time::days_from_now(days).unwrap());
    certificate.set_not_before(&from).unwrap();
    certificate.set_not_after(&to).unwrap();
    let extension = if issuer.is_some() {
        let mut names = SubjectAlternativeName::new();
        names
            .dns(host)
            .build(&certificate.x509v3_context(issuer.map(|(issuer, _)| &**issuer), None))
            .unwrap()
    } else {
        BasicConstraints::new().critical().ca().build().unwrap()
    };
    certificate.append_extension(extension).unwrap();
    certificate
        .sign(issuer.map_or(&key, |(_, key)| key), MessageDigest::sha256())
        .unwrap();
    (certificate.build(), key)
}

/// Makes a private server accept TLS with a certificate for `localhost`. Returns its authority.
fn accept_tls(cluster: &ClusterGuard) -> X509 {
    let (authority, authority_key) = certificate("authority", None);
    let (certificate, key) = certificate("localhost", Some((&authority, &authority_key)));
    let directory = cluster.data_directory();
    let owner = fs::metadata(&directory).unwrap();
    for (name, text) in [
        ("server.crt", certificate.to_pem().unwrap()),
        ("server.key", key.private_key_to_pem_pkcs8().unwrap()),
    ] {
        let path = directory.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
    }
    authority
}

fn write(certificate: &X509) -> String {
    let path = std::env::temp_dir().join(fresh_name());
    fs::write(&path, certificate.to_pem().unwrap()).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn sslmode_selects_encryption_and_verification() {
    let cluster = ClusterGuard::acquire();
    let connect = |host: &str, parameters: &str| {
        let url = cluster.url().replace("127.0.0.1", host);
        run_on(&format!("{url}?{parameters}"), &["ls"])
    };
    // The server does not accept TLS yet.
    connect("localhost", "sslmode=prefer").assert_code(0);
    connect("localhost", "sslmode=require")
        .assert_code(69)
        .assert_stderr("TLS");

    let authority = accept_tls(&cluster);
    cluster.connect().run("ALTER SYSTEM SET ssl = on");
    cluster.ctl(&["-w", "restart"]);
    let root = write(&authority);
    let other = write(&certificate("authority", None).0);
    let trusted = format!("sslrootcert={root}");
    let untrusted = format!("sslrootcert={other}");
    for mode in ["disable", "allow", "prefer", "require"] {
        connect("127.0.0.1", &format!("sslmode={mode}")).assert_code(0);
    }
    connect("localhost", &format!("sslmode=verify-full&{trusted}")).assert_code(0);
    connect("127.0.0.1", &format!("sslmode=verify-ca&{trusted}")).assert_code(0);
    // The certificate is not for this address.
    connect("127.0.0.1", &format!("sslmode=verify-full&{trusted}"))
        .assert_code(69)
        .assert_stderr("certificate");
    for mode in ["require", "verify-ca", "verify-full"] {
        connect("localhost", &format!("sslmode={mode}&{untrusted}"))
            .assert_code(69)
            .assert_stderr("certificate");
    }
    connect("localhost", "sslmode=verify-full")
        .assert_code(64)
        .assert_stderr("sslrootcert");
    connect("localhost", "sslmode=require&sslrootcert=/no/such/file").assert_code(64);

    // A command inherits the socket below TLS.
    let url = cluster.url().replace("127.0.0.1", "localhost");
    let (name, sleep) = (fresh_name(), fresh_sleep());
    let mut command = program(&["run", &name, "--", "sleep", &sleep]);
    command.env(
        "DATABASE_URL",
        format!("{url}?sslmode=verify-full&{trusted}"),
    );
    let running = Running::start(command);
    let pid = wait_for_sleep(&sleep);
    let mut observer = cluster.connect();
    let encrypted = format!(
        "(SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
         WHERE ssl AND application_name = 'advisory-lock run {name}')"
    );
    assert_eq!(observer.number(&encrypted), 1);
    running.kill();
    let key = LockKey::from(&*name);
    assert_eq!(observer.number(&encrypted), 1);
    assert!(!observer.is_free(&key));
    send(pid, Signal::KILL);
    observer.assert_soon_free(&key, "the command");

    cluster.connect().run("ALTER SYSTEM RESET ssl");
    cluster.ctl(&["-w", "restart"]);
    for path in [root, other] {
        fs::remove_file(Path::new(&path)).unwrap();
    }
}
