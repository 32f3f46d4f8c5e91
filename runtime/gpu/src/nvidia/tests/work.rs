//! Work on a driver that does it as late as it may.

use super::fake::Fake;
use crate::driver::{Driver, DriverResult, Function, Geometry, Mark};
use crate::launch::{Swizzle, TensorMap, TensorMapShape};
use crate::nvidia::Nvidia;
use std::ffi::c_void;

/// Launches the fake's kernel: `to = 3 from`.
pub fn scale(
    gpu: &Nvidia,
    function: Function,
    geometry: &Geometry,
    (from, to): (u64, u64),
    count: i32,
) -> DriverResult<()> {
    let map = TensorMap(std::array::from_fn(|i| i as u64 * 3));
    let factor = 3f32;
    let pointer = |value: *const c_void| value.cast_mut();
    let mut arguments = [
        pointer((&raw const map).cast()),
        pointer((&raw const from).cast()),
        pointer((&raw const to).cast()),
        pointer((&raw const count).cast()),
        pointer((&raw const factor).cast()),
    ];
    // SAFETY: the arguments are those of the fake's kernel, and the addresses those of allocations.
    unsafe { gpu.launch(function, geometry, &mut arguments) }
}

#[test]
fn what_goes_up_comes_down_and_everything_is_given_back() {
    let fake = Fake::new(&[]);
    let gpu = fake.open(0).unwrap();
    assert_eq!((gpu.target(), gpu.processors(), gpu.name().as_str()), ("sm_90a", 132, "Fake 40"));
    let function = gpu.load(&fake.compiled(), "scale").unwrap();
    let n = 1000_usize;
    let values: Vec<f32> = (0..n).map(|i| i as f32).collect();
    let [from, to] = [(); 2].map(|()| gpu.allocate(n * 4).unwrap());
    gpu.upload(from, bytemuck::cast_slice(&values)).unwrap();
    gpu.fill(to, 0xff, n * 4).unwrap();
    let clustered = Geometry { grid: [4, 5, 6], block: [128, 1, 1], cluster: [2, 1, 1], shared: 5000 };
    scale(&gpu, function, &clustered, (from, to), n as i32 - 1).unwrap();
    let plain = Geometry { cluster: [1; 3], ..clustered };
    scale(&gpu, function, &plain, (to, to), 1).unwrap();
    gpu.copy(from, to, n * 4).unwrap();
    let mut back = vec![0f32; n];
    gpu.download(from, bytemuck::cast_slice_mut(&mut back)).unwrap();
    assert!((0..n - 1).all(|i| back[i] == 3.0 * i as f32) && back[n - 1].to_bits() == u32::MAX);
    gpu.free(from, n * 4);
    gpu.free(to, n * 4);
    drop(gpu);

    let record = fake.record();
    let lines = |text: &str| record.lines().filter(|line| line.starts_with(text)).count();
    for line in [
        "pool type 1 handles 0 location 1 40",
        "stream flags 1",
        // All the shared memory of a block, less what the kernel has already; clusters of more than 8 blocks.
        "function 8 = 232000",
        "function 14 = 1",
        "launch grid 4 5 6 block 128 1 1 shared 5000 attribute 4 = 2 1 1 map 45 aligned 1",
        "launch grid 4 5 6 block 128 1 1 shared 5000 map 45 aligned 1",
    ] {
        assert_eq!(lines(line), 1, "{line} in:\n{record}");
    }
    assert_eq!(lines("pinned"), lines("unpinned"));
    // Two, and what was tried when the device was opened.
    assert_eq!(lines("free"), 3);
    let end: Vec<&str> = record.lines().rev().take(4).collect();
    assert_eq!(end, ["release 40", "stream destroyed", "pool destroyed", "module unloaded, 0 queued"]);
}

#[test]
fn copies_of_every_size_arrive_whole_while_others_are_under_way() {
    const MIB: usize = 1 << 20;
    let fake = Fake::new(&[]);
    let gpu = fake.open(0).unwrap();
    // Around the extents of both kinds of blocks, and more than all blocks of a kind hold together.
    for bytes in [1, 65535, 65536, 65537, 4 * MIB - 1, 4 * MIB, 4 * MIB + 1, 21 * MIB + 5] {
        let data: Vec<u8> = (0..bytes).map(|i| (i * 7 + i / 251 + bytes) as u8).collect();
        let address = gpu.allocate(bytes).unwrap();
        gpu.upload(address, &data).unwrap();
        let mut back = vec![0; bytes];
        gpu.download(address, &mut back).unwrap();
        assert!(back == data, "{bytes}");
    }
    // Small uploads, more than there are blocks: none may write over what an earlier one has still to send.
    let uploads = 1300_u64;
    let address = gpu.allocate(uploads as usize * 8).unwrap();
    for i in 0..uploads {
        gpu.upload(address + i * 8, &i.to_le_bytes()).unwrap();
    }
    let mut back = vec![0; uploads as usize * 8];
    gpu.download(address, &mut back).unwrap();
    let numbers = back.chunks_exact(8).map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap()));
    assert!(numbers.eq(0..uploads));
    gpu.upload(address, &[]).unwrap();
    gpu.download(address, &mut []).unwrap();
    let record = fake.record();
    let pinned = |bytes: usize| record.matches(&format!("pinned {bytes} flags 1\n")).count();
    assert_eq!(
        (pinned(65536), pinned(4 * MIB)),
        (512, 4 + 2),
        "as many blocks as are needed, and as are allowed"
    );
}

#[test]
fn downloads_that_are_not_waited_for_arrive_later_with_what_was_there() {
    const BYTES: usize = (3 << 16) + 7;
    let fake = Fake::new(&[]);
    let gpu = fake.open(0).unwrap();
    let address = gpu.allocate(BYTES).unwrap();
    let data: Vec<u8> = (0..BYTES).map(|i| (i * 5 + i / 253) as u8).collect();
    gpu.upload(address, &data).unwrap();
    let [kept, given_up] = [(); 2].map(|()| gpu.download_later(address, BYTES).unwrap());
    let nothing = gpu.download_later(address, 0).unwrap();
    gpu.fill(address, 0, BYTES).unwrap();
    drop(given_up);
    // Blocks that were given up are free again only once their copies are done.
    let zeros: Vec<_> = (0..600).map(|_| gpu.download_later(address, 9).unwrap()).collect();
    gpu.free(address, BYTES);
    assert!(kept.wait().unwrap() == data);
    assert!(nothing.wait().unwrap().is_empty());
    for zero in zeros {
        assert_eq!(zero.wait().unwrap(), [0; 9]);
    }
    // One is waited for when everything else is gone.
    let address = gpu.allocate(8).unwrap();
    gpu.fill(address, 3, 8).unwrap();
    let last = gpu.download_later(address, 8).unwrap();
    gpu.free(address, 8);
    drop(gpu);
    assert_eq!(last.wait().unwrap(), [3; 8]);
    let record = fake.record();
    assert_eq!(record.matches("\npinned").count(), record.matches("\nunpinned").count());
}

#[test]
fn a_kernel_that_fails_is_told_by_the_download_after_it() {
    let fake = Fake::new(&["FAILING=700"]);
    let gpu = fake.open(0).unwrap();
    let function = gpu.load(&fake.compiled(), "scale").unwrap();
    let address = gpu.allocate(64).unwrap();
    gpu.fill(address, 0, 64).unwrap();
    let plain = Geometry { grid: [1; 3], block: [32, 1, 1], cluster: [1; 3], shared: 0 };
    scale(&gpu, function, &plain, (address, address), 1).unwrap();
    let error = gpu.download_later(address, 64).unwrap().wait().unwrap_err().to_string();
    assert!(error.contains("CUDA_ERROR_ILLEGAL_ADDRESS"), "{error}");
}

#[test]
fn threads_copy_at_the_same_time() {
    let fake = Fake::new(&[]);
    let gpu = fake.open(0).unwrap();
    let bytes = (4 << 20) + 3;
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            let gpu = &gpu;
            scope.spawn(move || {
                let address = gpu.allocate(bytes).unwrap();
                for round in 0..6_u8 {
                    let size = if round % 2 == 0 { 100 } else { bytes };
                    let data: Vec<u8> = (0..size).map(|i| (i as u8).wrapping_mul(round) ^ thread).collect();
                    gpu.upload(address, &data).unwrap();
                    let mut back = vec![0; size];
                    gpu.download(address, &mut back).unwrap();
                    assert!(back == data, "{thread} {round}");
                }
            });
        }
    });
}

#[test]
fn marks_tell_the_time_between_them_and_are_used_again() {
    let fake = Fake::new(&[]);
    let gpu = fake.open(0).unwrap();
    let address = gpu.allocate(64).unwrap();
    let from = gpu.mark().unwrap();
    gpu.fill(address, 1, 64).unwrap();
    let to = gpu.mark().unwrap();
    // A fill and the later mark are two pieces of work, of 2 ms each.
    assert_eq!(gpu.seconds_between(from, to).unwrap(), f64::from(4f32) / 1e3);
    gpu.forget(from);
    let events = fake.record().matches("event flags 0\n").count();
    let again = gpu.mark().unwrap();
    assert_eq!(fake.record().matches("event flags 0\n").count(), events);
    assert_ne!(again, from);
    for gone in [from, Mark(99)] {
        assert!(gpu.seconds_between(gone, to).unwrap_err().to_string().contains("it was given back"));
    }
}

#[test]
fn tensor_maps_are_described_as_the_driver_takes_them() {
    let fake = Fake::new(&[]);
    let gpu = fake.open(0).unwrap();
    let shape = TensorMapShape {
        element: 2,
        extents: vec![100, 7, 3],
        strides: vec![208, 1600],
        tile: vec![64, 5, 1],
        swizzle: Swizzle::Bytes128,
    };
    let map = gpu.tensor_map(0x1230, &shape).unwrap();
    assert_eq!(map.0, std::array::from_fn(|i| i as u64 + 100));
    gpu.tensor_map(
        0x40,
        &TensorMapShape {
            element: 4,
            extents: vec![9],
            strides: vec![],
            tile: vec![8],
            swizzle: Swizzle::None,
        },
    )
    .unwrap();
    let record = fake.record();
    for line in [
        "map type 9 rank 3 address 1230 interleave 0 swizzle 3 promotion 3 fill 0 [100 by 64 step 1] [7 by 5 step 1] \
         [3 by 1 step 1] stride 208 stride 1600\n",
        "map type 7 rank 1 address 40 interleave 0 swizzle 0 promotion 3 fill 0 [9 by 8 step 1]\n",
    ] {
        assert!(record.contains(line), "{record}");
    }
    let error = gpu.tensor_map(0x8, &shape).unwrap_err().to_string();
    assert!(error.contains("multiple of 16"), "{error}");
    let older = Fake::new(&["MAJOR=8"]);
    let error = older.open(0).unwrap().tensor_map(0x40, &shape).unwrap_err().to_string();
    assert!(error.contains("sm_80") && error.contains("sm_90"), "{error}");
}

#[test]
fn kernels_with_much_shared_memory_ask_for_all_of_it_once() {
    let fake = Fake::new(&[]);
    let gpu = fake.open(0).unwrap();
    let function = gpu.load(&fake.compiled(), "scale").unwrap();
    let address = gpu.allocate(16).unwrap();
    let launch = |shared| {
        let geometry = Geometry { grid: [1; 3], block: [32, 1, 1], cluster: [1; 3], shared };
        scale(&gpu, function, &geometry, (address, address), 4).unwrap();
        fake.record().matches("function 9 = 100\n").count()
    };
    assert_eq!([0, 48 << 10, (48 << 10) + 1, 200 << 10, 0].map(launch), [0, 0, 1, 1, 1]);
}
