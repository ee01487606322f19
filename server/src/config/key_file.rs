//! Public keys: of which algorithms they are.

use jsonwebtoken::{
    Algorithm::{self, ES256, ES384, EdDSA, HS256, HS384, HS512, PS256, PS384, PS512, RS256, RS384, RS512},
    DecodingKey, DecodingKeyKind,
};

/// What a shared secret may be used with.
pub(super) const SECRET: &[Algorithm] = &[HS256, HS384, HS512];
/// What a public key of some kind may be used with.
pub(super) const PUBLIC: &[Algorithm] = &[RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA];

/// The algorithms that a public key in PEM may be used with, or why there are none.
pub(super) fn algorithms_of_pem(pem: &str) -> Result<&'static [Algorithm], &'static str> {
    if pem.contains("PRIVATE KEY-----") {
        return Err("this is a private key, which a router should not have");
    }
    if pem.contains("BEGIN CERTIFICATE-----") {
        return Err("this is a certificate: `openssl x509 -pubkey -noout` takes its public key out");
    }
    let base64: String = pem.split_whitespace().collect();
    let pem = pem.as_bytes();
    if DecodingKey::from_ec_pem(pem).is_ok() {
        // The library takes any curve and would refuse every token later. Up to the point itself the DER of
        // a curve's keys is always the same (RFC 5480, section 2), and so is its base64.
        return if base64.contains("MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE") {
            Ok(&[ES256])
        } else if base64.contains("MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAE") {
            Ok(&[ES384])
        } else {
            Err("this curve is neither P-256 nor P-384")
        };
    }
    if let Ok(key) = DecodingKey::from_ed_pem(pem) {
        return match length(&key) {
            32 => Ok(&[EdDSA]),
            _ => Err("this is not an Ed25519 key"),
        };
    }
    match DecodingKey::from_rsa_pem(pem) {
        // The DER of a 2048-bit key is its 256 bytes of modulus and a dozen around them.
        Ok(key) if length(&key) > 256 => Ok(&[RS256, RS384, RS512, PS256, PS384, PS512]),
        Ok(_) => Err("this RSA key has fewer than 2048 bits"),
        Err(_) => Err("this is no public key in PEM"),
    }
}

fn length(key: &DecodingKey) -> usize {
    match key.kind() {
        DecodingKeyKind::SecretOrDer(bytes) => bytes.len(),
        DecodingKeyKind::RsaModulusExponent { n, .. } => n.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_tells_its_algorithms() {
        const RSA: &[Algorithm] = &[RS256, RS384, RS512, PS256, PS384, PS512];
        for (pem, expected) in [
            (include_str!("../../tests/keys/rsa-2048.pem"), Ok(RSA)),
            (include_str!("../../tests/keys/rsa-2048-pkcs1.pem"), Ok(RSA)),
            (include_str!("../../tests/keys/p-256.pem"), Ok(&[ES256][..])),
            (include_str!("../../tests/keys/p-384.pem"), Ok(&[ES384][..])),
            (include_str!("../../tests/keys/ed25519.pem"), Ok(&[EdDSA][..])),
            (
                include_str!("../../tests/keys/rsa-1024.pem"),
                Err("this RSA key has fewer than 2048 bits"),
            ),
            (
                include_str!("../../tests/keys/p-521.pem"),
                Err("this curve is neither P-256 nor P-384"),
            ),
            (
                include_str!("../../tests/keys/secp256k1.pem"),
                Err("this curve is neither P-256 nor P-384"),
            ),
            (
                include_str!("../../tests/keys/ed448.pem"),
                Err("this is no public key in PEM"),
            ),
            ("", Err("this is no public key in PEM")),
            (
                "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----",
                Err("this is a private key, which a router should not have"),
            ),
        ] {
            assert_eq!(algorithms_of_pem(pem), expected, "{pem}");
        }
    }
}
