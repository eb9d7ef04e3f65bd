//! When who asks whether an epoch holds is answered.
//!
//! Not here: who plays the servers (`../tests.rs`).

use super::*;

#[test]
fn a_confirm_is_answered_by_a_commit_that_was_sent_after_it_was_asked_for() {
    let mut play = Play::of(1);
    play.act();
    play.told();
    let (first, mut confirmed) = oneshot::channel();
    _ = play.core.owner.confirm(&of(0, 1), first);
    let Job::Commit(commits) = play.core.next_job(play.now) else { panic!("no commit") };
    // The process stands still here, and the answer lies ready when it goes on.
    let (second, mut confirmed_later) = oneshot::channel();
    _ = play.core.owner.confirm(&of(0, 1), second);
    _ = play.core.stored(&commits, vec![Ok(Stored::Yes)], play.now);
    assert!(confirmed.try_recv().unwrap().is_ok());
    assert!(confirmed_later.try_recv().is_err(), "what was sent before says nothing of now");
    assert_eq!(play.act(), "commit", "at once");
    assert!(confirmed_later.try_recv().unwrap().is_ok());
}
