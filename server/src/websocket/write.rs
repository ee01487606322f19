//! From frames to the socket, many in one write.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;

/// The most frames in one write. Alone a frame costs 5–6 µs; of 5 in a write each costs 1.2, of 20 each 0.4, and
/// from there little is left to gain.
const FRAMES_IN_A_WRITE: usize = 64;

/// The frames of one connection that wait for its socket, in order.
///
/// It never refuses a frame: whoever pushes keeps [`pending_bytes`](FrameWriter::pending_bytes) within a bound.
/// A write that was given up half-way (a future dropped, a deadline) goes on where it stopped.
#[derive(Debug, Default)]
pub struct FrameWriter {
    /// Never holds an empty frame.
    frames: VecDeque<Bytes>,
    pending_bytes: usize,
    /// Whether some of the first frame was written already, and it holds only the rest.
    inside_a_frame: bool,
}

impl FrameWriter {
    /// A writer with nothing to write.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a frame.
    pub fn push(&mut self, frame: Bytes) {
        if !frame.is_empty() {
            self.pending_bytes += frame.len();
            self.frames.push_back(frame);
        }
    }

    /// The bytes that were pushed and not written.
    pub fn pending_bytes(&self) -> usize {
        self.pending_bytes
    }

    /// Whether all that was pushed is written.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Whether the socket has got whole frames only: what is written next is read as a frame's beginning.
    pub fn at_frame_boundary(&self) -> bool {
        !self.inside_a_frame
    }

    /// Drops every frame of which nothing was written yet, so that a frame pushed now (the close) is the next.
    pub fn drop_unbegun(&mut self) {
        self.frames.truncate(usize::from(self.inside_a_frame));
        self.pending_bytes = self.frames.front().map_or(0, Bytes::len);
    }

    /// Writes until nothing is left, at most 64 frames in a write. `Pending` when the stream takes no more now.
    ///
    /// What a buffering stream has taken may still want a flush.
    ///
    /// # Errors
    /// Those of the stream, and `WriteZero` if it takes nothing: the connection is lost.
    pub fn poll_write<W: AsyncWrite + Unpin>(
        &mut self,
        context: &mut Context<'_>,
        stream: &mut W,
    ) -> Poll<io::Result<()>> {
        // A stream without vectored writes takes the first slice only.
        let most = if stream.is_write_vectored() {
            FRAMES_IN_A_WRITE
        } else {
            1
        };
        self.write_with(most, |slices| {
            Pin::new(&mut *stream).poll_write_vectored(context, slices)
        })
    }

    /// Writes what `write` takes at once, and returns whether nothing is left. `write` is a vectored write that says
    /// `WouldBlock` instead of waiting.
    ///
    /// # Errors
    /// Those of `write` but for that, and `WriteZero` if it takes nothing: the connection is lost.
    pub fn try_write(
        &mut self,
        mut write: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<bool> {
        let write = |slices: &[IoSlice<'_>]| match write(slices) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            written => Poll::Ready(written),
        };
        match self.write_with(FRAMES_IN_A_WRITE, write) {
            Poll::Ready(written) => written.map(|()| true),
            Poll::Pending => Ok(false),
        }
    }

    /// Writes frames behind what waits, the first 64 at once if nothing does, and keeps what is not taken: a frame
    /// that is written at once costs no count and no room. Returns the bytes of all of them.
    ///
    /// # Errors
    /// As [`FrameWriter::try_write`].
    pub fn write_through<'a>(
        &mut self,
        mut frames: impl Iterator<Item = &'a Bytes>,
        mut write: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        static NONE: Bytes = Bytes::new();
        let mut first = [&NONE; FRAMES_IN_A_WRITE];
        let mut slices = [IoSlice::new(&[]); FRAMES_IN_A_WRITE];
        let (mut count, mut bytes) = (0, 0);
        for ((place, slice), frame) in first.iter_mut().zip(&mut slices).zip(frames.by_ref()) {
            (*place, *slice) = (frame, IoSlice::new(frame));
            count += 1;
            bytes += frame.len();
        }
        let mut written = 0;
        if self.is_empty() && bytes > 0 {
            written = match write(&slices[..count]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                written => written?,
            };
        }
        if written < bytes {
            for frame in &first[..count] {
                self.push((*frame).clone());
            }
            self.forget(written);
        }
        for frame in frames {
            bytes += frame.len();
            self.push(frame.clone());
        }
        Ok(bytes)
    }

    fn write_with(
        &mut self,
        most: usize,
        mut write: impl FnMut(&[IoSlice<'_>]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<()>> {
        while !self.frames.is_empty() {
            let mut slices = [IoSlice::new(&[]); FRAMES_IN_A_WRITE];
            let mut count = 0;
            for (slice, frame) in slices.iter_mut().zip(&self.frames).take(most) {
                *slice = IoSlice::new(frame);
                count += 1;
            }
            let written = ready!(write(&slices[..count]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.forget(written);
        }
        // A backlog must not leave its queue behind on every idle connection.
        self.frames = VecDeque::new();
        Poll::Ready(Ok(()))
    }

    /// Writes until nothing is left. May be dropped at any time and called again: see
    /// [`poll_write`](FrameWriter::poll_write), whose errors are its own.
    pub async fn write<W: AsyncWrite + Unpin>(&mut self, stream: &mut W) -> io::Result<()> {
        poll_fn(|context| self.poll_write(context, stream)).await
    }

    /// Takes the first `written` bytes off.
    fn forget(&mut self, mut written: usize) {
        self.pending_bytes -= written;
        while let Some(first) = self.frames.front_mut() {
            if written < first.len() {
                first.advance(written);
                self.inside_a_frame |= written > 0;
                return;
            }
            written -= first.len();
            self.inside_a_frame = false;
            self.frames.pop_front();
        }
    }
}
