//! Which slot of a cluster a command belongs to. Pure.
//!
//! redis-rs knows it too and does not tell; its own cluster client sends a request again whose answer was lost, which is why we route.

use ::redis::{Arg, Cmd};

/// How many slots a cluster has.
pub(super) const SLOTS: u16 = 16_384;

/// The slot of a key: of its hash tag, where it has one.
#[must_use]
pub fn slot_of_key(key: &[u8]) -> u16 {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        let close = rest.iter().position(|byte| *byte == b'}')?;
        (close > 0).then(|| &rest[..close])
    });
    crc16(tag.unwrap_or(key)) % SLOTS
}

/// CRC-16/XMODEM, as clusters use it.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |mut crc, byte| {
        crc ^= u16::from(*byte) << 8;
        for _ in 0..8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
        }
        crc
    })
}

/// The slot of a command's first key. `None` for one without keys: any node can do it.
pub(super) fn slot_of(command: &Cmd) -> Option<u16> {
    let args: Vec<&[u8]> = command
        .args_iter()
        .map(|arg| match arg {
            Arg::Simple(bytes) => bytes,
            _ => b"".as_slice(),
        })
        .take(64)
        .collect();
    slot_of_words(&args)
}

/// The same for its words, of which the first few are enough.
pub(super) fn slot_of_words(args: &[&[u8]]) -> Option<u16> {
    let name = args.first()?.to_ascii_uppercase();
    let at = match name.as_slice() {
        b"EVAL" | b"EVALSHA" | b"EVAL_RO" | b"EVALSHA_RO" | b"FCALL" | b"FCALL_RO"
            if args.get(2)? == b"0" =>
        {
            return None;
        }
        b"EVAL" | b"EVALSHA" | b"EVAL_RO" | b"EVALSHA_RO" | b"FCALL" | b"FCALL_RO" => 3,
        b"XREAD" | b"XREADGROUP" => 1 + args.iter().position(|arg| arg.eq_ignore_ascii_case(b"STREAMS"))?,
        b"XGROUP" | b"XINFO" | b"OBJECT" => 2,
        b"MEMORY" if args.get(1)?.eq_ignore_ascii_case(b"USAGE") => 2,
        b"ACL" | b"ASKING" | b"CLIENT" | b"CLUSTER" | b"COMMAND" | b"CONFIG" | b"DBSIZE" | b"ECHO"
        | b"FLUSHALL" | b"FLUSHDB" | b"INFO" | b"KEYS" | b"LATENCY" | b"MEMORY" | b"PING" | b"PUBLISH"
        | b"PUBSUB" | b"ROLE" | b"SCAN" | b"SCRIPT" | b"SLOWLOG" | b"TIME" | b"WAIT" | b"WAITAOF" => {
            return None;
        }
        _ => 1,
    };
    args.get(at).map(|key| slot_of_key(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::redis::cmd;

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(slot_of_key(b"foo"), 12182);
        assert_eq!(slot_of_key(b"{foo}.x"), 12182);
        assert_eq!(slot_of_key(b"a{foo}{bar}"), 12182);
        assert_eq!(slot_of_key(b"{}foo"), crc16(b"{}foo") % SLOTS);
    }

    #[test]
    fn the_key_is_found_where_the_command_has_it() {
        let foo = Some(12182);
        assert_eq!(slot_of(cmd("get").arg("foo")), foo);
        assert_eq!(slot_of(cmd("EVALSHA").arg("abc").arg(1).arg("foo").arg("x")), foo);
        assert_eq!(slot_of(cmd("EVALSHA").arg("abc").arg(0).arg("foo")), None);
        assert_eq!(slot_of(cmd("XREAD").arg("COUNT").arg(1).arg("streams").arg("foo").arg(0)), foo);
        assert_eq!(slot_of(cmd("XINFO").arg("STREAM").arg("foo")), foo);
        assert_eq!(slot_of(cmd("MEMORY").arg("USAGE").arg("foo")), foo);
        assert_eq!(slot_of(&cmd("PING")), None);
        assert_eq!(slot_of(cmd("WAIT").arg(1).arg(0)), None);
    }
}
