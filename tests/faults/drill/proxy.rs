//! What stands between processes and their server: it passes all on until it is told to cut, hold back, lose, slow down or throttle.
//!
//! Not here: when it is told to (`faults.rs`).

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
    time::{sleep, timeout},
};

/// How much is passed on at once.
const CHUNK: usize = 16 * 1024;
/// How often what is held back looks whether it may go on.
const LOOK: Duration = Duration::from_millis(5);

/// What it does with what comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Mode {
    /// Passes it on.
    Pass,
    /// Ends every connection, and each new one.
    Cut,
    /// Holds everything back, both ways; it arrives when this is over. No connection ends.
    Hold,
    /// The other side is gone without a word: connections that live then never carry anything again, and never end.
    Vanish,
    /// Requests arrive, answers do not, and the connection ends.
    LoseAnswers,
    /// Everything comes 150 ms later.
    Slow,
    /// 64 KiB a second and connection.
    Throttle,
}

const MODES: [Mode; 7] =
    [Mode::Pass, Mode::Cut, Mode::Hold, Mode::Vanish, Mode::LoseAnswers, Mode::Slow, Mode::Throttle];

#[derive(Debug, Default)]
struct Now {
    mode: AtomicU8,
    /// How often everything was cut or has vanished.
    turns: AtomicU64,
}

impl Now {
    fn mode(&self) -> Mode {
        MODES[usize::from(self.mode.load(Ordering::SeqCst)) % MODES.len()]
    }
}

/// A proxy, as long as its runtime lives.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    now: Arc<Now>,
}

impl Proxy {
    pub(crate) async fn before(port: u16) -> Result<Self, String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|error| error.to_string())?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        let now = Arc::<Now>::default();
        let proxy = Self { address, now: Arc::clone(&now) };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(connect(client, port, Arc::clone(&now)));
            }
        });
        Ok(proxy)
    }

    pub(crate) fn set(&self, mode: Mode) {
        if mode == Mode::Vanish {
            self.now.turns.fetch_add(1, Ordering::SeqCst);
        }
        self.now.mode.store(mode as u8, Ordering::SeqCst);
    }
}

async fn connect(client: TcpStream, port: u16, now: Arc<Now>) {
    if now.mode() == Mode::Cut {
        return;
    }
    let turn = now.turns.load(Ordering::SeqCst);
    let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    _ = client.set_nodelay(true);
    _ = server.set_nodelay(true);
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let requests = pass(from_client, to_server, Arc::clone(&now), turn, false);
    let answers = pass(from_server, to_client, now, turn, true);
    tokio::select! {
        () = requests => {}
        () = answers => {}
    }
}

/// One way of a connection, until it ends.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, now: Arc<Now>, turn: u64, answers: bool) {
    let mut bytes = vec![0; CHUNK];
    loop {
        let read = loop {
            if now.mode() == Mode::Cut {
                return;
            }
            if let Ok(read) = timeout(LOOK * 10, from.read(&mut bytes)).await {
                break read.unwrap_or(0);
            }
        };
        loop {
            match now.mode() {
                Mode::Cut => return,
                // Whoever it was has lost the machine: nothing comes, not even an end.
                _ if now.turns.load(Ordering::SeqCst) != turn => std::future::pending().await,
                Mode::Hold | Mode::Vanish => sleep(LOOK).await,
                Mode::LoseAnswers if answers => return,
                Mode::Slow => break sleep(Duration::from_millis(150)).await,
                Mode::Throttle => {
                    break sleep(Duration::from_micros(read as u64 * 1_000_000 / (64 * 1024))).await;
                }
                Mode::Pass | Mode::LoseAnswers => break,
            }
        }
        if read == 0 || to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}
