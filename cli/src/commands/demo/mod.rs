//! `puddle demo`: the whole story on this machine. Three servers take a large
//! file, four readers read it at once, one server is killed, and the file is
//! read again; every byte is compared with the source.

mod compare;
mod make;
mod steps;

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, bail};
use rampuddle_client::{Client, GetOptions, GetReport, Options, PutOptions};
use rampuddle_protocol::limits::PAGE_BYTES;

use self::compare::Comparing;
use self::steps::{Step, Steps};
use crate::arguments::DemoArguments;
use crate::cluster::{Cluster, Plan};
use crate::commands::get::Served;
use crate::exit::{BeforeAnythingExt as _, Exit, refusal};
use crate::machine;
use crate::output::escape;
use crate::runtime::{block_on, leave};
use crate::settings::Settings;
use crate::signals::EndSignals;
use crate::size::{Size, rounded};

const SERVERS: u16 = 3;
const READERS: usize = 4;
const REPLICAS: u8 = 2;
/// Length of the file that is made up. Odd, so that nothing ends on a border.
const MADE_BYTES: u64 = 1_181_116_007;
/// Room in each pool besides its share of the file.
const POOL_SLACK_BYTES: u64 = 64 << 20;

/// Tells the story. Ctrl-C ends it at any moment, and nothing stays behind.
pub(crate) fn run(settings: &Settings, given: &DemoArguments) -> anyhow::Result<Exit> {
    let story = Story::plan(settings, given)?;
    block_on(async {
        let mut signals = EndSignals::new()?;
        tokio::select! {
            told = story.tell() => told,
            () = signals.next() => bail!("interrupted; servers and files are removed"),
        }
    })
}

struct Story<'s> {
    settings: &'s Settings,
    /// `None` = make one up.
    file: Option<PathBuf>,
    bytes: u64,
    replicas: u8,
    pool: Size,
}

impl<'s> Story<'s> {
    /// Looks whether file, memory and disk are there.
    fn plan(settings: &'s Settings, given: &DemoArguments) -> anyhow::Result<Self> {
        let file = given.file.as_deref().map(checked_file).transpose()?;
        let bytes = file.as_ref().map_or(MADE_BYTES, |(_, bytes)| *bytes);
        let replicas = settings.chosen.replicas.unwrap_or(REPLICAS).min(SERVERS as u8);
        if replicas < REPLICAS {
            return Err(refusal("one server is killed: the demo needs --replicas 2 or 3"));
        }
        let pool = pool_size(bytes, replicas);
        let story = Self { settings, file: file.map(|(path, _)| path), bytes, replicas, pool };
        story.check_memory()?;
        if story.file.is_none() {
            story.check_disk()?;
        }
        Ok(story)
    }

    fn servers(&self) -> Plan {
        Plan { servers: SERVERS, pool: self.pool, discovery: None, strategy: None }
    }

    fn check_memory(&self) -> anyhow::Result<()> {
        let told =
            self.servers().check_memory("choose a smaller file, as in `puddle demo FILE`")?;
        self.settings.output.remark(&told);
        Ok(())
    }

    fn check_disk(&self) -> anyhow::Result<()> {
        let folder = std::env::temp_dir();
        let free = machine::free_disk_bytes(&folder).unwrap_or(u64::MAX);
        if free < self.bytes {
            return Err(refusal(format!(
                "the made-up file needs {} in {}, which has {}: set TMPDIR to a folder with more \
                 room, or name a file, as in `puddle demo FILE`",
                rounded(self.bytes),
                folder.display(),
                rounded(free)
            )));
        }
        Ok(())
    }

    /// Dropping the future kills the servers and removes the folder.
    async fn tell(&self) -> anyhow::Result<Exit> {
        let mut steps = Steps::new(self.settings.output);
        let begin = Instant::now();
        let mut cluster = Cluster::start(self.settings, &self.servers()).await?;
        let what = format!("{SERVERS} servers start, {} each", rounded(self.pool.0));
        steps.add(Step::new("start", what, begin))?;

        let file = match &self.file {
            Some(file) => file.clone(),
            None => self.make_file(&cluster, &mut steps).await?,
        };
        let mut options = self.settings.client_options_at(cluster.discovery.clone())?;
        options.replicas = Some(self.replicas);
        self.put(&options, &file, &mut steps).await?;
        let busiest = self.read_in_parallel(&options, &file, &mut steps).await?;

        let begin = Instant::now();
        cluster.kill(&busiest).await?;
        steps.add(Step::new("kill", format!("kill -9 {busiest}"), begin))?;
        let begin = Instant::now();
        let client = Client::connect(options).await?;
        let (report, end) = read_and_compare(client, file, self.bytes).await?;
        let what = format!("get without {busiest}, every byte right");
        steps.add(Step::timed("get-after-kill", what, end - begin).served(&report))?;

        cluster.stop().await?;
        steps.print_table()?;
        Ok(Exit::Done)
    }

    async fn make_file(&self, cluster: &Cluster, steps: &mut Steps) -> anyhow::Result<PathBuf> {
        let begin = Instant::now();
        let path = cluster.folder().join("file");
        make::pseudo_random(&path, self.bytes).await?;
        let what = "make a file of pseudo-random bytes".to_owned();
        steps.add(Step::new("make", what, begin).bytes(self.bytes))?;
        Ok(path)
    }

    async fn put(&self, options: &Options, file: &Path, steps: &mut Steps) -> anyhow::Result<()> {
        let client = Client::connect(options.clone()).await?;
        let begin = Instant::now();
        let source = rampuddle_client::Source::file(file);
        let report = client.put(OBJECT, source, &PutOptions::default()).await?;
        if report.is_short() || report.bytes != self.bytes {
            let (copies, bytes) = (report.copies, report.bytes);
            bail!("the put made {copies} copies of {bytes} bytes, not of {}", self.bytes);
        }
        let (copies, stripes) = (report.copies, report.stripes);
        let what = format!("put, {copies} copies, {stripes} stripes");
        let step = Step::new("put", what, begin).bytes(report.bytes);
        leave(&client).await;
        steps.add(step)
    }

    /// Returns the server that served most.
    async fn read_in_parallel(
        &self,
        options: &Options,
        file: &Path,
        steps: &mut Steps,
    ) -> anyhow::Result<String> {
        // Connected before the clock starts: this is about reading.
        let mut clients = Vec::new();
        for _ in 0..READERS {
            clients.push(Client::connect(options.clone()).await?);
        }
        let begin = Instant::now();
        let start = |client| tokio::spawn(read_and_compare(client, file.into(), self.bytes));
        let readers: Vec<_> = clients.into_iter().map(start).collect();
        let (mut all, mut last) = (GetReport::default(), begin);
        for (number, reader) in (1..).zip(readers) {
            let (report, end) = reader.await.context("a reader panicked")??;
            let what = format!("get by reader {number}, every byte right");
            steps.add(Step::timed("get", what, end - begin).served(&report))?;
            add(&mut all, report);
            last = last.max(end);
        }
        let what = format!("{READERS} readers together");
        steps.add(Step::timed("get-all", what, last - begin).served(&all))?;
        let busiest = Served::all(&all).into_iter().max_by_key(|served| served.bytes);
        Ok(busiest.map_or_else(|| "server-1".to_owned(), |served| served.server))
    }
}

/// What the file is called in the cluster.
const OBJECT: &[u8] = b"demo";

/// Reads the object and compares it with the file; also says when it was done. Leaves the
/// servers before they are stopped: else what the client has under way would complain.
async fn read_and_compare(
    client: Client,
    file: PathBuf,
    bytes: u64,
) -> anyhow::Result<(GetReport, Instant)> {
    let mut comparing = Comparing::open(&file)?;
    let got = client.get_to(OBJECT, &mut comparing, None, &GetOptions::default()).await?;
    let report = got.context("the object is not there")?;
    if comparing.compared_bytes() != bytes || report.bytes != bytes {
        bail!("{} of {bytes} bytes came back", comparing.compared_bytes());
    }
    let end = Instant::now();
    leave(&client).await;
    Ok((report, end))
}

fn add(all: &mut GetReport, report: GetReport) {
    all.bytes += report.bytes;
    for (server, bytes) in report.served {
        match all.served.iter_mut().find(|(known, _)| *known == server) {
            Some((_, sum)) => *sum += bytes,
            None => all.served.push((server, bytes)),
        }
    }
}

fn checked_file(path: &Path) -> anyhow::Result<(PathBuf, u64)> {
    let shown = escape(path.as_os_str().as_bytes());
    let metadata = std::fs::metadata(path);
    let metadata = metadata.with_context(|| format!("cannot read {shown}")).before_anything()?;
    if !metadata.is_file() {
        return Err(refusal(format!("{shown} is not a regular file")));
    }
    Ok((path.to_owned(), metadata.len()))
}

/// A server's share of all copies, some more because shares differ by chance,
/// and room for small things.
fn pool_size(bytes: u64, replicas: u8) -> Size {
    let share = bytes.saturating_mul(u64::from(replicas)) / u64::from(SERVERS);
    let share = if replicas >= SERVERS as u8 { bytes } else { share.saturating_add(share / 8) };
    let pool = share.saturating_add(POOL_SLACK_BYTES);
    Size(pool / PAGE_BYTES * PAGE_BYTES)
}
