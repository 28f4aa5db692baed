//! Many readers of one object at once, as when a job starts on many machines:
//! each reads its pieces in an order of its own, so that all servers give at
//! once. Memory is the readers' own, and used again for the next read.

mod support;

use std::collections::BTreeMap;

use rampuddle_client::{Client, GetOptions, PutOptions};
use support::{Cluster, Done, pattern};

const NAME: &[u8] = b"examples/readers";
const BYTES: usize = 20 << 20;
const READERS: usize = 6;
const ROUNDS: usize = 2;

#[tokio::main]
async fn main() -> Done {
    let cluster = Cluster::start(3)?;
    let client = Client::connect(cluster.options()?).await?;
    let object = pattern(BYTES, 9);
    client.put(NAME, object.clone(), &PutOptions::default()).await?;
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..READERS {
        // Clones share connections; readers on other machines have their own.
        let (client, object) = (client.clone(), object.clone());
        readers.spawn(async move {
            let (mut buffer, mut served) = (vec![0; BYTES], BTreeMap::<String, u64>::new());
            for _ in 0..ROUNDS {
                let read = client.get_into(NAME, &mut buffer, &GetOptions::default()).await?;
                let report = read.expect("it was just written");
                assert!(buffer == object, "every byte is compared with its checksum, and right");
                for (server, bytes) in report.served {
                    *served.entry(server).or_default() += bytes;
                }
            }
            Ok::<_, rampuddle_client::Error>(served)
        });
    }
    let mut served = BTreeMap::<String, u64>::new();
    while let Some(reader) = readers.join_next().await {
        for (server, bytes) in reader?? {
            *served.entry(server).or_default() += bytes;
        }
    }
    let whole: u64 = served.values().sum();
    println!("{READERS} readers read {} MiB from {} servers", whole >> 20, served.len());
    client.delete(NAME).await?;
    Ok(())
}
