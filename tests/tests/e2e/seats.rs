//! Seats are a user's, not a node's.

use rivulet_tests::{nats::Nats, router::Setup};

fn with_devices(nats: &Nats, devices: &str) -> Setup {
    Setup::on(nats).set("limits.devices_per_user", devices)
}

#[tokio::test]
async fn a_v1_newcomer_takes_the_oldest_v1_seat_on_any_node() {
    let nats = Nats::start().await;
    let one = with_devices(&nats, "3").start().await;
    let two = with_devices(&nats, "3").start().await;
    let mut plain = one.plain("ada").ready().await;
    let mut oldest = one.v1("ada").ready().await;
    let mut second = two.v1("ada").ready().await;
    let mut stranger = one.v1("bob").ready().await;
    let mut newcomer = two.v1("ada").ready().await;
    let (code, reason) = oldest.closed().await;
    assert_eq!((code, reason.contains("retry_after")), (4429, false), "{reason}");
    for staying in [&mut plain, &mut second, &mut stranger, &mut newcomer] {
        assert_eq!(staying.drain().await.len(), 0);
    }
    assert_eq!(one.metric("rivulet_seats_yielded_total").await, 1.0);
}

#[tokio::test]
async fn a_plain_newcomer_is_one_too_many_where_the_seats_are_taken_on_another_node() {
    let nats = Nats::start().await;
    let one = with_devices(&nats, "1").start().await;
    let two = with_devices(&nats, "1").start().await;
    let mut seated = one.plain("ada").ready().await;
    let mut newcomer = two.plain("ada").ready().await;
    assert_eq!(newcomer.closed().await.0, 4429);
    assert_eq!(seated.drain().await.len(), 0);
}

#[tokio::test]
async fn a_device_that_comes_again_replaces_its_ghost_on_another_node() {
    let nats = Nats::start().await;
    // Any number of them: it is one socket's owner all the same.
    let one = with_devices(&nats, "0").start().await;
    let two = with_devices(&nats, "0").start().await;
    let mut other = one.plain("ada").query("device", "laptop").ready().await;
    let mut ghost = one.plain("ada").query("device", "phone").ready().await;
    let mut back = two.plain("ada").query("device", "phone").ready().await;
    assert_eq!(ghost.closed().await, (4429, "replaced".into()));
    for staying in [&mut back, &mut other] {
        assert_eq!(staying.drain().await.len(), 0);
    }
}

#[tokio::test]
async fn a_node_that_is_gone_holds_no_seat() {
    let nats = Nats::start().await;
    let one = with_devices(&nats, "1").start().await;
    let two = with_devices(&nats, "1").start().await;
    let three = with_devices(&nats, "1").start().await;
    let _ghost = one.plain("ada").ready().await;
    drop(one);
    let mut alone = two.plain("ada").ready().await;
    // The second is refused, so the first of the two was asked about, and stays.
    assert_eq!(three.plain("ada").ready().await.closed().await.0, 4429);
    assert_eq!(alone.drain().await.len(), 0);
}
