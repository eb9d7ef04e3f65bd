//! The scripts of groups, one by one, on a real server.

use super::server::{Server, script};

const LIFE: &str = "5000";

/// Log, part, and what the group `g` has of the partition.
fn partition(server: &mut Server) -> [String; 3] {
    let keys = ["log", "part", "group:g"].map(|name| format!("{{{}}}:{name}", server.prefix));
    server.run("partition_make", &[&keys[0], &keys[1]], &[LIFE]);
    for seq in 1..=5 {
        server.ask::<String>(&format!("XADD {} 5000-{seq} payload x", keys[0]));
    }
    keys
}

fn take_over(server: &mut Server, keys: &[String; 3], life: &str, start: [&str; 2]) -> Vec<String> {
    let keys = keys.each_ref().map(String::as_str);
    server.run("take_over", &keys, &[life, "g", "anna", start[0], start[1]])
}

fn commit(
    server: &mut Server,
    keys: &[String; 3],
    epoch: &str,
    position: &str,
    read: &str,
    done: &str,
) -> Vec<String> {
    let keys = keys.each_ref().map(String::as_str);
    server.run("commit", &keys, &[LIFE, "g", epoch, position, read, "map", "1", done])
}

fn a_start_is_stored_with_the_first_take_over_and_the_epoch_grows_with_each() {
    let mut server = Server::get();
    let keys = partition(&mut server);
    assert_eq!(take_over(&mut server, &keys, "4000", ["5000-3", "2"]), ["life", LIFE]);
    let first = take_over(&mut server, &keys, LIFE, ["5000-3", "2"]);
    assert_eq!(first[2..], ["5000-3", "2", "", "started", "", "5000-5", "5", "5", ""]);
    let second = take_over(&mut server, &keys, LIFE, ["5000-5", "4"]);
    assert_eq!(second[2..6], ["5000-3", "2", "", "stored"]);
    let epochs: Vec<u64> = [&first, &second].map(|taken| taken[1].parse().unwrap()).to_vec();
    assert!(epochs[0] > 1_700_000_000_000 && epochs[1] > epochs[0], "{epochs:?}");
    // After a clock that was ahead.
    server.ask::<i64>(&format!("HSET {} epoch 99999999999999", keys[2]));
    assert_eq!(take_over(&mut server, &keys, LIFE, ["", ""])[1], "100000000000000");
    let groups = format!("XINFO GROUPS {}", keys[0]);
    assert_eq!(server.told(&groups, "last-delivered-id"), "5000-2");
    assert_eq!(server.told(&groups, "lag"), "3");
    server.ask::<i64>(&format!("DEL {}", keys[0]));
    assert_eq!(take_over(&mut server, &keys, LIFE, ["", ""]), ["none"]);
}

fn a_commit_is_stored_and_mirrored_and_one_of_a_former_owner_is_refused() {
    let mut server = Server::get();
    let keys = partition(&mut server);
    let former = take_over(&mut server, &keys, LIFE, ["5000-1", "0"]).remove(1);
    assert_eq!(commit(&mut server, &keys, &former, "5000-3", "2", "5000-2"), ["stored"]);
    let groups = format!("XINFO GROUPS {}", keys[0]);
    assert_eq!((server.told(&groups, "entries-read"), server.told(&groups, "lag")), ("2".into(), "3".into()));
    let owner = take_over(&mut server, &keys, LIFE, ["", ""]);
    assert_eq!(owner[2..6], ["5000-3", "2", "map", "stored"]);
    for position in ["5000-5", ""] {
        assert_eq!(commit(&mut server, &keys, &former, position, "4", "5000-4"), ["fenced", &owner[1]]);
    }
    assert_eq!(server.hash(&keys[2], "position").as_deref(), Some("5000-3"));
    assert_eq!(server.told(&groups, "entries-read"), "2");
    assert_eq!(commit(&mut server, &keys, &owner[1], "", "", ""), ["stored"], "a confirmation");
    assert_eq!(server.hash(&keys[2], "position").as_deref(), Some("5000-3"));
    // Somebody removed the mirror: what counts is stored all the same.
    server.ask::<i64>(&format!("XGROUP DESTROY {} g", keys[0]));
    assert_eq!(commit(&mut server, &keys, &owner[1], "5000-4", "3", "5000-3"), ["stored"]);
}

/// Somebody wrote it: the next would be the same, and two would own the partition in one epoch.
fn an_epoch_that_cannot_grow_is_told_and_nobody_owns_the_partition_in_it() {
    let mut server = Server::get();
    let keys = partition(&mut server);
    let names = keys.each_ref().map(String::as_str);
    take_over(&mut server, &keys, LIFE, ["5000-1", "0"]);
    for bad in ["9007199254740991", "9007199254740992", "99999999999999999999", "x", "1e3", "-5"] {
        server.ask::<i64>(&format!("HSET {} epoch {bad} owner somebody", keys[2]));
        assert_eq!(take_over(&mut server, &keys, LIFE, ["", ""]), ["epoch", bad]);
        assert_eq!(server.run("seek", &names, &[LIFE, "g", "5000-4", "3", "5000-3"]), ["epoch", bad]);
        assert_eq!(server.hash(&keys[2], "epoch").as_deref(), Some(bad));
        assert_eq!(server.hash(&keys[2], "owner").as_deref(), Some("somebody"));
    }
    server.ask::<i64>(&format!("HSET {} epoch 9007199254740990", keys[2]));
    assert_eq!(take_over(&mut server, &keys, LIFE, ["", ""])[1], "9007199254740991");
}

/// Over a connection that its owner has given up, and whose bytes the network held back.
fn a_commit_that_comes_late_takes_nothing_back() {
    let mut server = Server::get();
    let keys = partition(&mut server);
    let owner = take_over(&mut server, &keys, LIFE, ["5000-1", "0"]).remove(1);
    assert_eq!(commit(&mut server, &keys, &owner, "5000-10", "9", "5000-9"), ["stored"]);
    for late in ["5000-9", "4999-50"] {
        assert_eq!(commit(&mut server, &keys, &owner, late, "2", "5000-2"), ["stored"]);
        assert_eq!(server.hash(&keys[2], "position").as_deref(), Some("5000-10"), "{late}");
        assert_eq!(server.hash(&keys[2], "read").as_deref(), Some("9"), "{late}");
    }
    // At the same position, with less done beyond it.
    let names = keys.each_ref().map(String::as_str);
    let fewer = ["5000", "g", owner.as_str(), "5000-10", "9", "less", "0", "5000-9"];
    assert_eq!(server.run("commit", &names, &fewer), ["stored"]);
    assert_eq!(server.hash(&keys[2], "map").as_deref(), Some("map"));
    // Who has just taken over may not know how many there are.
    let unknown = ["5000", "g", owner.as_str(), "5000-10", "9", "more", "", "5000-9"];
    assert_eq!(server.run("commit", &names, &unknown), ["stored"]);
    assert_eq!(server.hash(&keys[2], "map").as_deref(), Some("more"));
    assert_eq!(commit(&mut server, &keys, &owner, "5001-0", "9", "5000-9"), ["stored"]);
    assert_eq!(server.hash(&keys[2], "position").as_deref(), Some("5001-0"));
}

/// Who could not renew, commit or take over while the memory limit is reached would stop just those who make room.
fn members_go_on_where_the_server_has_no_memory_left() {
    let mut server = Server::own();
    let keys = partition(&mut server);
    let key = |name: &str| format!("{}:{name}", server.prefix);
    let [members, asked, owners, news, had, groups] =
        ["members", "asked", "owners", "news", "had", "groups"].map(key);
    server.ask::<String>("CONFIG SET maxmemory 1");
    let all: [&str; 5] = [&members, &asked, &owners, &news, &had];
    assert_eq!(server.run("know", &[&groups], &["g"]), ["known"]);
    for verb in ["join", "renew"] {
        assert_eq!(server.run("lease", &all, &["a", "m-1", "9000", verb, "t"])[0], "held");
    }
    let claim = server.run("claim", &[&asked, &owners, &had, &news], &["a", "m-1", "t/0"]);
    assert_eq!(claim, ["claimed", "t/0"]);
    let taken = take_over(&mut server, &keys, LIFE, ["5000-1", "0"]);
    assert_eq!(taken[0], "taken");
    assert_eq!(commit(&mut server, &keys, &taken[1], "5000-3", "2", "5000-2"), ["stored"]);
    assert_eq!(server.run("release", &all, &["a", "m-1", "leave", "", "t/0"]), ["released"]);
}

fn a_position_of_an_earlier_life_begins_at_the_beginning_of_this_one() {
    let mut server = Server::get();
    let keys = partition(&mut server);
    take_over(&mut server, &keys, LIFE, ["5000-4", "3"]);
    server.ask::<i64>(&format!("DEL {} {}", keys[0], keys[1]));
    server.run("partition_make", &[&keys[0], &keys[1]], &["7000"]);
    let taken = take_over(&mut server, &keys, "7000", ["7000-9", "8"]);
    assert_eq!(taken[2..6], ["7000-0", "0", "", "recreated"]);
    assert_eq!(taken[10], "5000-4", "where it was before");
    // Whoever takes it over tells the gap, until something of this life is committed.
    let again = take_over(&mut server, &keys, "7000", ["", ""]);
    assert_eq!((again[5].as_str(), again[10].as_str()), ("recreated", "5000-4"));
    let all = keys.each_ref().map(String::as_str);
    for (position, how) in [("", "recreated"), ("7000-1", "stored")] {
        let epoch = server.hash(&keys[2], "epoch").unwrap();
        server.run("commit", &all, &["7000", "g", &epoch, position, "", "", "", ""]);
        assert_eq!(take_over(&mut server, &keys, "7000", ["", ""])[5], how, "after a commit of {position:?}");
    }
}

fn a_seek_moves_a_group_and_fences_who_owned_before() {
    let mut server = Server::get();
    let keys = partition(&mut server);
    let owner = take_over(&mut server, &keys, LIFE, ["5000-1", "0"]).remove(1);
    let names = keys.each_ref().map(String::as_str);
    assert_eq!(server.run("seek", &names, &["4000", "g", "5000-4", "3", "5000-3"]), ["life", LIFE]);
    let sought = server.run("seek", &names, &[LIFE, "g", "5000-4", "3", "5000-3"]);
    assert!(sought[0] == "sought" && sought[1] > owner, "{sought:?} after {owner}");
    assert_eq!(commit(&mut server, &keys, &owner, "5000-2", "1", "5000-1"), ["fenced", &sought[1]]);
    let groups = format!("XINFO GROUPS {}", keys[0]);
    assert_eq!((server.told(&groups, "entries-read"), server.told(&groups, "lag")), ("3".into(), "2".into()));
    // A group that there was not, at a place of which nobody knows how much lies before it.
    let other = [&keys[0][..], &keys[1], "{x}:other"];
    let other = other.map(|key| key.replace("{x}", &format!("{{{}}}", server.prefix)));
    let other = other.each_ref().map(String::as_str);
    server.run("seek", &other, &[LIFE, "other", "5000-3", "", "5000-2"]);
    assert_eq!(server.hash(other[2], "position").as_deref(), Some("5000-3"));
    assert_eq!(server.run("forget", &[names[0], names[2]], &["g"]), ["forgotten"]);
    assert_eq!(server.hash(names[2], "position"), None);
    assert_eq!(server.told(&groups, "name"), "other");
    assert_eq!(server.run("forget", &[names[0], names[2]], &["g"]), ["forgotten"]);
}

struct Table([String; 5]);

impl Table {
    fn of(server: &Server) -> Self {
        Self(
            ["members", "asked", "owners", "had", "news"].map(|name| format!("{{{}}}:{name}", server.prefix)),
        )
    }

    fn lease(&self, server: &mut Server, who: [&str; 2], ms: &str, verb: &str) -> Vec<String> {
        let [members, asked, owners, had, news] = self.0.each_ref().map(String::as_str);
        server.run("lease", &[members, asked, owners, news, had], &[who[0], who[1], ms, verb, "t,u"])
    }

    fn claim(&self, server: &mut Server, who: [&str; 2], partitions: &[&str]) -> Vec<String> {
        let [_, asked, owners, had, news] = self.0.each_ref().map(String::as_str);
        let args = [&who[..], partitions].concat();
        server.run("claim", &[asked, owners, had, news], &args)
    }

    fn release(&self, server: &mut Server, who: [&str; 2], verb: &str, partitions: &[&str]) -> Vec<String> {
        let [members, asked, owners, had, news] = self.0.each_ref().map(String::as_str);
        let (verb, whom) = verb.split_once(' ').unwrap_or((verb, ""));
        let args = [&[who[0], who[1], verb, whom], partitions].concat();
        server.run("release", &[members, asked, owners, news, had], &args)
    }

    fn owner(&self, server: &mut Server, partition: &str) -> Option<String> {
        server.hash(&self.0[2], partition)
    }
}

const ANNA: [&str; 2] = ["anna", "s-1"];
const BERT: [&str; 2] = ["bert", "s-2"];

fn a_partition_is_claimed_by_one_member_and_given_back() {
    let mut server = Server::get();
    let table = Table::of(&server);
    assert_eq!(table.claim(&mut server, ANNA, &["t/0"]), ["fenced"]);
    let held = table.lease(&mut server, ANNA, "9000", "join");
    assert_eq!((held[0].as_str(), &held[2..4]), ("held", &["anna".to_owned(), "s-1 t,u".into()][..]));
    assert_eq!(held[4..], ["@seen".to_owned(), held[1].clone()], "when a member was heard of last");
    table.lease(&mut server, BERT, "9000", "join");
    assert_eq!(table.claim(&mut server, ANNA, &["t/0", "t/1"]), ["claimed", "t/0", "t/1"]);
    assert_eq!(table.claim(&mut server, BERT, &["t/1", "t/2"]), ["claimed", "t/2"]);
    let held = table.lease(&mut server, BERT, "9000", "renew");
    assert_eq!(held[2..6].len() + held[6..12].len(), 4 + 6, "{held:?}");
    table.release(&mut server, BERT, "to cora", &["t/2"]);
    assert_eq!(table.owner(&mut server, "t/2"), None, "who is no member takes nothing");
    table.claim(&mut server, BERT, &["t/2"]);
    table.release(&mut server, BERT, "to anna", &["t/2"]);
    assert_eq!(table.owner(&mut server, "t/2").as_deref(), Some("anna"));
    table.release(&mut server, BERT, "stay", &["t/1", "t/2"]);
    assert_eq!(table.owner(&mut server, "t/1").as_deref(), Some("anna"), "what is another's stays");
    table.release(&mut server, ANNA, "stay", &["t/1"]);
    assert_eq!(table.owner(&mut server, "t/1"), None);
    assert_eq!(server.hash(&table.0[3], "t/1"), None, "who only gives back is not remembered");
    table.release(&mut server, ANNA, "leave", &[]);
    assert_eq!(table.owner(&mut server, "t/0"), None);
    assert_eq!(table.lease(&mut server, ANNA, "9000", "renew"), ["lost"]);
    assert_eq!(server.hash(&table.0[3], "t/0").as_deref(), Some("anna"), "a static name is remembered");
}

fn who_lets_its_lease_end_loses_what_it_owned() {
    let mut server = Server::get();
    let table = Table::of(&server);
    table.lease(&mut server, ANNA, "1", "join");
    table.claim(&mut server, ANNA, &["t/0"]);
    std::thread::sleep(std::time::Duration::from_millis(20));
    let held = table.lease(&mut server, BERT, "9000", "join");
    assert_eq!(held[2..4], ["bert".to_owned(), "s-2 t,u".into()]);
    assert_eq!(server.hash(&table.0[3], "t/0").as_deref(), Some("anna"), "a static name is remembered");
    assert_eq!(table.owner(&mut server, "t/0"), None);
    assert_eq!(table.lease(&mut server, ANNA, "9000", "renew"), ["lost"]);
}

fn a_second_membership_under_a_name_ends_the_first() {
    let mut server = Server::get();
    let table = Table::of(&server);
    table.lease(&mut server, ANNA, "9000", "join");
    table.claim(&mut server, ANNA, &["t/0"]);
    let again = ["anna", "s-3"];
    table.lease(&mut server, again, "9000", "join");
    assert_eq!(table.owner(&mut server, "t/0").as_deref(), Some("anna"), "it stays with the name");
    assert_eq!(table.lease(&mut server, ANNA, "9000", "renew"), ["fenced"]);
    assert_eq!(table.claim(&mut server, ANNA, &["t/0"]), ["fenced"]);
    table.release(&mut server, ANNA, "leave", &[]);
    assert_eq!(
        table.lease(&mut server, again, "9000", "renew")[0],
        "held",
        "who was fenced takes nothing with it"
    );
}

fn what_one_had_in_passing_stays_that_of_who_left_it() {
    let mut server = Server::get();
    let table = Table::of(&server);
    table.lease(&mut server, ANNA, "9000", "join");
    table.claim(&mut server, ANNA, &["t/0", "t/1"]);
    table.release(&mut server, ANNA, "leaving", &["t/0", "t/1"]);
    table.release(&mut server, ANNA, "leave", &[]);
    table.lease(&mut server, BERT, "9000", "join");
    table.claim(&mut server, BERT, &["t/0", "t/1"]);
    // Long enough to be its own.
    server.ask::<i64>(&format!("HSET {} @t/1 1", table.0[3]));
    table.release(&mut server, BERT, "leave", &[]);
    assert_eq!(server.hash(&table.0[3], "t/0").as_deref(), Some("anna"));
    assert_eq!(server.hash(&table.0[3], "t/1").as_deref(), Some("bert"));
}

/// A script with something of it replaced, to show that a check sees it.
fn broken(name: &str, good: &str, bad: &str) -> String {
    assert!(script(name).contains(good), "{name}: {good:?} is not in it");
    script(name).replace(good, bad)
}

/// Whether a commit of a former owner is refused, and changes nothing.
fn refuses_former_owners(commit: &str) -> bool {
    let mut server = Server::get();
    let keys = partition(&mut server);
    let former = take_over(&mut server, &keys, LIFE, ["5000-1", "0"]).remove(1);
    take_over(&mut server, &keys, LIFE, ["", ""]);
    let all = keys.each_ref().map(String::as_str);
    let told = server.run_text(commit, &all, &[LIFE, "g", &former, "5000-3", "2", "", "0", "5000-2"]);
    told[0] == "fenced" && server.hash(&keys[2], "position").as_deref() == Some("5000-1")
}

/// Whether an epoch is not given again after a failover to a copy that had not heard of the last take-over.
fn repeats_no_epoch(take_over: &str) -> bool {
    let mut server = Server::get();
    let keys = partition(&mut server);
    let all = keys.each_ref().map(String::as_str);
    let mut epoch = || {
        std::thread::sleep(std::time::Duration::from_millis(5));
        server.run_text(take_over, &all, &[LIFE, "g", "anna", "5000-1", "0"]).remove(1)
    };
    let (copied, lost) = (epoch(), epoch());
    let mut other = Server::get();
    let keys = partition(&mut other);
    let all = keys.each_ref().map(String::as_str);
    other.run_text(take_over, &all, &[LIFE, "g", "anna", "5000-1", "0"]);
    other.ask::<i64>(&format!("HSET {} epoch {copied}", keys[2]));
    std::thread::sleep(std::time::Duration::from_millis(5));
    let next = other.run_text(take_over, &all, &[LIFE, "g", "bert", "", ""]).remove(1);
    next.parse::<u64>().unwrap() > lost.parse::<u64>().unwrap()
}

fn a_double_that_takes_commits_of_former_owners_is_seen() {
    assert!(refuses_former_owners(script("commit")));
    let double = broken("commit", "if epoch ~= ARGV[3]", "if epoch == ''");
    assert!(!refuses_former_owners(&double));
}

fn a_double_that_gives_an_epoch_again_after_a_failover_is_seen() {
    assert!(repeats_no_epoch(script("take_over")));
    let double = broken("take_over", "math.max(now, number + 1)", "number + 1");
    assert!(!repeats_no_epoch(&double));
}

super::tests! {
    a_start_is_stored_with_the_first_take_over_and_the_epoch_grows_with_each,
    a_commit_is_stored_and_mirrored_and_one_of_a_former_owner_is_refused,
    an_epoch_that_cannot_grow_is_told_and_nobody_owns_the_partition_in_it,
    a_commit_that_comes_late_takes_nothing_back,
    members_go_on_where_the_server_has_no_memory_left,
    a_position_of_an_earlier_life_begins_at_the_beginning_of_this_one,
    a_seek_moves_a_group_and_fences_who_owned_before,
    a_partition_is_claimed_by_one_member_and_given_back,
    who_lets_its_lease_end_loses_what_it_owned,
    a_second_membership_under_a_name_ends_the_first,
    what_one_had_in_passing_stays_that_of_who_left_it,
    a_double_that_takes_commits_of_former_owners_is_seen,
    a_double_that_gives_an_epoch_again_after_a_failover_is_seen,
}
