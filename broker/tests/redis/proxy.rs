//! What stands between a broker and its server in tests: it passes all on, until it is told to lose answers or to refuse.
//!
//! Not here: the server (`server.rs`).

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream, UnixStream},
    time::{sleep, timeout},
};

/// Answers and requests pass.
pub(super) const PASS: u8 = 0;
/// Requests reach the server; instead of an answer the connection ends.
pub(super) const LOSE_ANSWERS: u8 = 1;
/// Nothing reaches the server: connections end with the first byte.
pub(super) const REFUSE: u8 = 2;
/// Connections end with the first request, which reaches the server only [`LATE`] afterwards.
pub(super) const DELAY: u8 = 3;
/// Requests vanish, and connections stay.
pub(super) const SWALLOW: u8 = 4;
/// Requests and answers pass, but answers take [`AWAY`] to come: the server is far away.
pub(super) const FAR: u8 = 5;
/// How long an answer takes from there.
pub(super) const AWAY: Duration = Duration::from_millis(100);
/// How late.
pub(super) const LATE: Duration = Duration::from_millis(300);

/// Its address, and what it does now.
pub(super) struct Proxy {
    pub(super) address: String,
    mode: Arc<AtomicU8>,
    connections: Arc<AtomicU32>,
    swallowed: Arc<Mutex<Vec<u8>>>,
}

impl Proxy {
    pub(super) async fn before(socket: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mode = Arc::<AtomicU8>::default();
        let (connections, swallowed) = (Arc::<AtomicU32>::default(), Arc::<Mutex<Vec<u8>>>::default());
        let (mine, gone) = (Arc::clone(&connections), Arc::clone(&swallowed));
        let proxy = Self { address, mode: Arc::clone(&mode), connections: mine, swallowed: gone };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                let (server, mode) = (UnixStream::connect(&socket).await, Arc::clone(&mode));
                if let Ok(server) = server {
                    tokio::spawn(pass(client, server, mode, Arc::clone(&swallowed)));
                }
            }
        });
        proxy
    }

    /// How many connections there were.
    pub(super) fn connections(&self) -> u32 {
        self.connections.load(Ordering::SeqCst)
    }

    /// Whether a request vanished that has this in it.
    pub(super) fn swallowed(&self, word: &str) -> bool {
        self.swallowed.lock().unwrap().windows(word.len()).any(|bytes| bytes == word.as_bytes())
    }

    pub(super) fn set(&self, mode: u8) {
        self.mode.store(mode, Ordering::SeqCst);
    }
}

async fn pass(client: TcpStream, server: UnixStream, mode: Arc<AtomicU8>, swallowed: Arc<Mutex<Vec<u8>>>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let asked = Arc::clone(&mode);
    let requests = async move {
        let mut bytes = vec![0; 65_536];
        loop {
            let read = from_client.read(&mut bytes).await.unwrap_or(0);
            match asked.load(Ordering::SeqCst) {
                _ if read == 0 => return None,
                REFUSE => return None,
                SWALLOW => {
                    swallowed.lock().unwrap().extend_from_slice(&bytes[..read]);
                    continue;
                }
                DELAY => {
                    bytes.truncate(read);
                    return Some((to_server, bytes));
                }
                _ => {}
            }
            if to_server.write_all(&bytes[..read]).await.is_err() {
                return None;
            }
        }
    };
    let answers = async move {
        let mut bytes = vec![0; 65_536];
        loop {
            let read = from_server.read(&mut bytes).await.unwrap_or(0);
            if read == 0 {
                return;
            }
            if mode.load(Ordering::SeqCst) == FAR {
                sleep(AWAY).await;
            } else if mode.load(Ordering::SeqCst) != PASS {
                // What was asked before is done: the rest of the answers is waited for, so that nothing is cut on its way there.
                let mut nowhere = tokio::io::sink();
                let rest = copy(&mut from_server, &mut nowhere);
                _ = timeout(Duration::from_millis(50), rest).await;
                return;
            }
            if to_client.write_all(&bytes[..read]).await.is_err() {
                return;
            }
        }
    };
    let late = tokio::select! {
        late = requests => late,
        () = answers => None,
    };
    // Its client is gone by now.
    if let Some((mut to_server, bytes)) = late {
        sleep(LATE).await;
        _ = to_server.write_all(&bytes).await;
        sleep(LATE).await;
    }
}
