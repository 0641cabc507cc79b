//! The machine's files, and name servers that answer, refuse, and are silent; each on a port of its own.

use std::net::SocketAddr;

use hickory_resolver::config::ConnectionConfig;
use tokio::net::UdpSocket;

use super::*;

const A: u8 = 1;
const AAAA: u8 = 28;

/// A name server on loopback: names that begin with `v4`, `both` or `v6` have such addresses for 7 s, `dead` ones get no answer,
/// `sick` ones a failure, and others do not exist.
async fn name_server() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
    let address = socket.local_addr().expect("bound");
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let shared = asked.clone();
    tokio::spawn(async move {
        let mut question = [0; 512];
        while let Ok((length, client)) = socket.recv_from(&mut question).await {
            let (name, answer) = answer(&question[..length]);
            shared.lock().push(name);
            if let Some(answer) = answer {
                // A client that is gone wants no answer.
                let _ = socket.send_to(&answer, client).await;
            }
        }
    });
    (address, asked)
}

fn answer(question: &[u8]) -> (String, Option<Vec<u8>>) {
    let (mut at, mut labels) = (12, Vec::new());
    while question[at] != 0 {
        let length = usize::from(question[at]);
        labels.push(String::from_utf8_lossy(&question[at + 1..=at + length]).into_owned());
        at += length + 1;
    }
    let (end, kind) = (at + 5, question[at + 2]);
    let first = labels[0].as_str();
    let data: Option<Vec<u8>> = match (first, kind) {
        ("v4" | "both" | "my_service", A) => Some(vec![192, 0, 2, 4]),
        ("v6" | "both", AAAA) => Some([&[0x20, 1, 0x0d, 0xb8][..], &[0; 11], &[6]].concat()),
        _ => None,
    };
    let code = match first {
        "dead" => return (labels.join("."), None),
        "sick" => 2,
        "v4" | "v6" | "both" | "my_service" => 0,
        _ => 3,
    };
    let count = u8::from(data.is_some());
    let mut answer = vec![question[0], question[1], 0x81, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0];
    answer.extend_from_slice(&question[12..end]);
    if let Some(data) = data {
        let length = u8::try_from(data.len()).expect("short");
        answer.extend_from_slice(&[0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 7, 0, length]);
        answer.extend_from_slice(&data);
    }
    (labels.join("."), Some(answer))
}

fn way(server: SocketAddr, hosts: &str) -> Way {
    let mut own = NameServerConfig::udp(server.ip());
    own.connections = vec![ConnectionConfig::udp()];
    own.connections[0].port = server.port();
    let mut read = Hosts::default();
    read.read_hosts_conf(hosts.as_bytes()).expect("lines of hosts");
    let config = ResolverConfig::from_parts(None, vec![Name::from_ascii("inside.test").expect("a name")], vec![own]);
    let mut options = ResolverOpts::default();
    options.timeout = Duration::from_millis(200);
    options.attempts = 1;
    Way::new(read, config, options)
}

fn found(outcome: Result<Found, LookupError>) -> Vec<String> {
    let found = outcome.expect("an address");
    found.addresses.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn addresses_of_both_kinds_come_with_their_time_the_fourth_version_first() {
    let (server, asked) = name_server().await;
    let way = way(server, "");
    let both = way.lookup("both.example").await.expect("an address");
    assert_eq!(both.ttl, Duration::from_secs(7));
    assert_eq!(found(Ok(both)), ["192.0.2.4", "2001:db8::6"]);
    assert_eq!(found(way.lookup("v4.example").await), ["192.0.2.4"]);
    assert_eq!(found(way.lookup("v6.example.").await), ["2001:db8::6"]);
    let before = asked.lock().len();
    assert_eq!(found(way.lookup("v4.example").await), ["192.0.2.4"]);
    assert!(asked.lock().len() > before, "nothing is kept here");
}

#[tokio::test]
async fn a_single_label_is_searched_for_and_may_have_underscores() {
    let (server, asked) = name_server().await;
    let way = way(server, "");
    assert_eq!(found(way.lookup("my_service").await), ["192.0.2.4"]);
    assert!(asked.lock().contains(&"my_service.inside.test".to_owned()));
}

#[tokio::test]
async fn a_name_of_the_hosts_file_is_asked_of_nobody() {
    let (server, asked) = name_server().await;
    let way = way(
        server,
        "192.0.2.9 printer dead.example\n2001:db8::9 six\n192.0.2.8 localhost\n",
    );
    assert_eq!(found(way.lookup("printer").await), ["192.0.2.9"]);
    assert_eq!(found(way.lookup("dead.example").await), ["192.0.2.9"]);
    assert_eq!(found(way.lookup("dead.example.").await), ["192.0.2.9"]);
    assert_eq!(found(way.lookup("six").await), ["2001:db8::9"]);
    assert_eq!(found(way.lookup("localhost").await), ["192.0.2.8"]);
    assert_eq!(found(way.lookup("a.localhost").await), ["127.0.0.1", "::1"]);
    assert!(asked.lock().is_empty());
}

#[tokio::test]
async fn each_way_to_have_no_address_has_its_name() {
    let (server, _) = name_server().await;
    let way_to_it = way(server, "");
    assert_eq!(way_to_it.lookup("none.example").await, Err(LookupError::NoAddress));
    assert_eq!(way_to_it.lookup("dead.example").await, Err(LookupError::NoAnswer));
    let sick = way_to_it.lookup("sick.example").await;
    assert!(matches!(&sick, Err(LookupError::Failed(_))), "{sick:?}");
    for name in ["a..b", &"a".repeat(64), &"a.".repeat(200)] {
        assert_eq!(way_to_it.lookup(name).await, Err(LookupError::NoAddress), "{name}");
    }
    let closed = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
    let address = closed.local_addr().expect("bound");
    drop(closed);
    let refused = way(address, "").lookup("v4.example").await;
    assert!(
        matches!(&refused, Err(LookupError::Failed(_) | LookupError::NoAnswer)),
        "{refused:?}"
    );
}

#[tokio::test]
async fn what_this_machine_lacks_is_told_apart() {
    let code = rustix::io::Errno::MFILE.raw_os_error();
    assert_eq!(of_io(&io::Error::from_raw_os_error(code)), LookupError::Local(code));
    let refused = rustix::io::Errno::CONNREFUSED.raw_os_error();
    assert!(matches!(
        of_io(&io::Error::from_raw_os_error(refused)),
        LookupError::Failed(_)
    ));
}
