//! Who may do what: Lotus's rules, and tokens that another implementation can check and make.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rpc::{Permission, Secret};
use sha2::{Digest as _, Sha256};

use crate::fakes::ManagerHost;
use crate::framing::{Answer, post};

/// HMAC-SHA-256 after RFC 2104, made by hand so that it owes nothing to the library under test.
fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
    assert!(key.len() <= 64, "longer keys would be hashed first");
    let pad = |byte: u8| {
        let mut block = [byte; 64];
        block.iter_mut().zip(key).for_each(|(b, k)| *b ^= k);
        block
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(text).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().into()
}

fn made_by_hand(key: &[u8], header: &str, payload: &str) -> String {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let signature = URL_SAFE_NO_PAD.encode(hmac(key, signed.as_bytes()));
    format!("{signed}.{signature}")
}

const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

#[test]
fn our_tokens_are_checked_by_anyone_with_the_secret() {
    let key = [7; 32];
    let token = Secret::from_bytes(key.to_vec()).unwrap().mint(&Permission::ALL).unwrap();
    let (signed, signature) = token.rsplit_once('.').unwrap();
    assert_eq!(URL_SAFE_NO_PAD.decode(signature).unwrap(), hmac(&key, signed.as_bytes()));
    let (header, payload) = signed.split_once('.').unwrap();
    let header: serde_json::Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap();
    assert_eq!(header, serde_json::json!({"alg": "HS256", "typ": "JWT"}));
    let payload = URL_SAFE_NO_PAD.decode(payload).unwrap();
    assert_eq!(String::from_utf8(payload).unwrap(), r#"{"Allow":["read","write","sign","admin"]}"#);
}

#[test]
fn tokens_made_elsewhere_are_accepted_and_forged_ones_refused() {
    let key = [7; 32];
    let secret = Secret::from_bytes(key.to_vec()).unwrap();
    let cases = [
        (r#"{"Allow":["read","admin"]}"#, vec![Permission::Read, Permission::Admin]),
        (r#"{"Allow":["admin","rule the world"]}"#, vec![Permission::Admin]),
        (r#"{"Allow":null}"#, vec![]),
        (r#"{}"#, vec![]),
        (r#"{"Allow":["read"],"exp":1}"#, vec![Permission::Read]),
    ];
    for (payload, allowed) in cases {
        assert_eq!(secret.verify(&made_by_hand(&key, HEADER, payload)).unwrap(), allowed, "{payload}");
    }
    let all = r#"{"Allow":["admin"]}"#;
    let unsigned = made_by_hand(&key, r#"{"alg":"none","typ":"JWT"}"#, all);
    let (unsigned, _) = unsigned.rsplit_once('.').unwrap();
    for forged in [
        made_by_hand(&[8; 32], HEADER, all),
        made_by_hand(&key, r#"{"alg":"HS512","typ":"JWT"}"#, all),
        format!("{unsigned}."),
        "abc".into(),
        String::new(),
    ] {
        let error = secret.verify(&forged).expect_err(&forged).to_string();
        assert!(error.starts_with("JWT Verification failed: "), "{error}");
    }
}

#[test]
fn a_short_secret_is_refused_and_never_shown() {
    assert!(Secret::from_bytes(vec![1; 15]).is_err());
    let secret = Secret::generate().unwrap();
    assert_eq!(format!("{secret:?}"), "Secret(32 bytes)");
    assert!(secret != Secret::generate().unwrap());
}

const READ: &str = r#"{"jsonrpc":"2.0","id":1,"method":"Filecoin.Session","params":[]}"#;
const ADMIN: &str = r#"{"jsonrpc":"2.0","id":1,"method":"Filecoin.StorageList","params":[]}"#;
const WRITE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"Filecoin.PledgeSector","params":[]}"#;

fn missing(method: &str, permission: &str) -> String {
    format!("missing permission to invoke '{method}' (need '{permission}')")
}

#[tokio::test]
async fn a_request_without_a_token_may_read_and_no_more() {
    let host = ManagerHost::start().await;
    assert!(post(host.address, "/rpc/v0", &[], READ).await.result().is_string());
    let admin = post(host.address, "/rpc/v0", &[], ADMIN).await;
    assert_eq!((admin.status, admin.error()), (200, (1, missing("StorageList", "admin"))));
    let write = post(host.address, "/rpc/v0", &[], WRITE).await;
    assert_eq!((write.status, write.error()), (200, (1, missing("PledgeSector", "write"))));
}

#[tokio::test]
async fn a_token_allows_what_it_lists_and_nothing_else() {
    let host = ManagerHost::start().await;
    for (permissions, read, write, admin) in [
        (&[Permission::Read][..], true, false, false),
        (&[Permission::Write][..], false, true, false),
        (&[Permission::Admin][..], false, false, true),
        (&[Permission::Sign][..], false, false, false),
        (&Permission::ALL[..], true, true, true),
    ] {
        let header = format!("Authorization: Bearer {}", host.token(permissions));
        for (call, allowed) in [(READ, read), (WRITE, write), (ADMIN, admin)] {
            let answer = post(host.address, "/rpc/v0", &[&header], call).await;
            assert_eq!(answer.json().get("error").is_none(), allowed, "{permissions:?} {call}");
        }
    }
}

#[tokio::test]
async fn a_token_may_stand_in_the_query_and_a_bad_one_is_refused_with_an_empty_401() {
    let host = ManagerHost::start().await;
    let token = host.token(&Permission::ALL);
    let query = format!("/rpc/v0?token={token}");
    assert!(post(host.address, &query, &[], ADMIN).await.result().is_object());
    // The header wins.
    let header = format!("Authorization: Bearer {}", host.token(&[Permission::Read]));
    assert_eq!(post(host.address, &query, &[&header], ADMIN).await.error().0, 1);
    let other = Secret::generate().unwrap().mint(&Permission::ALL).unwrap();
    for bad in [
        format!("Authorization: Bearer {other}"),
        format!("Authorization: {token}"),
        format!("Authorization: bearer {token}"),
        "Authorization: Bearer ".into(),
        "Authorization: Basic eDp5".into(),
    ] {
        let answer = post(host.address, "/rpc/v0", &[&bad], READ).await;
        assert_eq!(answer, Answer { status: 401, body: String::new() }, "{bad}");
    }
    let answer = post(host.address, &format!("/rpc/v0?token={other}"), &[], READ).await;
    assert_eq!(answer, Answer { status: 401, body: String::new() });
}
