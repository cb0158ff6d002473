//! API info in every form that operators have, and those that are mistakes.

use rpc::{ApiInfo, Transport};

#[test]
fn every_form_of_api_info_gives_its_token_and_url() {
    let cases = [
        ("eyJ.a.b:/ip4/10.0.0.1/tcp/2345/http", Some("eyJ.a.b"), "http://10.0.0.1:2345/rpc/v0"),
        ("eyJ.a.b:/ip4/10.0.0.1/tcp/2345", Some("eyJ.a.b"), "http://10.0.0.1:2345/rpc/v0"),
        ("eyJ.a.b:/ip6/fd00::1/tcp/2345/http", Some("eyJ.a.b"), "http://[fd00::1]:2345/rpc/v0"),
        ("eyJ.a.b:/dns/miner.example/tcp/2345/http", Some("eyJ.a.b"), "http://miner.example:2345/rpc/v0"),
        ("eyJ.a.b:/dns4/miner/tcp/2345/ws", Some("eyJ.a.b"), "http://miner:2345/rpc/v0"),
        ("eyJ.a.b:/dns6/miner/tcp/1/wss", Some("eyJ.a.b"), "https://miner:1/rpc/v0"),
        ("eyJ.a.b:/ip4/10.0.0.1/tcp/1/tls/http", Some("eyJ.a.b"), "https://10.0.0.1:1/rpc/v0"),
        ("/ip4/10.0.0.1/tcp/2345/http", None, "http://10.0.0.1:2345/rpc/v0"),
        ("eyJ.a.b:http://miner:2345", Some("eyJ.a.b"), "http://miner:2345/rpc/v0"),
        ("eyJ.a.b:https://miner", Some("eyJ.a.b"), "https://miner/rpc/v0"),
        ("eyJ.a.b:ws://miner:2345/rpc/v0", Some("eyJ.a.b"), "http://miner:2345/rpc/v0"),
        ("http://miner:2345/behind/", None, "http://miner:2345/behind/rpc/v0"),
        (
            " eyJ.a.b:/ip4/1.2.3.4/tcp/1 , other:/ip4/5.6.7.8/tcp/2",
            Some("eyJ.a.b"),
            "http://1.2.3.4:1/rpc/v0",
        ),
        (":/ip4/1.2.3.4/tcp/1", None, "http://1.2.3.4:1/rpc/v0"),
    ];
    for (text, token, url) in cases {
        let info: ApiInfo = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(info.token.as_deref(), token, "{text}");
        assert_eq!(info.rpc_url(Transport::Http).unwrap().as_str(), url, "{text}");
        let ws = url.replacen("http", "ws", 1);
        assert_eq!(info.rpc_url(Transport::Ws).unwrap().as_str(), ws, "{text}");
        // What is shown can be pasted, and what is logged keeps the token.
        assert_eq!(info.to_string().parse::<ApiInfo>().unwrap(), info, "{text}");
        assert!(token.is_none_or(|token| !format!("{info:?}").contains(token)), "{info:?}");
    }
}

#[test]
fn the_address_to_dial_is_host_and_port() {
    for (text, dial) in [
        ("/ip4/10.0.0.1/tcp/2345/http", "10.0.0.1:2345"),
        ("/ip6/::1/tcp/2345/http", "[::1]:2345"),
        ("/dns/miner/tcp/2345/http", "miner:2345"),
        ("t:http://miner:99/x", "miner:99"),
        ("t:https://miner", "miner:443"),
        ("t:http://[::1]:99", "[::1]:99"),
    ] {
        assert_eq!(text.parse::<ApiInfo>().unwrap().dial_address(), dial);
    }
}

#[test]
fn mistakes_are_named() {
    for (text, says) in [
        ("", "empty"),
        (" , ", "empty"),
        ("eyJ.a.b", "no address"),
        ("eyJ.a.b:", "expected a multiaddr or a URL"),
        ("eyJ.a.b:10.0.0.1:2345", "expected a multiaddr or a URL"),
        ("eyJ.a.b:ftp://miner", "the scheme must be http"),
        ("/ip4/10.0.0.1", "nothing follows the host"),
        ("/ip4/10.0.0.1/udp/2345", "must be followed by tcp"),
        ("/ip4/10.0.0.1/tcp/99999", "no number from 0 to 65535"),
        ("/ip4/10.0.0/tcp/1", "no IPv4 address"),
        ("/ip6/10.0.0.1/tcp/1", "no IPv6 address"),
        ("/ip4/10.0.0.1/tcp/1/quic", "\"quic\" is no known protocol"),
        ("/ip4/10.0.0.1/tcp/1/http/p2p/x", "\"p2p\" is no known protocol"),
        ("/unix/tmp/x", "\"unix\" is no known way to name a host"),
        ("/dns/a@b/tcp/1", "no host name"),
        ("/dns//tcp/1", "nothing follows dns"),
    ] {
        let error = text.parse::<ApiInfo>().expect_err(text).to_string();
        assert!(error.contains(says), "{text}: {error}");
    }
    let error = "secret.token:nonsense".parse::<ApiInfo>().unwrap_err();
    assert!(!error.to_string().contains("secret.token"), "{error}");
}

#[test]
fn addresses_are_written_as_lotus_writes_them() {
    use rpc::multiaddr::Multiaddr;
    let v4 = Multiaddr::http("127.0.0.1:2345".parse().unwrap());
    assert_eq!(v4.to_string(), "/ip4/127.0.0.1/tcp/2345/http");
    assert_eq!(Multiaddr::tcp("10.0.0.7:3456".parse().unwrap()).to_string(), "/ip4/10.0.0.7/tcp/3456");
    assert_eq!(Multiaddr::http("[::1]:1".parse().unwrap()).to_string(), "/ip6/::1/tcp/1/http");
    assert_eq!((v4.ip().map(|ip| ip.is_loopback()), v4.port()), (Some(true), 2345));
}
