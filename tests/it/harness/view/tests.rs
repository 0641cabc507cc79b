//! Views written by hand, at rest and not.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::View;

const NODES: usize = 3;

fn api(node: usize) -> SocketAddr {
    ([127, 0, 0, 1], 8000 + u16::try_from(node).expect("few nodes")).into()
}

fn id(node: usize) -> String {
    format!("{node:016x}")
}

/// Three nodes that hold all of six groups and lead two each.
fn at_rest() -> Value {
    let everywhere: Vec<String> = (0..NODES).map(id).collect();
    let node = |node: usize| {
        json!({
            "id": id(node), "api": api(node), "peer": "127.0.0.1:8100", "zone": "", "version": "0.1.0", "alive": true,
            "draining": false, "led": 2, "replicas": 6, "clock_offset_ms": -3,
        })
    };
    let group = |group: usize| {
        json!({
            "group": group, "leader": id(group % NODES), "generation": 4, "voters": everywhere, "learners": [],
            "planned": everywhere, "lag": 0,
        })
    };
    json!({
        "cluster": "00ff",
        "nodes": (0..NODES).map(node).collect::<Vec<_>>(),
        "groups": (0..6).map(group).collect::<Vec<_>>(),
    })
}

fn view(value: &Value) -> View {
    serde_json::from_value(value.clone()).expect("it has the promised form")
}

#[test]
fn a_cluster_at_rest_is_recognised() {
    let view = view(&at_rest());
    let apis: Vec<SocketAddr> = (0..NODES).map(api).collect();
    assert_eq!(view.unrest(&apis), None);
    assert!(view.unrest(&apis[..2]).is_some_and(|why| why.contains("live")));
    assert_eq!(view.node_at(api(1)).map(|node| node.id.clone()), Some(id(1)));
    assert_eq!(view.led()[id(2).as_str()], 2);
    assert_eq!(view.held()[id(2).as_str()], 6);
}

#[test]
fn what_is_still_to_be_done_is_told() {
    let apis: Vec<SocketAddr> = (0..NODES).map(api).collect();
    for (pointer, value, why) in [
        ("/nodes/1/alive", json!(false), "live"),
        ("/groups", json!([]), "no groups"),
        ("/groups/3/leader", Value::Null, "not led"),
        ("/groups/3/voters", json!([id(0)]), "where it should be"),
        ("/groups/3/planned", json!([id(0), id(1)]), "where it should be"),
    ] {
        let mut changed = at_rest();
        *changed.pointer_mut(pointer).expect("it is there") = value;
        let told = view(&changed).unrest(&apis);
        assert!(
            told.as_ref().is_some_and(|told| told.contains(why)),
            "{pointer}: {told:?}"
        );
    }
    // Every copy is there, and two have no vote yet.
    let mut young = at_rest();
    young["groups"][3]["voters"] = json!([id(0)]);
    young["groups"][3]["learners"] = json!([id(1), id(2)]);
    assert!(
        view(&young)
            .unrest(&apis)
            .is_some_and(|why| why.contains("where it should be"))
    );
    // Too much for one, and nothing for one.
    for leaders in [[(0, 1), (2, 1)], [(2, 0), (5, 1)]] {
        let mut uneven = at_rest();
        for (group, leader) in leaders {
            uneven["groups"][group]["leader"] = json!(id(leader));
        }
        let told = view(&uneven).unrest(&apis);
        assert!(told.as_ref().is_some_and(|told| told.contains("led: ")), "{told:?}");
    }
    let mut uneven = at_rest();
    for group in 0..4 {
        uneven["groups"][group]["voters"] = json!([id(0)]);
        uneven["groups"][group]["learners"] = json!([id(1)]);
        uneven["groups"][group]["planned"] = json!([id(0), id(1)]);
    }
    let told = view(&uneven).unrest(&apis);
    assert!(told.as_ref().is_some_and(|told| told.contains("copies: ")), "{told:?}");
}

#[test]
fn a_learner_is_a_copy() {
    let mut two = at_rest();
    two["nodes"].as_array_mut().expect("a list").pop();
    for group in 0..6 {
        let (leader, learner) = (id(group % 2), id((group + 1) % 2));
        two["groups"][group]["leader"] = json!(leader);
        two["groups"][group]["voters"] = json!([leader]);
        two["groups"][group]["learners"] = json!([learner]);
        two["groups"][group]["planned"] = json!([leader, learner]);
    }
    assert_eq!(view(&two).unrest(&[api(0), api(1)]), None);
}

#[test]
fn the_busiest_node_leads_most_groups() {
    let mut value = at_rest();
    value["groups"][0]["leader"] = json!(id(2));
    assert_eq!(view(&value).busiest(), Some(api(2)));
    for group in 0..6 {
        value["groups"][group]["leader"] = Value::Null;
    }
    assert_eq!(view(&value).busiest(), None);
}
