//! TLS of a private server, with a certificate for `localhost`.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use openssl::asn1::Asn1Time;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509, X509NameBuilder};

use crate::cluster::ClusterGuard;
use crate::observer::Observe;

/// Authority that issues the certificate of a server.
pub struct Authority {
    certificate: X509,
    key: PKey<Private>,
}

impl Authority {
    pub fn new() -> Self {
        let (certificate, key) = certificate("authority", None);
        Self { certificate, key }
    }

    /// Returns the certificate, without the key.
    pub fn to_pem(&self) -> Vec<u8> {
        self.certificate.to_pem().unwrap()
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

/// Makes a private server accept TLS. Returns the authority of its certificate.
pub fn accept_tls(cluster: &ClusterGuard) -> Authority {
    let authority = Authority::new();
    let (certificate, key) = certificate("localhost", Some(&authority));
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
    cluster.connect().run("ALTER SYSTEM SET ssl = on");
    cluster.ctl(&["-w", "restart"]);
    authority
}

/// Makes a certificate. Without an issuer it is an authority.
fn certificate(host: &str, issuer: Option<&Authority>) -> (X509, PKey<Private>) {
    let curve = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    let key = PKey::from_ec_key(EcKey::generate(&curve).unwrap()).unwrap();
    let mut name = X509NameBuilder::new().unwrap();
    name.append_entry_by_text("CN", host).unwrap();
    let name = name.build();
    let mut certificate = X509::builder().unwrap();
    certificate.set_version(2).unwrap();
    certificate.set_subject_name(&name).unwrap();
    let issued_by = issuer.map_or(&*name, |issuer| issuer.certificate.subject_name());
    certificate.set_issuer_name(issued_by).unwrap();
    certificate.set_pubkey(&key).unwrap();
    let [from, to] = [0, 1].map(|days| Asn1Time::days_from_now(days).unwrap());
    certificate.set_not_before(&from).unwrap();
    certificate.set_not_after(&to).unwrap();
    let extension = match issuer {
        Some(issuer) => {
            let context = certificate.x509v3_context(Some(&issuer.certificate), None);
            SubjectAlternativeName::new().dns(host).build(&context)
        }
        None => BasicConstraints::new().critical().ca().build(),
    };
    certificate.append_extension(extension.unwrap()).unwrap();
    let signer = issuer.map_or(&key, |issuer| &issuer.key);
    certificate.sign(signer, MessageDigest::sha256()).unwrap();
    (certificate.build(), key)
}
