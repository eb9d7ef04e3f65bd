//! Opening a connection: socket, TLS, password, database, and what the server says of itself, all within one time limit.
//!
//! Not here: TLS itself (`tls.rs`), which address that is (`dialer.rs`), how long a connection is used (`node.rs`).

use super::{
    error::{Error, ErrorKind, Result, error_of},
    server::{OLDEST, Server},
    settings::{RedisSettings, Secret},
    stream::Watched,
    tls,
    turn::Turn,
    url::Address,
    wire::{Reply, Resp, TooLong},
};
use ::redis::{Cmd, cmd};
use futures::{SinkExt, StreamExt};
use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    net::{TcpStream, UnixStream},
    time::timeout,
};
use tokio_util::codec::{Decoder, Encoder, Framed};

/// How long a server may take to show that it speaks TLS: one of Redis that does not waits for more, and so who connects would wait with it.
const TLS_PROBE: Duration = Duration::from_millis(500);

/// A connection on which commands go out as bytes and replies come back.
pub(super) type Line = Framed<Watched, Resp>;

/// A connection that is ready, and what its server said.
pub(super) struct Opened {
    pub(super) line: Line,
    pub(super) address: Arc<str>,
    pub(super) server: Arc<Server>,
    /// The number that the server gave this connection.
    pub(super) client_id: i64,
    /// Whether it still leads to the primary; always, where nobody else can become it.
    pub(super) turn: Turn,
}

impl Encoder<Vec<u8>> for Resp {
    type Error = io::Error;

    fn encode(&mut self, packed: Vec<u8>, into: &mut bytes::BytesMut) -> io::Result<()> {
        into.extend_from_slice(&packed);
        Ok(())
    }
}

/// Opens a connection to a server of Redis that serves.
///
/// # Errors
/// What was in the way; `Version` for an old server, `Loading` for one that is not ready.
pub(super) async fn open(settings: &RedisSettings, address: &Address) -> Result<Opened> {
    let (phase, name): (Phase, Arc<str>) = (Phase::default(), address.to_string().into());
    let (phase, name) = (&phase, &name);
    within(settings, phase, name, async {
        let mut line = reach(settings, address, phase, name).await?;
        phase.is("waiting for its first answer");
        let credentials = (settings.username.as_deref(), settings.password.as_ref());
        let mut commands = introduction(credentials);
        commands.push(cmd("CLIENT").arg("SETNAME").arg(&settings.client_name).take());
        if settings.db != 0 {
            commands.push(cmd("SELECT").arg(settings.db).take());
        }
        let asked = commands.len();
        commands.extend([
            cmd("HELLO"),
            cmd("INFO"),
            cmd("CONFIG")
                .arg("GET")
                .arg(&["appendonly", "appendfsync", "no-appendfsync-on-rewrite"])
                .arg(&["maxmemory", "maxmemory-policy", "min-replicas-to-write"])
                .take(),
            cmd("COMMAND").arg("LIST").take(),
        ]);
        let secret = settings.password.as_ref().map(Secret::reveal);
        let replies = match converse(&mut line, &commands, name).await {
            Ok(replies) => replies,
            Err(error) if error.kind() == ErrorKind::Cut && speaks_tls(settings, address, name).await => {
                return Err(Error::new(ErrorKind::Tls, name, "the server speaks TLS on this port"));
            }
            Err(error) => return Err(error.without(secret)),
        };
        let (first, facts) = replies.split_at(asked);
        let refused = first.iter().chain(&facts[..2]).filter_map(|reply| error_of(name, reply));
        for error in refused.map(|error| error.without(secret)) {
            // Old servers and strict users lack some of these; only the password and the database decide.
            let decides = error.kind() == ErrorKind::Auth || error.what().contains("DB index");
            let unheard = settings.password.is_some() && error_of(name, &replies[0]).is_some();
            if decides || unheard || error.kind() == ErrorKind::Unavailable {
                return Err(error);
            }
        }
        let [hello, info, config, list] = facts else {
            return Err(Error::new(ErrorKind::NotRedis, name, "no answer"));
        };
        let server = Server::of(hello, info, config, list).ok_or_else(|| {
            let said =
                error_of(name, info).map_or_else(|| "nothing".to_owned(), |error| error.what().to_owned());
            Error::new(ErrorKind::NotRedis, name, format!("it does not tell its version; it says: {said}"))
                .without(secret)
        })?;
        if info.text().is_some_and(|info| info.contains("redis_mode:sentinel")) {
            let what =
                "it is a sentinel; use redis+sentinel://HOST:PORT/SERVICE, with the service that it watches";
            return Err(Error::new(ErrorKind::Settings, name, what));
        }
        if server.version < OLDEST {
            let what = format!("it is version {}, and {OLDEST} is the oldest that works", server.version);
            return Err(Error::new(ErrorKind::Version, name, what));
        }
        if server.loading {
            return Err(Error::new(ErrorKind::Loading, name, "it is reading its data from disk"));
        }
        let id = hello.items().chunks_exact(2).find(|pair| pair[0].text() == Some("id"));
        let client_id = id.and_then(|pair| pair[1].int()).unwrap_or_default();
        Ok(Opened {
            line,
            address: Arc::clone(name),
            server: Arc::new(server),
            client_id,
            turn: Turn::default(),
        })
    })
    .await
}

/// Why a server ended a plain connection without a word.
async fn speaks_tls(settings: &RedisSettings, address: &Address, name: &Arc<str>) -> bool {
    let (None, Address::Tcp { host, port }) = (&settings.tls, address) else { return false };
    let probe = async {
        match TcpStream::connect((host.as_str(), *port)).await {
            Ok(socket) => tls::is_spoken(socket, host, name).await,
            Err(_) => false,
        }
    };
    timeout(TLS_PROBE, probe).await.unwrap_or(false)
}

/// Opens a connection to a sentinel and asks it one thing.
pub(super) async fn ask_sentinel(settings: &RedisSettings, address: &Address, command: Cmd) -> Result<Reply> {
    let (phase, name): (Phase, Arc<str>) = (Phase::default(), address.to_string().into());
    let (phase, name) = (&phase, &name);
    within(settings, phase, name, async {
        let mut line = reach(settings, address, phase, name).await?;
        phase.is("waiting for its first answer");
        let password = settings.sentinel_password.as_ref();
        let mut commands = introduction((settings.sentinel_username.as_deref(), password));
        commands.push(command);
        let secret = password.map(Secret::reveal);
        let replies = match converse(&mut line, &commands, name).await {
            Ok(replies) => replies,
            Err(error) if error.kind() == ErrorKind::Cut && speaks_tls(settings, address, name).await => {
                return Err(Error::new(ErrorKind::Tls, name, "the sentinel speaks TLS on this port"));
            }
            Err(error) => return Err(error.without(secret)),
        };
        for reply in &replies {
            if let Some(error) = error_of(name, reply) {
                if error.what().contains("unknown command 'SENTINEL'") {
                    let what = "it is no sentinel; name one, or use redis:// for one server";
                    return Err(Error::new(ErrorKind::Settings, name, what));
                }
                return Err(error.without(secret));
            }
        }
        Ok(replies.into_iter().last().unwrap_or(Reply::Nil))
    })
    .await
}

/// Sends `commands` at once and waits for an answer to each.
pub(super) async fn converse(line: &mut Line, commands: &[Cmd], server: &Arc<str>) -> Result<Vec<Reply>> {
    let mut packed = Vec::new();
    for command in commands {
        command.write_packed_command(&mut packed);
    }
    line.send(packed).await.map_err(|error| broken(server, &error))?;
    let mut replies = Vec::with_capacity(commands.len());
    while replies.len() < commands.len() {
        match line.next().await {
            Some(Ok(reply)) => replies.push(reply),
            Some(Err(error)) => {
                return Err(refused_early(server, &replies).unwrap_or_else(|| broken(server, &error)));
            }
            None => {
                return Err(refused_early(server, &replies).unwrap_or_else(|| {
                    Error::new(ErrorKind::Cut, server, "it ended the connection instead of answering")
                }));
            }
        }
    }
    Ok(replies)
}

/// What a server said before it ended the connection, as one with too many clients does.
fn refused_early(server: &Arc<str>, replies: &[Reply]) -> Option<Error> {
    replies.iter().find_map(|reply| error_of(server, reply))
}

/// What a socket's failure means.
pub(super) fn broken(server: &Arc<str>, error: &io::Error) -> Error {
    if error.kind() != io::ErrorKind::InvalidData {
        return Error::new(ErrorKind::Cut, server, format!("the connection ended: {error}"));
    }
    let text = error.to_string();
    if error.get_ref().is_some_and(|inner| inner.is::<TooLong>()) {
        return Error::new(ErrorKind::TooLong, server, text);
    }
    // The first bytes of a TLS alert and of a TLS handshake.
    if text.contains("byte 0x15") || text.contains("byte 0x16") {
        return Error::new(ErrorKind::Tls, server, "the server speaks TLS on this port");
    }
    if error.get_ref().is_some_and(|inner| inner.is::<tokio_rustls::rustls::Error>()) {
        return tls::failed(server, error);
    }
    Error::new(ErrorKind::NotRedis, server, text)
}

fn introduction((username, password): (Option<&str>, Option<&Secret>)) -> Vec<Cmd> {
    let Some(password) = password else { return Vec::new() };
    let mut auth = cmd("AUTH");
    if let Some(username) = username {
        auth.arg(username);
    }
    vec![auth.arg(password.reveal()).take()]
}

/// What is being done, for the error when time is up.
#[derive(Debug, Default)]
struct Phase(Mutex<&'static str>);

impl Phase {
    fn is(&self, doing: &'static str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = doing;
    }
}

async fn within<T>(
    settings: &RedisSettings,
    phase: &Phase,
    name: &Arc<str>,
    open: impl Future<Output = Result<T>>,
) -> Result<T> {
    let limit = settings.connect_timeout;
    timeout(limit, open).await.unwrap_or_else(|_| {
        let doing = *phase.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kind = if doing.contains("TLS") { ErrorKind::Tls } else { ErrorKind::Unavailable };
        Err(Error::new(kind, name, format!("it was not ready within {limit:?} ({doing})")))
    })
}

async fn reach(settings: &RedisSettings, address: &Address, phase: &Phase, name: &Arc<str>) -> Result<Line> {
    let unreachable =
        |error: io::Error| Error::new(ErrorKind::Unavailable, name, format!("no connection: {error}"));
    let socket = match address {
        Address::Unix(path) => {
            phase.is("connecting");
            Watched::new(Box::new(UnixStream::connect(path).await.map_err(unreachable)?))
        }
        Address::Tcp { host, port } => {
            phase.is("finding its address");
            let addresses = tokio::net::lookup_host((host.as_str(), *port)).await.map_err(unreachable)?;
            phase.is("connecting");
            let socket = TcpStream::connect(&*addresses.collect::<Vec<_>>()).await.map_err(unreachable)?;
            // Without it small requests wait for the answers of earlier ones.
            socket.set_nodelay(true).map_err(unreachable)?;
            match &settings.tls {
                None => Watched::new(Box::new(socket)),
                Some(tls) => {
                    phase.is("agreeing on TLS; the port may not speak it");
                    Watched::new(Box::new(tls::secure(socket, host, tls, name).await?))
                }
            }
        }
    };
    Ok(Resp::default().framed(socket))
}
