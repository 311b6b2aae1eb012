//! Connections that can be cut: what a polite HTTP server never does and a network does every day.
//!
//! Promises that a pulled [`Cord`] ends its connection at once, whatever is half read or half written.

use std::future::Future as _;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Ends one connection when it is cancelled. Travels with the connection as its address, because that is
/// what reaches the handlers.
#[derive(Clone, Debug)]
pub(super) struct Cord(pub(super) CancellationToken);

impl Connected<IncomingStream<'_, Doors>> for Cord {
    fn connect_info(stream: IncomingStream<'_, Doors>) -> Self {
        stream.remote_addr().clone()
    }
}

/// A listener whose connections all hang on one token, each by a cord of its own.
pub(super) struct Doors {
    pub(super) listener: TcpListener,
    /// Cancelled: every connection ends.
    pub(super) gone: CancellationToken,
}

impl Listener for Doors {
    type Io = Wire;
    type Addr = Cord;

    async fn accept(&mut self) -> (Wire, Cord) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    // Small answers must not wait for the peer's acknowledgement. Not vital.
                    let _ = stream.set_nodelay(true);
                    let token = self.gone.child_token();
                    let cut = Box::pin(token.clone().cancelled_owned());
                    return (Wire { stream, cut }, Cord(token));
                }
                // Out of descriptors, or a peer that is gone already: go on when there is room again.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<Cord> {
        self.listener.local_addr().map(|_: SocketAddr| Cord(self.gone.clone()))
    }
}

/// A TCP connection on a [`Cord`].
pub(super) struct Wire {
    stream: TcpStream,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Wire {
    fn is_cut(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.cut.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the sandbox cut this connection")),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.is_cut(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.is_cut(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_cut(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
