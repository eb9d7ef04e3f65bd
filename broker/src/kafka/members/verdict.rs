//! What the answer to a commit means, code by code.
//!
//! Pure. Not here: what becomes of it (`storing.rs`).

use super::storing::{Large, Verdict};
use crate::kafka::{failure::failed, raw::Trouble};

/// What it means; `servers` are named in the error.
///
/// A rebalance is no loss: while one is under way the server refuses commits of partitions that stay where they are.
pub(super) fn verdict(servers: &str, answer: Result<(), Trouble>) -> Verdict {
    let Err(trouble) = answer else { return Verdict::Stored };
    match trouble.code.0 {
        // UNKNOWN_MEMBER_ID, FENCED_INSTANCE_ID, FENCED_MEMBER_EPOCH
        25 | 82 | 110 => Verdict::Expelled,
        // UNKNOWN_TOPIC_OR_PART, _UNKNOWN_TOPIC, _UNKNOWN_PARTITION, UNKNOWN_TOPIC_ID, INCONSISTENT_TOPIC_ID
        3 | -188 | -190 | 100 | 103 => Verdict::Missing,
        // OFFSET_METADATA_TOO_LARGE
        12 => Verdict::TooLarge(Large::Metadata, failed(servers, &trouble)),
        // MSG_SIZE_TOO_LARGE, RECORD_LIST_TOO_LARGE, INVALID_COMMIT_OFFSET_SIZE
        10 | 18 | 28 => Verdict::TooLarge(Large::Commit, failed(servers, &trouble)),
        // UNKNOWN_SERVER_ERROR: what servers of 4.x say where a commit does not go into one batch
        -1 => Verdict::TooLarge(Large::Perhaps, failed(servers, &trouble)),
        // TOPIC_, GROUP_AUTHORIZATION_FAILED, INVALID_GROUP_ID
        29 | 30 | 24 => Verdict::Refused(failed(servers, &trouble)),
        // ILLEGAL_GENERATION, REBALANCE_IN_PROGRESS, STALE_MEMBER_EPOCH, _WAIT_COORD, and all that passes by itself
        _ => Verdict::Again,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::raw::Code;

    #[test]
    fn a_rebalance_is_no_loss_and_a_member_that_is_not_known_has_lost_all() {
        let of = |code| verdict("a:1", Err(Trouble { code: Code(code), text: "so".into() }));
        assert!(matches!(verdict("a:1", Ok(())), Verdict::Stored));
        for code in [22, 27, 113, -180, 14, 15, 16, 7, -185, -195, 12_345] {
            assert!(matches!(of(code), Verdict::Again), "{code}");
        }
        for code in [25, 82, 110] {
            assert!(matches!(of(code), Verdict::Expelled), "{code}");
        }
        assert!(matches!(of(3), Verdict::Missing));
        assert!(matches!(of(30), Verdict::Refused(_)));
        assert!(matches!(of(12), Verdict::TooLarge(Large::Metadata, _)));
        assert!(matches!(of(-1), Verdict::TooLarge(Large::Perhaps, _)));
        assert!(matches!(of(28), Verdict::TooLarge(Large::Commit, _)));
    }
}
