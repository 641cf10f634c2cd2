//! What a TLS certificate of a libp2p peer must be.
//!
//! Just one, signed by itself, with the peer's identity in an extension that the identity's key has signed. Who the
//! peer is said to be is checked by the swarm.

use libp2p::tls::certificate::{self, P2pCertificate};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, SignatureScheme,
};

/// Checks the certificates of both sides; there is no other trust than in the identity that they carry.
#[derive(Debug)]
pub(super) struct Verifier;

/// The identity's certificate, proven to be signed by the identity.
pub(super) fn parse<'a>(certificate: &'a CertificateDer<'a>) -> Result<P2pCertificate<'a>, Error> {
    certificate::parse(certificate).map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))
}

fn check(certificate: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<(), Error> {
    if !others.is_empty() {
        return Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure));
    }
    parse(certificate).map(|_| ())
}

fn check_signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    parse(certificate)?
        .verify_signature(signed.scheme, message, signed.signature())
        .map_err(|_| Error::InvalidCertificate(CertificateError::BadSignature))?;
    Ok(HandshakeSignatureValid::assertion())
}

/// Those that `libp2p-tls` takes, in its order.
fn schemes() -> Vec<SignatureScheme> {
    vec![
        SignatureScheme::ECDSA_NISTP384_SHA384,
        SignatureScheme::ECDSA_NISTP256_SHA256,
        SignatureScheme::ED25519,
        SignatureScheme::RSA_PSS_SHA512,
        SignatureScheme::RSA_PSS_SHA384,
        SignatureScheme::RSA_PSS_SHA256,
        SignatureScheme::RSA_PKCS1_SHA512,
        SignatureScheme::RSA_PKCS1_SHA384,
        SignatureScheme::RSA_PKCS1_SHA256,
    ]
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        check(certificate, others).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        check_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        check(certificate, others).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        check_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

#[cfg(test)]
mod tests {
    use libp2p::identity::Keypair;

    use super::*;

    fn verify(certificate: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> [Result<(), Error>; 2] {
        let nobody = ServerName::try_from("nobody").unwrap();
        let now = UnixTime::now();
        [
            Verifier.verify_server_cert(certificate, others, &nobody, &[], now).map(|_| ()),
            Verifier.verify_client_cert(certificate, others, now).map(|_| ()),
        ]
    }

    #[test]
    fn one_certificate_with_a_signed_identity_passes() {
        let key = Keypair::generate_ed25519();
        let (certificate, _) = certificate::generate(&key).unwrap();
        assert_eq!(verify(&certificate, &[]), [Ok(()), Ok(())]);
        assert_eq!(parse(&certificate).unwrap().peer_id(), key.public().to_peer_id());
    }

    #[test]
    fn two_certificates_are_refused() {
        let (certificate, _) = certificate::generate(&Keypair::generate_ed25519()).unwrap();
        for result in verify(&certificate, std::slice::from_ref(&certificate)) {
            assert!(result.is_err());
        }
    }

    #[test]
    fn a_certificate_with_any_byte_changed_passes_for_nobody_else() {
        let key = Keypair::generate_ed25519();
        let (certificate, _) = certificate::generate(&key).unwrap();
        for index in 0..certificate.len() {
            let mut bytes = certificate.to_vec();
            bytes[index] ^= 1;
            let changed = CertificateDer::from(bytes);
            for result in verify(&changed, &[]) {
                if result.is_ok() {
                    assert_eq!(parse(&changed).unwrap().peer_id(), key.public().to_peer_id());
                }
            }
        }
    }
}
