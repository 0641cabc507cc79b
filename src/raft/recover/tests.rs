//! A replica that lost its majority serves again alone, with all that its log holds; one that was no voter as well.

use super::super::testing::{Cluster, GROUP, create, eventually, has};
use super::*;

async fn recovered(voters: NodeId, survivor: NodeId) {
    let mut cluster = Cluster::start(3, voters).await;
    let leader = cluster.leader().await;
    if voters < survivor {
        cluster.join(leader, survivor).await;
    }
    assert!(create(&cluster.copy(leader), "kept").await);
    eventually("the survivor's log has it", || {
        let members = cluster.copy(leader).members().members;
        members.get(&survivor).filter(|member| member.lag == Some(0)).map(drop)
    })
    .await;
    for node in 1..=3 {
        cluster.net.lose(node);
        cluster.groups[&node].shutdown().await;
    }
    let disk = &cluster.disks[&survivor];
    let found = held(&disk.wal, &disk.kv, GroupCount::new(1).expect("a divisor"))
        .await
        .expect("undamaged");
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].voters, (1..=voters).collect(), "as it knew them");
    make_sole_voter(&disk.wal, &found, survivor).await.expect("written");
    let groups = disk.start(&cluster.net, survivor, true).await;
    cluster.groups.insert(survivor, groups);
    eventually("it leads alone", || cluster.copy(survivor).leads()).await;
    assert!(create(&cluster.copy(survivor), "after").await);
    assert!(has(&cluster.copy(survivor), "kept"), "what its log held");
    let members = cluster.copy(survivor).members().members;
    assert_eq!(
        members.keys().copied().collect::<Vec<_>>(),
        [survivor],
        "{members:?} of {GROUP:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voter_that_lost_its_majority_becomes_the_only_one() {
    recovered(3, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_learner_that_lost_its_voters_becomes_the_only_one() {
    recovered(1, 3).await;
}
