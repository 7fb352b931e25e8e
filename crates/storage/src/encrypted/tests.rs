use super::*;

const KEY: &str = "/registry/secrets/default/s";

fn all() -> Vec<Provider> {
    [
        (Algorithm::AesCbc, 16),
        (Algorithm::AesCbc, 24),
        (Algorithm::AesCbc, 32),
        (Algorithm::AesGcm, 16),
        (Algorithm::AesGcm, 32),
        (Algorithm::Secretbox, 32),
    ]
    .map(|(algorithm, length)| Provider::new(algorithm, "k", vec![7; length]).expect("a key"))
    .to_vec()
}

#[test]
fn what_is_sealed_is_opened_with_the_same_key_only() {
    for provider in all() {
        for plain in [&b""[..], b"x", b"sixteen bytes...", &[9; 5000]] {
            let sealed = provider.seal(KEY, plain).expect("sealed");
            assert!(sealed.starts_with(SEALED) && provider.has_sealed(&sealed));
            assert!(plain.len() < 8 || !sealed.windows(plain.len()).any(|window| window == plain));
            assert_eq!(provider.open(KEY, &sealed).as_deref(), Some(plain), "{provider:?}");
            assert_ne!(provider.seal(KEY, plain), Some(sealed), "no two are alike");
        }
    }
}

#[test]
fn what_was_changed_is_not_opened() {
    for provider in all().into_iter().filter(|provider| provider.algorithm() != Algorithm::AesCbc) {
        let sealed = provider.seal(KEY, b"plain").expect("sealed");
        for at in provider.prefix().len()..sealed.len() {
            let mut changed = sealed.to_vec();
            changed[at] ^= 1;
            assert_eq!(provider.open(KEY, &Bytes::from(changed)), None);
        }
        assert_eq!(provider.open(KEY, &sealed.slice(..sealed.len() - 1)), None);
        assert_eq!(provider.open(KEY, &sealed.slice(..provider.prefix().len() + 3)), None);
    }
    let bound = Provider::new(Algorithm::AesGcm, "k", vec![7; 32]).expect("a key");
    let sealed = bound.seal(KEY, b"plain").expect("sealed");
    assert_eq!(bound.open("/registry/secrets/default/other", &sealed), None, "a value belongs to its key");
}

#[test]
fn keys_have_lengths() {
    assert_eq!(
        Provider::new(Algorithm::Secretbox, "k", vec![0; 16]).map_err(|error| error.to_string()).err(),
        Some("secret is not of the expected length, got 16, expected [32]".to_owned())
    );
    assert!(Provider::new(Algorithm::AesGcm, "k", vec![0; 24]).is_err());
}

#[tokio::test]
async fn rules_rotate() {
    let (old, new) = (all()[0].clone(), Provider::new(Algorithm::Secretbox, "new", vec![1; 32]).expect("a key"));
    let before = Rules::new(vec![("/registry/secrets/".into(), vec![old.clone().into()])]);
    let after =
        Rules::new(vec![("/registry/secrets/".into(), vec![new.into(), old.into(), Provider::identity().into()])]);
    let sealed = before.seal(KEY, Bytes::from_static(b"{}")).expect("sealed");
    assert_eq!(after.open(KEY, sealed.clone()).await.expect("opened"), "{}");
    assert!(after.is_stale(KEY, &sealed) && !before.is_stale(KEY, &sealed));
    assert!(after.is_stale(KEY, b"{}"), "what was written before encryption is stale too");
    let anew = after.seal(KEY, Bytes::from_static(b"{}")).expect("sealed");
    assert!(!after.is_stale(KEY, &anew));
    assert_eq!(before.open(KEY, anew.clone()).await.expect("passed on"), anew, "without the key it stays sealed");
    let map = "/registry/configmaps/default/c";
    assert_eq!(after.seal(map, Bytes::from_static(b"{}")).expect("plain"), "{}");
    let identity =
        Rules::new(vec![("/registry/secrets/".into(), vec![Provider::identity().into(), all()[4].clone().into()])]);
    assert!(identity.is_stale(KEY, &sealed) && !identity.is_stale(KEY, b"{}"), "the way back to plain values");
}
