//! Objects that are read where they lie, in the memory of servers on this machine.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rampuddle_client::{Client, Codec, GetOptions, PutOptions, Value};
use rampuddle_harness::{
    Cluster, ClusterOptions, Counts, Pattern, Seeded, Transport, puddle_binary, until,
};
use rampuddle_protocol::{CreateRow, GatherRow, InfoRow, Opcode, RowFlags, Status};

use crate::objects::{bytes, is_soak, used_bytes};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// How long what a dead reader held may stay.
const GONE_WITHIN: Duration = Duration::from_secs(3);

fn cluster(servers: usize, pool_mib: u64) -> Cluster {
    Cluster::with(&ClusterOptions { servers, pool_mib, ..ClusterOptions::default() })
}

fn put_with(cluster: &Cluster, client: &Client, name: &str, salt: u64, length: u64, codec: Codec) {
    let mut options = PutOptions::default();
    options.replicas = Some(1);
    options.codec = codec;
    let put = client.put(name.as_bytes(), bytes(salt, length), &options);
    assert!(!cluster.runtime().block_on(put).expect("the object is written").is_short());
}

fn put(cluster: &Cluster, client: &Client, name: &str, salt: u64, length: u64) {
    put_with(cluster, client, name, salt, length, Codec::None);
}

fn get(cluster: &Cluster, client: &Client, name: &str) -> Value {
    let options = GetOptions::default();
    let value = cluster.runtime().block_on(client.get(name.as_bytes(), &options));
    value.expect("it is read").expect("it is there")
}

fn delete(cluster: &Cluster, client: &Client, name: &str) {
    assert!(cluster.runtime().block_on(client.delete(name.as_bytes())).unwrap().existed);
}

/// Asserts that a value has these bytes, slice by slice.
#[track_caller]
fn assert_bytes(value: &Value, salt: u64, length: u64) {
    assert_eq!(value.len() as u64, length);
    let mut offset = 0;
    for slice in value.slices() {
        assert!(Pattern(salt).bytes(offset, slice.len() as u64) == slice, "from {offset} on");
        offset += slice.len() as u64;
    }
    assert_eq!(offset, length);
}

pub(crate) fn info(cluster: &Cluster, client: &Client) -> Vec<InfoRow> {
    let nodes = cluster.runtime().block_on(client.nodes());
    nodes.iter().filter_map(|node| node.info.as_ref()).map(|info| info.row).collect()
}

pub(crate) fn mapped_pages(cluster: &Cluster, client: &Client) -> u32 {
    info(cluster, client).iter().map(|row| row.mapped_pages).sum()
}

#[test]
fn objects_of_all_lengths_are_read_where_they_lie() {
    let cluster = cluster(1, 128);
    let client = cluster.client();
    let mut counts = Counts::new("objects of all lengths");
    for (salt, length) in
        [0, 1, 5_000, 16 * KIB, 16 * KIB + 1, 64 * KIB, MIB, MIB + 1, 4 * MIB, 21 * MIB + 7]
            .into_iter()
            .enumerate()
    {
        let salt = salt as u64;
        put(&cluster, &client, "o", salt, length);
        let value = get(&cluster, &client, "o");
        // What is small is copied, so that nobody keeps a page for it.
        assert_eq!(value.is_mapped(), length > 16 * KIB, "{length} bytes");
        assert_bytes(&value, salt, length);
        assert_eq!(value.to_vec(), bytes(salt, length));
        let copy = value.clone();
        drop(value);
        let all = copy.into_bytes();
        assert!(all == bytes(salt, length));
        let mut verified = GetOptions::default();
        verified.verify_mapped = true;
        let value = cluster.runtime().block_on(client.get(b"o", &verified)).unwrap().unwrap();
        assert_bytes(&value, salt, length);
        // Into the caller's memory, as a stream, and in ranges.
        let mut into = vec![0; length as usize + 3];
        let options = GetOptions::default();
        let report = cluster.runtime().block_on(client.get_into(b"o", &mut into, &options));
        let report = report.unwrap().unwrap();
        assert!(into[..length as usize] == all[..]);
        assert_eq!(report.mapped, if length > 16 * KIB { length } else { 0 });
        let mut stream = Vec::new();
        let report = cluster.runtime().block_on(client.get_to(b"o", &mut stream, None, &options));
        assert_eq!(report.unwrap().unwrap().bytes, length);
        assert!(stream == all[..]);
        for range in [0..length, length / 3..length / 2, length.saturating_sub(5)..length + 9, 7..7]
        {
            let end = range.end.min(length);
            let wanted = &all[range.start.min(end) as usize..end as usize];
            let work = client.get_range(b"o", range.clone(), &options);
            let value = cluster.runtime().block_on(work).unwrap().unwrap();
            assert!(value.to_vec() == wanted, "{range:?} of {length}");
            let mut stream = Vec::new();
            let work = client.get_to(b"o", &mut stream, Some(range), &options);
            cluster.runtime().block_on(work).unwrap().unwrap();
            assert!(stream == wanted);
            counts.one("ranges");
        }
        counts.one("lengths");
    }
    cluster.runtime().block_on(client.cleaned_up());
    assert_eq!(mapped_pages(&cluster, &client), 0, "all views are gone");
}

#[test]
fn a_view_outlives_what_becomes_of_its_object_and_of_the_client() {
    let cluster = cluster(1, 128);
    let (client, other) = (cluster.client(), cluster.client());
    put(&cluster, &client, "o", 1, 9 * MIB);
    let view = get(&cluster, &client, "o");
    let small =
        cluster.runtime().block_on(client.get_range(b"o", MIB..MIB + 10, &GetOptions::default()));
    let small = small.unwrap().unwrap();
    assert!(view.is_mapped() && small.is_mapped());
    put(&cluster, &other, "o", 2, 9 * MIB);
    let second = get(&cluster, &client, "o");
    delete(&cluster, &other, "o");
    // Everything that is free is written over.
    for salt in 0..4 {
        put(&cluster, &other, "rest", 100 + salt, 40 * MIB);
        assert_bytes(&view, 1, 9 * MIB);
        assert_bytes(&second, 2, 9 * MIB);
        assert_eq!(small.to_vec(), Pattern(1).bytes(MIB, 10));
    }
    delete(&cluster, &other, "rest");
    assert!(used_bytes(&cluster, &other) >= 18 * MIB);
    drop((view, small));
    until("the first object's memory to come back", GONE_WITHIN, || {
        used_bytes(&cluster, &other) < 18 * MIB
    });
    // The client goes before its last view.
    drop(client);
    assert_bytes(&second, 2, 9 * MIB);
    assert_eq!(info(&cluster, &other)[0].mappings, 1, "of the client that is gone");
    drop(second);
    until("all memory to come back", GONE_WITHIN, || {
        let rows = info(&cluster, &other);
        (rows[0].used_bytes, rows[0].mapped_pages, rows[0].mappings) == (0, 0, 0)
    });
}

/// `puddle get NAME -` into a pipe of which nobody reads more than asked for.
struct Reader(Child);

impl Reader {
    fn start(cluster: &Cluster, name: &str) -> Self {
        let mut command = Command::new(puddle_binary());
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("PUDDLE_") {
                command.env_remove(variable);
            }
        }
        command.args(["--discovery", cluster.discovery(), "--cluster", cluster.name()]);
        command.args(["get", name, "-"]).stdin(Stdio::null());
        let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        Self(child.expect("the binary runs"))
    }

    fn read(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.0.stdout.as_mut().expect("piped").read_exact(&mut bytes).expect("bytes");
        bytes
    }

    /// SIGKILL.
    fn kill(mut self) {
        self.0.kill().expect("it is our child");
        self.0.wait().expect("it is our child");
    }
}

#[test]
fn what_a_killed_process_held_is_free_in_three_seconds_and_what_others_hold_stays() {
    let cluster = cluster(1, 128);
    let (client, other) = (cluster.client(), cluster.client());
    put(&cluster, &client, "mine", 1, 9 * MIB);
    put(&cluster, &client, "theirs", 2, 12 * MIB);
    let mine = get(&cluster, &client, "mine");
    let mut readers: Vec<Reader> = (0..3).map(|_| Reader::start(&cluster, "theirs")).collect();
    for reader in &mut readers {
        assert_eq!(reader.read(100_000), Pattern(2).bytes(0, 100_000));
    }
    assert_eq!(info(&cluster, &other)[0].mappings, 4);
    delete(&cluster, &other, "mine");
    delete(&cluster, &other, "theirs");
    let both = used_bytes(&cluster, &other);
    assert!(both >= 21 * MIB, "{both} bytes are kept");
    let last = readers.pop().expect("three of them");
    readers.into_iter().for_each(Reader::kill);
    until("two mappings to end", GONE_WITHIN, || info(&cluster, &other)[0].mappings == 2);
    assert_eq!(used_bytes(&cluster, &other), both, "the third keeps it");
    let began = Instant::now();
    last.kill();
    until("their memory to come back", GONE_WITHIN, || used_bytes(&cluster, &other) < 12 * MIB);
    println!("free {:?} after the kill", began.elapsed());
    assert_bytes(&mine, 1, 9 * MIB);
    assert_eq!(info(&cluster, &other)[0].mappings, 1);
    drop(mine);
    until("all memory to come back", GONE_WITHIN, || used_bytes(&cluster, &other) == 0);
}

#[test]
fn views_outlive_their_server_and_a_restarted_one_is_mapped_anew() {
    let mut cluster = cluster(1, 64);
    let client = cluster.client();
    put(&cluster, &client, "o", 1, 9 * MIB);
    let old = get(&cluster, &client, "o");
    assert!(old.is_mapped());
    cluster.kill(0);
    assert_bytes(&old, 1, 9 * MIB);
    cluster.restart(0);
    cluster.until_alive(1, Duration::from_secs(20));
    // The same memory of the pool, in the new one.
    until("the server to take objects", Duration::from_secs(20), || {
        let mut options = PutOptions::default();
        options.replicas = Some(1);
        let put = client.put(b"o", bytes(2, 9 * MIB), &options);
        cluster.runtime().block_on(put).is_ok()
    });
    let new = get(&cluster, &client, "o");
    assert!(new.is_mapped(), "the new pool is mapped, too");
    assert_bytes(&new, 2, 9 * MIB);
    assert_bytes(&old, 1, 9 * MIB);
    drop(old);
    assert_bytes(&new, 2, 9 * MIB);
    delete(&cluster, &client, "o");
    drop(new);
    until("all memory to come back", GONE_WITHIN, || used_bytes(&cluster, &client) == 0);
}

#[test]
fn over_a_quarter_of_the_pool_reads_copy_and_are_right() {
    let cluster = cluster(1, 64);
    let client = cluster.client();
    put(&cluster, &client, "a", 1, 10 * MIB);
    put(&cluster, &client, "b", 2, 10 * MIB);
    put(&cluster, &client, "large", 3, 20 * MIB);
    let first = get(&cluster, &client, "a");
    let second = get(&cluster, &client, "b");
    let again = get(&cluster, &client, "a");
    assert_eq!([&first, &second, &again].map(Value::is_mapped), [true, false, true]);
    assert_bytes(&second, 2, 10 * MIB);
    assert_bytes(&get(&cluster, &client, "large"), 3, 20 * MIB);
    drop((first, again));
    until("room for another view", GONE_WITHIN, || get(&cluster, &client, "b").is_mapped());
    assert!(!get(&cluster, &client, "large").is_mapped(), "more than a quarter by itself");
}

#[test]
fn a_view_that_was_let_go_leaves_room_for_the_next_one_at_once() {
    let cluster = cluster(1, 64);
    let writer = cluster.client();
    // One thread, which gives nobody else a turn between letting go and asking.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let reader = runtime.block_on(Client::connect(cluster.client_options())).unwrap();
    let options = GetOptions::default();
    put(&cluster, &writer, "o", 0, 14 * MIB);
    for salt in 1..6 {
        let get = reader.get(b"o", &options);
        let view = runtime.block_on(get).unwrap().unwrap();
        assert!(view.is_mapped());
        put(&cluster, &writer, "o", salt, 14 * MIB);
        let again = async {
            assert_bytes(&view, salt - 1, 14 * MIB);
            drop(view);
            reader.get(b"o", &options).await.unwrap().unwrap()
        };
        let again = runtime.block_on(again);
        assert_eq!(again.report().mapped, 14 * MIB, "what was let go of keeps no room");
        assert_bytes(&again, salt, 14 * MIB);
        drop(again);
    }
    runtime.block_on(reader.cleaned_up());
    assert_eq!(mapped_pages(&cluster, &writer), 0, "nothing is kept in the end");
}

#[test]
fn what_was_let_go_is_told_with_the_next_question_over_one_connection() {
    let cluster = cluster(1, 64);
    let writer = cluster.client();
    put(&cluster, &writer, "o", 1, 10 * MIB);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let reader = runtime.block_on(Client::connect(cluster.client_options())).unwrap();
    let options = GetOptions::default();
    let mut opened = Vec::new();
    for _ in 0..50 {
        let view = runtime.block_on(reader.get(b"o", &options)).unwrap().unwrap();
        assert_eq!(view.report().mapped, 10 * MIB);
        opened.push(reader.metrics().connections_opened);
    }
    assert_eq!(opened.first(), opened.last(), "{opened:?}");
    runtime.block_on(reader.cleaned_up());
    assert_eq!(mapped_pages(&cluster, &writer), 0, "nothing is kept in the end");
}

#[test]
fn what_was_let_go_ends_although_the_question_it_was_told_with_was_given_up() {
    let cluster = cluster(1, 64);
    let writer = cluster.client();
    put(&cluster, &writer, "o", 1, 10 * MIB);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let reader = runtime.block_on(Client::connect(cluster.client_options())).unwrap();
    let options = GetOptions::default();
    let view = runtime.block_on(reader.get(b"o", &options)).unwrap().unwrap();
    cluster.servers()[0].pause();
    let given_up = async {
        drop(view);
        // The question has left with the first poll.
        let asked = tokio::time::timeout(Duration::ZERO, reader.get(b"o", &options)).await;
        assert!(asked.is_err(), "nobody can have answered");
    };
    runtime.block_on(given_up);
    cluster.servers()[0].resume();
    until("nothing is kept", 20 * GONE_WITHIN, || {
        runtime.block_on(reader.cleaned_up());
        mapped_pages(&cluster, &writer) == 0
    });
    let again = runtime.block_on(reader.get(b"o", &options)).unwrap().unwrap();
    assert_eq!(again.report().mapped, 10 * MIB, "it is still read where it lies");
}

#[test]
fn who_asks_not_to_map_and_who_is_not_here_reads_copies() {
    let shared = cluster(1, 64);
    let client = shared.client();
    put(&shared, &client, "o", 1, 5 * MIB);
    let mut options = shared.client_options();
    options.map = false;
    let copying = shared.client_with(options);
    let value = get(&shared, &copying, "o");
    assert!(!value.is_mapped());
    assert_bytes(&value, 1, 5 * MIB);
    assert_eq!(info(&shared, &client)[0].mappings, 0, "nobody asked");
    // Through proxies, that is by TCP.
    let remote = Cluster::with(&ClusterOptions {
        servers: 1,
        is_proxied: true,
        ..ClusterOptions::default()
    });
    let client = remote.client();
    put(&remote, &client, "o", 1, 5 * MIB);
    let value = get(&remote, &client, "o");
    assert!(!value.is_mapped());
    assert_bytes(&value, 1, 5 * MIB);
}

#[test]
fn an_object_over_several_servers_of_this_machine_is_one_value() {
    let cluster = cluster(3, 128);
    let client = cluster.client();
    let mut counts = Counts::new("values over several servers");
    for salt in 0..8 {
        let (name, length) = (format!("o{salt}"), 23 * MIB + salt);
        put(&cluster, &client, &name, salt, length);
        let value = get(&cluster, &client, &name);
        assert_bytes(&value, salt, length);
        let servers = value.report().served.len() as u64;
        counts.add("servers", servers);
        counts.add("mapped MiB", value.report().mapped / MIB);
        assert_eq!(value.report().mapped, length, "all of it lies here");
        let mut into = vec![0; length as usize];
        let options = GetOptions::default();
        let work = client.get_into(name.as_bytes(), &mut into, &options);
        assert_eq!(cluster.runtime().block_on(work).unwrap().unwrap().mapped, length);
        assert!(into == bytes(salt, length));
        // Replaced while it is viewed.
        put(&cluster, &client, &name, salt + 100, MIB);
        assert_bytes(&value, salt, length);
        delete(&cluster, &client, &name);
    }
    assert!(counts.of("servers") > 8, "stripes lie on several servers");
    until("all memory to come back", Duration::from_secs(20), || {
        used_bytes(&cluster, &client) == 0
    });
}

#[test]
fn compressed_blocks_are_unpacked_from_where_they_lie() {
    let cluster = cluster(1, 128);
    let client = cluster.client();
    for codec in [Codec::Lz4, Codec::Zstd] {
        // Blocks that are compressed beside blocks that are stored as they are.
        let mut object = bytes(5, 11 * MIB + 3);
        object[2 * MIB as usize..6 * MIB as usize].fill(b'x');
        let mut options = PutOptions::default();
        (options.replicas, options.codec) = (Some(1), codec);
        let put = client.put(b"o", object.clone(), &options);
        cluster.runtime().block_on(put).unwrap();
        let value = get(&cluster, &client, "o");
        let mapped = value.report().mapped;
        assert!((MIB..11 * MIB).contains(&mapped), "{mapped} bytes lie there as they are");
        assert!(value.to_vec() == object);
        let mut into = vec![0; object.len()];
        let options = GetOptions::default();
        let work = client.get_into(b"o", &mut into, &options);
        cluster.runtime().block_on(work).unwrap();
        assert!(into == object);
        let mut stream = Vec::new();
        let work = client.get_to(b"o", &mut stream, None, &options);
        cluster.runtime().block_on(work).unwrap();
        assert!(stream == object);
        put_with(&cluster, &client, "small", 1, 900 * KIB, codec);
        assert_bytes(&get(&cluster, &client, "small"), 1, 900 * KIB);
    }
}

/// Changes the first byte of a server's copy of a value.
pub(crate) fn damage(cluster: &Cluster, server: usize, key: &[u8]) {
    let mut raw = cluster.servers()[server].client(Transport::Unix);
    let stat = raw.stat(key);
    let row = GatherRow { length: stat.filled, flags: RowFlags::TAG, ..GatherRow::default() };
    let answer = raw.ask(Opcode::Gather, &[(row, key, b"")], b"");
    let (_, tag) = answer.tagged_outcomes().remove(0);
    let mut found = answer.payload;
    found[0] ^= 1;
    assert_eq!(raw.drop_version(key, stat.version).status(), Status::Ok);
    let row = CreateRow {
        length: stat.length,
        version: stat.version,
        set: stat.set,
        replicas: stat.replicas,
        flags: RowFlags::SEALED,
        ..CreateRow::default()
    };
    assert_eq!(raw.create_row(row, key, &tag, &found).0.status(), Status::Ok);
}

#[test]
fn a_damaged_copy_on_this_machine_is_passed_over_by_whoever_compares() {
    let cluster = cluster(2, 96);
    let client = cluster.client();
    for (name, length) in [("small", 5_000), ("inline", 300 * KIB), ("striped", 9 * MIB)] {
        let both = PutOptions::default();
        let written = client.put(name.as_bytes(), bytes(1, length), &both);
        assert_eq!(cluster.runtime().block_on(written).unwrap().copies, 2);
        let stat = cluster.runtime().block_on(client.stat(name.as_bytes())).unwrap().unwrap();
        let key = match stat.stripes {
            0 => [&[0xF8], name.as_bytes()].concat(),
            _ => [&[0xF9], &stat.upload.0[..], &1_u64.to_be_bytes()].concat(),
        };
        damage(&cluster, 0, &key);
        let before = client.metrics().checksum_failures;
        let mut compared = GetOptions::default();
        compared.verify_mapped = true;
        // Now the one server is asked first, now the other.
        for _ in 0..12 {
            let work = client.get(name.as_bytes(), &compared);
            assert_bytes(&cluster.runtime().block_on(work).unwrap().unwrap(), 1, length);
            let (options, mut into) = (GetOptions::default(), vec![0; length as usize]);
            let work = client.get_into(name.as_bytes(), &mut into, &options);
            cluster.runtime().block_on(work).unwrap().unwrap();
            assert!(into == bytes(1, length), "{name}");
            let mut stream = Vec::new();
            let work = client.get_to(name.as_bytes(), &mut stream, None, &options);
            cluster.runtime().block_on(work).unwrap().unwrap();
            assert!(stream == bytes(1, length), "{name}");
        }
        assert!(client.metrics().checksum_failures > before, "{name}: the damage was seen");
    }
}

#[test]
fn readers_with_views_beside_writers_who_replace_and_delete_see_what_they_saw() {
    const NAMES: u64 = 6;
    let mut seeded = Seeded::from_environment("views beside writers");
    let cluster = cluster(2, 160);
    let client = cluster.client();
    let (ends, written) = (AtomicBool::new(false), AtomicU64::new(0));
    let lasts = if is_soak() { Duration::from_secs(60) } else { Duration::from_secs(4) };
    let lengths =
        |salt: u64| [40 * KIB, 700 * KIB, 3 * MIB + 1, 9 * MIB + salt % 7][salt as usize % 4];
    // The salt of an object is its first eight bytes less nothing else: readers find
    // what they read by trying those that were written.
    let salt_of = |value: &Value, name: u64| {
        let first: Vec<u8> =
            value.slices().next().expect("bytes").iter().take(8).copied().collect();
        let salts = (1..=written.load(Ordering::SeqCst) + 8).map(|step| step * NAMES + name);
        let found = salts.rev().find(|salt| Pattern(*salt).bytes(0, 8) == first);
        found.expect("bytes of an object that was written under this name")
    };
    let mut counts = Counts::new("views beside writers");
    std::thread::scope(|scope| {
        for writer in 0..2 {
            let mut random = Seeded::new(seeded.draw());
            let (cluster, ends, written) = (&cluster, &ends, &written);
            scope.spawn(move || {
                let client = cluster.client();
                while !ends.load(Ordering::Relaxed) {
                    // Each writer has names of its own.
                    let name = random.below(NAMES / 2) * 2 + writer;
                    let work = async {
                        if random.below(5) == 0 {
                            client.delete(format!("n{name}").as_bytes()).await.expect("a delete");
                            return;
                        }
                        let step = written.fetch_add(1, Ordering::SeqCst) + 1;
                        let salt = step * NAMES + name;
                        let mut options = PutOptions::default();
                        options.replicas = Some(1 + (step % 2) as u8);
                        let object = bytes(salt, lengths(salt));
                        let name = format!("n{name}");
                        let put = client.put(name.as_bytes(), object, &options);
                        put.await.expect("a put");
                    };
                    cluster.runtime().block_on(work);
                }
            });
        }
        let readers: Vec<_> = (0..3)
            .map(|_| {
                let mut random = Seeded::new(seeded.draw());
                let (cluster, ends, salt_of) = (&cluster, &ends, &salt_of);
                scope.spawn(move || {
                    let client = cluster.client();
                    let mut views: Vec<(Value, u64)> = Vec::new();
                    let mut done = BTreeMap::<&str, u64>::new();
                    let mut count = |what| *done.entry(what).or_default() += 1;
                    while !ends.load(Ordering::Relaxed) {
                        let name = random.below(NAMES);
                        let options = GetOptions::default();
                        let called = format!("n{name}");
                        let work = client.get(called.as_bytes(), &options);
                        match cluster.runtime().block_on(work) {
                            Ok(Some(value)) => {
                                count(if value.is_mapped() { "mapped" } else { "copied" });
                                let salt = salt_of(&value, name);
                                views.push((value, salt));
                            }
                            Ok(None) => count("not there"),
                            Err(error) if error.to_string().contains("replaced") => {
                                count("unsettled");
                            }
                            Err(error) => panic!("{error}"),
                        }
                        let again = random.below(views.len().max(1) as u64) as usize;
                        if let Some((value, salt)) = views.get(again) {
                            assert_bytes(value, *salt, lengths(*salt));
                            count("looks");
                        }
                        if views.len() > 4 || random.below(3) == 0 && !views.is_empty() {
                            let (value, salt) = views.swap_remove(again % views.len());
                            assert_bytes(&value, salt, lengths(salt));
                        }
                    }
                    views
                        .iter()
                        .for_each(|(value, salt)| assert_bytes(value, *salt, lengths(*salt)));
                    done
                })
            })
            .collect();
        rampuddle_harness::pace(lasts);
        ends.store(true, Ordering::Relaxed);
        for reader in readers {
            let done = reader.join().expect("a reader that found all as it was");
            done.into_iter().for_each(|(what, count)| counts.add(what, count));
        }
    });
    counts.add("written", written.load(Ordering::SeqCst));
    assert!(counts.of("mapped") > 20 && counts.of("written") > 10, "{counts}");
    for name in 0..NAMES {
        let _ = cluster.runtime().block_on(client.delete(format!("n{name}").as_bytes()));
    }
    until("all memory to come back", Duration::from_secs(40), || {
        used_bytes(&cluster, &client) == 0
    });
    assert_eq!(mapped_pages(&cluster, &client), 0);
    let mut raw = cluster.servers()[0].client(Transport::Unix);
    assert_eq!(raw.info().mapped_pages, 0);
}
