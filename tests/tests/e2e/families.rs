//! A family of a user's own, written as Rust types: schemars prints its schema.

use rivulet_protocol::{catalog::Catalog, codegen};
use rivulet_tests::{
    nats::Nats,
    publish::Publish,
    router::{Router, Setup},
};
use schemars::{JsonSchema, schema_for};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tempfile::TempDir;

/// What happens to parcels.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data")]
enum ParcelEvent {
    /// A parcel moved.
    #[serde(rename = "parcel.moved")]
    Moved(ParcelMoved),
    /// A parcel is there.
    #[serde(rename = "parcel.delivered")]
    Delivered {
        parcel_id: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        to: Option<String>,
    },
}

/// A parcel moved.
#[derive(Serialize, Deserialize, JsonSchema)]
struct ParcelMoved {
    parcel_id: String,
    place: (f64, f64),
    by: Carrier,
    hops: Vec<Hop>,
    stamps: u64,
}

/// Who carries it.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Carrier {
    /// On foot.
    Foot,
    /// By ship.
    Ship,
}

/// A stop on the way.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Hop {
    /// In a harbour.
    Harbour { name: String },
    /// Anywhere.
    Stop,
}

fn moved() -> Value {
    let event = ParcelEvent::Moved(ParcelMoved {
        parcel_id: "p1".into(),
        place: (50.7, 7.1),
        by: Carrier::Ship,
        hops: vec![Hop::Harbour { name: "Bonn".into() }, Hop::Stop],
        stamps: 3,
    });
    serde_json::to_value(event).unwrap()["data"].take()
}

/// A router that knows this file as the family `parcel`.
async fn router_with(nats: &Nats, family: &Value) -> (Router, TempDir) {
    let families = tempfile::tempdir().unwrap();
    std::fs::write(families.path().join("parcel.json"), family.to_string()).unwrap();
    let setup = Setup::on(nats).set("families", families.path().to_str().unwrap());
    (setup.start().await, families)
}

#[tokio::test]
async fn a_family_of_rust_types_is_validated_and_served() {
    let nats = Nats::start().await;
    let family = schema_for!(ParcelEvent).to_value();
    let (router, _families) = router_with(&nats, &family).await;
    let publish = Publish::on(&nats).await;
    let mut client = router.subscriber("ada", &["parcel.*"]).await;
    let user = [("Rivulet-User", "ada")];

    let mut broken = moved();
    broken["hops"][0] = json!({ "kind": "harbour" });
    for (subject, data) in [
        ("parcel.moved", broken),
        ("parcel.moved", json!({ "parcel_id": "p1" })),
        ("parcel.delivered", json!({ "parcel_id": 1 })),
    ] {
        publish.with_headers(subject, &user, data.to_string()).await;
    }
    for (subject, data) in [
        ("parcel.moved", moved()),
        ("parcel.delivered", json!({ "parcel_id": "p1", "to": null })),
        // No family declares it: it passes as it is.
        ("parcel.lost", json!({ "any": "thing" })),
    ] {
        publish.with_headers(subject, &user, data.to_string()).await;
        // The broken ones came before, and none of them comes.
        assert_eq!(client.expect(subject).await["data"], data);
    }
    let rejected = r#"rivulet_events_rejected_total{rule="schema"}"#;
    assert_eq!(router.metric(rejected).await, 3.0);
    let page = router.admin_page("/metrics").await;
    assert!(
        page.contains(r#"type="parcel.moved""#) && !page.contains("parcel.lost"),
        "{page}"
    );
    let (_, served) = router.get("/schemas/families.json").await;
    assert_eq!(served["parcel"], family);
}

#[tokio::test]
async fn a_command_of_a_family_needs_its_permission() {
    let nats = Nats::start().await;
    let family = json!({ "x-commands": { "send_parcel": {
        "request": { "type": "object", "properties": { "to": { "type": "string" } }, "required": ["to"] },
        "reply": { "type": "object" },
    } } });
    let families = tempfile::tempdir().unwrap();
    std::fs::write(families.path().join("parcel.json"), family.to_string()).unwrap();
    let router = Setup::on(&nats)
        .set("families", families.path().to_str().unwrap())
        .set(
            "roles",
            r#"{ user = { commands = ["send_parcel"] }, guest = { commands = [] } }"#,
        )
        .set("commands.deadline", "100ms")
        .start()
        .await;
    let send = json!({ "type": "send_parcel", "id": "1", "data": { "to": "bob" } });
    let mut ada = router.plain("ada").ready().await;
    ada.send(send.clone()).await;
    assert_eq!(ada.expect("error").await["data"]["code"], "BACKEND_UNAVAILABLE");
    ada.send(json!({ "type": "create_blob", "data": { "content": "c", "schema_id": "s" } }))
        .await;
    assert_eq!(ada.expect("error").await["data"]["code"], "FORBIDDEN");
}

/// The example of the page on families, which is checked to be this text.
#[allow(dead_code, reason = "only its schema is asked for")]
mod documented {
    use schemars::JsonSchema;
    use serde::Serialize;

    #[derive(JsonSchema, Serialize)]
    #[serde(tag = "type", content = "data")]
    pub(super) enum ParcelEvent {
        /// A parcel moved.
        #[serde(rename = "parcel.moved")]
        Moved(ParcelMoved),
        /// A parcel is there.
        #[serde(rename = "parcel.delivered")]
        Delivered(ParcelDelivered),
    }

    #[derive(JsonSchema, Serialize)]
    pub(super) struct ParcelMoved {
        parcel_id: String,
        place: String,
        stops_left: u32,
    }

    #[derive(JsonSchema, Serialize)]
    pub(super) struct ParcelDelivered {
        parcel_id: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        to: Option<String>,
    }
}

#[test]
fn the_documented_rust_types_are_the_documented_schema() {
    let page = include_str!("../../../docs/topics/families.md");
    let block = |language: &str| {
        let (_, rest) = page.split_once(&format!("```{language}\n")).unwrap();
        rest.split_once("```").unwrap().0
    };
    let types = |schema: Value| {
        let mut catalog = Catalog::builtin();
        catalog.add_family("parcel", schema).unwrap();
        codegen::typescript_family(&catalog)
    };
    assert_eq!(
        types(serde_json::from_str(block("json")).unwrap()),
        types(schema_for!(documented::ParcelEvent).to_value())
    );
    let words = |text: &str| {
        text.replace("pub(super) ", "")
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert!(words(include_str!("families.rs")).contains(&words(block("rust"))));
}
