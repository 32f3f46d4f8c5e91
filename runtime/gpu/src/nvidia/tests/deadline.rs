//! Waits that have a limit.

use super::fake::Fake;
use super::refusals::says;
use crate::driver::{Driver, DriverError, DriverResult};
use crate::nvidia::Nvidia;
use std::time::{Duration, Instant};

/// A call that waits, with the address of an allocation of 16 bytes.
type Wait = fn(&Nvidia, u64) -> DriverResult<()>;

const LONG: Option<Duration> = Some(Duration::from_secs(3600));

#[test]
fn work_that_is_done_in_time_is_waited_for() {
    let fake = Fake::new(&["RUNNING"]);
    let gpu = fake.open_limited(0, LONG).unwrap();
    let bytes = (9 << 20) + 1;
    let address = gpu.allocate(bytes).unwrap();
    let data: Vec<u8> = (0..bytes).map(|i| (i / 3) as u8).collect();
    gpu.upload(address, &data).unwrap();
    let (from, to) = (gpu.mark().unwrap(), gpu.mark().unwrap());
    assert_eq!(gpu.seconds_between(from, to).unwrap(), f64::from(2f32) / 1e3);
    let mut back = vec![0; bytes];
    gpu.download(address, &mut back).unwrap();
    assert!(back == data);
    gpu.free(address, bytes);
    gpu.synchronize().unwrap();
    gpu.trim().unwrap();
    drop(gpu);
    let record = fake.record();
    assert!(!record.contains("synchronized") && record.ends_with("release 40\n"), "{record}");
}

#[test]
fn a_kernel_that_fails_is_told_while_it_is_waited_for() {
    let fake = Fake::new(&["RUNNING", "FAILING=700"]);
    let gpu = fake.open_limited(0, LONG).unwrap();
    let function = gpu.load(&fake.compiled(), "scale").unwrap();
    let address = gpu.allocate(16).unwrap();
    super::work::scale(&gpu, function, &super::refusals::GEOMETRY, (address, address), 4).unwrap();
    says(gpu.synchronize().unwrap_err(), &["CUDA_ERROR_ILLEGAL_ADDRESS (700)", "context is lost"]);
}

#[test]
fn a_kernel_that_hangs_is_an_error_and_nothing_waits_for_it_again() {
    let limit = Duration::from_millis(30);
    let waits: [(&str, Wait); 4] = [
        ("synchronize", |gpu, _| gpu.synchronize()),
        ("download", |gpu, at| gpu.download(at, &mut [0; 16])),
        ("trim", |gpu, _| gpu.trim()),
        ("marks", |gpu, _| gpu.mark().and_then(|mark| gpu.seconds_between(mark, mark).map(|_| ()))),
    ];
    for memory in ["POOLS=1", "POOLS=0"] {
        for (name, wait) in waits {
            let fake = Fake::new(&["HANGING", memory]);
            let gpu = fake.open_limited(0, Some(limit)).unwrap();
            let address = gpu.allocate(16).unwrap();
            gpu.upload(address, &[0; 16]).unwrap();
            let began = Instant::now();
            let error = wait(&gpu, address).unwrap_err();
            assert!(began.elapsed() >= limit, "{name}");
            assert!(matches!(error, DriverError::Timeout(waited) if waited == limit), "{name}: {error}");
            says(error, &["30ms", "BIGMAC_GPU_TIMEOUT", "may hang", "end the process"]);
            // The driver is not called any more, neither for work nor to give anything back.
            let before = fake.record();
            says(gpu.synchronize().unwrap_err(), &["may hang"]);
            says(gpu.upload(address, &[1]).unwrap_err(), &["may hang"]);
            says(gpu.mark().unwrap_err(), &["may hang"]);
            gpu.free(address, 16);
            drop(gpu);
            assert_eq!(fake.record(), before, "{name}");
        }
    }
}

#[test]
fn a_hang_that_shows_at_the_end_does_not_keep_the_program() {
    let fake = Fake::new(&["HANGING"]);
    let gpu = fake.open_limited(0, Some(Duration::from_millis(10))).unwrap();
    let address = gpu.allocate(16).unwrap();
    gpu.fill(address, 0, 16).unwrap();
    drop(gpu);
    let record = fake.record();
    assert!(!record.contains("destroyed") && !record.contains("release"), "{record}");
}
