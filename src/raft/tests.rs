//! Replicas in one process: leadership handed over, copies that come back, copies that are let go.

use std::time::Duration;

use openraft::alias::LeaderIdOf;
use openraft::async_runtime::WatchReceiver;
use openraft::raft::VoteRequest;
use openraft::storage::RaftStateMachine;
use openraft::type_config::alias::{LogIdOf, VoteOf};
use openraft::vote::{RaftLeaderId, RaftVote};

use super::testing::{Cluster, GROUP, any_change, create, eventually, has};
use super::types::{Payload, TypeConfig};
use super::wire::{self, Answer, Request};
use super::{Groups, Standing, Urgency, end_deaf_terms};
use crate::clock::{Clock, SystemClock};
use crate::id::NodeId;
use crate::store::key::{Fact, Table, fact};
use crate::store::{Kv, departure};

const SHORT: Duration = Duration::from_millis(50);

async fn ask(groups: &Groups, from: NodeId, request: &Request) -> Answer {
    let answer = groups.answer(from, &wire::encode_request(GROUP, request)).await;
    wire::decode_answer(&answer).expect("own bytes")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hand_over_to_a_node_that_does_not_answer_ends_in_an_election() {
    let cluster = Cluster::start(3, 3).await;
    cluster
        .net
        .only(|_, to, request| !(to == 2 && matches!(request, Some(Request::Transfer(_)))));
    let term = cluster.copy(1).led_term().expect("it leads");
    let failed = cluster.copy(1).hand_over(2, SHORT, Urgency::Ordered).await;
    assert!(failed.is_err() || cluster.copy(1).led_term().is_none(), "{failed:?}");
    assert!(!cluster.copy(1).may_act() || cluster.copy(1).led_term() != Some(term));
    let clock = SystemClock::default();
    let leader = cluster.leader().await;
    assert!(cluster.copy(leader).led_term() > Some(term));
    assert!(create(&cluster.copy(leader), "after").await);
    assert!(clock.monotonic() < Duration::from_secs(5), "{:?}", clock.monotonic());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_successor_is_all_there_is_gives_its_term_up() {
    // With two voters nobody else can be elected: the leader itself must stand again.
    let cluster = Cluster::start(2, 2).await;
    let term = cluster.copy(1).led_term();
    cluster.net.only(|_, _, _| false);
    assert!(cluster.copy(1).hand_over(2, SHORT, Urgency::Ordered).await.is_err());
    eventually("it has stepped down", || {
        cluster.copy(1).led_term().is_none().then_some(())
    })
    .await;
    cluster.net.heal();
    let leader = cluster.leader().await;
    assert!(cluster.copy(leader).led_term() > term);
    assert!(create(&cluster.copy(leader), "after").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_heard_and_hears_nobody_ends_its_term() {
    let cluster = Cluster::start(3, 3).await;
    let deaf = cluster.leader().await;
    let term = cluster.copy(deaf).led_term();
    let mut watches = tokio::task::JoinSet::new();
    for groups in cluster.groups.values() {
        watches.spawn(end_deaf_terms(groups.clone()));
    }
    cluster.net.deafen(deaf);
    let leader = eventually("another leads", || {
        let mut others = cluster.groups.keys().filter(|node| **node != deaf);
        others.find(|node| cluster.copy(**node).may_act()).copied()
    })
    .await;
    assert!(cluster.copy(leader).led_term() > term);
    assert!(create(&cluster.copy(leader), "meanwhile").await);
    cluster.net.heal();
    eventually("it follows", || {
        (cluster.copy(deaf).leader() == Some(leader)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_machine_has_slept_acts_only_when_it_is_confirmed_again() {
    let cluster = Cluster::start(3, 3).await;
    let leader = cluster.leader().await;
    let group = cluster.copy(leader);
    eventually("it may act", || group.may_act().then_some(())).await;
    cluster.disks[&leader].clock.sleep(Duration::from_mins(5));
    assert!(!group.may_act(), "another may have led for five minutes");
    eventually("somebody acts again", || {
        let mut nodes = cluster.groups.keys();
        nodes.find(|node| cluster.copy(**node).may_act()).map(drop)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planned_hand_over_waits_for_a_moment_without_callbacks() {
    let cluster = Cluster::start(3, 3).await;
    let group = cluster.copy(1);
    let fire = group.begin_fire();
    let mut hand_over = Box::pin(group.hand_over(2, SHORT, Urgency::Planned));
    let early = tokio::time::timeout(4 * SHORT, &mut hand_over).await;
    assert!(early.is_err() && group.may_fire(), "it goes on firing meanwhile");
    drop(fire);
    assert_eq!(hand_over.await, Ok(()));
    assert_eq!(cluster.leader().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hand_over_waits_for_callbacks_unless_it_is_ordered() {
    let cluster = Cluster::start(3, 3).await;
    let group = cluster.copy(1);
    let fire = group.begin_fire();
    assert!(group.hand_over(2, SHORT, Urgency::Convenient).await.is_err());
    assert!(group.leads().is_some() && group.may_fire(), "it goes on");
    let cut = tokio::time::timeout(SHORT, group.hand_over(2, Duration::from_secs(9), Urgency::Ordered)).await;
    assert!(
        cut.is_err() && group.may_fire(),
        "a hand-over that is dropped leaves nothing behind"
    );
    assert_eq!(group.hand_over(2, SHORT, Urgency::Ordered).await, Ok(()));
    drop(fire);
    assert_eq!(cluster.leader().await, 2);
}

fn vote(term: u64, candidate: NodeId, leadership_transfer: bool) -> VoteRequest<TypeConfig> {
    VoteRequest {
        vote: VoteOf::<TypeConfig>::from_leader_id(LeaderIdOf::<TypeConfig>::new(term, candidate), false),
        last_log_id: None,
        leadership_transfer,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_comes_back_keeps_its_word_to_the_leader() {
    let mut cluster = Cluster::start(3, 3).await;
    assert!(create(&cluster.copy(1), "before").await);
    cluster.net.only(|_, to, _| to != 3);
    cluster.restart(3).await;
    let clock = SystemClock::default();
    assert_eq!(cluster.copy(3).leader(), None, "nobody has called yet");
    let last = cluster.copy(1).raft().data_metrics();
    let last_log_id = last.borrow_watched().last_log;
    let asks = |transfer| VoteRequest {
        last_log_id,
        ..vote(1_000, 2, transfer)
    };
    let refused = |answer: &Answer| matches!(answer, Answer::Failed(_));
    for request in [Request::Vote(asks(false)), Request::PreVote(asks(false))] {
        let answer = ask(&cluster.groups[&3], 2, &request).await;
        assert!(
            clock.monotonic() > Duration::from_millis(600) || refused(&answer),
            "{answer:?}"
        );
    }
    tokio::time::sleep(Duration::from_millis(700)).await;
    let answer = ask(&cluster.groups[&3], 2, &Request::PreVote(asks(false))).await;
    assert!(matches!(answer, Answer::Vote(_)), "{answer:?}");
    cluster.restart(3).await;
    let answer = ask(&cluster.groups[&3], 2, &Request::Vote(asks(true))).await;
    assert!(
        matches!(answer, Answer::Vote(_)),
        "its leader has released it: {answer:?}"
    );
}

fn rows(kv: &dyn Kv) -> usize {
    let all = |table| kv.scan(table, &[0], &[0xff], 1_000_000).expect("readable").len();
    Table::ALL.into_iter().map(all).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_let_go_when_the_group_does_without_it_and_may_come_again() {
    let cluster = Cluster::start(3, 3).await;
    let (leader, third) = (cluster.copy(1), &cluster.groups[&3]);
    assert!(create(&leader, "before").await);
    let let_go = async |from| third.let_go(GROUP, from).await.expect("the disk works");
    assert!(!let_go(1).await, "it votes");
    // A change that is not committed is none.
    cluster
        .net
        .only(|from, _, request| from != 1 || !matches!(request, Some(Request::Append(_))));
    let changing = tokio::spawn({
        let leader = leader.clone();
        async move { leader.set_voters([1].into(), &any_change()).await }
    });
    tokio::time::sleep(SHORT * 4).await;
    assert!(!let_go(1).await);
    cluster.net.heal();
    drop(changing.await);
    let now = cluster.leader().await;
    if now == 3 {
        cluster
            .copy(3)
            .hand_over(1, SHORT, Urgency::Ordered)
            .await
            .expect("the first is there");
    }
    let now = cluster.leader().await;
    let leader = cluster.copy(now);
    leader
        .set_voters([now].into(), &any_change())
        .await
        .expect("a majority is there");
    assert!(!let_go(now).await, "it is a learner");
    leader.remove_learners([3].into()).await.expect("it leads");
    let another = if now == 1 { 2 } else { 1 };
    assert!(!let_go(another).await, "only the leader knows");
    assert!(let_go(now).await);
    assert!(third.get(GROUP).is_none());
    let disk = &cluster.disks[&3];
    assert_eq!((rows(disk.kv.as_ref()), disk.wal.groups()), (0, vec![]));
    assert_eq!(disk.failure.get(), None, "to be let go is no fault");
    let answer = ask(third, 2, &Request::Vote(vote(1_000, 2, false))).await;
    assert!(
        matches!(answer, Answer::Failed(_)),
        "who has no copy has no vote: {answer:?}"
    );
    assert!(third.get(GROUP).is_none());
    cluster.join(now, 3).await;
    leader
        .set_voters([now, another, 3].into(), &any_change())
        .await
        .expect("all are there");
    assert!(create(&leader, "after").await);
    eventually("the copy is whole", || {
        cluster.copy(3).machine().flush().expect("the disk works");
        (has(&cluster.copy(3), "before") && has(&cluster.copy(3), "after")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_was_let_go_votes_for_nobody_the_former_would_not_have_voted_for() {
    let cluster = Cluster::start(2, 2).await;
    assert!(create(&cluster.copy(1), "before").await);
    let leader = cluster.copy(1);
    leader
        .set_voters([1].into(), &any_change())
        .await
        .expect("both are there");
    leader.remove_learners([2].into()).await.expect("it leads");
    assert!(cluster.groups[&2].let_go(GROUP, 1).await.expect("the disk works"));
    // Nothing of the log gets through: the new copy is empty.
    cluster.groups[&2].host(GROUP).await.expect("an empty copy");
    tokio::time::sleep(Duration::from_millis(700)).await;
    for transfer in [false, true] {
        let answer = ask(&cluster.groups[&2], 9, &Request::Vote(vote(1_000, 9, transfer))).await;
        assert!(matches!(answer, Answer::Failed(_)), "{answer:?}");
    }
    assert!(
        cluster.disks[&2].wal.group(0).vote.is_some(),
        "nor in a term that is over"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_that_was_cut_short_is_finished_at_the_next_start() {
    let mut cluster = Cluster::start(2, 2).await;
    assert!(create(&cluster.copy(1), "before").await);
    eventually("the copy is whole", || {
        cluster.copy(2).machine().flush().expect("the disk works");
        has(&cluster.copy(2), "before").then_some(())
    })
    .await;
    cluster.net.only(|_, _, _| false);
    let disk = &cluster.disks[&2];
    let begun = departure::Departure {
        is_done: false,
        promised: crate::core::record::versioned(1, &(None::<()>, None::<()>)),
    };
    cluster.groups[&2].shutdown().await;
    departure::keep(disk.kv.as_ref(), GROUP, &begun)
        .await
        .expect("there is room");
    // Some rows are gone, the log is there: of a group that is not being removed this would be damage.
    let applied = fact(Fact::Applied, GROUP).to_vec();
    let gone = Table::ALL.map(|table| crate::store::kv::Write {
        table,
        key: applied.clone(),
        value: None,
    });
    disk.kv.commit(gone.to_vec()).expect("there is room");
    cluster.restart(2).await;
    assert!(cluster.groups[&2].get(GROUP).is_none());
    let disk = &cluster.disks[&2];
    assert_eq!((rows(disk.kv.as_ref()), disk.wal.groups()), (0, vec![]));
    assert!(
        departure::load(disk.kv.as_ref(), GROUP)
            .expect("readable")
            .is_some_and(|done| done.is_done)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_installed_only_at_its_own_position() {
    let cluster = Cluster::start(2, 1).await;
    assert!(create(&cluster.copy(1), "before").await);
    let mut machine = cluster.copy(1).machine().clone();
    let snapshot = machine
        .get_current_snapshot()
        .await
        .expect("readable")
        .expect("something is applied");
    let request = |last: Option<LogIdOf<TypeConfig>>| Request::Install {
        vote: cluster.copy(1).raft().server_metrics().borrow_watched().vote,
        last,
        membership: snapshot.meta.last_membership.clone(),
    };
    let own = snapshot.meta.last_log_id;
    let later = own.map(|id| LogIdOf::<TypeConfig>::new(id.leader_id, id.index + 1));
    for (last, is_taken) in [(later, false), (own, true)] {
        let mut chunks = snapshot.snapshot.chunks();
        while let Some(chunk) = chunks.next_chunk().expect("readable") {
            let answer = ask(&cluster.groups[&2], 1, &Request::Chunk(Payload(chunk))).await;
            assert!(matches!(answer, Answer::Stored), "{answer:?}");
        }
        let answer = ask(&cluster.groups[&2], 1, &request(last)).await;
        assert_eq!(matches!(answer, Answer::Installed(_)), is_taken, "{answer:?}");
        assert_eq!(has(&cluster.copy(2), "before"), is_taken);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hand_over_that_is_dropped_half_way_leaves_a_leader_that_may_act() {
    let cluster = Cluster::start(3, 3).await;
    let mut watches = tokio::task::JoinSet::new();
    for groups in cluster.groups.values() {
        watches.spawn(end_deaf_terms(groups.clone()));
    }
    cluster
        .net
        .only(|_, _, request| !matches!(request, Some(Request::Transfer(_))));
    let (group, term) = (cluster.copy(1), cluster.copy(1).led_term());
    {
        let mut hand_over = Box::pin(group.hand_over(2, SHORT, Urgency::Ordered));
        let cut = tokio::time::timeout(4 * SHORT, &mut hand_over).await;
        assert!(cut.is_err(), "the wish is on its way");
        assert_eq!(group.led_term(), term);
        assert!(!group.may_act(), "another may be elected before the lease is over");
        assert_eq!(group.abandoned(), None, "somebody sees to it");
    }
    // Nothing tells whether the wish arrives: in this term it never acts again, and the next begins soon.
    let leader = cluster.leader().await;
    assert!(cluster.copy(leader).led_term() > term);
    assert!(create(&cluster.copy(leader), "after").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_voters_that_lowers_safety_is_refused_and_counted() {
    let cluster = Cluster::start(4, 3).await;
    let leader = cluster.copy(1);
    cluster.join(1, 4).await;
    let standing = |dead: &[NodeId], draining: &[NodeId], replicas| Standing {
        alive: (1..=4).filter(|node| !dead.contains(node)).collect(),
        draining: draining.iter().copied().collect(),
        replicas,
    };
    let members = leader.members();
    for (voters, standing) in [
        (vec![1], standing(&[], &[], 3)),
        (vec![1, 2], standing(&[], &[], 3)),
        (vec![1], standing(&[2], &[3], 3)),
        (vec![1, 2, 4], standing(&[4], &[], 3)),
        (vec![1, 2, 4], standing(&[], &[4], 3)),
    ] {
        let refused = leader.set_voters(voters.iter().copied().collect(), &standing).await;
        assert!(refused.is_err(), "{voters:?} with {standing:?}");
    }
    assert_eq!(leader.members().voters(), members.voters());
    let counted = leader.0.built.metrics.encode();
    assert!(counted.contains("xcron_unsafe_changes_refused_total 5"), "{counted}");
    let replaced = leader.set_voters([1, 2, 4].into(), &standing(&[3], &[], 3)).await;
    assert_eq!(replaced, Ok(()));
    let drained = leader.set_voters([1].into(), &standing(&[], &[4], 3)).await;
    assert_eq!(drained, Ok(()));
}
