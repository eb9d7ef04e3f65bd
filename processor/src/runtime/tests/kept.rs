//! What the driver uses again from look to look, and what handlers keep of it.
//! Not here: the looks themselves (`look.rs`).

use super::fake::{Fake, message};
use super::look::warm;
use super::*;

#[tokio::test(start_paused = true)]
async fn what_a_handler_keeps_stays_what_it_was() {
    let (fake, log) = (Fake::default(), Log::default());
    let kept = Arc::<Mutex<Vec<(String, Event, crate::Context)>>>::default();
    let keeps = kept.clone();
    let _processor = warm(&fake, &log, settings(), move |event, cx| {
        let told = text(&event);
        assert!(!cx.is_cancelled() && text(cx.event()) == told && cx.attempt() == 1);
        match told.as_bytes()[0] {
            b'c' => keeps.lock().unwrap().push((told, event, cx)),
            b'e' => keeps.lock().unwrap().push((told, event, crate::Context::clone(&cx))),
            // Cancelled for itself alone.
            b'x' => cx.cancellation().cancel(),
            _ => {}
        }
        async { Ok(Verdict::Done) }
    })
    .await;
    let texts = ["c1", "x2", "n3", "x4", "n5", "e6", "n7", "n8", "c9", "c10", "n11"];
    for first in [0, 100] {
        fake.deliver(0, 1, first, texts.iter().map(|text| message(text, text)));
        pass(ms(1)).await;
    }
    assert!(log.all().len() == 22 && log.all().iter().all(|entry| entry.starts_with("driver")));
    let kept = kept.lock().unwrap();
    assert_eq!(kept.len(), 8);
    for (told, event, cx) in kept.iter() {
        assert_eq!(
            (text(event), text(cx.event()), event.key_str()),
            (told.clone(), told.clone(), Some(&**told))
        );
        assert!(cx.event().place() == event.place() && !cx.is_cancelled());
    }
    let positions: Vec<u64> = kept.iter().map(|(_, event, _)| event.place().unwrap().position.1).collect();
    assert_eq!(positions, [0, 5, 8, 9, 100, 105, 108, 109]);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_over_is_let_go_of() {
    let (fake, log) = (Fake::default(), Log::default());
    let _processor = warm(&fake, &log, settings(), |_, _| async { Ok(Verdict::Done) }).await;
    let held: Arc<[u8]> = Arc::from(&b"owned"[..]);
    let payload = bytes::Bytes::from_owner(held.clone());
    let message = ropeway_broker::Message::builder().event_type("e").payload(payload).build();
    fake.deliver(0, 1, 0, [message]);
    pass(ms(1)).await;
    assert_eq!((log.all(), Arc::strong_count(&held)), (vec!["driver: owned".to_owned()], 1));
}
