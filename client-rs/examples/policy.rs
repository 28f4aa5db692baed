//! How safe a write is, decided for each: all copies, most of them, or one; and
//! how many copies there are to be.

mod support;

use rampuddle_client::{Client, PutOptions, PutReport, WritePolicy};
use support::{Cluster, Done, pattern};

/// What a program may want of its objects.
enum Kind {
    /// Cannot be had again soon: every member keeps it, and most must have it.
    Precious,
    /// As the cluster is set up.
    Usual,
    /// Can be made again at once: the first copy is enough.
    Scratch,
}

impl Kind {
    fn options(&self) -> PutOptions {
        let mut options = PutOptions::default();
        match self {
            Self::Precious => {
                options.replicas = Some(255);
                options.write = Some(WritePolicy::Quorum);
            }
            Self::Usual => {}
            Self::Scratch => options.write = Some(WritePolicy::One),
        }
        options
    }
}

fn tell(what: &str, report: &PutReport) {
    let PutReport { copies, wanted, needed, .. } = report;
    println!("{what}: {copies} of {wanted} copies, {needed} needed, short: {}", report.is_short());
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Done {
    let cluster = Cluster::start(3)?;
    let client = Client::connect(cluster.options()?).await?;
    let kinds = [("precious", Kind::Precious), ("usual", Kind::Usual), ("scratch", Kind::Scratch)];
    for (name, kind) in kinds {
        let object = pattern(5_000_000, 1);
        let report = client.put(name.as_bytes(), object, &kind.options()).await?;
        tell(name, &report);
        // Short is no error: the object is there, and the caller decides.
        if report.is_short() {
            eprintln!("{name} would be put again when more servers are up");
        }
    }
    for name in ["precious", "usual", "scratch"] {
        client.delete(name.as_bytes()).await?;
    }
    Ok(())
}
