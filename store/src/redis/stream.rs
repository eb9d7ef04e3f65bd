//! The socket under a connection, which knows how much was written to it and whether it has ended.
//!
//! Both decide what may be said of a request that failed. Not here: how a socket is opened (`dial.rs`).

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Any socket.
pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

/// What is known of a socket from outside.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    written: AtomicU64,
    ended: AtomicBool,
    cut: AtomicBool,
}

impl Traffic {
    /// Bytes that were given to the socket.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    /// Whether nothing comes through any more.
    pub(super) fn ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Whether it was the other end, or the way there, that ended it.
    pub(super) fn cut(&self) -> bool {
        self.cut.load(Ordering::Acquire)
    }

    fn end_by_cut(&self) {
        self.cut.store(true, Ordering::Release);
        self.end();
    }

    fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }
}

/// A socket that is watched.
pub(super) struct Watched {
    socket: Box<dyn Socket>,
    traffic: Arc<Traffic>,
}

impl Watched {
    pub(super) fn new(socket: Box<dyn Socket>) -> Self {
        Self { socket, traffic: Arc::default() }
    }

    pub(super) fn traffic(&self) -> Arc<Traffic> {
        Arc::clone(&self.traffic)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.traffic.end();
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let read = Pin::new(&mut self.socket).poll_read(cx, into);
        let ended = match &read {
            Poll::Ready(Ok(())) => into.filled().len() == before && into.remaining() > 0,
            Poll::Ready(Err(_)) => true,
            Poll::Pending => false,
        };
        if ended {
            self.traffic.end_by_cut();
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, bytes);
        match &written {
            Poll::Ready(Ok(count)) => {
                self.traffic.written.fetch_add(*count as u64, Ordering::AcqRel);
            }
            Poll::Ready(Err(_)) => self.traffic.end_by_cut(),
            Poll::Pending => {}
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
