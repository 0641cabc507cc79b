//! Power cuts of the product's own file code: log, identity, spools, and the state on fjall. Of what a process wrote, only what it has
//! synced is left - each file as it was at its last sync, each directory with the names it had at its own - and all that was
//! acknowledged must be in it.
//!
//! Unlike its neighbours this calls the library: a process of this test's program does the work, with `power/shim.c` before the C
//! library, and is killed at a random moment. Stricter than any file system: ext4 syncs names of files that are synced, so a
//! forgotten sync of a directory is seen on few disks, and here always.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use rand::RngExt;
use xcron::clock::SystemClock;
use xcron::id::{GroupCount, GroupId};
use xcron::identity::{DataDirectory, Home, Identity, Stage};
use xcron::store::fjall_kv::FjallKv;
use xcron::store::key::Table;
use xcron::store::kv::{Kv, ReadKv, Write};
use xcron::store::{DirSpools, Spools};
use xcron::wal::{self, Wal, WalError};

use crate::harness::{namespace, random, shim};

const NAME: &str = "power::what_was_acknowledged_survives_a_power_cut";
/// Set in the process whose power is cut.
const WORKING: &str = "POWER_WORKING";
/// Cuts, each of a process of its own, and the most acknowledgements that are awaited before one.
const CUTS: usize = 5;
const ACKNOWLEDGED_MAX: u64 = 300;
const LOG_GROUP: u16 = 1;
const SEGMENT_BYTES: u64 = 128 << 10;
const CACHE_BYTES: u64 = 8 << 20;
const TABLES_OPEN_MAX: u32 = 900;

#[derive(Debug)]
struct Unobserved;

impl wal::Observe for Unobserved {
    fn synced(&self, _: u64, _: usize, _: usize, _: Duration) {}
}

/// Something of this length that the number decides.
fn content(number: u64, bytes: usize) -> Vec<u8> {
    let seed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
    seed.iter().copied().cycle().take(bytes).collect()
}

fn entry(number: u64) -> Bytes {
    Bytes::from(content(
        number,
        2_000 + usize::try_from(number % 7).expect("small") * 900,
    ))
}

fn row(number: u64) -> Write {
    Write {
        table: Table::State,
        key: number.to_be_bytes().to_vec(),
        value: Some(content(number, 60_000)),
    }
}

fn piece(number: u64, at: u64) -> Vec<u8> {
    content(number * 10 + at, 30_000)
}

fn open_log(data: &DataDirectory) -> (Wal, wal::Writer) {
    let files = Arc::new(data.open_log().expect("free"));
    let options = wal::Options {
        new_log_id: 7,
        segment_bytes: SEGMENT_BYTES,
        ..wal::Options::default()
    };
    wal::open(files, options, Arc::new(SystemClock::default()), Arc::new(Unobserved)).expect("an undamaged log")
}

/// Waits until what is handed over with the callback is durable.
fn durable(submit: impl FnOnce(wal::Done)) {
    let (done, is_done) = mpsc::channel::<Result<(), WalError>>();
    submit(Box::new(move |result| done.send(result).expect("awaited")));
    is_done.recv().expect("answered").expect("the disk takes it");
}

/// The process whose power is cut: writes all that a node writes, and says what is acknowledged, until it is killed.
fn work(directory: &Path) {
    let data = DataDirectory::open(directory).expect("free");
    let groups = GroupCount::new(32).expect("a divisor");
    let mut identity = Identity::joining(9, 0, groups);
    data.keep(&identity).expect("there is room");
    let (log, writer) = open_log(&data);
    std::thread::spawn(move || writer.run());
    let kv = FjallKv::open(&data.state(), CACHE_BYTES, TABLES_OPEN_MAX).expect("an empty store");
    let spools = data.open_spools().expect("free");
    identity.stage = Stage::Settled;
    data.keep(&identity).expect("there is room");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("no driver");
    for number in 1.. {
        durable(|done| log.append(LOG_GROUP, number, vec![entry(number)], done));
        println!("ACK log {number}");
        kv.commit(vec![row(number)]).expect("there is room");
        if number % 9 == 0 {
            runtime.block_on(async { kv.persist().await }).expect("there is room");
            println!("ACK state {number}");
        }
        if number % 11 == 0 {
            identity.cluster = number.into();
            data.keep(&identity).expect("there is room");
            println!("ACK identity {number}");
        }
        if number % 13 == 0 {
            spool(&spools, number);
            println!("ACK spool {number}");
        }
        if number % 40 == 0 {
            durable(|done| log.purge(LOG_GROUP, number - 30, Bytes::from_static(b"mark"), done));
        }
    }
}

fn spool(spools: &DirSpools, number: u64) {
    let group = group_of(number);
    spools.begin(group).expect("there is room");
    for at in 0..3 {
        spools.add(group, &piece(number, at)).expect("there is room");
    }
    spools.sync(group).expect("there is room");
}

fn group_of(number: u64) -> GroupId {
    GroupId(u16::try_from(number % 32).expect("small"))
}

/// What a power cut leaves: names as of the last sync of their directory, content as of the last sync of the file.
fn leave(shadow: &Path, directory: &str, to: &Path) {
    fs::create_dir_all(to).expect("a fresh directory");
    // One that was never synced has no names.
    let names = fs::read_to_string(shadow.join(directory)).unwrap_or_default();
    for line in names.lines() {
        let (file, name) = line.split_once(' ').expect("two words");
        if file.starts_with('d') {
            leave(shadow, file, &to.join(name));
        } else if fs::copy(shadow.join(file), to.join(name)).is_err() {
            fs::write(to.join(name), []).expect("a file that was never synced is empty");
        }
    }
}

/// Whatever was acknowledged, by its kind: numbers in order.
type Acknowledged = BTreeMap<String, Vec<u64>>;

/// Runs a process until so many acknowledgements came, and cuts it off.
fn cut(shim: &Path, data: &Path, shadow: &Path, after: u64) -> Acknowledged {
    let program = std::env::current_exe().expect("a test knows its program");
    let mut child = Command::new(program)
        .args(["--exact", NAME, "--nocapture"])
        .env("LD_PRELOAD", shim)
        .env("POWER_DIR", data)
        .env("POWER_SHADOW", shadow)
        .env(WORKING, "1")
        .stdout(Stdio::piped())
        .spawn()
        .expect("this program can be run");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let (mut acknowledged, mut count) = (Acknowledged::new(), 0);
    while let Some(Ok(line)) = lines.next() {
        let mut words = line.split_whitespace().skip_while(|word| *word != "ACK").skip(1);
        let (Some(kind), Some(number)) = (words.next(), words.next()) else {
            continue;
        };
        // The last line may be cut: its number is that of a shorter word then, which was acknowledged as well.
        let number = number.parse().expect("a number");
        acknowledged.entry(kind.to_owned()).or_default().push(number);
        count += 1;
        if count == after {
            child.kill().expect("it runs");
        }
    }
    child.wait().expect("it is our child");
    assert!(
        count >= after,
        "the process ended by itself after {count} acknowledgements"
    );
    acknowledged
}

fn last_of(acknowledged: &Acknowledged, kind: &str) -> u64 {
    acknowledged
        .get(kind)
        .and_then(|numbers| numbers.last())
        .copied()
        .unwrap_or(0)
}

fn expect_all_there(directory: &Path, acknowledged: &Acknowledged) {
    let data = DataDirectory::open(directory).expect("free");
    let identity = data.identity().expect("undamaged").expect("kept before anything else");
    assert!(
        identity.cluster >= last_of(acknowledged, "identity").into(),
        "{identity:?}"
    );
    let (log, _writer) = open_log(&data);
    let (first, last) = (
        log.group(LOG_GROUP).first_index.unwrap_or(1),
        last_of(acknowledged, "log"),
    );
    let entries = log.read(LOG_GROUP, first, last + 1, usize::MAX).expect("undamaged");
    assert_eq!(entries.len() as u64, last + 1 - first, "entries from {first} to {last}");
    for (number, found) in (first..).zip(entries) {
        assert!(found == entry(number), "entry {number}");
    }
    let kv = FjallKv::open(&data.state(), CACHE_BYTES, TABLES_OPEN_MAX).expect("undamaged");
    for number in 1..=last_of(acknowledged, "state") {
        let found = kv.get(Table::State, &number.to_be_bytes()).expect("readable");
        assert!(found.map(Vec::from) == row(number).value, "row {number}");
    }
    let spools = data.open_spools().expect("free");
    for number in acknowledged.get("spool").into_iter().flatten() {
        let pieces = spools.read(group_of(*number)).expect("readable");
        let pieces = pieces.unwrap_or_else(|| panic!("spool {number} is gone"));
        let pieces: Vec<Bytes> = pieces.collect::<Result<_, _>>().expect("whole");
        let expected: Vec<_> = (0..3).map(|at| piece(*number, at)).collect();
        assert!(pieces == expected, "spool {number}: {} pieces", pieces.len());
    }
}

#[test]
fn what_was_acknowledged_survives_a_power_cut() {
    if std::env::var_os(WORKING).is_some() {
        return work(Path::new(&std::env::var_os("POWER_DIR").expect("set with it")));
    }
    let place = tempfile::tempdir().expect("a temporary directory");
    let root = place.path().canonicalize().expect("there");
    let Some(shim) = shim::build("power/shim.c", &root) else {
        return namespace::not_run(NAME, "needs a C compiler (cc)");
    };
    let mut random = random(1);
    for number in 0..CUTS {
        let [data, shadow, left] = ["data", "shadow", "left"].map(|name| root.join(format!("{name}-{number}")));
        for directory in [&data, &shadow] {
            fs::create_dir(directory).expect("a fresh directory");
        }
        let after = random.random_range(1..=ACKNOWLEDGED_MAX);
        let acknowledged = cut(&shim, &data, &shadow, after);
        println!(
            "cut {number} after {after}: {:?}",
            acknowledged
                .iter()
                .map(|(kind, all)| (kind, all.len()))
                .collect::<Vec<_>>()
        );
        leave(&shadow, &name_in_shadow(&data, &shadow), &left);
        expect_all_there(&left, &acknowledged);
        for directory in [&data, &shadow, &left] {
            fs::remove_dir_all(directory).expect("ours");
        }
    }
}

/// The name that the shim gives to the directory itself.
fn name_in_shadow(data: &Path, shadow: &Path) -> String {
    use std::os::unix::fs::MetadataExt;
    let prefix = format!("d-{}-", fs::metadata(data).expect("there").ino());
    let mut names = fs::read_dir(shadow)
        .expect("there")
        .map(|file| file.expect("readable").file_name());
    let found = names.find_map(|name| {
        name.into_string()
            .ok()
            .filter(|name| name.starts_with(&prefix) && !name.contains('.'))
    });
    found.unwrap_or_else(|| panic!("the directory was never synced: no {prefix}* is left"))
}
