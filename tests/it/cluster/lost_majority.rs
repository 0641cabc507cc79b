//! A majority that is lost for good: the survivor goes on alone, with all that it holds, and the tasks can be carried elsewhere.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::harness::client::one_shot;
use crate::harness::cluster::Cluster;
use crate::harness::node::Place;

use super::{FAR_SECS, NODES};

const TASKS: usize = 40;

fn xcron(arguments: &[&str], data: &Path) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_xcron"))
        .args(arguments)
        .arg("--data")
        .arg(data)
        .stdin(Stdio::null())
        .output();
    output.expect("the program is built and can be run")
}

fn said(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_survivor_goes_on_alone_and_is_joined_by_new_nodes() {
    let mut cluster = Cluster::start(NODES).await;
    for number in 0..TASKS {
        let task = one_shot(
            &format!("kept-{number}"),
            FAR_SECS,
            "http://127.0.0.1:9/",
            r#"{"n": 1}"#,
        );
        cluster.client(number % NODES).create(task).await.done();
    }
    cluster.at_rest().await;
    let old = cluster.view(0).await.expect("it serves").cluster;
    let running = xcron(&["recover", "--as-sole-voter", "--yes"], &cluster.data(0));
    assert!(
        !running.status.success() && said(&running).contains("in use"),
        "{}",
        said(&running)
    );
    cluster.kill_all();
    cluster.wipe(1);
    cluster.wipe(2);
    // Without a word of the operator nothing is done.
    let asked = xcron(&["recover", "--as-sole-voter"], &cluster.data(0));
    assert!(!asked.status.success(), "{}", said(&asked));
    for part in [old.as_str(), "16 of 16 groups are here", "nothing was done"] {
        assert!(said(&asked).contains(part), "{part}: {}", said(&asked));
    }
    let recovered = xcron(&["recover", "--as-sole-voter", "--yes"], &cluster.data(0));
    assert!(recovered.status.success(), "{}", said(&recovered));
    cluster.spawn(0);
    cluster.ready(0).await;
    let view = cluster.view(0).await.expect("it serves");
    assert_ne!(
        view.cluster, old,
        "the others, should they come back, are of another cluster"
    );
    for number in 0..TASKS {
        cluster.client(0).query(&format!("kept-{number}")).await.done();
    }
    // New nodes join it, as they would join any.
    for index in 1..NODES {
        cluster.spawn(index);
    }
    for index in 1..NODES {
        cluster.ready(index).await;
    }
    cluster.at_rest().await;
    cluster.client(2).query("kept-7").await.done();
    carried_elsewhere(cluster).await;
}

fn sorted(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// The tasks of a stopped node's directory, in a cluster that has never seen them.
async fn carried_elsewhere(mut cluster: Cluster) {
    let of_cluster = Command::new(env!("CARGO_BIN_EXE_xcron"))
        .args(["export", "--api", &format!("http://{}", cluster.apis()[1])])
        .output();
    let of_cluster = of_cluster.expect("the program is built and can be run");
    assert!(of_cluster.status.success(), "{}", said(&of_cluster));
    cluster.stop(1).await;
    let export = xcron(&["export"], &cluster.data(1));
    assert!(export.status.success(), "{}", said(&export));
    assert_eq!(sorted(&of_cluster), sorted(&export), "the cluster says the same");
    let lines = String::from_utf8(export.stdout.clone()).expect("JSON is UTF-8");
    assert_eq!(lines.lines().count(), TASKS);
    assert!(
        lines
            .lines()
            .all(|line| line.starts_with(r#"{"v":1,"task":{"id":"kept-"#)),
        "{lines}"
    );
    let place = Place::new();
    let node = place.node().set("groups", 4).start().await;
    let file = place.path("tasks.ndjson");
    std::fs::write(&file, &export.stdout).expect("the place can be written");
    let taken = one_shot("kept-3", FAR_SECS + 60, "http://127.0.0.1:9/other", "{}");
    node.client().create(taken).await.done();
    for _ in 0..2 {
        let imported = Command::new(env!("CARGO_BIN_EXE_xcron"))
            .args(["import", "--api", &format!("http://{}", node.address())])
            .arg(&file)
            .output()
            .expect("the program is built and can be run");
        let wanted = format!("{} tasks are there, 1 were left out", TASKS - 1);
        assert!(
            imported.status.success() && said(&imported).contains(&wanted),
            "{}",
            said(&imported)
        );
    }
    let mut client = node.client();
    for number in 0..TASKS {
        let task = client.query(&format!("kept-{number}")).await.done();
        let url = if number == 3 {
            "http://127.0.0.1:9/other"
        } else {
            "http://127.0.0.1:9/"
        };
        assert_eq!(task["callback"]["url"], url, "kept-{number}: nothing is written over");
    }
}
