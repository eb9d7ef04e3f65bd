//! Which partition a key belongs to.
//!
//! The same as Kafka's Java client (`BuiltInPartitioner`, `Utils.murmur2`), so that a topic can be written by both.
//! Not here: which partition a message without key takes (each publisher spreads those itself).

/// The partition of `key` in a topic of `partitions`, as the Java client of Kafka computes it.
///
/// # Panics
/// Never; `partitions` of 0 is taken as 1.
#[must_use]
pub fn partition_for_key(key: &[u8], partitions: u32) -> u32 {
    (murmur2(key) & 0x7fff_ffff) % partitions.max(1)
}

/// MurmurHash2, 32 bits, with the seed and the byte order of Kafka's Java client.
#[must_use]
pub fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    let mut hash = SEED ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        k = k.wrapping_mul(M);
        k ^= k >> R;
        k = k.wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    let tail = words.remainder();
    if !tail.is_empty() {
        for (i, &byte) in tail.iter().enumerate() {
            hash ^= u32::from(byte) << (8 * i);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From Kafka's `UtilsTest.testMurmur2`.
    #[test]
    fn agrees_with_the_vectors_of_the_java_client() {
        let vectors: [(&[u8], i32); 7] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
            (b"", 275_646_681),
        ];
        for (data, expected) in &vectors {
            assert_eq!(murmur2(data) as i32, *expected, "{}", String::from_utf8_lossy(data));
        }
    }

    #[test]
    fn a_negative_hash_is_masked_not_negated() {
        assert_eq!(partition_for_key(b"21", 7), ((-973_932_308_i32 as u32) & 0x7fff_ffff) % 7);
        assert_eq!(partition_for_key(b"any", 0), 0);
    }
}
