//! The whole bench against a small server that keeps or breaks the promises it is told to.
//!
//! Asserts what is counted, never how fast anything was.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};

use super::*;
use crate::clock::SystemClock;

/// What the server does with task 0, 1, 2 and so on; those after are treated well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Treat {
    Well,
    Forget,
    CallTooEarly,
    CallTwice,
    CallAsTwoFires,
    SayAnotherDue,
    Refuse(i64),
    RefuseAndCall,
    HangUp,
}

/// A server of the two calls that the bench makes, until it is dropped.
struct FakeNode {
    address: SocketAddr,
    creates: Arc<Mutex<Vec<serde_json::Value>>>,
    _stop: oneshot::Sender<()>,
}

impl FakeNode {
    fn start(plan: &'static [Treat]) -> Self {
        Self::serving(plan, true)
    }

    fn serving(plan: &'static [Treat], keep_alive: bool) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (stop, stopped) = oneshot::channel::<()>();
        let creates = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&creates);
        std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, plan, keep_alive, seen) => {}
                    _ = stopped => {}
                }
            });
        });
        Self {
            address,
            creates,
            _stop: stop,
        }
    }
}

async fn accept(
    listener: TcpListener,
    plan: &'static [Treat],
    keep_alive: bool,
    seen: Arc<Mutex<Vec<serde_json::Value>>>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        let seen = Arc::clone(&seen);
        tokio::spawn(async move {
            let service = service_fn(|request| answer(request, plan, &seen));
            let connection = hyper::server::conn::http1::Builder::new()
                .keep_alive(keep_alive)
                .serve_connection(TokioIo::new(stream), service);
            drop(connection.await);
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    plan: &[Treat],
    seen: &Mutex<Vec<serde_json::Value>>,
) -> Result<Response<Full<Bytes>>, &'static str> {
    let uri = request.uri().clone();
    if let Some(query) = uri.query() {
        let id = query.strip_prefix("task_id=").expect("the only parameter");
        return Ok(envelope(0, id));
    }
    assert_eq!(uri.path(), "/xcron/createTask");
    let body = request
        .into_body()
        .collect()
        .await
        .map_err(|_| "the bench hung up")?
        .to_bytes();
    let create: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    let url = create["callback"]["url"].as_str().expect("a URL").to_owned();
    let due_s: u64 = create["format"].as_str().expect("text").parse().expect("seconds");
    seen.lock().push(create);
    let index: usize = url.rsplit('/').next().expect("a number").parse().expect("a number");
    let treat = plan.get(index).copied().unwrap_or(Treat::Well);
    tokio::spawn(async move { drop(fire(treat, url, due_s).await) });
    match treat {
        Treat::HangUp => Err("hung up as planned"),
        Treat::Refuse(code) => Ok(envelope(code, "-")),
        Treat::RefuseAndCall => Ok(envelope(1005, "-")),
        _ => Ok(envelope(0, &format!("task-{index}"))),
    }
}

fn envelope(code: i64, id: &str) -> Response<Full<Bytes>> {
    let text = match code {
        0 => format!(r#"{{"uuid":"u","code":0,"data":{{"task_id":"{id}"}}}}"#),
        _ => format!(r#"{{"uuid":"u","code":{code},"message":"as planned"}}"#),
    };
    Response::new(Full::new(text.into()))
}

/// Calls back as the treatment demands.
async fn fire(treat: Treat, url: String, due_s: u64) -> anyhow::Result<()> {
    if matches!(treat, Treat::Forget | Treat::HangUp | Treat::Refuse(_)) {
        return Ok(());
    }
    if treat != Treat::CallTooEarly {
        while wall_us() < due_s * 1_000_000 {
            sleep(Duration::from_millis(5)).await;
        }
    }
    let said_s = if treat == Treat::SayAnotherDue {
        due_s + 1
    } else {
        due_s
    };
    call(&url, "fire-1", said_s).await?;
    match treat {
        Treat::CallTwice => call(&url, "fire-1", said_s).await,
        Treat::CallAsTwoFires => call(&url, "fire-2", said_s).await,
        _ => Ok(()),
    }
}

async fn call(url: &str, fire_id: &str, due_s: u64) -> anyhow::Result<()> {
    let url: hyper::Uri = url.parse()?;
    let authority = url.authority().expect("the sink's address").as_str();
    let stream = TcpStream::connect(authority).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let due = jiff::Timestamp::from_second(i64::try_from(due_s)?)?;
    let request = Request::post(url.path())
        .header("host", authority)
        .header("xcron-task-id", "some-task")
        .header("webhook-id", fire_id)
        .header("xcron-due", format!("{due:.3}"))
        .header("xcron-attempt", "1")
        .body(Full::new(Bytes::from("{}")))?;
    assert_eq!(sender.send_request(request).await?.status(), 200);
    Ok(())
}

#[derive(Debug, clap::Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

fn settings(nodes: &[&FakeNode], options: &str) -> Settings {
    let api = nodes.iter().map(|node| format!("--api=http://{}", node.address));
    let words = ["bench".to_owned()]
        .into_iter()
        .chain(api)
        .chain(options.split_whitespace().map(str::to_owned));
    let cli = Cli::try_parse_from(words).expect("valid options");
    Settings::try_from(cli.args).expect("valid options")
}

fn figures_of(settings: &Settings) -> anyhow::Result<Figures> {
    let (_never, receiver) = watch::channel(false);
    figures_until(settings, receiver)
}

fn figures_until(settings: &Settings, interrupt: watch::Receiver<bool>) -> anyhow::Result<Figures> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let clock = Arc::new(SystemClock::default());
    LocalSet::new().block_on(&runtime, measure(settings, clock, Interrupt::following(interrupt)))
}

#[test]
fn an_honest_node_passes_and_is_asked_as_the_wire_says() {
    let node = FakeNode::start(&[]);
    let settings = settings(&[&node], "-n 50 -c 8 --delay 1 --query 20 --no-probes --body-bytes 20");
    let figures = figures_of(&settings).expect("a report");
    assert_eq!(figures.failures(), Vec::<String>::new());
    assert_eq!((figures.creates.acked, figures.creates.not_tried), (50, 0));
    let queries = figures.queries.expect("asked for");
    assert_eq!((queries.found, queries.failed, queries.refused.len()), (20, 0, 0));
    let callbacks = figures.callbacks.expect("waited for");
    assert_eq!(
        (callbacks.called, callbacks.missing, callbacks.early, callbacks.repeated),
        (50, 0, 0, 0)
    );
    assert_eq!((callbacks.strange, callbacks.strange_example), (0, None));
    assert!(callbacks.lateness_ms.is_some());
    let creates = node.creates.lock();
    assert_eq!(creates.len(), 50);
    assert!(creates.iter().all(|create| create["type"] == 2), "{creates:?}");
    assert!(
        creates
            .iter()
            .all(|create| create["callback"]["body"]["pad"] == "xxxxxxxxxx"),
        "{creates:?}"
    );
}

#[test]
fn broken_promises_are_counted_one_by_one() {
    let node = FakeNode::start(&[
        Treat::Forget,
        Treat::CallTooEarly,
        Treat::CallTwice,
        Treat::CallAsTwoFires,
        Treat::SayAnotherDue,
        Treat::Refuse(1003),
        Treat::RefuseAndCall,
        Treat::HangUp,
        Treat::Refuse(1009),
        Treat::Refuse(1009),
        Treat::Forget,
    ]);
    let settings = settings(&[&node], "-n 50 -c 4 --delay 1 --wait 2 --no-probes");
    let figures = figures_of(&settings).expect("a report");
    let creates = &figures.creates;
    assert_eq!((creates.acked, creates.unknown, creates.not_tried), (45, 1, 0));
    assert!(creates.unknown_example.is_some());
    let refused: Vec<_> = creates
        .refused
        .iter()
        .map(|(&code, refusal)| (code, refusal.count))
        .collect();
    assert_eq!(refused, [(1003, 1), (1005, 1), (1009, 2)]);
    let callbacks = figures.callbacks.as_ref().expect("waited for");
    assert_eq!((callbacks.called, callbacks.missing, callbacks.early), (43, 2, 1));
    assert_eq!((callbacks.repeated, callbacks.refired), (2, 1));
    assert_eq!(
        (callbacks.refused_called, callbacks.unknown_called, callbacks.strange),
        (1, 0, 1)
    );
    assert_eq!(figures.failures(), ["callbacks missing: 2", "callbacks early: 1"]);
}

#[test]
fn a_node_that_closes_after_each_answer_loses_no_create() {
    let node = FakeNode::serving(&[], false);
    let figures = figures_of(&settings(&[&node], "-n 50 -c 4 --pending --no-probes")).expect("a report");
    assert_eq!((figures.creates.acked, figures.creates.unknown), (50, 0));
    assert_eq!(node.creates.lock().len(), 50);
}

#[test]
fn pending_tasks_are_spread_over_nodes_and_not_waited_for() {
    let nodes = [FakeNode::start(&[]), FakeNode::start(&[])];
    let settings = settings(&[&nodes[0], &nodes[1]], "-n 50 -c 8 --pending --no-probes");
    let figures = figures_of(&settings).expect("a report");
    assert_eq!((figures.creates.acked, figures.callbacks.is_none()), (50, true));
    assert_eq!(figures.failures(), Vec::<String>::new());
    let taken: Vec<_> = nodes.iter().map(|node| node.creates.lock().len()).collect();
    assert!(taken[0] > 0 && taken[1] > 0 && taken[0] + taken[1] == 50, "{taken:?}");
    let in_a_day = wall_us() / 1_000_000 + 86_000;
    let creates = nodes[1].creates.lock();
    let due = |create: &serde_json::Value| create["format"].as_str().and_then(|due| due.parse::<u64>().ok());
    assert!(creates.iter().all(|create| due(create) > Some(in_a_day)), "{creates:?}");
}

#[test]
fn probes_run_around_the_load_and_leave_no_file() {
    let node = FakeNode::start(&[]);
    let dir = tempfile::tempdir().expect("a directory");
    let options = format!("-n 50 -c 4 --rate 1000 --pending --probe-dir {}", dir.path().display());
    let figures = figures_of(&settings(&[&node], &options)).expect("a report");
    let probes = figures.probes.expect("not switched off");
    assert!(
        probes.before.fdatasyncs_per_s > 0.0 && probes.before.sink_posts_per_s > 0.0,
        "{probes:?}"
    );
    assert!(
        probes.after.is_some_and(|after| after.sink_posts_per_s > 0.0),
        "{probes:?}"
    );
    assert_eq!(std::fs::read_dir(dir.path()).expect("still there").count(), 0);
}

#[test]
fn an_interrupt_ends_the_phases_and_keeps_their_figures() {
    let node = FakeNode::start(&[Treat::Forget]);
    let (interrupt, receiver) = watch::channel(false);
    let settings = settings(&[&node], "-n 50 -c 4 --delay 1 --wait 3600 --no-probes");
    let creates = Arc::clone(&node.creates);
    std::thread::spawn(move || {
        while creates.lock().len() < 50 {
            std::thread::sleep(Duration::from_millis(10));
        }
        std::thread::sleep(Duration::from_millis(200));
        interrupt.send_replace(true);
    });
    let figures = figures_until(&settings, receiver).expect("a report");
    assert!(figures.interrupted);
    assert_eq!(figures.creates.acked, 50);
    assert_eq!(figures.failures(), Vec::<String>::new());
}

#[test]
fn a_node_that_is_not_there_is_named() {
    let node = FakeNode::start(&[]);
    let mut settings = settings(&[&node], "-n 1 --no-probes");
    // A port that was free a moment ago, by the same rule that gives tests theirs.
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    settings.nodes[0].authority = free.expect("a free port").to_string();
    let error = figures_of(&settings).expect_err("nothing listens there").to_string();
    assert!(
        error.contains(&settings.nodes[0].authority) && error.contains("--api"),
        "{error}"
    );
}
