//! `xcron cluster`: founds a cluster, looks at one through the API of any of its nodes, and asks a node to leave.
//!
//! A client of `/v1/cluster` alone. Called by `cli/mod.rs`.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Subcommand;
use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use hyper::Method;

use super::{client, print};
use crate::cluster::status::{ClusterStatus, GroupStatus};

/// How often `drain --wait` looks.
const WAIT_LOOK: Duration = Duration::from_secs(1);
/// Looks in a row that may fail before `drain --wait` gives up.
const FAILURES_MAX: u32 = 30;
/// Digits of an id in tables: enough to tell nodes apart.
const ID_DIGITS: usize = 8;

/// Arguments of `xcron cluster`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  xcron cluster init --api http://10.0.0.1:8000
  xcron cluster status
  xcron cluster status --api http://10.0.0.1:8000 --groups
  xcron cluster drain 9f3a0c1d5e7b2a48 --wait
  xcron cluster moves";

#[derive(Debug, Subcommand)]
enum Command {
    /// Tell one waiting node, once in a cluster's life, to found it; refused where it can reach a node that is in one
    Init {
        #[command(flatten)]
        api: Api,
    },
    /// Nodes, who leads how much, how far copies lag, whose clock is off
    Status {
        #[command(flatten)]
        api: Api,
        /// Show every group as well
        #[arg(long)]
        groups: bool,
        /// Print the JSON of /v1/cluster
        #[arg(long)]
        json: bool,
    },
    /// Ask a node to hand everything over to the others and to end
    Drain {
        #[command(flatten)]
        api: Api,
        /// The node's id, or as many of its first digits as tell it apart
        #[arg(value_name = "NODE")]
        node: String,
        /// Wait until it has left, and tell how far it is; ask a node that stays
        #[arg(long)]
        wait: bool,
    },
    /// What groups have yet to move: nodes move them by themselves, this only shows it
    #[command(alias = "rebalance")]
    Moves {
        #[command(flatten)]
        api: Api,
        /// Without effect: nothing is ever moved by this command
        #[arg(long, hide = true)]
        dry_run: bool,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct Api {
    /// API of any node of the cluster
    #[arg(
        long = "api",
        env = "XCRON_API",
        value_name = "URL",
        default_value = "http://127.0.0.1:8000"
    )]
    url: String,
}

/// Runs the command.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match args.command {
            Command::Init { api } => {
                let body = call(&api, Method::POST, "/v1/cluster/init").await?;
                print(&founded(&body)?)?;
            }
            Command::Status { api, groups, json } => {
                let body = call(&api, Method::GET, "/v1/cluster").await?;
                if json {
                    print(&format!("{}\n", String::from_utf8_lossy(&body)))?;
                } else {
                    let status = read(&body)?;
                    print(&nodes_table(&status))?;
                    if groups {
                        print(&groups_table(&status))?;
                    }
                }
            }
            Command::Drain { api, node, wait } => {
                let status = read(&call(&api, Method::GET, "/v1/cluster").await?)?;
                let id = find(&status, &node)?.to_owned();
                call(&api, Method::POST, &format!("/v1/cluster/nodes/{id}:drain")).await?;
                print(&format!(
                    "node {id} is leaving: its groups move to the others, then its process ends\n"
                ))?;
                if wait {
                    until_left(&api, &id).await?;
                }
            }
            Command::Moves { api, .. } => {
                let status = read(&call(&api, Method::GET, "/v1/cluster").await?)?;
                print(&moves_table(&status))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

pub(super) async fn call(api: &Api, method: Method, path: &str) -> anyhow::Result<Bytes> {
    client::call(&format!("{}{path}", client::base(&api.url)), method).await
}

/// Waits until the node that was asked to leave is gone, and tells how far it is.
async fn until_left(api: &Api, id: &str) -> anyhow::Result<()> {
    let (mut failures, mut told) = (0, String::new());
    loop {
        tokio::time::sleep(WAIT_LOOK).await;
        let status = match call(api, Method::GET, "/v1/cluster").await.and_then(|body| read(&body)) {
            Ok(status) => status,
            // The node that is asked may be the one that leaves, or be restarted.
            Err(error) if failures >= FAILURES_MAX => {
                return Err(error.context(format!("whether node {id} has left is not known")));
            }
            Err(_) => {
                failures += 1;
                continue;
            }
        };
        failures = 0;
        let Some(node) = status.nodes.iter().find(|node| node.id == id && node.alive) else {
            return Ok(print(&format!("node {id} has left\n"))?);
        };
        let now = format!("it leads {} groups and holds {}", node.led, count(node.replicas));
        if now != told {
            print(&format!("node {id} is leaving: {now}\n"))?;
            told = now;
        }
    }
}

fn count(known: Option<usize>) -> String {
    known.map_or("unknown".to_owned(), |count| count.to_string())
}

/// What a node that founded a cluster told, for people.
fn founded(body: &[u8]) -> anyhow::Result<String> {
    #[derive(serde::Deserialize)]
    struct Founded {
        cluster: String,
        node: String,
        silent: Vec<String>,
    }
    let Founded { cluster, node, silent } =
        serde_json::from_slice(body).context("the answer is not that of a waiting node: is it of another release?")?;
    let said = format!(
        "cluster {cluster} is founded; node {node} is its first. Nodes that wait with --join join it by themselves\n"
    );
    if silent.is_empty() {
        return Ok(said);
    }
    let silent = silent.join(", ");
    Ok(said
        + &format!(
            "these addresses of --join did not answer: {silent}. If one of them is in a cluster already, there are two now: \
             stop this node and empty its data directory\n"
        ))
}

/// The answer of `/v1/cluster`.
pub(super) fn read(body: &[u8]) -> anyhow::Result<ClusterStatus> {
    serde_json::from_slice(body).context("the answer is not that of /v1/cluster: is it a node of another release?")
}

fn find<'a>(status: &'a ClusterStatus, node: &str) -> anyhow::Result<&'a str> {
    if node.is_empty() {
        bail!("name a node by its id, or by the first digits of it (xcron cluster status)");
    }
    let mut matching = status.nodes.iter().filter(|known| known.id.starts_with(node));
    match (matching.next(), matching.next()) {
        (Some(found), None) => Ok(&found.id),
        (Some(_), Some(_)) => bail!("several nodes begin with {node}: give more digits (xcron cluster status)"),
        (None, _) => bail!("no node begins with {node}: xcron cluster status lists them"),
    }
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(header.to_vec());
    table
}

fn short(id: &str) -> &str {
    id.get(..ID_DIGITS).unwrap_or(id)
}

fn shorts(ids: &[String]) -> String {
    ids.iter().map(|id| short(id)).collect::<Vec<_>>().join(" ")
}

/// The nodes as a table.
pub(super) fn nodes_table(status: &ClusterStatus) -> String {
    let mut lags: BTreeMap<&str, u64> = BTreeMap::new();
    for group in &status.groups {
        if let Some(leader) = &group.leader {
            let lag = lags.entry(leader.as_str()).or_default();
            *lag = (*lag).max(group.lag);
        }
    }
    let mut table = table(&[
        "node", "api", "peer", "zone", "version", "leads", "copies", "lag", "clock ms", "health",
    ]);
    for node in &status.nodes {
        let health = match (node.alive, node.left, node.draining) {
            (false, true, _) => "left",
            (false, false, _) => "dead",
            (true, _, true) => "leaving",
            (true, _, false) => "alive",
        };
        // What a node that is gone said last is no news.
        let clock = node.alive.then(|| node.clock_offset_ms.to_string());
        table.add_row([
            node.id.clone(),
            node.api.clone(),
            node.peer.clone(),
            node.zone.clone(),
            node.version.clone(),
            node.led.to_string(),
            count(node.replicas),
            lags.get(node.id.as_str()).map_or("-".to_owned(), u64::to_string),
            clock.unwrap_or("-".to_owned()),
            health.to_owned(),
        ]);
    }
    let led = status.groups.iter().filter(|group| group.leader.is_some()).count();
    let problems = status
        .problems
        .iter()
        .fold(String::new(), |told, problem| told + "! " + problem + "\n");
    format!(
        "cluster {}: {} nodes, {led} of {} groups have a leader{}\n{problems}{table}\n",
        status.cluster,
        status.nodes.len(),
        status.groups.len(),
        if problems.is_empty() { ", nothing is wrong" } else { "" }
    )
}

fn groups_table(status: &ClusterStatus) -> String {
    let mut table = table(&[
        "group",
        "leader",
        "generation",
        "voters",
        "learners",
        "planned",
        "copies",
        "lag",
    ]);
    for group in &status.groups {
        table.add_row([
            group.group.to_string(),
            group
                .leader
                .as_deref()
                .map_or("-".to_owned(), |id| short(id).to_owned()),
            group.generation.to_string(),
            shorts(&group.voters),
            shorts(&group.learners),
            shorts(&group.planned),
            count(group.copies),
            group.lag.to_string(),
        ]);
    }
    format!("{table}\n")
}

fn moves_table(status: &ClusterStatus) -> String {
    let mut table = table(&["group", "to gain a copy", "to lose its copy", "to lead"]);
    let mut moving = 0;
    for group in &status.groups {
        let (gain, lose, lead) = moves(group);
        // Who is dead gets nothing before it is back.
        let is_alive = |id: &String| status.nodes.iter().any(|node| node.id == *id && node.alive);
        let lead = lead.filter(is_alive);
        if gain.is_empty() && lose.is_empty() && lead.is_none() {
            continue;
        }
        moving += 1;
        table.add_row([
            group.group.to_string(),
            shorts(&gain),
            shorts(&lose),
            lead.map_or(String::new(), |id| short(&id).to_owned()),
        ]);
    }
    if moving == 0 {
        return format!(
            "every one of the {} groups is where the plan wants it\n",
            status.groups.len()
        );
    }
    format!("{moving} of {} groups have yet to move\n{table}\n", status.groups.len())
}

/// Who is to gain a copy of the group, who is to lose one, and who is to lead if that is somebody else.
fn moves(group: &GroupStatus) -> (Vec<String>, Vec<String>, Option<String>) {
    let held: Vec<&String> = group.voters.iter().chain(&group.learners).collect();
    let gain = group.planned.iter().filter(|node| !held.contains(node)).cloned();
    let lose = held.iter().filter(|node| !group.planned.contains(node));
    let lead = group.planned.first().filter(|node| group.leader.as_ref() != Some(node));
    (
        gain.collect(),
        lose.map(|node| (*node).clone()).collect(),
        lead.cloned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::status::NodeStatus;

    fn status() -> ClusterStatus {
        let node = |id: &str, led| NodeStatus {
            id: id.to_owned(),
            api: "127.0.0.1:8000".to_owned(),
            peer: "127.0.0.1:8100".to_owned(),
            zone: "a".to_owned(),
            version: "0.1.0".to_owned(),
            alive: true,
            draining: false,
            left: false,
            since_secs: 0,
            led,
            replicas: Some(1),
            clock_offset_ms: 0,
        };
        let group = GroupStatus {
            group: 0,
            leader: Some("aaaaaaaaaaaaaaaa".to_owned()),
            generation: 3,
            voters: vec!["aaaaaaaaaaaaaaaa".to_owned()],
            learners: vec![],
            planned: vec!["aabbbbbbbbbbbbbb".to_owned(), "aaaaaaaaaaaaaaaa".to_owned()],
            lag: 7,
            copies: Some(1),
        };
        ClusterStatus {
            cluster: "c".repeat(32),
            problems: Vec::new(),
            copies_wanted: 1,
            nodes: vec![node("aaaaaaaaaaaaaaaa", 1), node("aabbbbbbbbbbbbbb", 0)],
            groups: vec![group],
        }
    }

    #[test]
    fn tables_show_nodes_and_what_has_yet_to_move() {
        let nodes = nodes_table(&status());
        assert!(nodes.contains("2 nodes, 1 of 1 groups have a leader"), "{nodes}");
        let mut wrong = status();
        wrong.problems.push("no leader for 1 of 1 groups".into());
        wrong.nodes[0].alive = false;
        wrong.nodes[1].replicas = None;
        let shown = nodes_table(&wrong);
        assert_eq!(shown.lines().nth(1), Some("! no leader for 1 of 1 groups"), "{shown}");
        assert!(shown.contains("dead") && shown.contains("unknown"), "{shown}");
        let moves = moves_table(&status());
        assert!(moves.contains("1 of 1 groups have yet to move"), "{moves}");
        assert!(moves.contains("aabbbbbb"), "{moves}");
        assert!(groups_table(&status()).contains("aaaaaaaa"));
    }

    #[test]
    fn a_founded_cluster_is_told_with_who_was_silent() {
        let answer = |silent| format!(r#"{{"cluster":"c0","node":"a1","silent":[{silent}]}}"#);
        let said = founded(answer("").as_bytes()).expect("an answer");
        assert!(
            said.contains("cluster c0") && !said.contains("did not answer"),
            "{said}"
        );
        let said = founded(answer("\"10.0.0.2:8100\"").as_bytes()).expect("an answer");
        assert!(said.contains("did not answer: 10.0.0.2:8100"), "{said}");
        assert!(founded(b"{}").is_err());
    }

    #[test]
    fn a_node_is_found_by_its_first_digits() {
        let status = status();
        assert_eq!(find(&status, "aab").expect("one"), "aabbbbbbbbbbbbbb");
        assert!(
            find(&status, "aa")
                .expect_err("two")
                .to_string()
                .contains("more digits")
        );
        assert!(find(&status, "b").expect_err("none").to_string().contains("no node"));
    }
}
