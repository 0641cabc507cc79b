//! The program without any argument, in an empty directory: what the README promises a newcomer.
//!
//! Its port is fixed, so the test runs in a network namespace of its own, where nobody else has it.

use std::fs::File;
use std::process::{Command, Stdio};

use crate::harness::client::{Client, one_shot};
use crate::harness::eventually;
use crate::harness::namespace;
use crate::harness::node::Place;

#[tokio::test(flavor = "multi_thread")]
async fn without_arguments_a_node_serves_on_port_8000_from_the_directory_it_is_in() {
    let test = "defaults::without_arguments_a_node_serves_on_port_8000_from_the_directory_it_is_in";
    let needs = "needs user and network namespaces (unshare -rn)";
    if !namespace::is_inside(&["--map-root-user", "--net"], test, needs) {
        return;
    }
    // A new namespace has its loopback down.
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
    if !up.is_ok_and(|status| status.success()) {
        return namespace::not_run(test, "needs the program ip (iproute2)");
    }
    let place = Place::new();
    let empty = place.path("empty");
    std::fs::create_dir(&empty).expect("the directory can be made");
    let log = File::create(place.path("node.log")).expect("the log can be written");
    let mut node = Command::new(env!("CARGO_BIN_EXE_xcron"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("XCRON_") {
            node.env_remove(name);
        }
    }
    let node = node
        .current_dir(&empty)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    let mut node = Ends(node.spawn().expect("the program is built and can be run"));
    let mut client = Client::new(([127, 0, 0, 1], 8_000).into());
    eventually("the node is ready", async || {
        let ended = node.0.try_wait().expect("it is our child");
        assert!(ended.is_none(), "the node ended: {ended:?}");
        let reply = client.request(hyper::Method::GET, "/readyz", "").await.ok()?;
        (reply.status == 200).then_some(())
    })
    .await;
    let task = one_shot("kept", 4_000_000_000, "http://127.0.0.1:9/", "{}");
    client.create(task).await.done();
    assert!(empty.join("xcron-data").is_dir(), "its data is in ./xcron-data");
    let found = std::fs::read_dir(&empty).expect("it is there").count();
    assert_eq!(found, 1, "and nowhere else");
}

/// A process that ends with the test.
struct Ends(std::process::Child);

impl Drop for Ends {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
