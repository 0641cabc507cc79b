//! The stored bytes of a task's spec and state: one version byte, then the postcard of a frozen struct.
//!
//! Owns the value layouts; the key layouts are `store/key.rs`. Stored structs are never changed: a new field is a new
//! version with a conversion from the old one. Golden-bytes tests hold every version.

use serde::{Deserialize, Serialize};

use crate::core::target::Target;
use crate::core::task::{Claim, Delivery, Life, OpenFire, Outcome, Schedule, TaskSpec, TaskState};
use crate::id::TaskId;

const SPEC_V1: u8 = 1;
const SPEC_V2: u8 = 2;
const STATE_V1: u8 = 1;
const STATE_V2: u8 = 2;

/// Stored bytes that are not what this release writes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The version byte is newer than this release, or the value is empty.
    #[error("{what}: version {version} is unknown to this release; start a newer one")]
    Version {
        /// Which record.
        what: &'static str,
        /// The version byte found.
        version: u8,
    },
    /// The bytes do not decode, or have bytes left over.
    #[error("{what}: the stored bytes do not decode ({reason}); the record is damaged")]
    Damaged {
        /// Which record.
        what: &'static str,
        /// What the decoder said.
        reason: String,
    },
}

#[derive(Serialize, Deserialize)]
struct SpecV1<'a> {
    id: TaskId,
    schedule: Schedule,
    #[serde(borrow)]
    url: &'a str,
    #[serde(borrow, serialize_with = "raw_bytes")]
    body: &'a [u8],
    created_ms: u64,
}

/// Written only where [`SpecV1`] cannot say it, so that a release that knows that alone reads all else.
#[derive(Serialize, Deserialize)]
struct SpecV2<'a> {
    #[serde(borrow)]
    first: SpecV1<'a>,
    delivery: Delivery,
    revision: u32,
}

#[derive(Serialize, Deserialize)]
struct StateV1 {
    target: Target,
    revision: u32,
    life: Life,
    next_due_ms: Option<u64>,
    dues_past: u64,
    delivered: u64,
    failed: u64,
    skipped: u64,
    cancelled: u64,
    repeated: u64,
    open: Vec<OpenFire>,
    outcomes: Vec<Outcome>,
    expire_ms: Option<u64>,
}

/// Written only while there is a claim.
#[derive(Serialize, Deserialize)]
struct StateV2 {
    first: StateV1,
    claim: Option<Claim>,
}

/// Writes a byte slice as one block: serde's own way for slices goes byte by byte.
pub(crate) fn raw_bytes<S: serde::Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

/// Encodes a spec.
pub fn encode_spec(spec: &TaskSpec) -> Vec<u8> {
    let record = SpecV1 {
        id: spec.id.clone(),
        schedule: spec.schedule.clone(),
        url: &spec.url,
        body: &spec.body,
        created_ms: spec.created_ms,
    };
    if (spec.delivery, spec.revision) == (Delivery::AtLeastOnce, 1) {
        return versioned(SPEC_V1, &record);
    }
    let record = SpecV2 {
        first: record,
        delivery: spec.delivery,
        revision: spec.revision,
    };
    versioned(SPEC_V2, &record)
}

/// Whether a release that knows the first version of specs alone cannot read these bytes.
pub fn is_new_spec(bytes: &[u8]) -> bool {
    bytes.first() != Some(&SPEC_V1)
}

/// Decodes a spec.
pub fn decode_spec(bytes: &[u8]) -> Result<TaskSpec, RecordError> {
    let SpecV2 {
        first: record,
        delivery,
        revision,
    } = match bytes.first() {
        Some(&SPEC_V2) => decode("task spec", SPEC_V2, bytes)?,
        _ => SpecV2 {
            first: decode("task spec", SPEC_V1, bytes)?,
            delivery: Delivery::AtLeastOnce,
            revision: 1,
        },
    };
    Ok(TaskSpec {
        id: record.id,
        schedule: record.schedule,
        url: record.url.to_owned(),
        body: record.body.to_vec(),
        created_ms: record.created_ms,
        delivery,
        revision,
    })
}

/// Encodes a state.
pub fn encode_state(state: &TaskState) -> Vec<u8> {
    let record = StateV1 {
        target: state.target,
        revision: state.revision,
        life: state.life,
        next_due_ms: state.next_due_ms,
        dues_past: state.dues_past,
        delivered: state.delivered,
        failed: state.failed,
        skipped: state.skipped,
        cancelled: state.cancelled,
        repeated: state.repeated,
        open: state.open.clone(),
        outcomes: state.outcomes.clone(),
        expire_ms: state.expire_ms,
    };
    if state.claim.is_none() {
        return versioned(STATE_V1, &record);
    }
    let record = StateV2 {
        first: record,
        claim: state.claim,
    };
    versioned(STATE_V2, &record)
}

/// Decodes a state.
pub fn decode_state(bytes: &[u8]) -> Result<TaskState, RecordError> {
    let StateV2 { first: record, claim } = match bytes.first() {
        Some(&STATE_V2) => decode("task state", STATE_V2, bytes)?,
        _ => StateV2 {
            first: decode("task state", STATE_V1, bytes)?,
            claim: None,
        },
    };
    Ok(TaskState {
        target: record.target,
        revision: record.revision,
        life: record.life,
        next_due_ms: record.next_due_ms,
        dues_past: record.dues_past,
        delivered: record.delivered,
        failed: record.failed,
        skipped: record.skipped,
        cancelled: record.cancelled,
        repeated: record.repeated,
        open: record.open,
        claim,
        outcomes: record.outcomes,
        expire_ms: record.expire_ms,
    })
}

/// One version byte, then the postcard of `record`.
pub fn versioned<T: Serialize>(version: u8, record: &T) -> Vec<u8> {
    postcard::to_extend(record, vec![version]).expect("plain structs encode into memory")
}

/// Undoes [`versioned`]: refuses another version, damage, and bytes left over.
pub fn decode<'a, T: Deserialize<'a>>(what: &'static str, version: u8, bytes: &'a [u8]) -> Result<T, RecordError> {
    let (found, rest) = bytes.split_first().ok_or(RecordError::Version { what, version: 0 })?;
    if *found != version {
        return Err(RecordError::Version { what, version: *found });
    }
    let damaged = |reason: String| RecordError::Damaged { what, reason };
    let (record, left) = postcard::take_from_bytes(rest).map_err(|e| damaged(e.to_string()))?;
    if left.is_empty() {
        Ok(record)
    } else {
        Err(damaged(format!("{} bytes left over", left.len())))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::core::reason::{NoAnswer, Reason};
    use crate::core::task::Verdict;

    fn spec() -> TaskSpec {
        TaskSpec {
            id: TaskId::parse("order-1").expect("valid"),
            schedule: Schedule::Cron {
                expression: "0 1 * * *".into(),
                timezone: "UTC".into(),
            },
            url: "http://a/".into(),
            body: b"{\"n\":1}".to_vec(),
            created_ms: 1_772_323_200_000,
            delivery: Delivery::AtLeastOnce,
            revision: 1,
        }
    }

    fn updated() -> TaskSpec {
        TaskSpec {
            delivery: Delivery::AtMostOnce,
            revision: 300,
            ..spec()
        }
    }

    fn claimed() -> TaskState {
        let claim = Claim {
            due_ms: 5,
            run: 6,
            generation: 300,
            at_ms: 7,
            attempts: 2,
        };
        TaskState {
            claim: Some(claim),
            ..state()
        }
    }

    fn state() -> TaskState {
        TaskState {
            open: vec![OpenFire {
                due_ms: 5,
                run: 1,
                attempts: 2,
                retry_ms: 9,
                reason: Reason::None(NoAnswer::Dns),
                is_sent: false,
            }],
            outcomes: vec![Outcome {
                due_ms: 1,
                count: 1,
                attempts: 3,
                verdict: Verdict::Failed,
                reason: Reason::Http(500),
                is_sent: true,
                at_ms: 4,
            }],
            ..TaskState::new(1_772_323_200_000, Target([0xb0; 16]))
        }
    }

    #[test]
    fn stored_bytes_are_frozen() {
        let hex = |bytes: Vec<u8>| bytes.iter().fold(String::new(), |text, b| text + &format!("{b:02x}"));
        assert_eq!(
            hex(encode_spec(&spec())),
            "01076f726465722d310109302031202a202a202a03555443\
             09687474703a2f2f612f077b226e223a317d80b8c7b5ca33"
        );
        assert_eq!(
            hex(encode_state(&state())),
            "01b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b001000180b8c7b5ca330000000000000105010209010100\
             010101030100f403010400"
        );
        let first = |bytes| hex(bytes)[2..].to_owned();
        assert_eq!(
            hex(encode_spec(&updated())),
            format!("02{}01ac02", first(encode_spec(&spec())))
        );
        assert_eq!(
            hex(encode_state(&claimed())),
            format!("02{}010506ac020702", first(encode_state(&state())))
        );
    }

    #[test]
    fn records_come_back() {
        for spec in [spec(), updated()] {
            assert_eq!(decode_spec(&encode_spec(&spec)), Ok(spec));
        }
        for state in [state(), claimed()] {
            assert_eq!(decode_state(&encode_state(&state)), Ok(state));
        }
    }

    #[test]
    fn another_version_and_bytes_left_over_are_refused() {
        let mut bytes = encode_state(&state());
        bytes.push(0);
        assert!(matches!(decode_state(&bytes), Err(RecordError::Damaged { .. })));
        bytes[0] = 9;
        assert_eq!(
            decode_state(&bytes),
            Err(RecordError::Version {
                what: "task state",
                version: 9
            })
        );
        assert!(decode_spec(&[]).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (decode_spec(&bytes), decode_state(&bytes));
        }
    }
}
