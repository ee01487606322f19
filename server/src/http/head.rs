//! A request's head, read before anything is made to answer it.
//!
//! hyper begins each socket with two buffers of 8 KB. Whoever has not said all of its headers yet, which for most
//! strangers is for ever, costs only the bytes that it has said.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// As much as is read at a time; a handshake of a browser has 500 to 1,500 bytes.
const CHUNK: usize = 2048;

/// Reads up to the empty line that ends a head, or up to `most` bytes, or to the end of what the client says, or to
/// where it is plain that no head comes. What that is worth is for the HTTP parser to say.
pub(super) async fn read(stream: &TcpStream, most: usize) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    loop {
        stream.readable().await?;
        let searched = head.len();
        match read_some(stream, most - searched, &mut head) {
            Ok(0) => return Ok(head),
            Ok(_) if head.len() == most || !begins_one(&head) || ends(&head, searched) => return Ok(head),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// Not a part of [`read`], so that no task holds a chunk while it waits.
fn read_some(stream: &TcpStream, most: usize, head: &mut Vec<u8>) -> io::Result<usize> {
    let mut chunk = [0; CHUNK];
    let room = most.min(CHUNK);
    let read = stream.try_read(&mut chunk[..room])?;
    head.extend_from_slice(&chunk[..read]);
    Ok(read)
}

/// Whether it begins as a request does: with a method (RFC 9110, section 9.1). TLS does not.
fn begins_one(head: &[u8]) -> bool {
    head.first().is_none_or(u8::is_ascii_alphabetic)
}

/// Whether there is an empty line, as far as it was not `searched` already. Lines may end without a carriage return,
/// as HTTP parsers have it (RFC 9112, section 2.2).
fn ends(head: &[u8], searched: usize) -> bool {
    let unsearched = &head[searched.saturating_sub(3)..];
    let is_empty_line = |two: &[u8]| two == b"\n\n";
    unsearched.windows(2).any(is_empty_line) || unsearched.windows(3).any(|three| three == b"\n\r\n")
}

/// A stream of which something was read, to be read again.
#[derive(Debug)]
pub(super) struct Rewound {
    head: Vec<u8>,
    /// How much of the head was read again; without an allocation from when that is all.
    read: usize,
    stream: TcpStream,
}

impl Rewound {
    pub(super) fn new(head: Vec<u8>, stream: TcpStream) -> Self {
        Self {
            head,
            read: 0,
            stream,
        }
    }

    /// The stream, and what was not read again.
    pub(super) fn into_parts(self) -> (Vec<u8>, TcpStream) {
        let Self {
            mut head,
            read,
            stream,
        } = self;
        head.drain(..read);
        (head, stream)
    }
}

impl AsyncRead for Rewound {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { head, read, stream } = &mut *self;
        let rest = &head[*read..];
        if rest.is_empty() {
            return Pin::new(stream).poll_read(context, buffer);
        }
        let again = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..again]);
        *read += again;
        if *read == head.len() {
            (*head, *read) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        task::yield_now,
        time::timeout,
    };

    use super::*;

    const MOST: usize = 100;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.set_nodelay(true).unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    /// Says it a byte at a time, and nothing more until the head is read.
    async fn head_of(said: &[u8]) -> Vec<u8> {
        let (mut client, server) = pair().await;
        let reading = tokio::spawn(async move { read(&server, MOST).await });
        for byte in said {
            assert!(!reading.is_finished(), "{}", said.escape_ascii());
            client.write_all(&[*byte]).await.unwrap();
            client.flush().await.unwrap();
            yield_now().await;
        }
        let read = timeout(Duration::from_secs(20), reading).await;
        read.expect("all of it was said").unwrap().unwrap()
    }

    #[tokio::test]
    async fn a_head_is_read_up_to_its_empty_line() {
        for said in [
            "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
            "GET / HTTP/1.1\nhost: a\n\n",
            "GET / HTTP/1.1\r\nhost: a\n\r\n",
            "G\r\n\r\n",
        ] {
            assert_eq!(head_of(said.as_bytes()).await, said.as_bytes());
        }
    }

    #[tokio::test]
    async fn what_is_too_long_or_no_head_is_not_waited_for() {
        let long = [b'x'; MOST];
        for said in [&long[..], b"\x16", b"\0", b"\r", b"\xff"] {
            assert_eq!(head_of(said).await, said);
        }
    }

    #[tokio::test]
    async fn what_ends_early_is_what_there_is() {
        for said in ["", "GET / HT"] {
            let (mut client, server) = pair().await;
            client.write_all(said.as_bytes()).await.unwrap();
            drop(client);
            assert_eq!(read(&server, MOST).await.unwrap(), said.as_bytes());
        }
    }

    #[tokio::test]
    async fn a_rewound_stream_is_read_as_if_nothing_had_been() {
        for (first, at_a_time) in [("abc", 100), ("abcdef", 4), ("", 4)] {
            let (mut client, server) = pair().await;
            client.write_all(b"ghi").await.unwrap();
            client.shutdown().await.unwrap();
            let mut rewound = Rewound::new(first.into(), server);
            let mut all = Vec::new();
            let mut buffer = vec![0; at_a_time];
            loop {
                let read = rewound.read(&mut buffer).await.unwrap();
                all.extend_from_slice(&buffer[..read]);
                if read == 0 {
                    break;
                }
            }
            assert_eq!(all, format!("{first}ghi").as_bytes());
        }
    }

    #[tokio::test]
    async fn what_was_not_read_again_comes_with_the_stream() {
        let (_client, server) = pair().await;
        let mut rewound = Rewound::new(b"abcdef".to_vec(), server);
        rewound.read_exact(&mut [0; 2]).await.unwrap();
        assert_eq!(rewound.into_parts().0, b"cdef");
    }
}
