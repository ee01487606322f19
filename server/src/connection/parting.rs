//! How a client is told that it is over: a close frame, and time to read it.

use std::{future::poll_fn, io, net::Shutdown, time::Duration};

use bytes::BytesMut;
use rivulet_protocol::message::ServerMessage;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::tcp::OwnedReadHalf,
    time::timeout,
};

use super::{handshake::Refusal, read::poll_read};
use crate::{
    outbox::Closing,
    websocket::{FrameWriter, close_frame, text_frame},
};

/// How long the client may take to read what waits and the close frame, and then to answer it.
const CLOSE_GRACE: Duration = Duration::from_secs(2);

/// Tells a `rivulet.v1` client that it may not, in frames: a browser can't read the status of a handshake. Takes
/// at most 2 s and keeps nothing.
pub async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, refusal: &Refusal) {
    let error = ServerMessage::Error(refusal.error.clone()).to_json(None);
    let Closing { code, reason } = refusal.closing();
    let mut writer = FrameWriter::new();
    writer.push(text_frame(&error));
    writer.push(close_frame(code.number(), &reason));
    let parting = async {
        writer.write(&mut stream).await?;
        stream.shutdown().await?;
        // Closing with bytes unread would reset the connection, and what we said could be lost with it.
        let mut discarded = [0; 1024];
        while stream.read(&mut discarded).await? > 0 {}
        io::Result::Ok(())
    };
    // Whatever comes of it, the connection is over.
    let _ = timeout(CLOSE_GRACE, parting).await;
}

/// Writes what a session's client is told last, waits for its answer, and lets go of the socket. Takes at most 2 s.
pub(super) async fn part(reader: &mut OwnedReadHalf, input: &mut BytesMut, mut last: FrameWriter) {
    let parting = async {
        let socket = reader.as_ref();
        while !last.try_write(|slices| socket.try_write_vectored(slices))? {
            socket.writable().await?;
        }
        SockRef::from(socket).shutdown(Shutdown::Write)?;
        // Closing with bytes unread would reset the connection, and the close frame could be lost with it.
        loop {
            input.clear();
            if poll_fn(|context| poll_read(reader, input, context)).await? == 0 {
                return io::Result::Ok(());
            }
        }
    };
    // Whatever comes of it, the connection is over.
    let _ = timeout(CLOSE_GRACE, parting).await;
}
