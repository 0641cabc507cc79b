//! The datagram's bytes, what opens and what does not, and the memory of what came already.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use proptest::prelude::*;

use super::hub::{CLUSTER, CountingEntropy, KEY, VirtualClock};
use crate::membership::replay::Replays;
use crate::membership::seal::Sealer;
use crate::membership::{AGE_MS_MAX, Dropped, KeysError, REMEMBERED_MAX, SEAL_BYTES};

fn sealer(keys: &[[u8; 32]], cluster: Option<u128>, clock: &Arc<VirtualClock>) -> Sealer {
    let entropy = CountingEntropy::from(1_000 * u64::try_from(cluster.unwrap_or_default()).expect("a small id") + 1);
    Sealer::new(keys, cluster, clock.clone(), entropy).expect("there are keys")
}

fn seal(sealer: &Sealer, message: &[u8]) -> Vec<u8> {
    let mut datagram = b"of before".to_vec();
    sealer.seal(message, &mut datagram);
    datagram
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes everything");
        text
    })
}

#[tokio::test(start_paused = true)]
async fn the_datagram_is_frozen() {
    let clock = VirtualClock::new();
    let datagram = seal(&sealer(&[KEY], Some(CLUSTER), &clock), b"message");
    assert_eq!(datagram.len(), SEAL_BYTES + 7);
    let fields = [
        "786367",                           // magic
        "01",                               // version
        "4bb06f8e",                         // id of the key
        "000000000000000000000000000000c1", // cluster
        "0000019ca6b1dc00",                 // wall clock
        "00000000000000000002f1e9",         // nonce
        "67af577e26192c",                   // ciphertext, as another implementation of both algorithms gives it
        "abeee3aa0c2caa79931fddf7bbc59493", // tag
    ];
    assert_eq!(hex(&datagram), fields.concat());
}

#[tokio::test(start_paused = true)]
async fn what_was_sealed_opens_once() {
    let clock = VirtualClock::new();
    let (one, other) = (
        sealer(&[KEY], Some(CLUSTER), &clock),
        sealer(&[KEY], Some(CLUSTER), &clock),
    );
    let long = vec![3; 60_000];
    for message in [b"".as_slice(), b"m", &long] {
        let datagram = seal(&one, message);
        assert_eq!(other.open(&mut datagram.clone()), Ok(message));
        assert_eq!(other.open(&mut datagram.clone()), Err(Dropped::Replayed));
    }
}

#[tokio::test(start_paused = true)]
async fn clusters_hear_themselves_and_joining_nodes_everybody() {
    let clock = VirtualClock::new();
    let joining = sealer(&[KEY], None, &clock);
    let one = sealer(&[KEY], Some(1), &clock);
    let two = sealer(&[KEY], Some(2), &clock);
    let opens = |from: &Sealer, to: &Sealer| to.open(&mut seal(from, b"m")).map(|_| ());
    assert_eq!(opens(&one, &joining), Ok(()));
    assert_eq!(opens(&two, &joining), Ok(()));
    assert_eq!(opens(&joining, &one), Ok(()));
    assert_eq!(opens(&two, &one), Err(Dropped::OtherCluster));
    joining.adopt(2);
    assert_eq!(opens(&joining, &two), Ok(()));
    assert_eq!(opens(&joining, &one), Err(Dropped::OtherCluster));
    assert_eq!(opens(&one, &joining), Err(Dropped::OtherCluster));
}

#[tokio::test(start_paused = true)]
async fn every_changed_byte_shows() {
    let clock = VirtualClock::new();
    let (from, to) = (
        sealer(&[KEY], Some(CLUSTER), &clock),
        sealer(&[KEY], Some(CLUSTER), &clock),
    );
    let datagram = seal(&from, b"message");
    for at in 0..datagram.len() {
        for bit in [1, 0x80] {
            let mut changed = datagram.clone();
            changed[at] ^= bit;
            assert!(to.open(&mut changed).is_err(), "byte {at}");
        }
        assert!(to.open(&mut datagram[..at].to_vec()).is_err());
    }
    assert_eq!(to.remembered(), 0, "what is not genuine is not remembered");
    assert!(to.open(&mut datagram.clone()).is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_time_of_sealing_is_bounded_on_both_sides() {
    let clock = VirtualClock::new();
    let sender_clock = VirtualClock::new();
    let (from, to) = (
        sealer(&[KEY], Some(CLUSTER), &sender_clock),
        sealer(&[KEY], Some(CLUSTER), &clock),
    );
    let edge = i64::try_from(AGE_MS_MAX).expect("it is small");
    for (wrong_ms, expected) in [
        (0, Ok(())),
        (edge, Ok(())),
        (edge + 1, Err(Dropped::Future)),
        (i64::MAX, Err(Dropped::Future)),
        (-edge, Ok(())),
        (-edge - 1, Err(Dropped::Stale)),
        (i64::MIN, Err(Dropped::Stale)),
    ] {
        sender_clock.wrong_ms.store(wrong_ms, Ordering::Relaxed);
        assert_eq!(to.open(&mut seal(&from, b"m")).map(|_| ()), expected, "{wrong_ms}");
    }
}

#[test]
fn keys_are_checked_and_never_shown() {
    let clock = Arc::new(crate::clock::SystemClock::default());
    let refused = |keys: &[[u8; 32]]| Sealer::new(keys, None, clock.clone(), CountingEntropy::from(1)).err();
    assert_eq!(refused(&[]), Some(KeysError::None));
    assert_eq!(
        refused(&[[1; 32], KEY, KEY]),
        Some(KeysError::SameId { first: 2, second: 3 })
    );
    let shown = Sealer::new(&[KEY], None, clock.clone(), CountingEntropy::from(1));
    assert_eq!(format!("{:?}", shown.expect("one key")), "Sealer(1 keys, not shown)");
}

fn nonce(number: usize) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&(number as u64).to_be_bytes());
    nonce
}

#[test]
fn the_memory_of_datagrams_is_bounded_and_forgets_nothing_acceptable() {
    let mut replays = Replays::default();
    let now_ms = 1_000_000;
    for number in 0..REMEMBERED_MAX + 100 {
        let sealed_ms = now_ms + number as u64 / 100;
        assert_eq!(replays.check(now_ms, sealed_ms, nonce(number)), Ok(()));
        assert!(replays.remember(now_ms, sealed_ms, nonce(number)));
    }
    assert_eq!(replays.len(), REMEMBERED_MAX);
    for number in 0..REMEMBERED_MAX + 100 {
        let sealed_ms = now_ms + number as u64 / 100;
        assert!(replays.check(now_ms, sealed_ms, nonce(number)).is_err(), "{number}");
    }
    // As old as what was forgotten, although never seen.
    assert_eq!(replays.check(now_ms, now_ms, nonce(usize::MAX)), Err(Dropped::Stale));
    // With time everything is forgotten, and refused for its age.
    let later_ms = now_ms + 10 * AGE_MS_MAX;
    assert_eq!(replays.check(later_ms, now_ms, nonce(1)), Err(Dropped::Stale));
    assert!(replays.remember(later_ms, later_ms, nonce(1)));
    assert_eq!(replays.len(), 1);
}

#[test]
fn a_clock_that_was_set_back_does_not_deafen() {
    let mut replays = Replays::default();
    let (ahead_ms, now_ms) = (9_000_000, 1_000_000);
    for number in 0..=REMEMBERED_MAX {
        replays.remember(ahead_ms, ahead_ms, nonce(number));
    }
    assert_eq!(
        replays.check(ahead_ms, ahead_ms, nonce(usize::MAX)),
        Err(Dropped::Stale)
    );
    assert_eq!(replays.check(now_ms, now_ms, nonce(1)), Ok(()));
    assert!(replays.remember(now_ms, now_ms, nonce(1)));
    assert_eq!(replays.check(now_ms, now_ms, nonce(1)), Err(Dropped::Replayed));
    assert_eq!(replays.len(), 1);
}

proptest! {
    #[test]
    fn any_bytes_are_dropped_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), is_dressed: bool) {
        let clock = Arc::new(crate::clock::SystemClock::default());
        let sealer = Sealer::new(&[KEY], Some(CLUSTER), clock, CountingEntropy::from(1)).expect("one key");
        let mut datagram = bytes;
        if is_dressed {
            // With a good header, so that the rest is looked at.
            let mut header = Vec::new();
            sealer.seal(b"", &mut header);
            header.truncate(32);
            header.extend(&datagram);
            datagram = header;
        }
        prop_assert!(sealer.open(&mut datagram).is_err());
    }

    #[test]
    fn any_message_survives_the_seal(message in prop::collection::vec(any::<u8>(), 0..300)) {
        let clock = Arc::new(crate::clock::SystemClock::default());
        let sealer = Sealer::new(&[KEY], None, clock, CountingEntropy::from(1)).expect("one key");
        let mut datagram = Vec::new();
        sealer.seal(&message, &mut datagram);
        prop_assert_eq!(sealer.open(&mut datagram), Ok(message.as_slice()));
    }
}
