//! Golden bytes and laws of the frames.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;

const SALT: Salt = Salt(0);

fn sample() -> Vec<u8> {
    let mut out = Vec::new();
    let header = Header {
        kind: Kind::Entries,
        group: 0x0102,
        lsn: 7,
        durable: 5,
    };
    let entries = [Bytes::from_static(b"abc"), Bytes::new()];
    encode(&mut out, Salt::new(42), header, |out| {
        encode_entries(out, Salt::new(42), 0x0102, 9, &entries);
    });
    out
}

#[test]
fn a_frame_is_these_bytes_for_ever() {
    let golden = "\
        785766312ca71951e64e40f323000000010002010000000007000000000000000500000000000000\
        090000000000000002000000000000000300000029b72b5d61626300000000446a96aa0000000000";
    let mut hex = String::new();
    for byte in sample() {
        write!(hex, "{byte:02x}").expect("a string takes everything");
    }
    assert_eq!(hex, golden);
    let ordinals: Vec<u8> = (0..=255)
        .filter(|ordinal| Kind::from_ordinal(*ordinal).is_some())
        .collect();
    assert_eq!(ordinals, [1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn a_frame_of_another_log_is_none() {
    assert!(decode(&sample(), Salt::new(42)).is_some());
    assert_eq!(decode(&sample(), Salt::new(43)), None);
}

#[test]
fn an_entry_passes_only_for_its_group_and_index() {
    let encoded = sample();
    let frame = decode(&encoded, Salt::new(42)).expect("whole");
    let Some(Record::Entries(entries)) = record(&frame) else {
        panic!("entries")
    };
    let found: Vec<_> = entries.iter().collect();
    assert_eq!(
        (entries.first_index, found.as_slice()),
        (9, [(16, b"abc".as_slice()), (27, b"".as_slice())].as_slice())
    );
    let stored = &frame.payload[16..27];
    assert_eq!(
        entry_of_record(stored, Salt::new(42), 0x0102, 9),
        Some(b"abc".as_slice())
    );
    assert_eq!(entry_of_record(stored, Salt::new(42), 0x0102, 10), None);
    assert_eq!(entry_of_record(stored, Salt::new(42), 0x0103, 9), None);
    assert_eq!(entry_of_record(&stored[..10], Salt::new(42), 0x0102, 9), None);
}

#[test]
fn headers_are_found_behind_bad_bytes() {
    let mut bytes = vec![0x5a; 24];
    bytes.extend(sample());
    let payload = 24 + HEADER_BYTES + 3;
    bytes[payload] ^= 1;
    bytes.extend(sample());
    let found: Vec<u64> = headers(&bytes, Salt::new(42)).map(|header| header.durable).collect();
    assert_eq!(found, [5, 5], "a bad payload does not make the header a lie");
}

fn state() -> impl Strategy<Value = GroupState> {
    let value = || proptest::option::of(proptest::collection::vec(any::<u8>(), 0..9).prop_map(Bytes::from));
    let purged = proptest::option::of((any::<u64>(), value().prop_map(Option::unwrap_or_default)));
    let span = proptest::option::of((any::<u32>(), any::<u32>()).prop_map(|(first, count)| {
        let first = u64::from(first);
        Span {
            first,
            next: first + u64::from(count),
        }
    }));
    (value(), value(), purged, span).prop_map(|(vote, committed, purged, span)| GroupState {
        vote,
        committed,
        purged,
        span,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(decode(&bytes, SALT).is_none());
        prop_assert_eq!(headers(&bytes, SALT).count(), 0);
        entry_of_record(&bytes, SALT, 1, 1);
    }

    /// Payloads that pass their checksum and still are nonsense.
    #[test]
    fn arbitrary_payloads_never_panic(ordinal in 1_u8..=8, payload in proptest::collection::vec(any::<u8>(), 0..200)) {
        let kind = Kind::from_ordinal(ordinal).expect("all of them are kinds");
        let mut out = Vec::new();
        let header = Header { kind, group: 1, lsn: 2, durable: 1 };
        encode(&mut out, SALT, header, |out| out.extend_from_slice(&payload));
        let frame = decode(&out, SALT).expect("just encoded");
        prop_assert_eq!(frame.header, header);
        prop_assert_eq!(frame.payload, payload.as_slice());
        prop_assert_eq!(frame.bytes(), out.len());
        if let Some(Record::Entries(entries)) = record(&frame) {
            prop_assert_eq!(entries.iter().count() as u64, u64::from(entries.count));
        }
    }

    #[test]
    fn a_flipped_bit_is_seen(bit in 0_usize..(40 + 35) * 8) {
        let mut bytes = sample();
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(decode(&bytes, Salt::new(42)).is_none());
    }

    #[test]
    fn a_head_comes_back_as_it_was(groups in proptest::collection::btree_map(any::<u16>(), state(), 0..5)) {
        let mut out = Vec::new();
        encode_head(&mut out, groups.iter().map(|(group, state)| (*group, state)));
        let bytes = 4 + groups.values().map(head_group_bytes).sum::<usize>();
        prop_assert_eq!(out.len(), bytes);
        let groups: Vec<_> = groups.into_iter().collect();
        prop_assert_eq!(decode_head(&out), Some(groups));
    }
}
