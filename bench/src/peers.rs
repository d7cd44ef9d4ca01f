//! Other people's stores beside ours: PostgreSQL 15 and UmaDB, each started on a directory of its own and stopped when dropped.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::appends::{Figures, PAYLOAD, Shape, TYPE};

/// Processor time of a process, of those of its children that it has waited for, and of its living children.
#[must_use]
pub fn processor_time(process: u32) -> Duration {
    /// Parent and ticks, with those of children that ended.
    fn of(process: u32) -> Option<(u32, u64, u64)> {
        let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        // The name in brackets may hold anything.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |place: usize| fields.get(place)?.parse::<u64>().ok();
        let parent = u32::try_from(number(1)?).ok()?;
        Some((parent, number(11)? + number(12)?, number(13)? + number(14)?))
    }
    let (own, ended) = of(process).map_or((0, 0), |(_, own, ended)| (own, ended));
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = processes.filter_map(|it| it.file_name().to_str()?.parse::<u32>().ok());
    let children = numbers.filter_map(of).filter(|(parent, ..)| *parent == process);
    let living: u64 = children.map(|(_, own, _)| own).sum();
    // A tick is a hundredth of a second on every Linux there is.
    Duration::from_millis((own + ended + living) * 10)
}

/// How appends are made in PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Inserted into a table with a unique index on stream and version. Positions are from a sequence, and are not seen in their order: who
    /// follows them misses events.
    Plain,
    /// By a function that holds one lock for the whole table, so that positions are seen in their order.
    Ordered,
}

/// A cluster of PostgreSQL.
#[derive(Debug)]
pub struct Postgres {
    directory: PathBuf,
    programs: PathBuf,
    process: u32,
}

const TABLE: &str = "
    CREATE TABLE events (
        position bigserial PRIMARY KEY,
        stream text NOT NULL,
        version bigint NOT NULL,
        id uuid NOT NULL DEFAULT gen_random_uuid(),
        type text NOT NULL,
        data bytea NOT NULL,
        UNIQUE (stream, version)
    );
    CREATE FUNCTION append(name text, recorded bigint, amount int, kind text, content bytea)
    RETURNS void LANGUAGE plpgsql AS $$
    DECLARE found bigint;
    BEGIN
        PERFORM pg_advisory_xact_lock(1);
        SELECT coalesce(max(version) + 1, 0) INTO found FROM events WHERE stream = name;
        IF found <> recorded THEN
            RAISE EXCEPTION 'the stream has % events', found;
        END IF;
        INSERT INTO events (stream, version, type, data)
            SELECT name, recorded + number, kind, content
            FROM generate_series(0, amount - 1) AS number;
    END $$;";

impl Postgres {
    /// Makes a cluster in an empty directory and starts it, with `fsync` and `synchronous_commit` on, as they are by default. Who is
    /// root must have a user `postgres`. None if it is not installed; `PG_BIN` says where it is.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start(directory: &Path) -> io::Result<Option<Self>> {
        let programs = std::env::var_os("PG_BIN")
            .map_or_else(|| PathBuf::from("/usr/lib/postgresql/15/bin"), PathBuf::from);
        if !programs.join("pgbench").exists() {
            return Ok(None);
        }
        fs::create_dir_all(directory)?;
        let mut postgres = Self { directory: directory.to_owned(), programs, process: 0 };
        let place = directory.to_string_lossy().into_owned();
        if is_root() {
            checked(Command::new("chown").args(["postgres", &place]))?;
        }
        let data = format!("{place}/data");
        checked(postgres.command("initdb").args(["-D", &data, "-A", "trust", "-U", "postgres"]))?;
        let options = format!(
            "-c listen_addresses='' -c unix_socket_directories={place} -c max_connections=300 \
             -c shared_buffers=512MB -c max_wal_size=8GB"
        );
        let log = format!("{place}/log");
        let mut start = postgres.command("pg_ctl");
        start.args(["-D", &data, "-l", &log, "-w", "-o", &options, "start"]);
        // The server would hold a pipe open.
        let started = start.stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        if !started.success() {
            return Err(io::Error::other("PostgreSQL did not start"));
        }
        let note = fs::read_to_string(format!("{data}/postmaster.pid"))?;
        let number = note.lines().next().and_then(|line| line.trim().parse().ok());
        postgres.process = number.ok_or_else(|| io::Error::other("there is no process number"))?;
        let mut psql = postgres.command("psql");
        checked(psql.args(["-h", &place, "-U", "postgres", "-v", "ON_ERROR_STOP=1", "-c", TABLE]))?;
        Ok(Some(postgres))
    }

    /// A program of PostgreSQL, which must not run as root.
    fn command(&self, program: &str) -> Command {
        let path = self.programs.join(program);
        let mut command = if is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(path);
            command
        } else {
            Command::new(path)
        };
        command.current_dir(&self.directory);
        command
    }

    /// Lets `pgbench` append with prepared statements through a socket of the file system, to streams whose names begin with `run`.
    ///
    /// # Errors
    /// If an append fails.
    pub fn run(&self, way: Way, run: &str, shape: Shape) -> io::Result<Figures> {
        let place = self.directory.to_string_lossy().into_owned();
        let stream = "concat(:run::text, '-', :client_id::text)";
        let content = format!("decode(repeat('78', {PAYLOAD}), 'hex')");
        let events = shape.events;
        let insert = match way {
            Way::Plain => format!(
                "INSERT INTO events (stream, version, type, data) \
                 SELECT {stream}, :recorded::bigint + number, '{TYPE}', {content} \
                 FROM generate_series(0, {events} - 1) AS number;"
            ),
            Way::Ordered => format!(
                "SELECT append({stream}, :recorded::bigint, {events}, '{TYPE}', {content});"
            ),
        };
        let script = format!("{place}/script.sql");
        fs::write(&script, format!("\\set recorded :recorded + {events}\n{insert}\n"))?;
        let before = processor_time(self.process);
        let mut pgbench = self.command("pgbench");
        pgbench.args(["-h", &place, "-U", "postgres", "-n", "-M", "prepared", "-j", "1"]);
        pgbench.args(["-c", &shape.clients.to_string(), "-T", &shape.time.as_secs().to_string()]);
        pgbench.args(["-D", &format!("run={run}"), "-D", &format!("recorded=-{events}")]);
        pgbench.args(["-l", &format!("--log-prefix={place}/times"), "-f", &script, "postgres"]);
        let output = checked(&mut pgbench)?;
        let cpu = processor_time(self.process).saturating_sub(before);
        let mut times = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            if path.file_name().is_some_and(|it| it.to_string_lossy().starts_with("times.")) {
                for line in BufReader::new(fs::File::open(&path)?).lines() {
                    let line = line?;
                    times.extend(line.split(' ').nth(2).and_then(|it| it.parse::<u32>().ok()));
                }
                fs::remove_file(path)?;
            }
        }
        // What it says is without the time that connecting takes, which is long with many.
        let text = String::from_utf8_lossy(&output.stdout);
        let said = text.lines().find_map(|line| line.strip_prefix("tps = "));
        let rate = said.and_then(|text| text.split(' ').next()?.parse().ok());
        let rate = rate.ok_or_else(|| io::Error::other("pgbench did not say how many"))?;
        Ok(Figures { rate, ..Figures::of(times, shape.time, cpu, None) })
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if self.process != 0 {
            let data = self.directory.join("data");
            let mut stop = self.command("pg_ctl");
            // It is only for measuring: nothing is lost if it does not stop in order.
            let _ = checked(stop.arg("-D").arg(data).args(["-m", "immediate", "stop"]));
        }
    }
}

/// A server of UmaDB.
#[derive(Debug)]
pub struct UmaDb {
    child: Child,
    address: String,
    python: PathBuf,
}

impl UmaDb {
    /// Starts it on a file in an empty directory. `UMADB` is the directory of the Python environment that it is installed in (`pip install
    /// umadb`); None if that is not set.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start(directory: &Path) -> io::Result<Option<Self>> {
        let Some(programs) = std::env::var_os("UMADB").map(PathBuf::from) else {
            return Ok(None);
        };
        fs::create_dir_all(directory)?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let mut command = Command::new(programs.join("bin/umadb"));
        command.args(["--listen", &address, "--db-path"]).arg(directory.join("uma.db"));
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let umadb = Self { child, address, python: programs.join("bin/python") };
        let begin = Instant::now();
        while std::net::TcpStream::connect(&umadb.address).is_err() {
            if begin.elapsed() > Duration::from_secs(20) {
                return Err(io::Error::other("UmaDB did not start"));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(Some(umadb))
    }

    /// Lets its Python client append, each client under a label of its own that begins with `run`.
    ///
    /// # Errors
    /// If an append fails.
    pub fn run(&self, run: &str, shape: Shape) -> io::Result<Figures> {
        let before = processor_time(self.child.id());
        let mut load = Command::new(&self.python);
        load.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/umadb_load.py"));
        load.args([format!("http://{}", self.address), run.to_owned()]);
        load.args([shape.clients.to_string(), shape.events.to_string()]);
        load.args([shape.time.as_secs().to_string(), PAYLOAD.to_string()]);
        let output = checked(load.stderr(Stdio::inherit()))?;
        let cpu = processor_time(self.child.id()).saturating_sub(before);
        let text = String::from_utf8_lossy(&output.stdout);
        let mut numbers = text.split_whitespace().map(str::parse::<u32>);
        let took = numbers.next().and_then(Result::ok);
        let took = took.ok_or_else(|| io::Error::other("the client said nothing"))?;
        let times = numbers.filter_map(Result::ok).collect();
        Ok(Figures::of(times, Duration::from_micros(took.into()), cpu, None))
    }
}

impl Drop for UmaDb {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// What a program has said, if it succeeded.
fn checked(command: &mut Command) -> io::Result<Output> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{}: {said}", command.get_program().to_string_lossy())))
}
