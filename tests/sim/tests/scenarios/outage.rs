//! A datastore that is away.

use std::collections::BTreeSet;
use std::time::Duration;

use manx_cni::Code;
use tokio::time::sleep;

use crate::{assert_well, cluster, now, written};

#[tokio::test(start_paused = true)]
async fn while_the_datastore_is_away_everything_stays_and_pods_come_until_the_reserve_is_used_up() {
    for seed in 0..5 {
        let cluster = cluster(seed, "CrossSubnet").await;
        cluster.guard();
        let begin = now(&cluster);
        cluster.nodes.values().for_each(|node| node.store.down());
        sleep(Duration::from_secs(600)).await;
        cluster.nodes["n1"].kubelet.run("late");
        cluster.until("it is attached", || cluster.established().len() == 9).await;
        assert_eq!(cluster.unreachable(), [""; 0]);
        cluster.nodes["n1"].kubelet.run("too-late");
        cluster.nodes["n2"].kubelet.end("n2p1");
        sleep(Duration::from_secs(3000)).await;
        let refused = cluster.nodes["n1"].kubelet.last_error("too-late").unwrap();
        let later = refused.code == Code::TRY_AGAIN_LATER;
        assert!(later && refused.to_string().contains("the datastore is away"), "{refused}");
        // The pod that was told to end is unreachable, as it should be; nothing else happened.
        cluster.net.world().violations.retain(|violation| !violation.contains("n2: no route"));
        let written = written(&cluster, begin);
        let of_pods = ["n2: DeleteRoute", "n1: AddRoute"];
        assert!(
            written.iter().all(|line| of_pods.iter().any(|of_pod| line.starts_with(of_pod))),
            "{written:#?}"
        );
        cluster.net.world().guarded.clear();
        cluster.net.world().violations.clear();
        cluster.nodes.values().for_each(|node| node.store.up());
        assert_well(&cluster, &format!("seed {seed}")).await;
        assert_eq!(cluster.established().len(), 9);
    }
}

#[tokio::test(start_paused = true)]
async fn what_pods_were_given_while_the_datastore_was_away_they_keep_although_their_agent_is_killed() {
    for seed in 0..5 {
        let mut cluster = cluster(seed, "CrossSubnet").await;
        cluster.nodes.values().for_each(|node| node.store.down());
        cluster.nodes["n2"].kubelet.run("late");
        cluster.until("it is attached", || cluster.established().len() == 9).await;
        for time in 0..4 {
            let before = cluster.nodes["n1"].kubelet.pods()["n1p1"].clone();
            cluster.nodes["n1"].kubelet.renew("n1p1");
            let renewed = || cluster.nodes["n1"].kubelet.pods()["n1p1"].clone();
            cluster.until(&format!("sandbox {time}"), || renewed().is_some() && renewed() != before).await;
            assert_eq!(cluster.unreachable(), [""; 0]);
        }
        let given: BTreeSet<_> = cluster.established().into_iter().collect();
        for node in ["n1", "n2"] {
            cluster.kill(node).await;
        }
        cluster.nodes.values().for_each(|node| node.store.up());
        for node in ["n1", "n2"] {
            cluster.start(node);
        }
        assert_well(&cluster, &format!("seed {seed}")).await;
        assert_eq!(cluster.established().into_iter().collect::<BTreeSet<_>>(), given, "seed {seed}");
    }
}
