//! Whether the servers work: all, in part, or not at all. Asked when somebody wants to know.
//!
//! Not here: what is wrong with how they are set up (`ropeway doctor`).

use super::{failure::failed, settings::RedisStreamsSettings, topics::Topics};
use crate::{Health, Result};
use ropeway_store::redis::{self, Everywhere, Redis, Value, cmd};

/// Asks each server. One that does not answer in a cluster takes its part of the partitions with it; so do replicas that are asked for and away with what
/// publishers want to be replicated.
///
/// # Errors
/// That of the only server, or of all.
pub(super) async fn look(redis: &Redis, topics: &Topics, settings: &RedisStreamsSettings) -> Result<Health> {
    if !redis.is_cluster() {
        topics.commands.one(&["PING"]).await?;
        // Who may not ask that is not told of replicas.
        let told = topics.commands.one(&["INFO", "replication"]).await.ok();
        let said = told.as_ref().and_then(redis::Reply::text).unwrap_or_default();
        return Ok(of_all(&lacks(topics.commands.server(), said, settings.replicas)));
    }
    let ask = vec![cmd("INFO").arg("replication").take(), cmd("CLUSTER").arg("INFO").take()];
    of_nodes(redis.everywhere(ask).await, settings.replicas)
}

/// The health of a cluster, of what each primary answered.
fn of_nodes(nodes: Everywhere, replicas: Option<u32>) -> Result<Health> {
    let (mut wrong, mut works, mut away) = (Vec::new(), false, None);
    for (name, told) in nodes {
        let mut told = match told {
            Ok(told) => told.into_iter().map(|answer| answer.ok().and_then(text).unwrap_or_default()),
            Err(error) => {
                wrong.push(error.to_string());
                away = Some(error);
                continue;
            }
        };
        wrong.extend(lacks(&name, &told.next().unwrap_or_default(), replicas));
        if told.next().unwrap_or_default().contains("cluster_state:fail") {
            wrong.push(format!("redis {name} serves nothing, since the cluster is not whole (CLUSTER INFO)"));
        } else {
            works = true;
        }
    }
    match away {
        Some(error) if !works => Err(failed(error)),
        _ if !works => Ok(Health::Down(wrong.join("; "))),
        _ => Ok(of_all(&wrong)),
    }
}

fn text(value: Value) -> Option<String> {
    redis::from_redis_value(value).ok()
}

fn of_all(wrong: &[String]) -> Health {
    if wrong.is_empty() { Health::Up } else { Health::Degraded(wrong.join("; ")) }
}

/// What one server lacks by what it says of its replication.
fn lacks(name: &str, said: &str, replicas: Option<u32>) -> Vec<String> {
    let told = |key: &str| said.lines().find_map(|line| line.trim_end().strip_prefix(key)?.strip_prefix(':'));
    if told("role") == Some("slave") {
        return vec![format!("redis {name} is a replica: it takes no writes")];
    }
    let has: Option<u32> = told("connected_slaves").and_then(|count| count.parse().ok());
    let few = |(has, wanted): &(u32, u32)| has < wanted;
    let text = |(has, wanted)| {
        format!(
            "redis {name} has {has} of {wanted} replicas (`replicas={wanted}`): publishes that are to be replicated are refused"
        )
    };
    has.zip(replicas).filter(few).map(text).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_lacks_is_told_with_its_name() {
        let alone = "# Replication\r\nrole:master\r\nconnected_slaves:1\r\n";
        assert_eq!(of_all(&lacks("h:1", alone, None)), Health::Up);
        assert_eq!(of_all(&lacks("h:1", alone, Some(1))), Health::Up);
        assert_eq!(of_all(&lacks("h:1", "", Some(1))), Health::Up, "nobody knows");
        let few = of_all(&lacks("h:1", alone, Some(2)));
        assert!(matches!(&few, Health::Degraded(why) if why.contains("h:1 has 1 of 2 replicas")), "{few:?}");
        let replica = of_all(&lacks("h:1", "role:slave\r\nconnected_slaves:0", None));
        assert!(matches!(&replica, Health::Degraded(why) if why.contains("no writes")), "{replica:?}");
    }
}
