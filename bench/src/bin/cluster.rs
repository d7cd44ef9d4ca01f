//! Three real processes that agree on a put or confirm a get, beside etcd (gate G3).
//!
//! `cargo run --release -p lattice-bench --bin cluster -- DIR [ROUNDS [SECONDS]]`. Builds nothing: needs `target/release/lattice`, or the
//! program that `LATTICE` names, which is also the client of both. etcd takes part if it is installed. DIR must be on a real disk; what is
//! written there is removed. Both clusters stay up all the time, idle while the other is measured; they take turns, and each figure
//! is of the round in the middle. Processor time is that of all three processes together, and so are the fdatasyncs.
#![expect(clippy::print_stdout, reason = "a program that prints tables")]

use std::error::Error;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lattice_bench::peers::processor_time;
use lattice_bench::table::Table;

type Outcome<T> = Result<T, Box<dyn Error>>;

const OPERATIONS: [&str; 3] = ["put", "get", "get-serializable"];
const CLIENTS: [u32; 4] = [1, 64, 256, 1000];
const PATIENCE: Duration = Duration::from_secs(30);

/// Three members of one system.
struct Cluster {
    name: &'static str,
    members: Vec<Child>,
    clients: Vec<String>,
    /// Where each tells its metrics, and the name of the one that counts its syncs.
    metrics: Vec<u16>,
    syncs: &'static str,
}

impl Cluster {
    fn start(name: &'static str, program: &Path, directory: &Path) -> Outcome<Self> {
        let ports: Vec<[u16; 3]> = (0..3)
            .map(|_| Ok([free_port()?, free_port()?, free_port()?]))
            .collect::<Outcome<_>>()?;
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let initial: Vec<String> = ports
            .iter()
            .enumerate()
            .map(|(i, [_, peer, _])| format!("n{i}={}", url(*peer)))
            .collect();
        let mut members = Vec::new();
        for (number, [client, peer, admin]) in ports.iter().enumerate() {
            let data = directory.join(format!("{name}-{number}"));
            fs::create_dir_all(&data)?;
            let mut command = Command::new(program);
            if name == "lattice" {
                command.args(["serve", "--cache-listen=none"]);
                command.arg(format!("--admin-listen=127.0.0.1:{admin}"));
            } else {
                command.arg(format!("--advertise-client-urls={}", url(*client)));
                command.arg(format!("--initial-advertise-peer-urls={}", url(*peer)));
                command.arg("--initial-cluster-state=new");
            }
            command
                .arg(format!("--name=n{number}"))
                .arg(format!("--data-dir={}", data.join("data").display()))
                .arg(format!("--listen-client-urls={}", url(*client)))
                .arg(format!("--listen-peer-urls={}", url(*peer)))
                .arg(format!("--initial-cluster={}", initial.join(",")));
            let log = File::create(data.join("log"))?;
            command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
            members
                .push(command.spawn().map_err(|error| format!("{}: {error}", program.display()))?);
        }
        let is_ours = name == "lattice";
        Ok(Self {
            name,
            members,
            clients: ports.iter().map(|[client, ..]| url(*client)).collect(),
            metrics: ports
                .iter()
                .map(|[client, _, admin]| if is_ours { *admin } else { *client })
                .collect(),
            syncs: if is_ours {
                "lattice_wal_fsyncs_total"
            } else {
                "etcd_disk_wal_fsync_duration_seconds_count"
            },
        })
    }

    fn processor_time(&self) -> Duration {
        self.members.iter().map(|member| processor_time(member.id())).sum()
    }

    fn syncs(&self) -> Option<f64> {
        self.metrics.iter().map(|&port| metric(port, self.syncs)).sum()
    }

    /// What `lattice bench kv` saw of this cluster.
    fn load(&self, program: &Path, operation: &str, clients: u32, seconds: &str) -> Outcome<Shown> {
        let (cpu, syncs) = (self.processor_time(), self.syncs());
        let mut command = Command::new(program);
        command.args(["bench", "kv", "-o", "json", "--op", operation, "--seconds", seconds]);
        command.args(["--clients", &clients.to_string(), "--endpoints", &self.clients.join(",")]);
        let output = command.output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into());
        }
        let value: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let number =
            |name: &str| value[name].as_f64().ok_or_else(|| format!("no {name} in {value}"));
        let cpu = self.processor_time().saturating_sub(cpu).as_secs_f64();
        // Its second of warm-up costs as much as the others.
        let measured = number("seconds")?;
        let all = number("operations")? * (measured + 1.0) / measured;
        Ok(Shown {
            per_second: number("ops_per_second")?,
            p50_ms: number("p50_us")? / 1e3,
            p99_ms: number("p99_us")? / 1e3,
            cpu_us: cpu * 1e6 / all,
            syncs: self.syncs().zip(syncs).map(|(after, before)| (after - before) / all),
            errors: number("errors")?,
        })
    }

    fn wait_until_it_serves(&self, program: &Path) -> Outcome<()> {
        let began = Instant::now();
        while self.load(program, "put", 1, "0.1").is_err() {
            if began.elapsed() > PATIENCE {
                return Err(format!("{} does not serve", self.name).into());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    }

    fn memory(&self) -> String {
        let of = |member: &Child| {
            let status = fs::read_to_string(format!("/proc/{}/status", member.id())).ok()?;
            let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
            line.split_whitespace().nth(1)?.parse::<f64>().ok()
        };
        let shown: Vec<String> =
            self.members.iter().filter_map(of).map(|kib| format!("{:.1}", kib / 1024.0)).collect();
        shown.join(", ")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in &mut self.members {
            // It may have ended by itself.
            let _ = member.kill();
            let _ = member.wait();
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Shown {
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    cpu_us: f64,
    syncs: Option<f64>,
    errors: f64,
}

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let directory = PathBuf::from(arguments.first().ok_or("which directory?")?).join("cluster");
    let rounds: usize = arguments.get(1).map_or(Ok(3), |text| text.parse())?;
    let seconds = arguments.get(2).map_or("4", String::as_str);
    let program =
        std::env::var_os("LATTICE").map_or_else(|| "target/release/lattice".into(), PathBuf::from);
    drop(fs::remove_dir_all(&directory));
    fs::create_dir_all(&directory)?;
    let outcome = compare(&program, &directory, rounds, seconds);
    fs::remove_dir_all(&directory)?;
    outcome
}

fn compare(program: &Path, directory: &Path, rounds: usize, seconds: &str) -> Outcome<()> {
    let mut clusters = vec![Cluster::start("lattice", program, directory)?];
    match Command::new("etcd").arg("--version").output() {
        Ok(version) => {
            let version = String::from_utf8_lossy(&version.stdout).into_owned();
            println!("Beside {}.", version.lines().next().unwrap_or("etcd"));
            clusters.push(Cluster::start("etcd", Path::new("etcd"), directory)?);
        }
        Err(_) => println!("etcd is not installed: ours alone."),
    }
    for cluster in &clusters {
        cluster.wait_until_it_serves(program)?;
        println!("{}, hardly used: {} MiB of memory a process.", cluster.name, cluster.memory());
    }
    println!(
        "Three processes on loopback, fsync on, values of 256 bytes; clients on the same cores; the middle of {rounds} rounds of {seconds} s.\n"
    );
    let head = [
        "operation",
        "clients",
        "system",
        "ops/s",
        "p50 ms",
        "p99 ms",
        "CPU µs an op",
        "fdatasync an op",
        "ops ratio",
        "CPU ratio",
    ];
    let mut table = Table::new(&head);
    for operation in OPERATIONS {
        for clients in CLIENTS {
            let mut found = vec![Vec::new(); clusters.len()];
            for _ in 0..rounds {
                for (number, cluster) in clusters.iter().enumerate() {
                    let shown = cluster.load(program, operation, clients, seconds)?;
                    if shown.errors > 0.0 {
                        println!(
                            "{}: {} errors of {operation} at {clients} clients",
                            cluster.name, shown.errors
                        );
                    }
                    found[number].push(shown);
                }
            }
            let middle: Vec<Shown> = found.into_iter().filter_map(in_the_middle).collect();
            for (number, (cluster, shown)) in clusters.iter().zip(&middle).enumerate() {
                let other = middle.get(1).filter(|_| number == 0);
                let ratio = |of: fn(&Shown) -> f64| {
                    other.map_or_else(String::new, |other| format!("{:.2}", of(shown) / of(other)))
                };
                table.row(vec![
                    operation.to_owned(),
                    clients.to_string(),
                    cluster.name.to_owned(),
                    format!("{:.0}", shown.per_second),
                    format!("{:.2}", shown.p50_ms),
                    format!("{:.2}", shown.p99_ms),
                    format!("{:.1}", shown.cpu_us),
                    shown.syncs.map_or_else(String::new, |syncs| format!("{syncs:.3}")),
                    ratio(|shown| shown.per_second),
                    ratio(|shown| shown.cpu_us),
                ]);
            }
        }
    }
    print!("{}", table.render());
    Ok(())
}

fn in_the_middle(mut found: Vec<Shown>) -> Option<Shown> {
    found.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
    found.get(found.len() / 2).copied()
}

fn free_port() -> Outcome<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// The value of a metric without labels, or the sum over its labels.
fn metric(port: u16, name: &str) -> Option<f64> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let values = text.lines().filter(|line| line.starts_with(name));
    values.map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}
