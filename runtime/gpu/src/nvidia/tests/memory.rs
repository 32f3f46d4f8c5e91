//! Memory from pools, and where there are none.

use super::fake::Fake;
use super::refusals::says;
use crate::driver::{Driver, DriverError};

const POOL: &str = "a memory pool of the driver";

/// Devices without pools: one says so, one makes none, one gives nothing from them.
const WITHOUT: [(&str, &[&str]); 3] = [
    ("POOLS=0", &["MEMORY_POOLS_SUPPORTED is 0"]),
    ("POOL_CREATE=801", &["cuMemPoolCreate", "801"]),
    ("POOL_ALLOCATE=800", &["cuMemAllocFromPoolAsync", "800"]),
];

#[test]
fn a_pool_is_used_where_there_is_one() {
    let fake = Fake::new(&["ROOM=1000"]);
    let gpu = fake.open(0).unwrap();
    assert_eq!(gpu.memory.allocator(), POOL);
    assert_eq!(fake.machine().unwrap().allocator(0).unwrap(), POOL);
    let first = gpu.allocate(600).unwrap();
    assert!(matches!(gpu.allocate(401), Err(DriverError::OutOfMemory(401))));
    gpu.allocate(400).unwrap();
    gpu.free(first, 600);
    // What the pool keeps unused is free to this process, before it is given back and after.
    assert_eq!(gpu.memory().unwrap(), (600, 1000));
    gpu.trim().unwrap();
    assert!(fake.record().contains("trim to 0, threshold ffffffffffffffff"));
    assert_eq!(gpu.memory().unwrap(), (600, 1000));
    assert!(!fake.record().contains("now"));
}

#[test]
fn a_pool_that_fails_for_another_reason_is_an_error() {
    for (cause, call) in
        [("POOL_CREATE=2", "cuMemPoolCreate"), ("POOL_ALLOCATE=700", "cuMemAllocFromPoolAsync")]
    {
        says(Fake::new(&[cause]).open(0).unwrap_err(), &[call]);
    }
    // Memory that is full now may be free later.
    assert_eq!(Fake::new(&["ROOM=100"]).open(0).unwrap().memory.allocator(), POOL);
}

#[test]
fn without_pools_the_device_works_and_says_where_its_memory_comes_from() {
    for (cause, reason) in WITHOUT {
        let fake = Fake::new(&[cause]);
        let gpu = fake.open(0).unwrap();
        says(gpu.memory.allocator(), &["kept by this program"]);
        says(gpu.memory.allocator(), reason);
        assert_eq!(fake.machine().unwrap().allocator(0).unwrap(), gpu.memory.allocator());
        let function = gpu.load(&fake.compiled(), "scale").unwrap();
        let values: Vec<f32> = (0..1000).map(|i| i as f32).collect();
        let address = gpu.allocate(4000).unwrap();
        gpu.upload(address, bytemuck::cast_slice(&values)).unwrap();
        super::work::scale(&gpu, function, &super::refusals::GEOMETRY, (address, address), 1000).unwrap();
        let mut back = vec![0f32; 1000];
        gpu.download(address, bytemuck::cast_slice_mut(&mut back)).unwrap();
        assert!(back.iter().zip(&values).all(|(y, x)| *y == 3.0 * x));
        gpu.free(address, 4000);
        drop(gpu);
        let record = fake.record();
        let lines = |start: &str| record.lines().filter(|line| line.starts_with(start)).count();
        assert_eq!((lines("allocate now 4096"), lines("free now, 0 queued"), lines("free\n")), (1, 1, 0));
        assert!(record.ends_with("free now, 0 queued\nstream destroyed\nrelease 40\n"), "{record}");
    }
}

#[test]
fn blocks_are_used_again_in_the_order_of_the_work() {
    let fake = Fake::new(&["POOLS=0"]);
    let gpu = fake.open(0).unwrap();
    let allocated = || fake.record().matches("allocate now").count();
    let source = gpu.allocate(5000).unwrap();
    gpu.upload(source, &[1; 5000]).unwrap();
    let first = gpu.allocate(5000).unwrap();
    assert_ne!(first, source);
    // The copy is still queued when its block goes to the next owner.
    gpu.copy(first, source, 5000).unwrap();
    gpu.free(source, 5000);
    let second = gpu.allocate(5100).unwrap();
    assert_eq!((second, allocated()), (source, 2));
    gpu.fill(second, 2, 5100).unwrap();
    let other = gpu.allocate(9000).unwrap();
    assert!(other != first && other != second && allocated() == 3);
    let mut back = vec![0; 5000];
    gpu.download(first, &mut back).unwrap();
    assert_eq!(back, [1; 5000]);
    gpu.download(second, &mut back).unwrap();
    assert_eq!(back, [2; 5000]);
}

#[test]
fn blocks_go_back_when_memory_runs_out_and_count_as_free_before() {
    let fake = Fake::new(&["POOLS=0", "ROOM=10240"]);
    let gpu = fake.open(0).unwrap();
    let [first, second] = [4096, 2048].map(|bytes| gpu.allocate(bytes).unwrap());
    assert_eq!(gpu.memory().unwrap(), (4096, 10240));
    gpu.fill(first, 0, 4096).unwrap();
    gpu.free(first, 4096);
    assert_eq!(gpu.memory().unwrap(), (8192, 10240));
    // The free block is of another size.
    assert!(matches!(gpu.allocate(8192), Err(DriverError::OutOfMemory(8192))));
    gpu.trim().unwrap();
    assert!(fake.record().contains("synchronized\nfree now, 0 queued\n"), "{}", fake.record());
    assert_eq!(gpu.memory().unwrap(), (8192, 10240));
    let large = gpu.allocate(8192).unwrap();
    assert!(matches!(gpu.allocate(usize::MAX), Err(DriverError::OutOfMemory(usize::MAX))));
    for (address, bytes) in [(large, 8192), (second, 2048)] {
        gpu.free(address, bytes);
    }
    drop(gpu);
    let record = fake.record();
    assert_eq!(record.matches("free now").count(), 3, "{record}");
}

#[test]
fn threads_share_blocks() {
    let fake = Fake::new(&["POOLS=0"]);
    let gpu = fake.open(0).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            let gpu = &gpu;
            scope.spawn(move || {
                for round in 0..50 {
                    let bytes = 1000 + 700 * (round % 3);
                    let data = vec![thread; bytes];
                    let address = gpu.allocate(bytes).unwrap();
                    gpu.upload(address, &data).unwrap();
                    let mut back = vec![0; bytes];
                    gpu.download(address, &mut back).unwrap();
                    assert!(back == data);
                    gpu.free(address, bytes);
                }
            });
        }
    });
    // At most one block of a size for each thread.
    assert!(fake.record().matches("allocate now").count() <= 12);
}
