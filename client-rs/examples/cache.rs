//! A cache in front of a slow function: whoever computes a result first leaves
//! it for all others, on any machine.

mod support;

use std::sync::atomic::{AtomicU32, Ordering};

use rampuddle_client::{Client, Error, GetOptions, PutOptions};
use support::{Cluster, Done};

static COMPUTED: AtomicU32 = AtomicU32::new(0);

/// Stands for hours of work.
fn slow(seed: u32) -> Vec<u8> {
    COMPUTED.fetch_add(1, Ordering::Relaxed);
    (0..2_000_000_u32).map(|index| (index.wrapping_mul(seed) >> 7) as u8).collect()
}

/// The result, from the cluster if it is there. A cluster that does not answer
/// costs time, and never the result.
async fn cached(client: &Client, seed: u32) -> Vec<u8> {
    let name = format!("cache/slow/{seed}");
    match client.get(name.as_bytes(), &GetOptions::default()).await {
        Ok(Some(value)) => return value.into_bytes().into(),
        Ok(None) => {}
        // Not known to be there: computing it again is always right.
        Err(error) => eprintln!("the cache is of no use now: {error}"),
    }
    let result = slow(seed);
    // One copy is enough for what can be computed again.
    let mut options = PutOptions::default();
    if !client.view().is_cloned() {
        options.replicas = Some(1);
    }
    if let Err(error) = client.put(name.as_bytes(), result.clone(), &options).await {
        eprintln!("not kept: {error}");
    }
    result
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Done {
    let cluster = Cluster::start(3)?;
    let client = Client::connect(cluster.options()?).await?;
    for seed in 1..=3 {
        forget(&client, seed).await?;
    }
    let mut calls = 0;
    for seed in [1, 2, 1, 3, 2, 1, 3, 3, 1] {
        let result = cached(&client, seed).await;
        assert_eq!(result[9_999], (9_999_u32.wrapping_mul(seed) >> 7) as u8);
        calls += 1;
    }
    println!("{calls} calls, computed {} times", COMPUTED.load(Ordering::Relaxed));
    Ok(())
}

/// So that this example does the same every time.
async fn forget(client: &Client, seed: u32) -> Result<(), Error> {
    client.delete(format!("cache/slow/{seed}").as_bytes()).await.map(|_| ())
}
