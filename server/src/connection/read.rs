//! From a socket's bytes to the input of its connection.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, ReadBuf},
    net::tcp::OwnedReadHalf,
};

/// As much as one read takes; a client's message is at most 64 KiB and mostly far less.
const CHUNK: usize = 16 << 10;

thread_local! {
    static BUFFER: RefCell<Box<[u8; CHUNK]>> = RefCell::new(Box::new([0; CHUNK]));
}

/// Appends what the socket has to `input`. While it has nothing, nothing is allocated for it: what is read goes
/// through a buffer of the thread.
pub(super) fn poll_read(
    reader: &mut OwnedReadHalf,
    input: &mut BytesMut,
    context: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    BUFFER.with_borrow_mut(|buffer| {
        let mut filled = ReadBuf::new(&mut **buffer);
        ready!(Pin::new(reader).poll_read(context, &mut filled))?;
        input.extend_from_slice(filled.filled());
        Poll::Ready(Ok(filled.filled().len()))
    })
}
