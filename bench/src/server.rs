//! Servers to measure: started on a free port, stopped when dropped; and what the kernel says of them.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Ours.
    Lattice,
    /// `redis-server`, if it is installed.
    Redis,
}

impl Kind {
    /// What tables call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Lattice => "lattice",
            Self::Redis => "redis",
        }
    }
}

/// Where and how a server runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place {
    /// The processor that it may use (`taskset`); None for all.
    pub processor: Option<usize>,
    /// How many threads ours has; None for what it chooses. Redis executes commands on one.
    pub threads: Option<usize>,
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    child: Child,
    address: SocketAddr,
}

/// Our program: `LATTICE_CACHE`, or built now.
fn our_program() -> io::Result<PathBuf> {
    if let Some(path) = std::env::var_os("LATTICE_CACHE") {
        return Ok(path.into());
    }
    let built = Command::new("cargo")
        .args(["build", "--release", "--quiet", "-p", "distributed-cache"])
        .status()?;
    if !built.success() {
        return Err(io::Error::other("the server did not build"));
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or("target".into(), PathBuf::from);
    Ok(target.join("release/distributed-cache"))
}

/// Memory that a process occupies, in bytes.
///
/// # Errors
/// If the kernel does not tell.
pub fn resident_of(process: u32) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.map(|kilobytes| kilobytes * 1024).ok_or_else(|| io::Error::other("no VmRSS"))
}

/// Whether a program can be started.
#[must_use]
pub fn is_installed(program: &str) -> bool {
    let version = Command::new(program).arg("--version").stdout(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

impl Server {
    /// Starts one with a memory limit in bytes (0: none) and the policy to evict by. None if it is not installed.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn start(kind: Kind, limit: u64, policy: &str) -> io::Result<Option<Self>> {
        Self::start_at(Place::default(), kind, limit, policy)
    }

    /// As [`Server::start`], at a place.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn start_at(
        place: Place,
        kind: Kind,
        limit: u64,
        policy: &str,
    ) -> io::Result<Option<Self>> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let limit = limit.to_string();
        let program = |path: PathBuf| match place.processor {
            None => Command::new(path),
            Some(processor) => {
                let mut command = Command::new("taskset");
                command.args(["-c", &processor.to_string()]).arg(path);
                command
            }
        };
        let mut command = match kind {
            Kind::Lattice => {
                let mut command = program(our_program()?);
                command.args(["--listen", &port.to_string(), "--no-demo"]);
                command.args(["--maxmemory", &limit, "--policy", policy]);
                if let Some(threads) = place.threads {
                    command.args(["--threads", &threads.to_string()]);
                }
                command
            }
            Kind::Redis => {
                if !is_installed("redis-server") {
                    return Ok(None);
                }
                let mut command = program("redis-server".into());
                command.args(["--port", &port.port().to_string(), "--save", ""]);
                command.args(["--maxmemory", &limit, "--maxmemory-policy", policy]);
                command
            }
        };
        let child = match command.stdout(Stdio::null()).stderr(Stdio::null()).spawn() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            child => child?,
        };
        let server = Self { child, address: port };
        let patience = Instant::now() + Duration::from_secs(10);
        while server.connect().and_then(|mut it| it.call(&[b"PING"])).is_err() {
            if Instant::now() > patience {
                return Err(io::Error::other("the server does not answer"));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(Some(server))
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A connection.
    ///
    /// # Errors
    /// The socket's.
    pub fn connect(&self) -> io::Result<Connection> {
        Connection::open(self.address)
    }

    /// Memory that the process occupies, in bytes.
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub fn resident(&self) -> io::Result<u64> {
        resident_of(self.child.id())
    }

    /// Processor time that it has used so far, to ten milliseconds.
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub fn processor_time(&self) -> io::Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The name, in brackets, may have spaces. User and system time are fields 14 and 15, in hundredths of a second.
        let rest = stat.rsplit(')').next().unwrap_or_default();
        let fields = rest.split_whitespace().skip(11).take(2);
        let hundredths: u64 = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
        Ok(Duration::from_millis(hundredths * 10))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _status = self.child.wait();
    }
}

/// A connection that speaks RESP2, as simply as can be.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// The socket's.
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let reader = BufReader::with_capacity(256 * 1024, stream.try_clone()?);
        Ok(Self { stream, reader })
    }

    /// Lets reads fail after so long.
    ///
    /// # Errors
    /// The socket's.
    pub fn wait_at_most(&self, time: Duration) -> io::Result<()> {
        self.stream.set_read_timeout(Some(time))
    }

    /// Sends what [`encode`] has written.
    ///
    /// # Errors
    /// The socket's.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Reads one reply: an integer's or a string's bytes; of an array the last element's; None for null.
    ///
    /// # Errors
    /// The socket's, and error replies.
    pub fn receive(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        self.reader.read_until(b'\n', &mut line)?;
        let [kind, rest @ .., b'\r', b'\n'] = &line[..] else {
            return Err(io::Error::other("no reply"));
        };
        let number = || std::str::from_utf8(rest).ok().and_then(|text| text.parse::<i64>().ok());
        match kind {
            b'-' => Err(io::Error::other(String::from_utf8_lossy(rest).into_owned())),
            b'$' => match number().and_then(|length| usize::try_from(length).ok()) {
                None => Ok(None),
                Some(length) => {
                    let mut bytes = vec![0; length + 2];
                    io::Read::read_exact(&mut self.reader, &mut bytes)?;
                    bytes.truncate(length);
                    Ok(Some(bytes))
                }
            },
            b'*' => {
                let mut last = None;
                for _ in 0..number().unwrap_or(0).max(0) {
                    last = self.receive()?;
                }
                Ok(last)
            }
            _ => Ok(Some(rest.to_vec())),
        }
    }

    /// Sends one command and reads its reply.
    ///
    /// # Errors
    /// The socket's, and error replies.
    pub fn call(&mut self, arguments: &[&[u8]]) -> io::Result<Option<Vec<u8>>> {
        let mut bytes = Vec::new();
        encode(&mut bytes, arguments);
        self.send(&bytes)?;
        self.receive()
    }

    /// Sends `count` commands that `write` encodes by number, a thousand at a time, and reads their replies.
    ///
    /// # Errors
    /// The socket's, and the first error reply.
    pub fn pipeline(
        &mut self,
        count: u64,
        mut write: impl FnMut(u64, &mut Vec<u8>),
    ) -> io::Result<()> {
        let mut next = 0;
        while next < count {
            let end = count.min(next + 1000);
            let mut bytes = Vec::new();
            (next..end).for_each(|number| write(number, &mut bytes));
            self.send(&bytes)?;
            for _ in next..end {
                self.receive()?;
            }
            next = end;
        }
        Ok(())
    }
}

/// Appends a command in RESP.
pub fn encode(bytes: &mut Vec<u8>, arguments: &[&[u8]]) {
    bytes.extend(format!("*{}\r\n", arguments.len()).bytes());
    for argument in arguments {
        bytes.extend(format!("${}\r\n", argument.len()).bytes());
        bytes.extend_from_slice(argument);
        bytes.extend_from_slice(b"\r\n");
    }
}
