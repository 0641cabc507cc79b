//! The pure parts: the text of facts, views, contacts.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::hub::{CLUSTER, address, facts, groups};
use crate::id::GroupId;
use crate::membership::contacts::{CONTACTS_PER_ROUND, Contacts, REMEMBERED_ADDRESSES_MAX, ROUNDS_PER_CONTACT};
use crate::membership::facts::{FactsError, Told, hear, name, node_of};
use crate::membership::view::{Book, Sighting};
use crate::membership::{Facts, LED_MAX, TWIN_OLDER_MS};

fn full() -> Facts {
    Facts {
        zone: "eu-1a".into(),
        led: vec![(GroupId(0), 3), (GroupId(31), 12)],
        ready: true,
        clock_offset_ms: -7,
        ..facts(5, Some(0xfeed))
    }
}

fn read(facts: &Facts, told: &[(&'static str, String)]) -> Result<Told, FactsError> {
    let told: BTreeMap<&str, &str> = told.iter().map(|(key, value)| (*key, value.as_str())).collect();
    hear(facts.node, facts.peer, |key| told.get(key).copied())
}

#[test]
fn the_key_values_are_frozen() {
    let expected = [
        (
            "about",
            r#"{"api":"10.0.0.5:8000","zone":"eu-1a","version":"0.1.0","commands":2,"replicas":3}"#,
        ),
        (
            "state",
            r#"{"cluster":"0000000000000000000000000000feed","groups":32,"draining":false,"ready":true,"left":false}"#,
        ),
        ("clock", "-7"),
        ("led", "0:3,31:12"),
    ];
    let expected = expected.map(|(key, value)| (key, value.to_owned()));
    assert_eq!(full().tell(false), expected);
    let joining = facts(5, None);
    let expected = [
        (
            "about",
            r#"{"api":"10.0.0.5:8000","zone":"a","version":"0.1.0","commands":2,"replicas":3}"#,
        ),
        (
            "state",
            r#"{"cluster":null,"groups":null,"draining":false,"ready":false,"left":true}"#,
        ),
        ("clock", "0"),
        ("led", ""),
    ];
    let expected = expected.map(|(key, value)| (key, value.to_owned()));
    assert_eq!(joining.tell(true), expected);
    assert_eq!(name(0xAB), "00000000000000ab");
    for (facts, has_left) in [(full(), false), (joining, true)] {
        let told = read(&facts, &facts.tell(has_left)).expect("readable");
        assert_eq!(told, Told { facts, has_left });
    }
}

#[test]
fn a_node_of_the_release_before_says_nothing_of_commands() {
    let mut told = full().tell(false);
    told[0].1 = told[0].1.replace(r#","commands":2"#, "");
    assert_eq!(read(&full(), &told).expect("readable").facts.commands, 1);
}

#[test]
fn a_usual_node_tells_less_than_a_kilobyte() {
    let mut facts = full();
    facts.led = (0..64).map(|group| (GroupId(group), 123_456)).collect();
    let bytes: usize = facts
        .tell(false)
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum();
    assert!(bytes < 1_024, "{bytes}");
    // And an unusual one what others still read.
    facts.led = (0..10_240).map(|group| (GroupId(group), u64::MAX)).collect();
    facts.sort_led();
    let read = read(&facts, &facts.tell(false)).expect("readable");
    assert_eq!(read.facts.led.len(), LED_MAX);
}

#[test]
fn fields_of_later_versions_are_ignored() {
    let mut told = full().tell(false);
    for (_, value) in &mut told[..2] {
        value.insert_str(1, r#""later":[1],"#);
    }
    assert!(read(&full(), &told).is_ok());
}

#[test]
fn wrong_facts_are_refused() {
    let with = |key: &'static str, value: &str| {
        let told = full().tell(false).map(|(known, old)| {
            if known == key {
                (key, value.to_owned())
            } else {
                (known, old)
            }
        });
        read(&full(), &told)
    };
    let state = |cluster: &str, groups: &str| {
        let value = format!(r#"{{"cluster":{cluster},"groups":{groups},"draining":false,"ready":true,"left":false}}"#);
        with("state", &value)
    };
    assert!(state(r#""0000000000000000000000000000feed""#, "32").is_ok());
    for (cluster, groups) in [
        (r#""0000000000000000000000000000feed""#, "null"),
        (r#""0000000000000000000000000000feed""#, "33"),
        (r#""00000000000000000000000000000000""#, "32"),
        (r#""0000000000000000000000000000FEED""#, "32"),
        (r#""feed""#, "32"),
        (r#""""#, "32"),
        ("null", "32"),
    ] {
        assert!(
            matches!(state(cluster, groups), Err(FactsError::Cluster)),
            "{cluster} {groups}"
        );
    }
    let zone = "z".repeat(65);
    for about in [
        r#"{"api":"10.0.0.5:8000","zone":"\u001b[2J","version":"1"}"#.to_owned(),
        r#"{"api":"10.0.0.5:8000","zone":"a","version":"1\n"}"#.to_owned(),
        format!(r#"{{"api":"10.0.0.5:8000","zone":"{zone}","version":"1"}}"#),
    ] {
        assert!(matches!(with("about", &about), Err(FactsError::Text { .. })), "{about}");
    }
    for about in ["", "{}", "[]", r#"{"api":"host:80","zone":"a","version":"1"}"#] {
        assert!(matches!(with("about", about), Err(FactsError::Json { .. })), "{about}");
    }
    for led in [
        "0", "0:", ":1", "0:1,", "1:1,0:1", "1:1,1:2", "10240:1", "65536:1", "0:-1", " 0:1",
    ] {
        assert!(matches!(with("led", led), Err(FactsError::Led)), "{led}");
    }
    for clock in ["", "x", "1.5", "9223372036854775808"] {
        assert!(matches!(with("clock", clock), Err(FactsError::Clock)), "{clock}");
    }
    let long = "x".repeat(20_000);
    assert!(matches!(with("led", &long), Err(FactsError::Long { key: "led", .. })));
    for missing in 0..4 {
        let mut told = full().tell(false).to_vec();
        let (key, _) = told.remove(missing);
        assert!(matches!(read(&full(), &told), Err(FactsError::Missing(found)) if found == key));
    }
    for node in ["", "ab", "00000000000000AB", "+0000000000000ab", "00000000000000abc"] {
        assert!(matches!(node_of(node), Err(FactsError::Node(_))), "{node}");
    }
    assert_eq!(node_of("00000000000000ab").ok(), Some(0xAB));
}

#[test]
fn of_many_incarnations_the_newest_live_one_counts() {
    let me = facts(1, Some(CLUSTER));
    let sighting = |incarnation: u64, is_alive: bool| Sighting {
        facts: facts(2, Some(CLUSTER)),
        incarnation,
        is_alive,
        has_left: false,
    };
    let mut book = Book::default();
    let mut counts = |heard: Vec<Sighting>, now_ms: u64| {
        let view = book.view(&me, 50, heard, now_ms);
        assert_eq!(view.own().incarnation, 50);
        assert_eq!(view.own().since_ms, 100);
        let member = &view.members[&2];
        (member.incarnation, member.is_alive, member.since_ms)
    };
    assert_eq!(counts(vec![sighting(7, true)], 100), (7, true, 100));
    assert_eq!(counts(vec![sighting(7, true), sighting(8, false)], 200), (7, true, 100));
    assert_eq!(counts(vec![sighting(8, true), sighting(7, true)], 300), (8, true, 300));
    assert_eq!(counts(vec![sighting(7, false), sighting(8, true)], 400), (8, true, 300));
    assert_eq!(
        counts(vec![sighting(7, false), sighting(8, false)], 500),
        (8, false, 500)
    );
    assert_eq!(counts(vec![sighting(8, false)], 600), (8, false, 500));
}

#[test]
fn a_node_that_restarts_is_known_as_long_as_before() {
    let me = facts(1, Some(CLUSTER));
    let sighting = |incarnation: u64, is_alive: bool| Sighting {
        facts: facts(2, Some(CLUSTER)),
        incarnation,
        is_alive,
        has_left: false,
    };
    let mut book = Book::default();
    let mut known_since_ms = |heard: Vec<Sighting>, now_ms: u64| {
        let view = book.view(&me, 50, heard, now_ms);
        view.members.get(&2).map(|member| member.known_since_ms)
    };
    assert_eq!(
        known_since_ms(vec![sighting(7, false)], 50),
        Some(50),
        "never seen alive"
    );
    assert_eq!(known_since_ms(vec![sighting(7, true)], 100), Some(100));
    assert_eq!(known_since_ms(vec![sighting(7, false)], 200), Some(100));
    assert_eq!(
        known_since_ms(vec![sighting(7, false), sighting(8, true)], 300),
        Some(100)
    );
    assert_eq!(known_since_ms(vec![sighting(8, true)], 400), Some(100));
    assert_eq!(known_since_ms(vec![], 500), None, "forgotten");
    assert_eq!(known_since_ms(vec![sighting(9, true)], 600), Some(600));
}

#[test]
fn only_another_live_process_is_a_twin() {
    let me = facts(1, Some(CLUSTER));
    let other = |incarnation: u64, is_alive: bool, peer: u16| Sighting {
        facts: Facts {
            peer: address(peer),
            ..me.clone()
        },
        incarnation,
        is_alive,
        has_left: false,
    };
    let mut book = Book::default();
    let mut twin = |heard: Sighting, now_ms: u64| {
        let twin = book.view(&me, 50, vec![heard], now_ms).twin;
        twin.map(|twin| (twin.incarnation, twin.is_newer, twin.is_alive, twin.was_first(now_ms)))
    };
    assert_eq!(
        twin(other(60, true, 2), 0),
        Some((60, true, true, false)),
        "this node was first"
    );
    assert_eq!(twin(other(60, false, 2), 0), Some((60, true, false, false)));
    assert_eq!(twin(other(60, true, 1), 0), None, "it is where this node is");
    let seen_ms = 1_000;
    let moved = Some((40, false, true, false));
    assert_eq!(
        twin(other(40, true, 2), seen_ms),
        moved,
        "it may be what this node was before it moved"
    );
    assert_eq!(twin(other(40, true, 2), seen_ms + TWIN_OLDER_MS - 1), moved);
    assert_eq!(
        twin(other(40, true, 2), seen_ms + TWIN_OLDER_MS),
        Some((40, false, true, true))
    );
    assert_eq!(
        twin(other(40, false, 2), seen_ms + 3 * TWIN_OLDER_MS),
        Some((40, false, false, false))
    );
    assert_eq!(twin(other(40, true, 1), seen_ms + 4 * TWIN_OLDER_MS), None);
}

#[test]
fn contacts_take_turns() {
    let mut contacts = Contacts::new(address(1));
    let nobody = BTreeSet::new();
    assert!(contacts.due(&nobody).is_empty());
    contacts.set_seeds([address(1), address(2), address(3)].into());
    contacts.remember(address(3));
    contacts.remember(address(4));
    assert_eq!(contacts.due(&nobody), [address(2), address(3), address(4)]);
    // Not alone: one of those that are not heard of, now and then.
    let live = BTreeSet::from([address(3)]);
    let mut spoken = Vec::new();
    for _ in 0..ROUNDS_PER_CONTACT * 4 {
        spoken.extend(contacts.due(&live));
    }
    assert_eq!(spoken, [address(2), address(4), address(2), address(4)]);
    for node in 10..1_000 {
        contacts.remember(address(node));
    }
    let mut spoken = BTreeSet::new();
    for _ in 0..1_000 {
        let due = contacts.due(&nobody);
        assert_eq!(due.len(), CONTACTS_PER_ROUND);
        spoken.extend(due);
    }
    assert_eq!(spoken.len(), REMEMBERED_ADDRESSES_MAX + 2);
    assert!(spoken.contains(&address(999)), "the latest are remembered");
}

proptest! {
    #[test]
    fn any_text_is_read_without_a_panic(values in prop::collection::vec(".{0,40}|[0-9:,]{0,40}|[{}\"a-z:,0-9]{0,80}", 4)) {
        let keys = ["about", "state", "clock", "led"];
        let told: Vec<(&'static str, String)> = keys.into_iter().zip(values).collect();
        for (at, (key, value)) in told.iter().enumerate() {
            let mut one = full().tell(false);
            one[at] = (key, value.clone());
            let _ = read(&full(), &one);
        }
        let _ = read(&full(), &told);
        for (_, value) in &told {
            let _ = node_of(value);
        }
    }

    #[test]
    fn any_facts_are_read_as_they_were_told(
        zone in "[^\\p{Cc}]{0,16}", draining: bool, ready: bool, has_left: bool, clock_offset_ms: i64,
        led in prop::collection::vec((0u16..10_240, any::<u64>()), 0..40), is_member: bool,
    ) {
        let mut facts = Facts {
            zone, draining, ready, clock_offset_ms,
            led: led.into_iter().map(|(group, generation)| (GroupId(group), generation)).collect(),
            cluster: is_member.then_some(CLUSTER),
            groups: is_member.then(groups),
            ..full()
        };
        facts.sort_led();
        let told = read(&facts, &facts.tell(has_left)).expect("readable");
        prop_assert_eq!(told, Told { facts, has_left });
    }
}
