//! One server that says nothing, though it was connected to: others are asked.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::doors::{Doors, bytes, holding, open, until_used};
use rampuddle_client::{Client, GetOptions, PutOptions};
use tokio::sync::Semaphore;

const MIB: usize = 1 << 20;
/// How long the client would wait for a server that moves no byte.
const CLIENT_PATIENCE: Duration = Duration::from_secs(90);

async fn patient(doors: &Doors) -> Client {
    let mut options = doors.options();
    options.patience = CLIENT_PATIENCE;
    Client::connect(options).await.unwrap()
}

#[tokio::test]
async fn an_object_with_two_copies_is_read_at_once_beside_a_silent_server_and_nothing_stays_held() {
    let doors = Doors::start(3, 256 << 20).await;
    for silent in 0..3 {
        let client = patient(&doors).await;
        let content = bytes(12 * MIB, silent as u64);
        client.put(b"o", content.clone(), &PutOptions::default()).await.unwrap();
        client.put(b"small", content[..5_000].to_vec(), &PutOptions::default()).await.unwrap();
        let mut room = vec![0; 12 * MIB];
        let mut read = async |name: &[u8], content: &[u8]| {
            let room = &mut room[..content.len()];
            room.fill(0);
            let report = client.get_into(name, room, &GetOptions::default()).await.unwrap();
            assert!(report.is_some() && room == content);
        };
        // So that there are connections to all.
        read(b"o", &content).await;
        let (came, may_go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        doors.set(holding(move |frame| frame.server == silent, &came, &may_go));
        let began = Instant::now();
        for _ in 0..4 {
            read(b"o", &content).await;
            read(b"small", &content[..5_000]).await;
        }
        assert!(came.available_permits() > 0, "server {silent} was not asked at all");
        assert!(began.elapsed() < CLIENT_PATIENCE / 3, "{:?}", began.elapsed());
        may_go.close();
        doors.set(open());
    }
    // Holds that came late were let go of, too: what is replaced gives way.
    let other = doors.client().await;
    other.put(b"o", "new", &PutOptions::default()).await.unwrap();
    until_used(&other, 4 * 65_536).await;
}
