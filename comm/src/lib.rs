//! Communicators of BigMac: ranks as threads of one process
