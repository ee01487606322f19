//! Frames to a socket that takes them as it likes.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use proptest::prelude::*;
use rivulet_router::websocket::FrameWriter;
use tokio::io::AsyncWrite;

/// Takes as many bytes at a time as its plan says, none (and `Pending`) where it says 0; after the plan, all.
struct Trickle {
    plan: std::vec::IntoIter<usize>,
    vectored: bool,
    taken: Vec<u8>,
    most_slices: usize,
    writes: usize,
}

impl Trickle {
    fn new(plan: Vec<usize>, vectored: bool) -> Self {
        Self {
            plan: plan.into_iter(),
            vectored,
            taken: Vec::new(),
            most_slices: 0,
            writes: 0,
        }
    }
}

impl AsyncWrite for Trickle {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(from)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let from = if self.vectored { from } else { &from[..1] };
        let whole = from
            .iter()
            .flat_map(|slice| slice.iter().copied())
            .collect::<Vec<_>>();
        let room = self.plan.next().unwrap_or(whole.len());
        if room == 0 {
            return Poll::Pending;
        }
        self.most_slices = self.most_slices.max(from.len());
        self.writes += 1;
        let taken = room.min(whole.len());
        self.taken.extend_from_slice(&whole[..taken]);
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        self.vectored
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn poll(writer: &mut FrameWriter, stream: &mut Trickle) -> Poll<io::Result<()>> {
    writer.poll_write(&mut Context::from_waker(Waker::noop()), stream)
}

proptest! {
    #[test]
    fn every_byte_is_written_once_and_in_order(
        frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..200),
        plan in prop::collection::vec(0usize..400, 0..60),
        vectored: bool,
    ) {
        let mut writer = FrameWriter::new();
        let mut stream = Trickle::new(plan, vectored);
        let boundaries: Vec<usize> = frames.iter().scan(0, |end, frame| { *end += frame.len(); Some(*end) }).collect();
        for frame in &frames {
            writer.push(Bytes::from(frame.clone()));
        }
        let whole = frames.concat();
        prop_assert_eq!(writer.pending_bytes(), whole.len());
        loop {
            let done = poll(&mut writer, &mut stream);
            let written = stream.taken.len();
            prop_assert_eq!(writer.pending_bytes(), whole.len() - written);
            prop_assert_eq!(writer.at_frame_boundary(), written == 0 || boundaries.contains(&written));
            prop_assert_eq!(writer.is_empty(), written == whole.len());
            if done.is_ready() {
                break;
            }
        }
        prop_assert_eq!(&stream.taken, &whole);
        let most = if vectored { 64 } else { 1 };
        prop_assert!(stream.most_slices <= most);
    }

    #[test]
    fn a_close_can_follow_the_frame_that_was_begun(taken in 0usize..60) {
        let frames = [vec![1; 20], vec![2; 20], vec![3; 20]];
        let mut writer = FrameWriter::new();
        for frame in &frames {
            writer.push(Bytes::from(frame.clone()));
        }
        let mut stream = Trickle::new(vec![taken, 0], true);
        prop_assert!(poll(&mut writer, &mut stream).is_pending());
        writer.drop_unbegun();
        let begun = taken.div_ceil(20) * 20;
        prop_assert_eq!(writer.pending_bytes(), begun - taken);
        writer.push(Bytes::from_static(b"close"));
        while poll(&mut writer, &mut stream).is_pending() {}
        prop_assert_eq!(stream.taken, [&frames.concat()[..begun], b"close"].concat());
        prop_assert!(writer.is_empty() && writer.pending_bytes() == 0);
    }
}

#[test]
fn a_hundred_frames_take_two_vectored_writes() {
    let mut writer = FrameWriter::new();
    for _ in 0..100 {
        writer.push(Bytes::from_static(b"frame"));
    }
    let mut stream = Trickle::new(Vec::new(), true);
    assert!(poll(&mut writer, &mut stream).is_ready());
    assert_eq!((stream.writes, stream.most_slices), (2, 64));
}

#[test]
fn a_stream_that_takes_nothing_is_lost() {
    struct Full;
    impl AsyncWrite for Full {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(0))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }
    let mut writer = FrameWriter::new();
    writer.push(Bytes::from_static(b"frame"));
    let Poll::Ready(Err(error)) = writer.poll_write(&mut Context::from_waker(Waker::noop()), &mut Full)
    else {
        panic!("nothing was taken");
    };
    assert_eq!(error.kind(), io::ErrorKind::WriteZero);
}

#[tokio::test]
async fn a_write_that_was_given_up_goes_on_where_it_stopped() {
    use tokio::io::AsyncReadExt;
    let (mut near, mut far) = tokio::io::duplex(7);
    let mut writer = FrameWriter::new();
    for _ in 0..3 {
        writer.push(Bytes::from_static(b"0123456789"));
    }
    let mut read = Vec::new();
    while !writer.is_empty() {
        // Given up after what fits.
        let given_up = tokio::select! {
            biased;
            done = writer.write(&mut near) => done.is_err(),
            () = std::future::ready(()) => true,
        };
        assert!(given_up || writer.is_empty());
        let mut some = [0; 4];
        let count = far.read(&mut some).await.expect("bytes");
        read.extend_from_slice(&some[..count]);
    }
    drop(near);
    far.read_to_end(&mut read).await.expect("the rest");
    assert_eq!(read, b"0123456789".repeat(3));
}
