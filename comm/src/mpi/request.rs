//! Requests: transfers that MPI works on.

use super::abi::{Handle, Status};
use super::library::Mpi;
use std::ffi::c_int;
use std::ptr::null_mut;

/// The tag of the beginnings of frames.
pub const HEAD: c_int = 1;
/// The tag of payloads that follow in messages of their own.
pub const PAYLOAD: c_int = 2;
/// The tag under which nothing is ever sent: a receive of it fails when the peer is dead.
const NEVER: c_int = 3;
/// The most bytes of a message: MPI counts in `c_int`.
pub const PIECE: usize = 1 << 30;

/// A call that MPI refused.
#[derive(Debug)]
pub struct Fault {
    pub call: &'static str,
    pub code: c_int,
    /// The rank at the other end, when it is known.
    pub peer: Option<usize>,
}

/// A transfer of bytes that lie at one place until it is done. Whoever holds it keeps the bytes; who gives up on it
/// leaks them.
#[derive(Debug)]
pub struct Request {
    handle: Handle,
    call: &'static str,
    peer: Option<usize>,
}

/// The communicator of frames, and the calls on it.
pub struct Line<'a> {
    pub mpi: &'a Mpi,
    pub comm: Handle,
}

impl Line<'_> {
    fn start(
        &self,
        call: &'static str,
        peer: Option<usize>,
        handle: Handle,
        code: c_int,
    ) -> Result<Request, Fault> {
        if code == 0 { Ok(Request { handle, call, peer }) } else { Err(Fault { call, code, peer }) }
    }

    /// Begins to send.
    ///
    /// # Safety
    /// The bytes stay where they are and as they are until the request is done, or forever.
    pub unsafe fn send(&self, bytes: *const [u8], to: usize, tag: c_int) -> Result<Request, Fault> {
        let mut handle = null_mut();
        // Ranks and pieces are numbers that came from, or are below, a `c_int`.
        let (count, rank, byte) = (bytes.len() as c_int, to as c_int, self.mpi.constants.byte);
        // SAFETY: the caller keeps the bytes; the communicator is open while the engine is.
        let code = unsafe {
            (self.mpi.functions.isend)(bytes.cast(), count, byte, rank, tag, self.comm, &mut handle)
        };
        self.start("MPI_Isend", Some(to), handle, code)
    }

    /// Begins to receive, from anybody when `from` is none.
    ///
    /// # Safety
    /// The bytes stay where they are, and no one else uses them, until the request is done, or forever.
    pub unsafe fn receive(
        &self,
        bytes: *mut [u8],
        from: Option<usize>,
        tag: c_int,
    ) -> Result<Request, Fault> {
        let mut handle = null_mut();
        let (count, byte) = (bytes.len() as c_int, self.mpi.constants.byte);
        let rank = from.map_or(super::abi::ANY_SOURCE, |rank| rank as c_int);
        // SAFETY: as above.
        let code = unsafe {
            (self.mpi.functions.irecv)(bytes.cast(), count, byte, rank, tag, self.comm, &mut handle)
        };
        self.start("MPI_Irecv", from, handle, code)
    }

    /// Whether a transfer is done; then it must not be asked for again. Lets MPI move all transfers on.
    pub fn test(&self, request: &mut Request) -> Result<Option<Status>, Fault> {
        let (mut done, mut status) = (0, Status::default());
        // SAFETY: the request was begun and is not done; `Status` has room for either ABI's.
        let code = unsafe { (self.mpi.functions.test)(&mut request.handle, &mut done, &mut status) };
        if code != 0 {
            return Err(Fault { call: request.call, code, peer: request.peer });
        }
        Ok((done != 0).then_some(status))
    }

    /// Gives up a receive; it is done soon, with or without bytes.
    pub fn cancel(&self, request: &mut Request) -> Result<(), Fault> {
        // SAFETY: the request was begun and is not done.
        let code = unsafe { (self.mpi.functions.cancel)(&mut request.handle) };
        if code == 0 { Ok(()) } else { Err(Fault { call: "MPI_Cancel", code, peer: request.peer }) }
    }

    /// A receive of what is never sent, which fails once MPI knows that the rank is dead. It stays behind, so it is for
    /// ends alone.
    pub fn probe(&self, rank: usize) -> Result<Request, Fault> {
        let bytes = Box::leak(Box::new([0_u8; 1]));
        // SAFETY: the byte is no one else's, forever.
        unsafe { self.receive(&raw mut bytes[..], Some(rank), NEVER) }
    }
}
