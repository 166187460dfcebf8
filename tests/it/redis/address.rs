//! How Redis is reached: password, user, database, TLS.

use std::process::Command;

use super::*;

async fn works(redis: &Redis, url: String, adjust: impl FnOnce(&mut weft::engine::redis::RedisSettings)) {
    let (node, _feed) = redis
        .node(|settings| {
            settings.url = url;
            adjust(settings);
        })
        .await;
    let session = session(&node, &["/a"]).await;
    publish(&node, "/a", "1").await;
    assert_eq!(unread(&node, &session, "1").await, [1]);
}

#[tokio::test]
async fn user_password_and_database() {
    let redis = Redis::start().await;
    redis
        .ask::<()>(&[
            "ACL",
            "SETUSER",
            "weft",
            "on",
            ">secret",
            "~{weft:*",
            "resetchannels",
            "&{weft:*",
            "+@all",
            "-@dangerous",
            "+info",
        ])
        .await;
    works(&redis, format!("{}?db=2&user=weft&pass=secret", redis.url()), |_| {}).await;
    assert!(redis.ask::<String>(&["INFO", "keyspace"]).await.contains("db2:"));
}

#[tokio::test]
async fn tls_with_a_private_authority() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let openssl = |arguments: &[&str]| {
        let made = Command::new("openssl")
            .arg("req")
            .args(["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"])
            .args(arguments)
            .output();
        let made = made.expect("openssl runs; `./test.sh setup` installs it");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    };
    let (ca_key, ca, key, certificate) = (path("ca-key.pem"), path("ca.pem"), path("key.pem"), path("certificate.pem"));
    openssl(&["-subj", "/CN=authority", "-keyout", &ca_key, "-out", &ca]);
    let for_server = ["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"];
    let signed = ["-CA", &ca, "-CAkey", &ca_key, "-subj", "/CN=localhost", "-keyout", &key, "-out", &certificate];
    openssl(&[&signed[..], &for_server].concat());
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port().to_string();
    let redis = Redis::start_with(&[
        "--tls-port",
        &port,
        "--tls-cert-file",
        &certificate,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &ca,
        "--tls-auth-clients",
        "no",
    ])
    .await;
    works(&redis, format!("rediss://localhost:{port}"), |settings| settings.ca_file = Some(ca.into())).await;
}
