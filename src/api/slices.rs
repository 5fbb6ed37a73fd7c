//! Large bodies, sent a slice at a time.
//!
//! Promise: a body that is sent to many clients is in memory once. The server copies each piece of
//! a body before it writes it: of a large body in one piece there would be one copy for each slow
//! client.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::HttpResponse;
use actix_web::body::{BodySize, MessageBody};
use bytes::Bytes;

/// The size of a slice, in bytes. A smaller body is sent in one piece.
const SLICE: usize = 32 << 10;

/// `200 OK` with this body.
pub(super) fn answer(body: Bytes) -> HttpResponse {
    if body.len() <= SLICE {
        HttpResponse::Ok().body(body)
    } else {
        HttpResponse::Ok().body(Slices(body))
    }
}

struct Slices(Bytes);

impl MessageBody for Slices {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.0.len() as u64)
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Infallible>>> {
        let rest = &mut self.0;
        let slice = rest.split_to(rest.len().min(SLICE));
        Poll::Ready((!slice.is_empty()).then_some(Ok(slice)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_the_body_and_no_copies_of_it() {
        let body = Bytes::from(vec![7; 2 * SLICE + 1]);
        let mut slices = Slices(body.clone());
        assert_eq!(slices.size(), BodySize::Sized(body.len() as u64));
        let mut context = Context::from_waker(std::task::Waker::noop());
        let mut at = 0;
        for length in [SLICE, SLICE, 1] {
            let Poll::Ready(Some(Ok(slice))) = Pin::new(&mut slices).poll_next(&mut context) else {
                panic!("no slice at {at}");
            };
            assert_eq!((slice.len(), slice.as_ptr()), (length, body[at..].as_ptr()));
            at += length;
        }
        assert!(matches!(
            Pin::new(&mut slices).poll_next(&mut context),
            Poll::Ready(None)
        ));
    }
}
