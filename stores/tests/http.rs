//! `/remote` as peers see it: statuses and bodies are Lotus's.

mod support;

use std::fs;

use sealtasks::{FileType, UnpaddedOffset};
use support::{ADMIN, Node, World, ask, both, cache_files, content, sector};

async fn node() -> (World, Node) {
    let world = World::new();
    let node = world.node().await;
    node.path("a", both()).await;
    node.put("a", sector(1), FileType::Sealed).await;
    node.put("a", sector(1), FileType::Cache).await;
    (world, node)
}

async fn status(method: &str, url: &str, headers: &[(&str, &str)]) -> (u16, String) {
    let (status, _, body) = ask(method, url, headers).await;
    (status.as_u16(), String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn access_matrix() {
    let (_world, node) = node().await;
    let url = format!("{}/sealed/s-t01000-1", node.base);
    let with = |token: &str| format!("{url}?token={token}");
    let forbidden = (401, "{\"Error\":\"unauthorized: missing admin permission\"}\n".to_owned());
    let bad_token = (401, String::new());
    assert_eq!(status("GET", &url, &[]).await, forbidden);
    assert_eq!(status("GET", &url, &[("authorization", "Bearer reader-token")]).await, forbidden);
    assert_eq!(status("GET", &url, &[("authorization", "Bearer nonsense")]).await, bad_token);
    assert_eq!(status("GET", &url, &[("authorization", "admin-token")]).await, bad_token);
    assert_eq!(status("GET", &with("nonsense"), &[]).await, bad_token);
    assert_eq!(status("GET", &with("admin-token"), &[]).await.0, 200);
    assert_eq!(status("GET", &with("admin-token"), &[("authorization", "Bearer nonsense")]).await, bad_token);
    assert_eq!(status("GET", &url, &[ADMIN]).await.0, 200);
    // Without permission nothing is told of what exists.
    assert_eq!(status("GET", &format!("{}/nothing/here/at/all", node.base), &[]).await, forbidden);
    assert_eq!(status("DELETE", &url, &[]).await, forbidden);
}

#[tokio::test]
async fn routes_and_names() {
    let (_world, node) = node().await;
    let table = [
        ("GET", "stat/a", 200),
        ("GET", "stat/unknown", 404),
        ("GET", "stat/..", 404),
        ("GET", "nothing/here/at/all", 404),
        ("POST", "sealed/s-t01000-1", 405),
        ("PUT", "sealed/s-t01000-1", 405),
        ("GET", "bogus/s-t01000-1", 500),
        ("GET", "sealed/s-t01000-2", 500),
        ("GET", "sealed/s-t01000-1.tmp", 500),
        ("GET", "sealed/s-t01000-1%2f..", 500),
        ("GET", "sealed/fetching", 500),
        ("GET", "sealed/%00", 500),
        ("DELETE", "sealed/s-t01000-2", 500),
        ("DELETE", "sealed/s-t01000-1", 500),
        ("DELETE", "sealed/s-t01000-1?keep=a.b/c", 500),
        ("DELETE", "stat/a", 500),
        ("HEAD", "sealed/s-t01000-1", 200),
        ("HEAD", "cache/s-t01000-1", 200),
        ("POST", "vanilla/single", 500),
        ("POST", "vanilla/porep", 500),
    ];
    for (method, path, expected) in table {
        let (got, body) = status(method, &format!("{}/{path}", node.base), &[ADMIN]).await;
        assert_eq!(got, expected, "{method} {path}: {body}");
        if got == 500 && !path.starts_with("vanilla") {
            assert_eq!(body, "", "{method} {path}");
        }
    }
    let long = format!("{}/sealed/s-t0{}-1", node.base, "1".repeat(4096));
    assert_eq!(status("GET", &long, &[ADMIN]).await.0, 500);
}

#[tokio::test]
async fn ranges_of_a_file() {
    let (_world, node) = node().await;
    let url = format!("{}/sealed/s-t01000-1", node.base);
    let all = content(sector(1), FileType::Sealed);
    let (code, head, body) = ask("GET", &url, &[ADMIN]).await;
    assert_eq!((code.as_u16(), &body[..]), (200, &all[..]));
    assert_eq!(head["content-type"], "application/octet-stream");
    assert_eq!(head["content-length"], "2048");
    assert_eq!(head["accept-ranges"], "bytes");
    let modified = head["last-modified"].to_str().expect("a date").to_owned();

    let ranges = [
        ("bytes=0-18446744073709551615", 0, 2047),
        ("bytes=2000-9000", 2000, 2047),
        ("bytes=127-254", 127, 254),
        ("bytes=2047-", 2047, 2047),
    ];
    for (range, first, last) in ranges {
        let (code, head, body) = ask("GET", &url, &[ADMIN, ("range", range)]).await;
        assert_eq!((code.as_u16(), &body[..]), (206, &all[first..=last]), "{range}");
        assert_eq!(head["content-range"], format!("bytes {first}-{last}/2048"));
    }
    let (code, head, _) = ask("GET", &url, &[ADMIN, ("range", "bytes=2048-")]).await;
    assert_eq!((code.as_u16(), &head["content-range"]), (416, &"bytes */2048".parse().expect("a value")));
    assert_eq!(ask("GET", &url, &[ADMIN, ("if-modified-since", &modified)]).await.0.as_u16(), 304);
}

#[tokio::test]
async fn a_directory_is_tar() {
    let (_world, node) = node().await;
    let url = format!("{}/cache/s-t01000-1", node.base);
    let (code, head, body) = ask("GET", &url, &[ADMIN]).await;
    assert_eq!((code.as_u16(), &head["content-type"]), (200, &"application/x-tar".parse().expect("a value")));
    let mut archive = tar::Archive::new(&body[..]);
    let mut found = Vec::new();
    for entry in archive.entries().expect("a tar stream") {
        let mut entry = entry.expect("a member");
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes).expect("whole");
        found.push((String::from_utf8_lossy(&entry.path_bytes()).into_owned(), bytes));
    }
    let expected: Vec<_> = cache_files().into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect();
    assert_eq!(found, expected, "base names in name order, nothing else");
    assert!(body.ends_with(&[0; 1024]), "end blocks");
    let manifest = head["x-sealyard-manifest"].to_str().expect("text");
    assert!(manifest.starts_with("p_aux:64,sc-02-data-layer-1.dat:2048,"), "{manifest}");
    assert_eq!(status("GET", &url, &[ADMIN, ("range", "bytes=0-1")]).await, (500, String::new()));
}

#[tokio::test]
async fn allocated_ranges() {
    let (_world, node) = node().await;
    let dir = node.dir.path().join("a");
    let file = dir.join("unsealed/s-t01000-1");
    let mut partial = pieces::PartialFile::create(&file, support::SIZE).expect("made");
    partial.mark_allocated(0, 1024).expect("marked");
    node.local.redeclare(None, false).await.expect("declared");
    assert_eq!(UnpaddedOffset::try_from(1016).expect("a boundary").padded(), 1024);
    let table = [
        ("unsealed/s-t01000-1/5/allocated/0/1016", 200),
        ("unsealed/s-t01000-1/5/allocated/508/508", 200),
        ("unsealed/s-t01000-1/5/allocated/0/1017", 416),
        ("unsealed/s-t01000-1/5/allocated/1016/127", 416),
        ("unsealed/s-t01000-1/5/allocated/0/18446744073709551615", 416),
        ("sealed/s-t01000-1/5/allocated/0/1016", 500),
        ("bogus/s-t01000-1/5/allocated/0/1016", 500),
        ("unsealed/s-t01000-9/5/allocated/0/1016", 500),
        ("unsealed/s-t01000-1/99/allocated/0/1016", 500),
        ("unsealed/s-t01000-1/5/allocated/x/1016", 500),
        ("unsealed/s-t01000-1/5/allocated/0/-1", 500),
        ("unsealed/s-t01000-1/8/allocated/0/1016", 500),
        ("unsealed/s-t01000-1/5/elsewhere/0/1016", 404),
    ];
    for (path, expected) in table {
        assert_eq!(status("GET", &format!("{}/{path}", node.base), &[ADMIN]).await.0, expected, "{path}");
    }
}

#[tokio::test]
async fn stat_speaks_lotus() {
    let (_world, node) = node().await;
    let (_, body) = status("GET", &format!("{}/stat/a", node.base), &[ADMIN]).await;
    let stat: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    let keys: Vec<_> = stat.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(keys, ["Available", "Capacity", "FSAvailable", "Max", "Reserved", "Used"]);
    assert!(stat["Capacity"].as_i64() > Some(0));
}

#[tokio::test]
async fn a_permit_deletes_the_last_copy_and_needs_admin() {
    let (_world, node) = node().await;
    let url = format!("{}/sealed/s-t01000-1", node.base);
    let file = node.dir.path().join("a/sealed/s-t01000-1");
    let reader = [("authorization", "Bearer reader-token"), (stores::PERMIT_HEADER, "because")];
    assert_eq!(status("DELETE", &url, &reader).await.0, 401);
    assert_eq!(status("DELETE", &url, &[ADMIN]).await, (500, String::new()));
    assert!(fs::exists(&file).expect("looked at"));
    assert_eq!(
        status("DELETE", &url, &[ADMIN, (stores::PERMIT_HEADER, "because")]).await,
        (200, String::new())
    );
    assert!(!fs::exists(&file).expect("looked at"));
}
