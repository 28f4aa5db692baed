//! Parts of a large file, as a model is loaded: a file in the manner of
//! safetensors begins with the length of a JSON header, the header says where
//! each tensor lies, and a reader takes only what it wants.

mod support;

use std::collections::BTreeMap;
use std::ops::Range;

use rampuddle_client::{Client, GetOptions, PutOptions};
use serde_json::{Value as Json, json};
use support::{Cluster, Done, pattern};

const NAME: &[u8] = b"models/tiny.tensors";

/// Names and lengths of what the file holds.
const TENSORS: [(&str, usize); 4] = [
    ("embedding", 6_000_000),
    ("layer.0.weight", 3_000_000),
    ("layer.1.weight", 3_000_000),
    ("output", 100_000),
];

/// The file: 8 bytes of length, the header, the tensors one after the other.
fn file() -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (salt, (name, bytes)) in (1..).zip(TENSORS) {
        let begin = data.len();
        data.extend(pattern(bytes, salt));
        let entry = json!({
            "dtype": "U8", "shape": [bytes], "data_offsets": [begin, data.len()],
        });
        header.insert(name.to_owned(), entry);
    }
    let header = Json::Object(header).to_string().into_bytes();
    [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat()
}

/// Where each tensor lies in the file. Two small reads, whatever its length.
async fn index(
    client: &Client,
) -> Result<BTreeMap<String, Range<u64>>, Box<dyn std::error::Error>> {
    let options = GetOptions::default();
    let length = client.get_range(NAME, 0..8, &options).await?.ok_or("no such file")?;
    let length = u64::from_le_bytes(length.into_bytes()[..].try_into()?);
    let header = client.get_range(NAME, 8..8 + length, &options).await?.ok_or("it is gone")?;
    let header: BTreeMap<String, Json> = serde_json::from_slice(&header.into_bytes())?;
    let place = |(name, entry): (String, Json)| {
        let offset = |index: usize| entry["data_offsets"][index].as_u64().ok_or("no offset");
        let begin = 8 + length;
        Ok((name, begin + offset(0)?..begin + offset(1)?))
    };
    header.into_iter().map(place).collect()
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Done {
    let cluster = Cluster::start(3)?;
    let client = Client::connect(cluster.options()?).await?;
    client.put(NAME, file(), &PutOptions::default()).await?;
    let index = index(&client).await?;
    println!("{} tensors", index.len());
    for name in ["layer.1.weight", "output"] {
        let range = index.get(name).ok_or("no such tensor")?.clone();
        let tensor = client.get_range(NAME, range.clone(), &GetOptions::default()).await?;
        let tensor = tensor.ok_or("it is gone")?;
        let salt = TENSORS.iter().position(|(known, _)| *known == name).ok_or("unknown")? + 1;
        assert!(tensor.slices().flatten().eq(&pattern(tensor.len(), salt as u8)));
        println!("{name}: {} bytes from {}", tensor.len(), range.start);
    }
    client.delete(NAME).await?;
    Ok(())
}
