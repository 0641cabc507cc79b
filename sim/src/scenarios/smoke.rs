//! Three nodes, a few tasks of each kind, no fault.

use crate::history::{Task, When};
use crate::stage::Stage;

pub(super) async fn play(stage: Stage) {
    stage.found(3).await;
    stage.sleep_ms(8_000).await;
    let mut client = stage.client(0, 1);
    for number in 0..30 {
        client.turn_to(number % 3);
        let at = stage.now_secs() + 2 + number as u64 % 5;
        let task = Task {
            id: format!("once-{number}"),
            when: When::Once(at),
            url: "http://ok.test/".into(),
            body: format!("{{\"n\":{number}}}"),
            at_most_once: false,
        };
        client.create(task).await;
    }
    stage.sleep_ms(12_000).await;
    for number in 0..30 {
        client.query(&format!("once-{number}")).await;
    }
    stage.fixed(0);
}
